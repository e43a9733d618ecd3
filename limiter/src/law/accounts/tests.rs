//! The guarantee for vCPUs that come, go and are limited in turns, and what becomes of a vCPU under two limits.

use proptest::prelude::*;

use super::*;
use crate::units::PAGES_PER_MIB;

const MAX_STALL: Duration = Duration::from_millis(5);
const SHALLOW: Depth = Depth {
    max_stall: MAX_STALL,
    burst: Duration::from_millis(10),
};
const VCPUS: usize = 4;

fn quota(mib_per_sec: f64) -> Quota {
    Quota::new(mib_per_sec).expect("a quota")
}

#[test]
fn who_is_under_two_limits_keeps_to_both() {
    let now = Duration::ZERO;
    let mut accounts = Accounts::new(SHALLOW);
    assert_eq!(accounts.grant(now, 0), None, "unlimited");
    accounts.follow(now, 0, Some(quota(500.0)), Some(quota(25.0)));
    let later = MAX_STALL;
    // What came in for the whole machine in 5 ms at 25 MiB/s.
    assert_eq!(accounts.grant(later, 0), Some(Pages(32)));
    assert_eq!(accounts.pause(later, 0), Duration::ZERO);
    accounts.charge(later, 0, Pages(32));
    assert_eq!(accounts.pause(later, 0), MAX_STALL);
    accounts.follow(later, 0, Some(quota(500.0)), None);
    assert_eq!(
        accounts.pause(later, 0),
        Duration::ZERO,
        "its own bucket is far from empty"
    );
    accounts.follow(later, 0, None, None);
    assert_eq!(accounts.grant(later, 0), None);
}

#[test]
fn limits_that_stay_are_not_begun_anew() {
    let mut accounts = Accounts::new(SHALLOW);
    let limits = (Some(quota(25.0)), Some(quota(100.0)));
    accounts.follow(Duration::ZERO, 0, limits.0, limits.1);
    accounts.charge(Duration::ZERO, 0, Pages(100));
    let owed = accounts.pause(Duration::ZERO, 0);
    for _ in 0..100 {
        accounts.follow(Duration::ZERO, 0, limits.0, limits.1);
    }
    assert_eq!(accounts.pause(Duration::ZERO, 0), owed);
}

#[test]
fn what_one_may_not_use_or_left_behind_goes_to_the_others() {
    let mut vcpus = Greedy::new(3);
    let vm = Some(quota(100.0));
    vcpus.follow(0, Some(quota(10.0)), vm);
    vcpus.follow(1, None, vm);
    vcpus.follow(2, Some(quota(500.0)), vm);
    vcpus.run(Duration::from_millis(100));
    let close = |pages: u64, expected: f64| {
        let error = (pages as f64 - expected).abs() / expected;
        assert!(error < 0.005, "{pages} pages, expected {expected}");
    };
    let pages = vcpus.run(Duration::from_secs(10));
    close(pages[0], 25_600.0);
    close(pages[1], 115_200.0);
    close(pages[2], 115_200.0);

    vcpus.accounts.leave(vcpus.now, 1);
    vcpus.wakes[1] = None;
    let pages = vcpus.run(Duration::from_secs(10));
    close(pages[0], 25_600.0);
    close(pages[2], 230_400.0);
}

/// vCPUs that dirty their whole grant at once, take their pauses and wake a little late.
struct Greedy {
    accounts: Accounts,
    now: Duration,
    wakes: Vec<Option<Duration>>,
    pages: Vec<u64>,
}

impl Greedy {
    fn new(vcpus: usize) -> Self {
        Self {
            accounts: Accounts::new(SHALLOW),
            now: Duration::ZERO,
            wakes: vec![Some(Duration::ZERO); vcpus],
            pages: vec![0; vcpus],
        }
    }

    fn follow(&mut self, vcpu: usize, quota: Option<Quota>, vm_quota: Option<Quota>) {
        self.accounts.follow(self.now, vcpu, quota, vm_quota);
    }

    /// Pages of each vCPU during `span`.
    fn run(&mut self, span: Duration) -> Vec<u64> {
        const LATE: Duration = Duration::from_micros(70);
        let (before, until) = (self.pages.clone(), self.now + span);
        loop {
            let awake = self.wakes.iter().enumerate();
            let next = awake.filter_map(|(vcpu, wakes)| Some(((*wakes)?, vcpu))).min();
            let Some((at, vcpu)) = next.filter(|&(at, _)| at < until) else {
                break;
            };
            self.now = at;
            if self.accounts.pause(at, vcpu).is_zero() {
                let grant = self.accounts.grant(at, vcpu).expect("it is limited");
                self.accounts.charge(at, vcpu, grant);
                self.pages[vcpu] += grant.0;
            }
            self.wakes[vcpu] = Some(at + self.accounts.pause(at, vcpu) + LATE);
        }
        self.now = until;
        let pages = self.pages.iter().zip(before);
        pages.map(|(after, before)| after - before).collect()
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// The vCPU dirties this share of what is left of its grant, in this time, and is charged on its way.
    Dirty { of_1000: u64, takes: Duration },
    /// It is charged and, unless a pause is due, gets a new grant.
    Ask,
    /// The pause that is due is taken, and ends this late.
    Pause { late: Duration },
    /// It comes, or its limit changes.
    Follow(Option<f64>),
    /// It goes.
    Leave,
    /// All of them are brought under another limit of the machine.
    SetVm(Option<f64>),
    /// All of them get buckets of another depth.
    SetBurst(Duration),
}

fn events() -> impl Strategy<Value = Vec<(usize, Event)>> {
    let span = || {
        prop_oneof![
            4 => (0..20_000_000_u64).prop_map(Duration::from_nanos),
            1 => (0..100_u64).prop_map(Duration::from_secs),
        ]
    };
    let rate = || prop_oneof![Just(None), (0.01..3_000.0_f64).prop_map(Some)];
    let event = prop_oneof![
        6 => (0..=1000_u64, span()).prop_map(|(of_1000, takes)| Event::Dirty { of_1000, takes }),
        4 => Just(Event::Ask),
        4 => span().prop_map(|late| Event::Pause { late }),
        2 => rate().prop_map(Event::Follow),
        1 => Just(Event::Leave),
        1 => rate().prop_map(Event::SetVm),
        1 => (100..3_000_000_u64).prop_map(|micros| Event::SetBurst(Duration::from_micros(micros))),
    ];
    proptest::collection::vec((0..VCPUS, event), 1..120)
}

/// What may be dirtied by one vCPU, or by all together, and what was.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// Pages that came in; `None` while there is no limit.
    income: Option<f64>,
    pages: u64,
    burst: f64,
}

/// vCPUs that never dirty more than their grants, and what each of them and all together did up to each event.
struct Obedient {
    accounts: Accounts,
    now: Duration,
    quotas: [Option<f64>; VCPUS],
    is_there: [bool; VCPUS],
    vm: Option<f64>,
    left: [u64; VCPUS],
    /// Of each vCPU, and last of all together.
    marks: [Mark; VCPUS + 1],
    history: Vec<[Mark; VCPUS + 1]>,
}

impl Obedient {
    fn new() -> Self {
        Self {
            accounts: Accounts::new(SHALLOW),
            now: Duration::ZERO,
            quotas: [None; VCPUS],
            is_there: [false; VCPUS],
            vm: None,
            left: [0; VCPUS],
            marks: Default::default(),
            history: Vec::new(),
        }
    }

    fn passes(&mut self, span: Duration) {
        self.now += span;
        for (mark, rate) in self.marks.iter_mut().zip(self.quotas.iter().chain([&self.vm])) {
            if let (Some(income), Some(rate)) = (&mut mark.income, rate) {
                *income += rate * PAGES_PER_MIB as f64 * span.as_secs_f64();
            }
        }
    }

    fn follow(&mut self, vcpu: usize) {
        let limit = |rate: Option<f64>| rate.map(quota);
        let (own, vm) = (limit(self.quotas[vcpu]), limit(self.vm));
        self.accounts.follow(self.now, vcpu, own, vm);
        if !std::mem::replace(&mut self.is_there[vcpu], true) {
            // Its bucket is one more, as long as grants are out that were given before.
            self.left = [0; VCPUS];
        }
        self.left[vcpu] = 0;
        for (mark, rate) in [(vcpu, self.quotas[vcpu]), (VCPUS, self.vm)] {
            let mark = &mut self.marks[mark];
            mark.income = rate.map(|_| mark.income.unwrap_or(0.0));
        }
    }

    fn play(&mut self, vcpu: usize, event: &Event) {
        let limited = self.is_there[vcpu] && (self.quotas[vcpu].is_some() || self.vm.is_some());
        match *event {
            Event::Dirty { of_1000, takes } if limited => {
                let pages = self.left[vcpu] * of_1000 / 1000;
                self.left[vcpu] -= pages;
                self.marks[vcpu].pages += pages;
                self.marks[VCPUS].pages += pages;
                self.passes(takes);
                self.accounts.charge(self.now, vcpu, Pages(pages));
            }
            Event::Ask if limited => {
                self.accounts.charge(self.now, vcpu, Pages(0));
                let may_run = self.accounts.pause(self.now, vcpu).is_zero();
                let grant = self.accounts.grant(self.now, vcpu).expect("it is limited");
                self.left[vcpu] = if may_run { grant.0 } else { 0 };
            }
            Event::Pause { late } => {
                let pause = self.accounts.pause(self.now, vcpu);
                self.passes(pause + late);
            }
            Event::Follow(rate) => {
                self.quotas[vcpu] = rate;
                self.follow(vcpu);
            }
            Event::Leave => {
                self.accounts.leave(self.now, vcpu);
                (self.quotas[vcpu], self.is_there[vcpu], self.left[vcpu]) = (None, false, 0);
                self.marks[vcpu].income = None;
            }
            Event::SetVm(rate) => {
                self.vm = rate;
                for vcpu in (0..VCPUS).filter(|&vcpu| self.is_there[vcpu]).collect::<Vec<_>>() {
                    self.follow(vcpu);
                }
                self.marks[VCPUS].income = rate.map(|_| self.marks[VCPUS].income.unwrap_or(0.0));
            }
            Event::SetBurst(burst) => {
                self.accounts.set_depth(Depth { burst, ..SHALLOW });
                for vcpu in (0..VCPUS).filter(|&vcpu| self.is_there[vcpu]).collect::<Vec<_>>() {
                    self.follow(vcpu);
                }
            }
            Event::Dirty { .. } | Event::Ask => {}
        }
        self.mark_bursts();
    }

    fn mark_bursts(&mut self) {
        // Two pages at the least, and for all together two of each vCPU.
        let burst = self.accounts.depth().burst.as_secs_f64();
        let bursts = self.quotas.iter().map(|rate| (rate, 1)).chain([(&self.vm, VCPUS)]);
        for (mark, (rate, buckets)) in self.marks.iter_mut().zip(bursts) {
            let pages = rate.unwrap_or(0.0) * PAGES_PER_MIB as f64 * burst;
            mark.burst = pages.max(2.0 * buckets as f64);
        }
        self.history.push(self.marks);
    }
}

proptest! {
    #[test]
    fn no_window_exceeds_a_quota_by_more_than_its_burst(events in events()) {
        let mut vcpus = Obedient::new();
        for (vcpu, event) in &events {
            vcpus.play(*vcpu, event);
        }
        for who in 0..=VCPUS {
            for (from, start) in vcpus.history.iter().enumerate() {
                let Some(before) = start[who].income else { continue };
                let mut burst = start[who].burst;
                for end in &vcpus.history[from..] {
                    // A window ends where the limit does.
                    let Some(income) = end[who].income else { break };
                    burst = burst.max(end[who].burst);
                    let (pages, most) = (end[who].pages - start[who].pages, (income - before) * 1.000_001 + burst);
                    prop_assert!(pages as f64 <= most + 1.0, "{who}: {pages} of {most}");
                }
            }
        }
    }
}
