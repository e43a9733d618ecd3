//! How the stalls that the kernel saw find their match in the limiter's own books.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::Stall;

/// Finds for each stall that the kernel saw the limiter's own entry of it.
///
/// A vCPU thread writes its books between `KVM_RUN` returning and the next one, so the limiter's time of the exit lies
/// within the kernel's stall. Kicks that throttled nobody are stalls to the kernel and none to the limiter.
#[derive(Debug, Default)]
pub(super) struct Join {
    /// Entries of each vCPU that no stall of the kernel's has matched yet, oldest first.
    waiting: HashMap<usize, VecDeque<Stall>>,
}

/// How far apart two clocks of the same machine may be read.
const SLACK: Duration = Duration::from_micros(1);

impl Join {
    /// Takes in what the limiter says; on the clock of the kernel's stalls.
    pub(super) fn limiter(&mut self, stalls: &[Stall]) {
        for stall in stalls {
            self.waiting.entry(stall.vcpu).or_default().push_back(*stall);
        }
    }

    /// What the limiter says of the stall of `vcpu` from `exit` to `end`; asked for in the order of time.
    pub(super) fn find(&mut self, vcpu: usize, exit: Duration, end: Duration) -> Option<Stall> {
        let waiting = self.waiting.get_mut(&vcpu)?;
        while waiting.front().is_some_and(|stall| stall.at + SLACK < exit) {
            waiting.pop_front();
        }
        waiting.pop_front_if(|stall| stall.at <= end)
    }
}

/// Of a pause that the limiter asked for, the part that was slept: a sleep can be cut short.
pub(super) fn asked_part(stall: &Stall) -> Duration {
    stall.asked.min(stall.slept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KernelStall;

    const US: Duration = Duration::from_micros(1);

    fn own(vcpu: usize, at: u32, asked: u32, slept: u32) -> Stall {
        Stall {
            vcpu,
            at: at * US,
            length: slept * US,
            asked: asked * US,
            slept: slept * US,
        }
    }

    #[test]
    fn a_stall_is_matched_by_the_time_of_its_exit() {
        let mut join = Join::default();
        join.limiter(&[own(0, 103, 50, 60), own(1, 104, 9, 9), own(0, 303, 70, 20)]);
        let mut asked =
            |vcpu, exit: u32, end: u32| join.find(vcpu, exit * US, end * US).map(|stall| stall.asked / 1000);
        assert_eq!(asked(0, 100, 170), Some(50 * US / 1000));
        assert_eq!(asked(0, 200, 210), None, "a kick that throttled nobody");
        assert_eq!(asked(0, 300, 330), Some(70 * US / 1000));
        assert_eq!(asked(1, 100, 120), Some(9 * US / 1000));
        assert_eq!(asked(2, 100, 120), None);
    }

    #[test]
    fn what_the_kernel_lost_is_skipped() {
        let mut join = Join::default();
        join.limiter(&[own(0, 103, 50, 60), own(0, 303, 70, 70)]);
        assert_eq!(join.find(0, 300 * US, 400 * US), Some(own(0, 303, 70, 70)));
    }

    #[test]
    fn a_sleep_cut_short_asks_for_no_more_than_it_slept() {
        assert_eq!(asked_part(&own(0, 1, 70, 20)), 20 * US);
        assert_eq!(asked_part(&own(0, 1, 50, 60)), 50 * US);
        let stall = KernelStall {
            vcpu: 0,
            at: US,
            length: 85 * US,
            asked: Some(50 * US),
        };
        assert_eq!(stall.overhead(), Some(35 * US));
        assert_eq!(KernelStall { asked: None, ..stall }.overhead(), None);
    }
}
