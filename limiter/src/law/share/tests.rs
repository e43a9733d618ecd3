//! Max-min fairness, the guarantee of the shared quota, and what becomes of a share that nobody uses.

use proptest::prelude::*;

use super::*;

const MAX_STALL: Duration = Duration::from_millis(5);
/// No deeper than pauses need: nothing is in the reserve.
const SHALLOW: Depth = Depth {
    max_stall: MAX_STALL,
    burst: Duration::from_millis(10),
};
const DEEP: Depth = Depth {
    max_stall: MAX_STALL,
    burst: Duration::from_secs(1),
};

fn quota(mib_per_sec: f64) -> Quota {
    Quota::new(mib_per_sec).expect("a quota")
}

fn units(amount: u64) -> Tokens {
    Tokens::UNIT.times(usize::try_from(amount).expect("64 bits"))
}

fn sum(parts: &[Tokens]) -> Tokens {
    parts.iter().copied().sum()
}

#[test]
fn shares_worked_out_by_hand() {
    let share = |total, rooms: &[u64]| -> Vec<Tokens> {
        max_min(units(total), &rooms.iter().map(|&room| units(room)).collect::<Vec<_>>())
    };
    assert_eq!(share(12, &[100, 100, 100]), [4, 4, 4].map(units));
    assert_eq!(share(12, &[2, 100, 100]), [2, 5, 5].map(units));
    assert_eq!(share(12, &[100, 0, 3]), [9, 0, 3].map(units));
    assert_eq!(share(12, &[1, 2, 3]), [1, 2, 3].map(units), "more than anybody wants");
    assert_eq!(share(0, &[7, 7]), [0, 0].map(units));
    assert_eq!(share(5, &[]), [Tokens::ZERO; 0]);
}

proptest! {
    #[test]
    fn shares_are_max_min_fair(total in 0_u64..10_000, rooms in proptest::collection::vec(0_u64..3_000, 0..12)) {
        let rooms: Vec<Tokens> = rooms.into_iter().map(units).collect();
        let parts = max_min(units(total), &rooms);
        prop_assert_eq!(sum(&parts), units(total).min(sum(&rooms)), "all is shared, and no more");
        for (&part, &room) in parts.iter().zip(&rooms) {
            prop_assert!(part <= room, "nobody gets more than there is room for");
            let most = parts.iter().copied().max().expect("not empty");
            prop_assert!(part == room || most <= part.plus(Tokens::UNIT), "who is not full has as much as anybody");
        }
    }
}

/// vCPUs that dirty their whole grant at once, take their pauses and wake a little late.
struct Machine {
    shared: VmBudget,
    vcpus: Vec<Greedy>,
    now: Duration,
    late: Duration,
}

struct Greedy {
    /// When it runs next; `None` while it is idle.
    wakes: Option<Duration>,
    pages: u64,
}

impl Machine {
    fn new(mib_per_sec: f64, vcpus: usize, depth: Depth) -> Self {
        let now = Duration::ZERO;
        let mut shared = VmBudget::new(now, quota(mib_per_sec), depth);
        for vcpu in 0..vcpus {
            shared.join(now, vcpu);
        }
        let vcpus = (0..vcpus).map(|_| Greedy {
            wakes: Some(now),
            pages: 0,
        });
        Self {
            shared,
            vcpus: vcpus.collect(),
            now,
            late: Duration::from_micros(70),
        }
    }

    fn set_idle(&mut self, vcpu: usize, idle: bool) {
        self.vcpus[vcpu].wakes = (!idle).then_some(self.now);
    }

    /// Pages of each vCPU during `span`.
    fn run(&mut self, span: Duration) -> Vec<u64> {
        let until = self.now + span;
        let before: Vec<u64> = self.vcpus.iter().map(|vcpu| vcpu.pages).collect();
        while let Some((at, next)) = (0..self.vcpus.len())
            .filter_map(|vcpu| Some((self.vcpus[vcpu].wakes?, vcpu)))
            .min()
            .filter(|&(at, _)| at < until)
        {
            self.now = at;
            self.step(next);
        }
        self.now = until;
        self.vcpus
            .iter()
            .zip(before)
            .map(|(vcpu, before)| vcpu.pages - before)
            .collect()
    }

    fn step(&mut self, index: usize) {
        let (now, vcpu) = (self.now, &mut self.vcpus[index]);
        let mut pause = self.shared.pause(now, index);
        if pause.is_zero() {
            let grant = self.shared.grant(now, index).expect("takes part");
            vcpu.pages += grant.0;
            pause = self.shared.charge(now, index, grant);
        }
        // A wake-up is late, and a run takes its time.
        vcpu.wakes = Some(now + pause + self.late);
    }
}

fn assert_close(actual: u64, expected: f64, what: &str) {
    let error = (actual as f64 - expected).abs() / expected;
    assert!(error < 0.005, "{what}: {actual} pages, expected {expected}");
}

#[test]
fn hungry_vcpus_share_equally_and_use_all_of_it() {
    for (vcpus, depth) in [1, 2, 3, 8]
        .into_iter()
        .flat_map(|vcpus| [(vcpus, SHALLOW), (vcpus, DEEP)])
    {
        let mut machine = Machine::new(100.0, vcpus, depth);
        machine.run(Duration::from_millis(100));
        let pages = machine.run(Duration::from_secs(10));
        assert_close(pages.iter().sum(), 256_000.0, "together");
        for pages in pages {
            assert_close(pages, 256_000.0 / vcpus as f64, "each");
        }
    }
}

#[test]
fn an_idle_share_flows_to_the_others_at_once_and_back() {
    let mut machine = Machine::new(25.0, 2, SHALLOW);
    machine.run(Duration::from_millis(100));
    machine.set_idle(1, true);
    // The idle bucket takes its part until it is full, half a burst away.
    machine.run(MAX_STALL * 2);
    let alone = machine.run(Duration::from_secs(1));
    assert_close(alone[0], 6400.0, "alone");
    assert_eq!(alone[1], 0);

    machine.set_idle(1, false);
    machine.run(MAX_STALL * 2);
    let both = machine.run(Duration::from_secs(4));
    assert_close(both[0], 12_800.0, "the first of both");
    assert_close(both[1], 12_800.0, "the second of both");
}

#[test]
fn joins_and_leaves_while_it_runs() {
    let now = Duration::from_secs(1);
    let mut shared = VmBudget::new(Duration::ZERO, quota(25.0), SHALLOW);
    assert_eq!(shared.grant(now, 3), None);
    assert_eq!(shared.pause(now, 3), Duration::ZERO);
    shared.join(now, 3);
    assert_eq!(
        shared.grant(now, 3),
        Some(Pages(0)),
        "what came in before it joined is not its own"
    );
    assert_eq!(shared.pause(now, 3), MAX_STALL);
    shared.charge(now, 3, Pages(5));
    shared.join(now, 3);
    assert_eq!(
        shared.pause(now, 3),
        MAX_STALL + Duration::from_nanos(5 * 156_250),
        "joining twice frees of no debt"
    );
    shared.leave(now, 3);
    assert_eq!(shared.grant(now, 3), None);
}

#[test]
fn all_buckets_are_together_as_large_as_one_of_a_single_vcpu() {
    // 6,400 pages per second in 5 ms are 32, twice that is the burst.
    let mut shared = VmBudget::new(Duration::ZERO, quota(25.0), SHALLOW);
    for vcpu in 0..4 {
        shared.join(Duration::ZERO, vcpu);
    }
    assert_eq!(shared.burst(), Pages(64));
    let now = Duration::from_secs(1);
    assert_eq!(shared.grant(now, 0), Some(Pages(16)));
    // One that has the quota to itself gets its refill of 8 pages four times as fast.
    assert_eq!(shared.charge(now, 0, Pages(16)), MAX_STALL / 4);
    for vcpu in 1..4 {
        shared.charge(now, vcpu, Pages(16));
    }
    assert_eq!(shared.pause(now, 0), MAX_STALL);
}

#[test]
fn what_a_smaller_bucket_has_no_room_for_is_lost() {
    let mut shared = VmBudget::new(Duration::ZERO, quota(100.0), SHALLOW);
    shared.join(Duration::ZERO, 0);
    let now = Duration::from_secs(1);
    assert_eq!(shared.grant(now, 0), Some(Pages(256)));
    shared.join(now, 1);
    assert_eq!(shared.grant(now, 0), Some(Pages(256)), "a grant is not taken back");
    shared.charge(now, 0, Pages(0));
    assert_eq!(
        shared.grant(now, 0),
        Some(Pages(128)),
        "half of the burst is another's now"
    );
    shared.set_quota(now, quota(25.0));
    shared.charge(now, 0, Pages(0));
    assert_eq!(shared.grant(now, 0), Some(Pages(32)));
    // A debt keeps its length in time.
    shared.set_quota(now, quota(100.0));
    shared.charge(now, 0, Pages(32 + 256));
    let owed = shared.pause(now, 0);
    shared.set_quota(now, quota(1.0));
    assert!(shared.pause(now, 0).abs_diff(owed) <= MAX_STALL, "{owed:?}");
}

/// Writes as much as it may within a second, pausing as it must.
fn spend(shared: &mut VmBudget, vcpu: usize, from: Duration, span: Duration) -> u64 {
    let (mut now, mut pages) = (from, 0);
    while now < from + span {
        let pause = shared.pause(now, vcpu);
        if pause.is_zero() {
            let grant = shared.grant(now, vcpu).expect("takes part");
            pages += grant.0;
            shared.charge(now, vcpu, grant);
        }
        now += pause + Duration::from_micros(20);
    }
    pages
}

#[test]
fn what_all_saved_up_is_for_whoever_wants_it() {
    // 6,400 pages per second.
    let mut shared = VmBudget::new(Duration::ZERO, quota(25.0), DEEP);
    for vcpu in 0..4 {
        shared.join(Duration::ZERO, vcpu);
    }
    assert_eq!(shared.burst(), Pages(6400));
    let now = Duration::from_secs(9);
    assert_eq!(
        shared.grant(now, 2),
        Some(Pages(100)),
        "a quarter of a sixteenth at a time"
    );
    let window = Duration::from_millis(100);
    let pages = spend(&mut shared, 2, now, window);
    // Of its second nothing is held back but the buckets of the three others.
    let (least, most) = (6400 - 300 + 640 - 64, 6400 - 300 + 640 + 64);
    assert!((least..=most).contains(&pages), "{pages} pages");
    assert_eq!(shared.grant(now + window, 3), Some(Pages(100)), "which they have");

    // Two that wake together share what was saved up since then.
    let now = now + Duration::from_secs(9);
    let mut pages = [0, 0];
    for round in 0..40_u32 {
        for vcpu in [0, 1] {
            pages[vcpu] += spend(
                &mut shared,
                vcpu,
                now + 2 * MAX_STALL * round,
                Duration::from_micros(20),
            );
        }
    }
    assert!(pages[0].abs_diff(pages[1]) <= 200, "{pages:?}");
}

#[test]
fn a_reserve_that_a_smaller_burst_has_no_room_for_is_lost() {
    let mut shared = VmBudget::new(Duration::ZERO, quota(25.0), DEEP);
    shared.join(Duration::ZERO, 0);
    let now = Duration::from_secs(9);
    shared.set_depth(now, SHALLOW);
    shared.join(now, 0);
    assert_eq!(spend(&mut shared, 0, now, Duration::from_micros(10)), 64);
    assert_eq!(shared.pause(now, 0), MAX_STALL);
}

proptest! {
    #[test]
    fn together_they_never_exceed_the_quota_by_more_than_the_burst(
        mib_per_sec in prop_oneof![Just(0.25), Just(25.0), Just(10_240.0), 0.01..2_000.0],
        vcpus in 1_usize..6,
        burst_us in prop_oneof![100_u64..20_000, 100_u64..3_000_000],
        steps in proptest::collection::vec((0_usize..6, any::<bool>(), 0_u64..500_000), 1..40),
    ) {
        let burst = Duration::from_micros(burst_us);
        let mut machine = Machine::new(mib_per_sec, vcpus, Depth { burst, ..SHALLOW });
        // Beside it a bucket may hold a fraction of a page, which is not granted.
        let burst = machine.shared.burst().0 + 1;
        let mut history = vec![(Duration::ZERO, 0)];
        for (vcpu, idle, micros) in steps {
            machine.set_idle(vcpu % vcpus, idle);
            machine.run(Duration::from_micros(micros));
            history.push((machine.now, machine.vcpus.iter().map(|vcpu| vcpu.pages).sum()));
        }
        for (from, (start, before)) in history.iter().enumerate() {
            for (end, after) in &history[from..] {
                let pages: u64 = after - before;
                let income = mib_per_sec * 256.0 * end.saturating_sub(*start).as_secs_f64();
                prop_assert!(pages as f64 <= income * 1.000_001 + burst as f64);
            }
        }
    }
}
