//! The programs executed on real KVM, each access checked against what its documentation says.

mod memory;
mod model;
mod order;
mod replay;
mod shares;
mod timing;
mod vm;
mod waiting;

use dirtyrig_testkit::{Need, run, trial};

fn main() {
    let tests: [(&str, fn()); 25] = [
        ("sequential writes page after page", order::sequential),
        ("reader reads page after page", order::reader),
        ("a write carries the iteration of its moment", order::iteration_is_live),
        ("random follows its sequence", order::random),
        ("seeds make unlike sequences", order::seeds_differ),
        ("a phase does what its program does alone", order::as_a_phase),
        ("every program stays in a region of one page", order::one_page),
        ("every program runs from any address", order::position_independent),
        ("a vCPU started again goes on counting", order::counting_goes_on),
        ("random is uniform", shares::random_is_uniform),
        ("hot-cold keeps both shares", shares::hot_cold),
        ("hot-cold without a cold page", shares::all_hot),
        ("mix keeps its share, which is live", shares::mix),
        ("writers' counts match memory, page by page", memory::writers),
        ("readers leave memory as it was", memory::readers),
        ("burst pauses after each burst, not within", timing::burst),
        ("paced is never early and keeps its rate", timing::paced),
        ("paced catches up what it may", timing::paced_catches_up),
        ("paced forgets what is beyond", timing::paced_forgets),
        ("phases come in turn and none is early", timing::phases),
        (
            "a phase that a stall took whole comes after it",
            timing::phase_after_a_stall,
        ),
        ("replay follows its table, run after run", replay::order),
        ("replay keeps its times", replay::times),
        ("replay waits after its last run", replay::waits),
        ("a block of zeros waits, and a parked one", waiting::waits_and_starts),
    ];
    let trials = tests.map(|(name, test)| {
        trial(name, &[Need::Kvm], move || {
            test();
            Ok(())
        })
    });
    run(trials.into())
}
