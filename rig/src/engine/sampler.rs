//! Turns snapshots into the rows of `samples.csv`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use dirtyrig_limiter::{
    limit::LimitInfo,
    units::{PAGES_PER_MIB, Pages, Quota},
};

use super::target::VcpuSnapshot;
use crate::model::Sample;

/// What has been seen of one vCPU.
struct Seen {
    /// Its snapshots of the last period, oldest first; never empty after the first.
    recent: VecDeque<(Duration, VcpuSnapshot)>,
    /// The first snapshot: rows count from it.
    base: VcpuSnapshot,
}

/// The sampler of one cell.
pub(super) struct Sampler {
    cell: u32,
    period: Duration,
    /// When the cell began to be measured, by the target's clock; none while it warms up.
    zero: Option<Duration>,
    /// When warming up will be over, by the target's clock.
    expected_zero: Duration,
    /// By index.
    seen: BTreeMap<usize, Seen>,
}

impl Sampler {
    /// A sampler whose rows start from `first`, taken at `at`; the cell is to begin at `expected_zero`.
    pub(super) fn new(
        cell: u32,
        period: Duration,
        expected_zero: Duration,
        at: Duration,
        first: &[VcpuSnapshot],
    ) -> Self {
        let there = first.iter().enumerate().filter(|(_, shot)| !shot.absent);
        let seen = there.map(|(vcpu, base)| (vcpu, Seen::from(at, base))).collect();
        Self {
            cell,
            period,
            zero: None,
            expected_zero,
            seen,
        }
    }

    /// From now on, time is counted from `at`.
    pub(super) fn begin(&mut self, at: Duration) {
        self.zero = Some(at);
    }

    /// The rows of a snapshot taken at `at`; `limits` are what the limiter says at the same time, and `vm` is the quota of
    /// all vCPUs together.
    pub(super) fn rows(
        &mut self,
        at: Duration,
        shots: &[VcpuSnapshot],
        limits: &[LimitInfo],
        vm: Option<Quota>,
    ) -> Vec<Sample> {
        let since = |zero: Duration| at.as_secs_f64() - zero.as_secs_f64();
        // A warm-up that takes longer than expected is not over for that.
        let t_s = self.zero.map_or_else(|| since(self.expected_zero).min(0.0), since);
        let (cell, period) = (self.cell, self.period);
        let limit_of = |vcpu| limits.iter().find(|limit| limit.vcpu == vcpu);
        shots
            .iter()
            .enumerate()
            .filter(|(_, shot)| !shot.absent)
            .map(|(vcpu, shot)| {
                let seen = self.seen.entry(vcpu).or_insert_with(|| Seen::from(at, shot));
                let mut row = seen.row(cell, vcpu, t_s, period, at, shot, limit_of(vcpu));
                row.vm_quota_mib_s = vm.map(Quota::mib_per_sec);
                row
            })
            .collect()
    }
}

impl Seen {
    /// Counts from a first snapshot.
    fn from(at: Duration, base: &VcpuSnapshot) -> Self {
        Self {
            recent: VecDeque::from([(at, *base)]),
            base: *base,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a row is made of")]
    fn row(
        &mut self,
        cell: u32,
        vcpu: usize,
        t_s: f64,
        period: Duration,
        at: Duration,
        shot: &VcpuSnapshot,
        limit: Option<&LimitInfo>,
    ) -> Sample {
        let (last_at, last) = *self
            .recent
            .back()
            .expect("the first snapshot stays until there is a newer one");
        let seconds = at.saturating_sub(last_at).as_secs_f64();
        let has_passed = |_: &u64| seconds > 0.0;
        let rate = |of: fn(&VcpuSnapshot) -> Option<u64>| {
            let gain = gain(of(shot), of(&last)).filter(has_passed)?;
            Some(mib(gain) / seconds)
        };
        let count = |of: fn(&VcpuSnapshot) -> Option<u64>| gain(of(shot), of(&self.base));
        let time = |of: fn(&VcpuSnapshot) -> Option<Duration>| {
            let (now, then) = of(shot).zip(of(&self.base))?;
            Some(micros(now.saturating_sub(then)))
        };
        self.recent.push_back((at, *shot));
        // The oldest that is kept is at least a period old, so that the harvests of a whole period lie after it.
        while self.recent.len() > 2 && at.saturating_sub(self.recent[1].0) >= period {
            self.recent.pop_front();
        }
        Sample {
            cell,
            vcpu: vcpu as u32,
            t_s,
            quota_mib_s: limit.map(|limit| limit.quota.mib_per_sec()),
            ring_mib_s: self.believed(limit, t_s < period.as_secs_f64()),
            guest_mib_s: rate(|shot| shot.written_pages),
            guest_read_mib_s: rate(|shot| shot.read_pages),
            throttle_us: shot.throttle.map(micros),
            utilisation_pct: shot
                .in_guest
                .zip(last.in_guest)
                .filter(|_| seconds > 0.0)
                .map(|(now, then)| 100.0 * now.saturating_sub(then).as_secs_f64() / seconds),
            written_pages: count(|shot| shot.written_pages),
            read_pages: count(|shot| shot.read_pages),
            harvested_pages: count(|shot| shot.harvested_pages),
            ring_full_exits: count(|shot| shot.ring_full_exits),
            exits: count(|shot| shot.exits),
            asked_us: time(|shot| shot.asked),
            slept_us: time(|shot| shot.slept),
            vm_quota_mib_s: None,
            held_pages: shot.held_pages,
            cost_us: time(|shot| shot.cost),
        }
    }

    /// The limiter's own last reading; what was harvested over the last period where it has none: of a vCPU that has no
    /// limit, and before its first period has ended.
    fn believed(&self, limit: Option<&LimitInfo>, first_period: bool) -> Option<f64> {
        if let Some(limit) = limit
            && !(first_period && limit.current.0 == 0.0)
        {
            return Some(limit.current.0);
        }
        let ((from, old), (to, new)) = self.recent.front().zip(self.recent.back())?;
        let pages = Pages(gain(new.harvested_pages, old.harvested_pages)?);
        pages.per(to.saturating_sub(*from)).map(|rate| rate.0)
    }
}

/// By how much a count has grown, if both are known.
fn gain(now: Option<u64>, then: Option<u64>) -> Option<u64> {
    now.zip(then).map(|(now, then)| now.saturating_sub(then))
}

fn mib(pages: u64) -> f64 {
    pages as f64 / PAGES_PER_MIB as f64
}

fn micros(length: Duration) -> u64 {
    length.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use dirtyrig_limiter::units::MibPerSec;

    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    fn shot(pages: u64) -> VcpuSnapshot {
        VcpuSnapshot {
            written_pages: Some(pages),
            harvested_pages: Some(pages),
            in_guest: Some(TENTH / 2),
            ..VcpuSnapshot::default()
        }
    }

    fn is(rate: Option<f64>, expected: f64) -> bool {
        rate.is_some_and(|rate| (rate - expected).abs() < 1e-6)
    }

    #[test]
    fn what_the_vmm_does_not_tell_is_not_zero() {
        let silent = VcpuSnapshot {
            harvested_pages: Some(256),
            ..VcpuSnapshot::default()
        };
        let row = sampler(&silent).rows(2 * TENTH, &[silent], &[], None).remove(0);
        assert_eq!((row.guest_mib_s, row.written_pages, row.exits), (None, None, None));
        assert_eq!((row.utilisation_pct, row.asked_us, row.throttle_us), (None, None, None));
        assert_eq!((row.harvested_pages, row.ring_mib_s), (Some(0), Some(0.0)));
    }

    fn sampler(first: &VcpuSnapshot) -> Sampler {
        Sampler::new(0, 10 * TENTH, 20 * TENTH, TENTH, &[*first])
    }

    #[test]
    fn time_is_negative_until_the_cell_begins() {
        let mut sampler = sampler(&shot(0));
        assert!((sampler.rows(2 * TENTH, &[shot(0)], &[], None)[0].t_s + 1.8).abs() < 1e-9);
        sampler.begin(25 * TENTH);
        assert!((sampler.rows(26 * TENTH, &[shot(0)], &[], None)[0].t_s - 0.1).abs() < 1e-9);
    }

    #[test]
    fn who_is_not_there_has_no_row_and_who_comes_later_counts_from_then_on() {
        let absent = VcpuSnapshot::ABSENT;
        let mut sampler = Sampler::new(0, 10 * TENTH, 20 * TENTH, TENTH, &[shot(1000), absent]);
        let vcpus = |rows: &[Sample]| rows.iter().map(|row| (row.vcpu, row.written_pages)).collect::<Vec<_>>();
        assert_eq!(
            vcpus(&sampler.rows(2 * TENTH, &[shot(1256), absent], &[], None)),
            [(0, Some(256))]
        );
        let rows = sampler.rows(3 * TENTH, &[shot(1256), absent, absent, shot(5000)], &[], None);
        assert_eq!(vcpus(&rows), [(0, Some(256)), (3, Some(0))]);
        let rows = sampler.rows(4 * TENTH, &[shot(1256), absent, absent, shot(5256)], &[], None);
        let rate = rows[1].guest_mib_s.expect("it has a counter");
        assert!((rate - 10.0).abs() < 1e-9, "256 pages, 1 MiB, in a tenth of a second");
    }

    #[test]
    fn truth_is_a_rate_over_one_sample_and_counts_start_at_the_first() {
        let mut sampler = sampler(&shot(1000));
        sampler.rows(2 * TENTH, &[shot(1256)], &[], None);
        let row = sampler.rows(3 * TENTH, &[shot(1768)], &[], None).remove(0);
        assert!(is(row.guest_mib_s, 20.0), "512 pages, 2 MiB, in a tenth of a second");
        assert_eq!(row.written_pages, Some(768));
    }

    #[test]
    fn without_a_limit_the_ring_reads_a_period_of_harvests() {
        let mut sampler = sampler(&shot(0));
        for tenth in 2..=30_u32 {
            // Harvested once a second, a sample alone would read 0 nine times and 2560 pages once.
            let pages = u64::from(tenth / 10) * 2560;
            let row = sampler.rows(tenth * TENTH, &[shot(pages)], &[], None).remove(0);
            assert!(tenth < 12 || is(row.ring_mib_s, 10.0), "{tenth}: {:?}", row.ring_mib_s);
        }
    }

    #[test]
    fn with_a_limit_the_ring_reads_what_the_limiter_says() {
        let mut sampler = sampler(&shot(0));
        sampler.begin(TENTH);
        let limit = |current| LimitInfo {
            vcpu: 0,
            quota: Quota::new(25.0).expect("a quota"),
            current: MibPerSec(current),
        };
        let early = sampler.rows(6 * TENTH, &[shot(1280)], &[limit(0.0)], None).remove(0);
        assert!(is(early.ring_mib_s, 10.0), "it has not read anything yet");
        let later = sampler.rows(16 * TENTH, &[shot(1280)], &[limit(0.0)], None).remove(0);
        assert!(is(later.ring_mib_s, 0.0), "it has read 0");
        assert_eq!(later.quota_mib_s, Some(25.0));
    }
}
