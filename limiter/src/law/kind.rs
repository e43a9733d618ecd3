//! The limiters by name.

use std::{fmt, str::FromStr};

use super::{
    auto_converge, budget,
    descriptor::{Bounds, Descriptor, Enforced, Law},
    dirty_quota,
    periodic::{PeriodicLaw, Policy},
    qemu_7_2, qemu_10, qemu_v11, ring_sleep,
};

/// The table of limiters: a line each, its variant and its descriptor, in the order in which they are listed to a reader.
macro_rules! limiters {
    ($($(#[$words:meta])* $kind:ident = $descriptor:expr;)*) => {
        /// A limiter: a law and the enforcement that it is paired with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum LimiterKind {
            $($(#[$words])* $kind,)*
        }

        impl LimiterKind {
            /// All of them, in the order in which they are listed to a reader.
            pub const ALL: [Self; [$(stringify!($kind)),*].len()] = [$(Self::$kind),*];

            /// All there is to say of it.
            pub(crate) fn descriptor(self) -> &'static Descriptor {
                match self {
                    $(Self::$kind => &$descriptor,)*
                }
            }
        }
    };
}

limiters! {
    /// QEMU's patch series v11.
    QemuV11 = qemu_v11::QEMU_V11;
    /// QEMU 7.2.
    Qemu72 = qemu_7_2::QEMU_7_2;
    /// QEMU 10.
    Qemu10 = qemu_10::QEMU_10;
    /// The sleep after a full ring, computed instead of stepped.
    RingSleep = ring_sleep::RING_SLEEP;
    /// QEMU's auto-converge.
    AutoConverge = auto_converge::AUTO_CONVERGE;
    /// The unmerged dirty-quota series.
    DirtyQuota = dirty_quota::DIRTY_QUOTA;
    /// The token bucket, enforced by deadline exits.
    Budget = budget::BUDGET;
    /// The token bucket, enforced by an eBPF program.
    BudgetEbpf = budget::BUDGET_EBPF;
    /// The token bucket, enforced by holding entries of the ring back.
    Ballast = budget::BALLAST;
    /// No limiter.
    None = NONE;
}

const NONE: Descriptor = Descriptor {
    name: "none",
    description: "no limit: what the guest does when left alone",
    law: Law::Nothing,
    enforced: Enforced::AtFullRing,
    policy: Policy::UNLIMITED,
    bounds: Bounds::NONE,
    limits_whole_vm: false,
};

impl LimiterKind {
    /// The name on the command line, in scenarios and in recordings.
    pub fn name(self) -> &'static str {
        self.descriptor().name
    }

    /// What it does, in a line.
    pub fn description(self) -> &'static str {
        self.descriptor().description
    }

    /// What bounds the rates that it can hold.
    pub fn bounds(self) -> Bounds {
        self.descriptor().bounds
    }

    /// Whether it can hold all vCPUs together to one quota. QEMU's laws and the dirty quota know vCPUs only.
    pub fn limits_whole_vm(self) -> bool {
        self.descriptor().limits_whole_vm
    }

    /// Whether each vCPU needs a [page counter](crate::PageCounter).
    pub fn needs_page_counter(self) -> bool {
        self.descriptor().enforced == Enforced::ByPageCounter
    }

    /// Whether what a vCPU leaves of its quota is saved up for it in a bucket whose depth can be set. The pool of the dirty
    /// quota has no bound, and laws that sleep at a full ring know only what was dirtied since they last looked.
    pub fn saves_up(self) -> bool {
        matches!(self.descriptor().law, Law::Buckets)
    }

    /// The law that adjusts a sleep after ring-full exits, for rings of `ring_entries`; `None` for limiters of another
    /// kind.
    pub fn periodic_law(self, ring_entries: u32) -> Option<Box<dyn PeriodicLaw>> {
        match self.descriptor().law {
            Law::Periodic(make) => Some(make(ring_entries)),
            _ => None,
        }
    }
}

impl fmt::Display for LimiterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for LimiterKind {
    type Err = UnknownLimiter;

    fn from_str(text: &str) -> Result<Self, UnknownLimiter> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownLimiter { name: text.to_owned() })
    }
}

/// A name that is no limiter's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no limiter `{name}`: give one of {}", LimiterKind::ALL.map(LimiterKind::name).join(", "))]
pub struct UnknownLimiter {
    /// The name that was given.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for kind in LimiterKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert!(!kind.description().is_empty());
        }
        assert_eq!(format!("[{:>8}]", LimiterKind::None), "[    none]");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = "qemu".parse::<LimiterKind>().expect_err("no limiter");
        assert_eq!(
            error.to_string(),
            "there is no limiter `qemu`: give one of qemu-v11, qemu-7.2, qemu-10, ring-sleep, auto-converge, dirty-quota, \
             budget, budget-ebpf, ballast, none"
        );
    }

    #[test]
    fn the_laws_of_qemu_differ_in_how_they_are_built() {
        use crate::law::periodic::{RingFullReap, SleepEnd, Threads};

        let policy = |kind: LimiterKind| kind.descriptor().policy;
        let merged = Policy {
            threads: Threads::Merged,
            ring_full_reap: RingFullReap::OwnRing,
            reaper_beside: false,
            sleep_end: SleepEnd::KickEndsIt,
        };
        let runs_out = Policy {
            sleep_end: SleepEnd::RunsOut,
            ..merged
        };
        let split = Policy {
            threads: Threads::Split,
            ring_full_reap: RingFullReap::AllRings,
            reaper_beside: true,
            sleep_end: SleepEnd::KickEndsIt,
        };
        assert_eq!(policy(LimiterKind::QemuV11), split);
        assert_eq!(policy(LimiterKind::Qemu72), merged);
        assert_eq!(policy(LimiterKind::Qemu10), runs_out);
        assert_eq!(policy(LimiterKind::Budget), Policy::UNLIMITED);
    }
}
