//! Which signal stops a vCPU thread: one that it leaves unblocked and that does no harm when it gets through.
//!
//! It gets through if the limiter dies between the eBPF program's signal and the stop. So the best one is ignored by
//! default and has no handler: nothing happens then. QEMU's vCPU threads block all of those and leave their kick open,
//! SIGUSR1: there a signal of ours that arrives is a spare kick.

use std::ops::RangeInclusive;

use dirtyrig_probes::identity::proc_text;
use nix::libc::{SIGURG, SIGUSR1, SIGUSR2, SIGWINCH};

/// Ignored by default.
const HARMLESS: [i32; 2] = [SIGURG, SIGWINCH];
/// What VMMs kick their vCPUs with: before them come the two of QEMU's kind, then the real-time ones.
const KICKS: [i32; 2] = [SIGUSR1, SIGUSR2];
/// The first real-time signal that a C library leaves to programs, and the last.
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// The signal for a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopSignal {
    pub(super) number: i32,
    /// Whether the VMM kicks with it. Two that are pending at once become one, so a kick may hide behind one of ours:
    /// then each is passed on, ours as well.
    pub(super) is_kick: bool,
}

impl StopSignal {
    /// For a vCPU that nobody is to stop.
    pub(super) const NONE_SENT: Self = Self {
        number: HARMLESS[0],
        is_kick: false,
    };
}

/// What a thread does with signals, a bit each: signal 1 is bit 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Masks {
    pub(super) blocked: u64,
    pub(super) caught: u64,
}

impl Masks {
    /// Those of a thread; `None` if it is gone.
    pub(super) fn of(process: u32, thread: u32) -> Option<Self> {
        Self::parse(&proc_text(format!("/proc/{process}/task/{thread}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let mask = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Self {
            blocked: mask("SigBlk:")?,
            caught: mask("SigCgt:")?,
        })
    }

    /// The signal to stop such a thread with, if there is one.
    pub(super) fn choose(self) -> Option<StopSignal> {
        let has = |mask: u64, number: i32| mask >> (number - 1) & 1 == 1;
        let harmless = HARMLESS
            .into_iter()
            .find(|&number| !has(self.blocked, number) && !has(self.caught, number))
            .map(|number| StopSignal { number, is_kick: false });
        let kick = || {
            KICKS
                .into_iter()
                .chain(REAL_TIME)
                .find(|&number| !has(self.blocked, number) && has(self.caught, number))
                .map(|number| StopSignal { number, is_kick: true })
        };
        harmless.or_else(kick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(blocked: u64, caught: u64) -> Masks {
        Masks { blocked, caught }
    }

    #[test]
    fn masks_are_read_from_status() {
        let status = "Name:\tCPU 0/KVM\nTracerPid:\t0\nSigPnd:\t0000000000000000\nSigBlk:\tfffffffe7ffbfe77\n\
                      SigIgn:\t0000000000001000\nSigCgt:\t0000000100004243\n";
        assert_eq!(Masks::parse(status), Some(masks(0xffff_fffe_7ffb_fe77, 0x1_0000_4243)));
        assert_eq!(Masks::parse("Name:\tx\n"), None);
    }

    #[test]
    fn one_that_is_ignored_anyway_is_best() {
        let urgent = StopSignal {
            number: 23,
            is_kick: false,
        };
        assert_eq!(masks(0, 0).choose(), Some(urgent));
        assert_eq!(
            masks(0, 1 << 33).choose(),
            Some(urgent),
            "a real-time kick is left alone"
        );
        let window = StopSignal {
            number: 28,
            is_kick: false,
        };
        assert_eq!(masks(1 << 22, 0).choose(), Some(window), "SIGURG is blocked");
        assert_eq!(masks(0, 1 << 22).choose(), Some(window), "SIGURG has a handler");
    }

    #[test]
    fn else_it_is_the_kick_that_the_vmm_leaves_open() {
        let all_but = |number: i32| !(1 << (number - 1));
        let kick = |number| Some(StopSignal { number, is_kick: true });
        assert_eq!(masks(all_but(10), 1 << 9).choose(), kick(10));
        assert_eq!(masks(all_but(34), 1 << 33).choose(), kick(34));
        assert_eq!(masks(all_but(10), 0).choose(), None, "without a handler it would kill");
        assert_eq!(masks(u64::MAX, u64::MAX).choose(), None);
    }

    proptest::proptest! {
        #[test]
        fn any_status_has_masks_or_none(line in ".{0,40}", mask in "[0-9a-fx ]{0,20}") {
            for status in [line.clone(), format!("{line}\nSigBlk:\t{mask}\nSigCgt:{line}"), format!("SigBlk:{mask}\nSigCgt:{mask}")] {
                if let Some(masks) = Masks::parse(&status) {
                    let _ = masks.choose();
                }
            }
        }

        #[test]
        fn whatever_is_chosen_is_open_and_harms_nobody(blocked: u64, caught: u64) {
            if let Some(StopSignal { number, is_kick }) = masks(blocked, caught).choose() {
                let bit = 1 << (number - 1);
                proptest::prop_assert_eq!((blocked & bit, caught & bit != 0), (0, is_kick));
            }
        }
    }
}
