//! The machine on real KVM.

mod support;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use dirtyrig_limiter::{law::LimiterKind, limit::Which, units::Quota};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{Small, block, eventually};

fn main() {
    const KVM: &[Need] = &[Need::Kvm];
    run(vec![
        trial("every_page_is_accounted_for", KVM, every_page_is_accounted_for),
        trial("probe_rates", KVM, probe_rates),
    ]);
}

fn every_page_is_accounted_for() -> Result<(), Failed> {
    for ring in [1024, 4096, 65536] {
        let machine = Small::new(ring, LimiterKind::None).build(None);
        machine.plug(0);
        eventually("the second ring-full exit", || machine.stats(0).ring_full_exits >= 2);
        machine.unplug(0);
        machine.flush()?;
        let written = block(&machine, 0).pages_written.load(Ordering::Acquire);
        let harvested = machine.harvested(0).0;
        assert!(
            harvested.abs_diff(written) <= 1,
            "ring {ring}: harvested {harvested}, written {written}"
        );
        machine.stop()?;
    }
    Ok(())
}

fn probe_rates() -> Result<(), Failed> {
    for (kind, ring, quota) in [
        (LimiterKind::None, 4096, 0.0),
        (LimiterKind::Qemu72, 4096, 50.0),
        (LimiterKind::QemuV11, 4096, 50.0),
        (LimiterKind::Qemu72, 16384, 25.0),
        (LimiterKind::Qemu10, 16384, 25.0),
    ] {
        let mut small = Small::new(ring, kind);
        small.period = Duration::from_secs(1);
        let machine = small.build(None);
        machine.plug(0);
        if quota > 0.0 {
            machine.limit().set(Which::All, Quota::new(quota)?)?;
        }
        let begin = Instant::now();
        let mut last = 0;
        eprintln!("{kind} ring {ring} quota {quota}");
        while begin.elapsed() < Duration::from_secs(12) {
            std::thread::sleep(Duration::from_secs(1));
            let now = block(&machine, 0).pages_written.load(Ordering::Relaxed);
            let stats = machine.stats(0);
            eprintln!(
                "  {:.0} MiB/s read {:?} throttle {:?} in guest {:?} full {}",
                (now - last) as f64 / 256.0,
                machine.limit().query().first().map(|info| info.current.0),
                machine.throttle(0),
                stats.in_guest,
                stats.ring_full_exits
            );
            last = now;
        }
        let end = Instant::now();
        machine.stop()?;
        eprintln!("  stopped in {:?}", end.elapsed());
    }
    Ok(())
}
