//! Recordings that are read, made here without running anything.

use std::{path::Path, time::Duration};

use dirtyrig_rig::{
    model::{Sample, Stall, Summary},
    recording::{Manifest, Recorder},
};
use serde_json::{Map, json};

/// A recording with `count` repetitions of one cell, whose stalls lie about `level_us`.
pub(crate) fn repetitions(dir: &Path, count: u32, level_us: f64) {
    let manifest = Manifest::new(1, 0..count, Map::new(), json!({}));
    let mut recorder = Recorder::create(dir, manifest).expect("a new folder");
    for cell in 0..count {
        let sample = Sample {
            cell,
            ..Sample::default()
        };
        recorder.append_samples(&[sample]).expect("room");
        let level = level_us * (1.0 + 0.001 * f64::from(cell));
        for second in 0..3 {
            let interval = Duration::from_secs(second)..Duration::from_secs(second + 1);
            let stall = |micros| Stall {
                vcpu: 0,
                at: interval.start,
                length: Duration::from_secs_f64(micros / 1e6),
                asked: Duration::ZERO,
                slept: Duration::ZERO,
            };
            recorder
                .append_stalls(cell, &interval, &[stall(level), stall(2.0 * level)])
                .expect("room");
        }
        let row = Summary {
            cell,
            repetition: cell,
            vmm: "rig".to_owned(),
            limiter: "qemu-7.2".to_owned(),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(4096),
            period_ms: 500,
            vcpus: 1,
            quota_mib_s: Some(100.0),
            measured_s: 3.0,
            pauses: Some(6),
            stall_p50_us: Some(level),
            stall_p99_us: Some(2.0 * level),
            stall_p999_us: Some(2.0 * level),
            unlimited_mib_s: Some(1600.0),
            ..Summary::default()
        };
        recorder.append_summaries(cell, &[row]).expect("room");
    }
    recorder.finish().expect("room");
}
