//! A real QEMU, whose rings are reset by a thread of its own: second by second the probes count what the guest counts.

use std::time::Duration;

use dirtyrig_guests::{
    Program, Region,
    boot::{BootVcpu, elf},
    image::REGION_BASE,
};
use dirtyrig_probes::{Options, Probes, Target, VcpuCounters};
use dirtyrig_rig::qemu::{
    binary::Binary,
    process::{Launch, Qemu},
};
use libtest_mimic::Failed;
use serde_json::json;

use super::support::wait_until;

const INTERVAL: Duration = Duration::from_secs(1);
const INTERVALS: u32 = 2;
/// A host that is busy may take long between the guest's counter and the probes' reading: such a reading is taken again.
const TRIES: u32 = 100;

/// What a vCPU had dirtied: by its own counter before and after the probes were read, and by the probes.
struct Reading {
    least: u64,
    most: u64,
    seen: VcpuCounters,
}

pub(crate) fn every_second_is_right() -> Result<(), Failed> {
    for (ring, vcpus) in [(65_536, 1), (4096, 2), (1024, 1)] {
        let qemu = start(ring, vcpus)?;
        // A limit too high to throttle turns dirty logging on, and keeps it on.
        qemu.connect()?
            .execute("set-vcpu-dirty-limit", &json!({"dirty-rate": 100_000}))?;
        let mut probes = Probes::attach(&Options::new(Target::Pid(qemu.pid())))?;
        wait_until("pages are logged", || {
            let seen = probes.vcpus()?;
            Ok(seen.len() == vcpus && seen.iter().all(|vcpu| vcpu.pushed_pages > 0 && vcpu.vcpu.is_some()))
        })?;
        let mut then = readings(&mut probes, &qemu, vcpus)?;
        for _ in 0..INTERVALS {
            std::thread::sleep(INTERVAL);
            let now = readings(&mut probes, &qemu, vcpus)?;
            for (vcpu, (then, now)) in then.iter().zip(&now).enumerate() {
                agree(then, now, &format!("ring {ring}, vCPU {vcpu} of {vcpus}"));
            }
            then = now;
        }
    }
    Ok(())
}

fn start(ring: u32, vcpus: usize) -> Result<Qemu, Failed> {
    // Each write meets a page that was reset: a region is larger than a ring.
    let pages = u64::from(ring) + 512;
    let boot: Vec<BootVcpu> = (0..vcpus as u64)
        .map(|vcpu| BootVcpu {
            program: Program::Sequential,
            region: Region {
                gpa: REGION_BASE + vcpu * pages * 4096,
                pages,
            },
            seed: vcpu + 1,
        })
        .collect();
    let launch = Launch {
        image: &elf(&boot, None, 2_000_000_000)?,
        vcpus,
        memory_mib: (REGION_BASE + vcpus as u64 * pages * 4096).div_ceil(1 << 20) + 1,
        ring_entries: ring,
    };
    Ok(Qemu::start(&Binary::find(None)?, launch)?)
}

fn readings(probes: &mut Probes, qemu: &Qemu, vcpus: usize) -> Result<Vec<Reading>, Failed> {
    let written = || (0..vcpus).map(|vcpu| qemu.truth(vcpu).written).collect::<Vec<_>>();
    let mut best: Option<(u64, Vec<Reading>)> = None;
    for _ in 0..TRIES {
        probes.drain(|_| {})?;
        let least = written();
        let seen = probes.vcpus()?;
        let most = written();
        let readings = seen.into_iter().filter_map(|seen| {
            let vcpu = seen.vcpu?.kvm_id()? as usize;
            Some(Reading {
                least: least[vcpu],
                most: most[vcpu],
                seen,
            })
        });
        let readings: Vec<_> = readings.collect();
        assert_eq!(readings.len(), vcpus, "every vCPU is seen");
        let widest = readings.iter().map(|reading| reading.most - reading.least).max();
        let widest = widest.unwrap_or_default();
        if best.as_ref().is_none_or(|(best, _)| widest < *best) {
            best = Some((widest, readings));
        }
        if widest <= 32 {
            break;
        }
    }
    Ok(best.expect("at least one was taken").1)
}

/// Within 2 % or 64 pages of what the guest counts.
fn agree(then: &Reading, now: &Reading, whose: &str) {
    let (least, most) = (now.least.saturating_sub(then.most), now.most - then.least);
    let apart = |pages: u64| (pages / 50).max(64);
    let pages = now.seen.pushed_pages - then.seen.pushed_pages;
    assert!(
        (least.saturating_sub(apart(least))..=most + apart(most)).contains(&pages),
        "{whose}: {pages} pages in an interval in which the guest counted {least} to {most}"
    );
    assert!(pages > 0, "{whose} writes all the time");
}
