//! What of a scenario a QEMU can do.

use std::time::Duration;

use dirtyrig_guests::image::REGION_BASE;
use dirtyrig_limiter::law::LimiterKind;

use super::{error::QemuError, version::Version};
use crate::scenario::spec::VmSpec;

/// QEMU's period, which can't be changed.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Where q35 stops to lay out memory without a hole: at the window of its PCI configuration space.
const MEMORY_END_MIB: u64 = 0xb000_0000 >> 20;

/// Whether the vCPUs of QEMU `version` can be held with `limiter`: its own, or the one that works from outside.
pub fn has_limiter(version: Version, limiter: LimiterKind) -> bool {
    is_from_outside(limiter) || limiter == LimiterKind::None || version.law() == Some(limiter)
}

/// Whether `limiter` holds a QEMU from outside.
pub fn is_from_outside(limiter: LimiterKind) -> bool {
    limiter == LimiterKind::BudgetEbpf
}

/// An error that names what QEMU `version` can't do of `spec`.
///
/// `tables_mib` is what the tables of a trace take beside its memory.
pub fn check(spec: &VmSpec, version: Version, tables_mib: u64) -> Result<(), QemuError> {
    let unable = |what: String, remedy: &str| {
        Err(QemuError::Unable {
            what,
            remedy: remedy.to_owned(),
        })
    };
    if let Some(own) = version.law()
        && !has_limiter(version, spec.limiter.kind)
    {
        return Err(QemuError::OtherLimiter {
            asked: spec.limiter.kind,
            own,
            name: format!("QEMU {version}"),
        });
    }
    if spec.limiter.period != PERIOD {
        let asked = humantime::format_duration(spec.limiter.period);
        return unable(
            format!("a period of {asked}"),
            "its own is fixed; leave `--period` out, or give 1s",
        );
    }
    if spec.plugged < spec.vcpus {
        return unable(
            format!("{} of {} vCPUs plugged", spec.plugged, spec.vcpus),
            "leave `--plugged` out, or use `--vmm rig`",
        );
    }
    if spec.thp {
        return unable("huge pages".to_owned(), "leave `--thp` out, or use `--vmm rig`");
    }
    let most = (MEMORY_END_MIB - (REGION_BASE >> 20)).saturating_sub(tables_mib);
    if spec.memory_mib > most {
        return unable(
            format!("{} MiB of memory without a hole", spec.memory_mib),
            &format!("give `--memory {most}` or less"),
        );
    }
    Ok(())
}
