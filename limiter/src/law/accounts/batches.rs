//! The guarantee where the processor reports pages in batches. Intel's PML keeps up to 512 in a buffer, and KVM learns of them when the
//! buffer is full or the vCPU exits: a grant is overdrawn by as many as came with its last page.

use proptest::prelude::*;

use super::*;
use crate::units::PAGES_PER_MIB;

/// Entries of PML's buffer.
const BATCH: u64 = 512;
const DEPTH: Depth = Depth {
    max_stall: Duration::from_millis(5),
    burst: Duration::from_millis(10),
};
/// How late a pause ends.
const LATE: Duration = Duration::from_micros(70);

/// What one vCPU dirtied between two pauses.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: Duration,
    until: Duration,
    pages: u64,
}

/// vCPUs that dirty a page per `page` until the batch is full that spends their grant.
struct Batched {
    accounts: Accounts,
    batch: u64,
    page: Duration,
    /// When each is to be charged and paused for its last run, or to wake.
    due: Vec<Duration>,
    running: Vec<Option<Run>>,
    runs: Vec<Run>,
}

impl Batched {
    fn new(vcpus: usize, quota: Option<Quota>, vm_quota: Option<Quota>, batch: u64, page: Duration) -> Self {
        let mut accounts = Accounts::new(DEPTH);
        for vcpu in 0..vcpus {
            accounts.follow(Duration::ZERO, vcpu, quota, vm_quota);
        }
        Self {
            accounts,
            batch,
            page,
            due: vec![Duration::ZERO; vcpus],
            running: vec![None; vcpus],
            runs: Vec::new(),
        }
    }

    /// The next vCPU that stops or wakes does so. One whose run is `kicked` exits after so many pages, its grant spent or not.
    fn step(&mut self, kicked: Option<u64>) -> Duration {
        let (now, vcpu) = self.due.iter().copied().zip(0..).min().expect("a vCPU");
        if let Some(run) = self.running[vcpu].take() {
            self.accounts.charge(now, vcpu, Pages(run.pages));
            self.runs.push(run);
        }
        let pause = self.accounts.pause(now, vcpu);
        self.due[vcpu] = if pause.is_zero() {
            let grant = self.accounts.grant(now, vcpu).expect("it is limited").0;
            let spent = grant.div_ceil(self.batch) * self.batch;
            let pages = kicked.map_or(spent, |kicked| kicked.min(spent));
            let until = now + self.page * u32::try_from(pages).expect("a grant of a burst");
            self.running[vcpu] = Some(Run {
                from: now,
                until,
                pages,
            });
            until
        } else {
            now + pause + LATE
        };
        now
    }

    /// By how many pages the worst window exceeds what came in during it.
    fn excess(&mut self, rate: f64) -> f64 {
        self.runs.sort_by_key(|run| run.from);
        let starts = self.runs.iter().enumerate();
        let windows = starts.flat_map(|(first, start)| {
            let mut pages = 0;
            let mut until = start.until;
            self.runs[first..].iter().map(move |run| {
                pages += run.pages;
                until = until.max(run.until);
                pages as f64 - rate * until.saturating_sub(start.from).as_secs_f64()
            })
        });
        windows.fold(0.0, f64::max)
    }
}

fn pages_per_s(mib_per_sec: f64) -> f64 {
    mib_per_sec * PAGES_PER_MIB as f64
}

/// What comes in during the burst, and two pages of each vCPU at the least.
fn burst(rate: f64, vcpus: usize) -> f64 {
    (rate * DEPTH.burst.as_secs_f64()).max(2.0 * vcpus as f64)
}

proptest! {
    #[test]
    fn no_window_exceeds_its_bound_by_more_than_a_batch_per_vcpu(
        (mib_per_sec, is_shared, vcpus) in (0.1..3_000.0_f64, any::<bool>(), 1..4_usize),
        (batch, page_ns) in (1..=BATCH, 200..25_000_u64),
        kicks in proptest::collection::vec(proptest::option::weighted(0.2, 1..BATCH), 50..300),
    ) {
        let (rate, quota) = (pages_per_s(mib_per_sec), Quota::new(mib_per_sec).ok());
        // Under limits of their own the vCPUs know nothing of each other: one tells as much.
        let (vcpus, own, vm) = if is_shared { (vcpus, None, quota) } else { (1, quota, None) };
        let mut vcpus_of = Batched::new(vcpus, own, vm, batch, Duration::from_nanos(page_ns));
        for kicked in kicks {
            vcpus_of.step(kicked);
        }
        let most = burst(rate, vcpus) + ((batch - 1) * vcpus as u64) as f64;
        let excess = vcpus_of.excess(rate);
        prop_assert!(excess <= most + 1.0, "{excess} of {most}");
    }
}

/// A batch beyond the grant is a debt that is paid: the rate over time is the quota, however small that is.
#[test]
fn the_rate_over_time_is_the_quota() {
    for mib_per_sec in [1.0, 25.0, 500.0] {
        let (rate, quota) = (pages_per_s(mib_per_sec), Quota::new(mib_per_sec).ok());
        let mut vcpu = Batched::new(1, quota, None, BATCH, Duration::from_micros(1));
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(60) {
            now = vcpu.step(None);
        }
        let pages: u64 = vcpu.runs.iter().map(|run| run.pages).sum();
        let (expected, slack) = (rate * now.as_secs_f64(), burst(rate, 1) + BATCH as f64);
        assert!(
            (pages as f64 - expected).abs() <= slack,
            "{mib_per_sec}: {pages} of {expected}"
        );
    }
}
