//! Cuts the samples of a cell into phases: what lies between two changes of a limit.

use std::collections::BTreeMap;

use dirtyrig_limiter::units::Pages;

use crate::model::Sample;

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// One vCPU.
    Vcpu(u32),
    /// All of them together.
    Vm,
}

impl Subject {
    /// Which vCPU it is; `None` for all together.
    pub(super) fn vcpu(self) -> Option<u32> {
        match self {
            Self::Vcpu(vcpu) => Some(vcpu),
            Self::Vm => None,
        }
    }
}

/// What a subject had done at one instant, counted from the cell's start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct At {
    pub(super) t_s: f64,
    pub(super) quota: Option<f64>,
    pub(super) written_mib: Option<f64>,
    pub(super) read_mib: Option<f64>,
    pub(super) cost_s: Option<f64>,
}

impl At {
    fn of(row: &Sample, quota: Option<f64>) -> Self {
        Self {
            t_s: row.t_s,
            quota,
            written_mib: row.written_pages.map(|pages| Pages(pages).to_mib()),
            read_mib: row.read_pages.map(|pages| Pages(pages).to_mib()),
            cost_s: row.cost_us.map(|us| us as f64 / 1e6),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            written_mib: sum(self.written_mib, other.written_mib),
            read_mib: sum(self.read_mib, other.read_mib),
            cost_s: sum(self.cost_s, other.cost_s),
            ..other
        }
    }

    /// Mean rates of writing and reading since `earlier`, MiB/s; `None` where that is not known, or no time has passed.
    pub(super) fn since(self, earlier: Self) -> (Option<f64>, Option<f64>) {
        let span_s = self.t_s - earlier.t_s;
        let rate = |now: Option<f64>, then: Option<f64>| {
            let (now, then) = now.zip(then).filter(|_| span_s > 0.0)?;
            Some((now - then) / span_s)
        };
        (
            rate(self.written_mib, earlier.written_mib),
            rate(self.read_mib, earlier.read_mib),
        )
    }
}

/// What is not known of one is not known of both.
fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a + b)
}

/// From one change of a limit to the next.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Phase {
    pub(super) quota: Option<f64>,
    /// The rate that was there before: the quota of the phase before, or the unlimited rate, if that is known.
    pub(super) before: Option<f64>,
    /// From the last instant under the old limit to the last under this one.
    pub(super) course: Vec<At>,
}

/// Everything of one subject.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct History {
    pub(super) subject: Subject,
    /// Rates of writing and reading before any limit, MiB/s.
    pub(super) unlimited: (Option<f64>, Option<f64>),
    pub(super) phases: Vec<Phase>,
}

/// The histories of one cell, whose `samples` are in the order of their times: each vCPU's, and that of all together
/// where there was a limit on all.
pub(super) fn histories(samples: &[Sample]) -> Vec<History> {
    let mut courses: BTreeMap<Subject, Vec<At>> = BTreeMap::new();
    for row in samples {
        let course = courses.entry(Subject::Vcpu(row.vcpu)).or_default();
        course.push(At::of(row, row.quota_mib_s));
    }
    if samples.iter().any(|row| row.vm_quota_mib_s.is_some()) {
        // The vCPUs of one sample share its time.
        let sums = samples.chunk_by(|a, b| a.t_s.total_cmp(&b.t_s).is_eq());
        let sum = |rows: &[Sample]| {
            let each = rows.iter().map(|row| At::of(row, row.vm_quota_mib_s));
            each.reduce(At::plus).unwrap_or_default()
        };
        courses.insert(Subject::Vm, sums.map(sum).collect());
    }
    courses
        .into_iter()
        .map(|(subject, course)| history(subject, &course))
        .collect()
}

fn history(subject: Subject, course: &[At]) -> History {
    let zero = course.partition_point(|at| at.t_s <= 0.0);
    let (warm_up, limited) = course.split_at(zero);
    let unlimited = match warm_up {
        // As in a summary: the last two thirds of the warm-up.
        [first, .., last] => {
            let from = warm_up.iter().rfind(|at| at.t_s <= first.t_s * 2.0 / 3.0);
            last.since(*from.unwrap_or(first))
        }
        _ => (None, None),
    };
    let mut phases: Vec<Phase> = Vec::new();
    let mut base = warm_up.last().copied();
    for run in limited.chunk_by(|a, b| a.quota == b.quota) {
        let before = phases.last().and_then(|phase| phase.quota).or(unlimited.0);
        let quota = run[0].quota;
        let course = base.into_iter().chain(run.iter().copied()).collect();
        phases.push(Phase { quota, before, course });
        base = run.last().copied();
    }
    History {
        subject,
        unlimited,
        phases,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(vcpu: u32, t_s: f64, quota: Option<f64>, vm: Option<f64>, mib: u64) -> Sample {
        Sample {
            vcpu,
            t_s,
            quota_mib_s: quota,
            vm_quota_mib_s: vm,
            written_pages: Some(mib * 256),
            ..Sample::default()
        }
    }

    fn is(value: impl Into<Option<f64>>, expected: f64) -> bool {
        value.into().is_some_and(|value| (value - expected).abs() < 1e-9)
    }

    #[test]
    fn a_phase_begins_with_the_last_sample_under_the_old_limit() {
        let samples = [
            row(0, -3.0, None, None, 0),
            row(0, -2.0, None, None, 10),
            row(0, 0.0, None, None, 410),
            row(0, 1.0, Some(50.0), None, 460),
            row(0, 2.0, Some(50.0), None, 510),
            row(0, 3.0, Some(20.0), None, 530),
        ];
        let history = histories(&samples).remove(0);
        assert!(is(history.unlimited.0, 200.0), "the first third is not counted");
        let quotas: Vec<_> = history.phases.iter().map(|phase| (phase.quota, phase.before)).collect();
        assert_eq!(quotas, [(Some(50.0), Some(200.0)), (Some(20.0), Some(50.0))]);
        assert!(is(history.phases[1].course[0].t_s, 2.0));
    }

    #[test]
    fn under_a_quota_for_all_the_vcpus_are_added_up() {
        let both = |t_s, vm, mib| [row(0, t_s, None, vm, mib), row(1, t_s, None, vm, 2 * mib)];
        let samples: Vec<Sample> = [both(-1.0, None, 0), both(0.0, None, 100), both(1.0, Some(30.0), 110)].concat();
        let all = histories(&samples);
        let vm = all.iter().find(|one| one.subject == Subject::Vm).expect("all together");
        assert_eq!((all.len(), vm.phases.len()), (3, 1));
        let course = &vm.phases[0].course;
        assert!(is(course[1].since(course[0]).0, 30.0));
        assert_eq!(vm.phases[0].quota, Some(30.0));
    }
}
