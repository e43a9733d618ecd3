//! Pauses of a vCPU: by the limiter's books, and as the kernel saw them.

use std::time::Duration;

/// One pause of a vCPU: from an exit that throttled it to its next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Index of the vCPU.
    pub vcpu: usize,
    /// When the exit happened, since the target started.
    pub at: Duration,
    /// Exit to next entry.
    pub length: Duration,
    /// The part of it that was asked for.
    pub asked: Duration,
    /// The part of it that was slept.
    pub slept: Duration,
}

impl Stall {
    /// The same on a clock that began at `zero` of the present one. One that had begun before is cut to what came since.
    #[must_use]
    pub(crate) fn since(self, zero: Duration) -> Self {
        Self {
            at: self.at.saturating_sub(zero),
            length: self.length.saturating_sub(zero.saturating_sub(self.at)),
            ..self
        }
    }
}

/// One pause of a vCPU as the kernel saw it: from the return of `KVM_RUN` to the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelStall {
    /// Index of the vCPU.
    pub vcpu: usize,
    /// When `KVM_RUN` returned, on the cell's clock.
    pub at: Duration,
    /// Return to next entry.
    pub length: Duration,
    /// The part that the limiter asked for and that was slept; `None` where the limiter tells nothing of it.
    pub asked: Option<Duration>,
}

impl KernelStall {
    /// The part that nobody asked for: harvest, reset, and the lateness of the wake-up.
    pub fn overhead(&self) -> Option<Duration> {
        Some(self.length.saturating_sub(self.asked?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_that_follow_each_other_do_not_overlap_on_another_clock() {
        let millis = Duration::from_millis;
        let stall = |at, length| Stall {
            vcpu: 0,
            at: millis(at),
            length: millis(length),
            asked: Duration::ZERO,
            slept: Duration::ZERO,
        };
        assert_eq!(stall(90, 15).since(millis(100)), stall(0, 5));
        assert_eq!(stall(106, 5).since(millis(100)), stall(6, 5));
        assert_eq!(stall(80, 15).since(millis(100)), stall(0, 0));
    }
}
