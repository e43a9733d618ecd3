//! The limiters by name.

use std::{fmt, str::FromStr};

use super::{periodic::PeriodicLaw, qemu_7_2::Qemu72, qemu_10::Qemu10, qemu_v11::QemuV11};

/// A limiter: a law and the enforcement that it is paired with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimiterKind {
    /// QEMU's patch series v11.
    QemuV11,
    /// QEMU 7.2.
    Qemu72,
    /// QEMU 10.
    Qemu10,
    /// QEMU's auto-converge.
    AutoConverge,
    /// The unmerged dirty-quota series.
    DirtyQuota,
    /// The token bucket, enforced by deadline exits.
    Budget,
    /// The token bucket, enforced by an eBPF program.
    BudgetEbpf,
    /// The token bucket, enforced by holding entries of the ring back.
    Ballast,
    /// No limiter.
    None,
}

impl LimiterKind {
    /// All of them, in the order in which they are listed to a reader.
    pub const ALL: [Self; 9] = [
        Self::QemuV11,
        Self::Qemu72,
        Self::Qemu10,
        Self::AutoConverge,
        Self::DirtyQuota,
        Self::Budget,
        Self::BudgetEbpf,
        Self::Ballast,
        Self::None,
    ];

    /// The name on the command line, in scenarios and in recordings.
    pub fn name(self) -> &'static str {
        match self {
            Self::QemuV11 => "qemu-v11",
            Self::Qemu72 => "qemu-7.2",
            Self::Qemu10 => "qemu-10",
            Self::AutoConverge => "auto-converge",
            Self::DirtyQuota => "dirty-quota",
            Self::Budget => "budget",
            Self::BudgetEbpf => "budget-ebpf",
            Self::Ballast => "ballast",
            Self::None => "none",
        }
    }

    /// What it does, in a line.
    pub fn description(self) -> &'static str {
        match self {
            Self::QemuV11 => "QEMU's patch series v11: sleep after a full ring, two threads, acts on every second miss",
            Self::Qemu72 => "QEMU 7.2: sleep after a full ring, one thread, the kick of each period ends the sleep",
            Self::Qemu10 => "QEMU 10: as 7.2, but the sleep runs its course and the measurement waits for it",
            Self::AutoConverge => "QEMU's auto-converge: every vCPU sleeps 20 to 99 % of the time, readers too",
            Self::DirtyQuota => "the unmerged kernel series: pages for each 10 ms, what is left goes to a common pool",
            Self::Budget => "token bucket in pages; a timer takes the vCPU out of the guest to be charged",
            Self::BudgetEbpf => "token bucket in pages; an eBPF program stops the vCPU on the page that spends it",
            Self::Ballast => "token bucket in pages; entries held back make the ring full after as many as are wanted",
            Self::None => "no limit: what the guest does when left alone",
        }
    }

    /// Whether it can hold all vCPUs together to one quota. QEMU's laws and the dirty quota know vCPUs only.
    pub fn limits_whole_vm(self) -> bool {
        match self {
            Self::AutoConverge | Self::Budget | Self::BudgetEbpf | Self::Ballast => true,
            Self::QemuV11 | Self::Qemu72 | Self::Qemu10 | Self::DirtyQuota | Self::None => false,
        }
    }

    /// The law that adjusts a sleep after ring-full exits, for rings of `ring_entries`; `None` for limiters of another
    /// kind.
    pub fn periodic_law(self, ring_entries: u32) -> Option<Box<dyn PeriodicLaw>> {
        match self {
            Self::QemuV11 => Some(Box::new(QemuV11::new(ring_entries))),
            Self::Qemu72 => Some(Box::new(Qemu72::new(ring_entries))),
            Self::Qemu10 => Some(Box::new(Qemu10::new(ring_entries))),
            Self::AutoConverge | Self::DirtyQuota | Self::Budget | Self::BudgetEbpf | Self::Ballast | Self::None => {
                None
            }
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
            "there is no limiter `qemu`: give one of qemu-v11, qemu-7.2, qemu-10, auto-converge, dirty-quota, budget, \
             budget-ebpf, ballast, none"
        );
    }

    #[test]
    fn the_laws_of_qemu_differ_in_how_they_are_built() {
        use crate::law::periodic::{Policy, RingFullReap, SleepEnd, Threads};

        let policy = |kind: LimiterKind| kind.periodic_law(4096).map(|law| law.policy());
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
        assert_eq!(policy(LimiterKind::QemuV11), Some(split));
        assert_eq!(policy(LimiterKind::Qemu72), Some(merged));
        assert_eq!(policy(LimiterKind::Qemu10), Some(runs_out));
        assert_eq!(policy(LimiterKind::Budget), None);
    }
}
