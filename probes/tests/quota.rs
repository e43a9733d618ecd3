//! The quota on a real guest: exact to the page.

mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use dirtyrig_probes::{Error, Quota};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{AfterExit, Guest, KICK, Shape};

const HERE: &[Need] = &[Need::Kvm, Need::Bpf];

fn main() {
    run(vec![
        trial("a_budget_ends_on_its_very_page", HERE, exact_to_the_page),
        trial("two_vcpus_have_budgets_of_their_own", HERE, two_budgets),
        trial("beyond_its_budget_a_vcpu_gets_a_page_an_exit", HERE, overdrawn),
        trial("a_released_vcpu_and_a_foreign_thread_run_free", HERE, released),
        trial("a_ring_at_a_reused_address_is_nobodys_budget", HERE, reused_ring),
        trial("what_cannot_be_is_refused", &[Need::Bpf], refused),
    ]);
}

const SHAPE: Shape = Shape {
    ring_entries: 65_536,
    vcpus: 2,
    // More than any budget: a page that is dirty already draws nothing.
    pages_per_vcpu: 8192,
};

/// What each vCPU's exits harvested, while it was limited.
type Exits = [Vec<u64>; 2];

/// Runs a guest whose vCPU `i` draws on the budget in `slots[i]`, which `burst[i]` refills at each of its exits, until
/// vCPU 0 has been interrupted `rounds` times.
fn limited(quota: &Arc<Quota>, slots: [u32; 2], burst: [i64; 2], rounds: usize) -> Result<Exits, Failed> {
    let exits: Arc<Mutex<Exits>> = Arc::default();
    let after_exit: AfterExit = {
        let (quota, exits) = (quota.clone(), exits.clone());
        Arc::new(move |vcpu, harvested| {
            exits.lock().unwrap()[vcpu].push(harvested);
            quota.refill(slots[vcpu], burst[vcpu]);
        })
    };
    let mut guest = Guest::new(SHAPE);
    let go = Arc::new(AtomicBool::new(false));
    guest.start(&go, &after_exit);
    for vcpu in 0..2 {
        quota.refill(slots[vcpu], burst[vcpu]);
        quota.limit(std::process::id(), guest.thread(vcpu), slots[vcpu], KICK as i32)?;
    }
    go.store(true, Ordering::Release);
    while exits.lock().unwrap()[0].len() < rounds {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // What is harvested while the guest is being stopped is not by the quota's doing.
    let result = exits.lock().unwrap().clone();
    guest.stop();
    for vcpu in 0..2 {
        assert_eq!(
            guest.counts(vcpu).ring_full.load(Ordering::Relaxed),
            0,
            "the ring is never full"
        );
        quota.release(guest.thread(vcpu))?;
    }
    Ok(result)
}

fn exact_to_the_page() -> Result<(), Failed> {
    for burst in [1, 2, 32, 640, 5_000] {
        let quota = Arc::new(Quota::attach(2)?);
        let [exits, _] = limited(&quota, [0, 1], [burst, i64::MAX], 40)?;
        assert!(
            exits.iter().all(|&harvested| harvested == burst as u64),
            "budget {burst}: {exits:?}"
        );
        assert!(quota.signals(0) >= exits.len() as u64);
        assert_eq!(quota.refused(0), 0);
    }
    Ok(())
}

fn two_budgets() -> Result<(), Failed> {
    let quota = Arc::new(Quota::attach(2)?);
    let [first, second] = limited(&quota, [1, 0], [100, 70], 100)?;
    assert!(first.iter().all(|&harvested| harvested == 100), "{first:?}");
    assert!(second.len() > 1, "the second runs as well");
    assert!(second.iter().all(|&harvested| harvested == 70), "{second:?}");
    assert!(quota.drawn(1) >= 100 * first.len() as u64);
    assert!(quota.drawn(0) >= 70 * second.len() as u64);
    Ok(())
}

/// Nobody refills: once the budget is spent, the vCPU stops at its very next page, again and again.
fn overdrawn() -> Result<(), Failed> {
    const WHOLE: i64 = 2_000;
    let quota = Arc::new(Quota::attach(1)?);
    let shape = Shape { vcpus: 1, ..SHAPE };
    let mut guest = Guest::new(shape);
    let over = Arc::new(AtomicU64::new(0));
    let after_exit: AfterExit = {
        let over = over.clone();
        Arc::new(move |_, _| {
            over.fetch_add(1, Ordering::Relaxed);
            // A spent budget leaves a page per exit: slow down, so that the test does not spin.
            std::thread::sleep(std::time::Duration::from_millis(1));
        })
    };
    quota.refill(0, WHOLE);
    let go = Arc::new(AtomicBool::new(false));
    guest.start(&go, &after_exit);
    quota.limit(std::process::id(), guest.thread(0), 0, KICK as i32)?;
    go.store(true, Ordering::Release);
    while over.load(Ordering::Relaxed) < 20 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    guest.stop();
    let counts = guest.counts(0);
    let harvested = counts.harvested.load(Ordering::Relaxed);
    assert_eq!(quota.drawn(0), harvested, "every page was charged");
    assert_eq!(
        quota.left(0),
        WHOLE - harvested.cast_signed(),
        "and none was lost or charged twice"
    );
    let exits = counts.interrupted.load(Ordering::Relaxed);
    assert!(
        harvested <= WHOLE as u64 + exits,
        "{harvested} pages for {WHOLE}, in {exits} exits"
    );
    Ok(())
}

fn released() -> Result<(), Failed> {
    let quota = Quota::attach(1)?;
    let mut guest = Guest::new(SHAPE);
    let go = Arc::new(AtomicBool::new(false));
    let nothing: AfterExit = Arc::new(|_, _| {});
    guest.start(&go, &nothing);
    quota.refill(0, 0);
    // The one is released again, the other's id is said to belong to another process.
    quota.limit(std::process::id(), guest.thread(0), 0, KICK as i32)?;
    quota.release(guest.thread(0))?;
    quota.release(guest.thread(0))?;
    quota.limit(1, guest.thread(1), 0, KICK as i32)?;
    go.store(true, Ordering::Release);
    for vcpu in 0..2 {
        guest.wait_for(vcpu, 10_000);
        assert_eq!(guest.counts(vcpu).interrupted.load(Ordering::Relaxed), 0);
    }
    assert_eq!((quota.drawn(0), quota.signals(0)), (0, 0));
    Ok(())
}

fn reused_ring() -> Result<(), Failed> {
    const BUDGET: i64 = 50_000;
    let shape = Shape {
        ring_entries: 1024,
        vcpus: 1,
        pages_per_vcpu: 2048,
    };
    let quota = Quota::attach(1)?;
    quota.refill(0, BUDGET);
    let thread = nix::unistd::gettid().as_raw().unsigned_abs();
    quota.limit(std::process::id(), thread, 0, KICK as i32)?;
    let mut guest = Guest::new(shape);
    guest.run_here(3_000);
    let drawn = quota.drawn(0);
    assert_eq!(drawn, guest.counts(0).harvested.load(Ordering::Relaxed));
    drop(guest);
    // This thread is not released, and the kernel gives the next vCPU, of another thread, the memory of the one before.
    let interrupted = std::thread::spawn(move || {
        let mut next = Guest::new(shape);
        next.run_here(3 * BUDGET.unsigned_abs());
        next.counts(0).interrupted.load(Ordering::Relaxed)
    });
    assert_eq!(interrupted.join().unwrap(), 0, "who is not limited is not signalled");
    assert_eq!((quota.signals(0), quota.refused(0)), (0, 0));
    assert!(quota.drawn(0) < BUDGET.unsigned_abs(), "and does not spend the budget");
    Ok(())
}

fn refused() -> Result<(), Failed> {
    for slots in [0, 2_049] {
        assert!(matches!(Quota::attach(slots), Err(Error::Slots { .. })));
    }
    let quota = Quota::attach(3)?;
    assert!(matches!(
        quota.limit(1, 1, 3, 10),
        Err(Error::NoSuchSlot { slot: 3, slots: 3 })
    ));
    quota.limit(1, 1, 2, 10)?;
    assert!(matches!(
        quota.limit(1, 2, 2, 10),
        Err(Error::SlotTaken { slot: 2, thread: 1 })
    ));
    quota.limit(1, 1, 0, 10)?;
    quota.limit(1, 2, 2, 10)?;
    quota.release(1)?;
    quota.limit(1, 3, 0, 10)?;
    for signal in [-1, 0, 65] {
        assert!(matches!(quota.limit(1, 1, 0, signal), Err(Error::NoSuchSignal { .. })));
    }
    assert!((0..3).all(|slot| quota.left(slot) == i64::MAX), "without end until set");
    Ok(())
}
