//! A dirty trace as CSV, in Python's `csv`; and a timeline of a real run, in Perfetto's own bindings.

use std::{path::Path, process::Command};

use dirtyrig_probes::monotonic_now;
use dirtyrig_rig::trace::{Head, Write, Writer};
use dirtyrig_testkit::{Need, trial};
use libtest_mimic::{Failed, Trial};

use super::python;

pub(crate) fn trials() -> Vec<Trial> {
    const PYTHON: &[Need] = &[Need::PythonReaders];
    const PYTHON_AND_KVM: &[Need] = &[Need::Kvm, Need::PythonReaders];
    vec![
        trial("csv reads an exported trace", PYTHON, exported),
        trial("Perfetto reads the timeline of a run", PYTHON_AND_KVM, timeline),
    ]
}

fn trace(path: &Path) -> Result<(), Failed> {
    let head = Head {
        tool_version: "1.2.3".to_owned(),
        pid: 4711,
        process: "qemu".to_owned(),
        vcpus: vec![0, 1],
        started_utc: "2026-01-01T00:00:00Z".to_owned(),
        started_ns: 0,
    };
    let mut trace = Writer::create(path, &head)?;
    for at_ns in 0..1000 {
        let write = Write {
            at_ns,
            slot: 0x1_0003,
            page: at_ns * 7,
        };
        let vcpu = (at_ns % 2 == 0).then_some(0);
        trace.write(10 + at_ns as u32 % 2, vcpu, write)?;
    }
    trace.finish(3, monotonic_now())?;
    Ok(())
}

const ROWS: &str = r#"
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1], newline="")))
assert list(rows[0]) == ["at_ns", "thread", "vcpu", "address_space", "slot", "page"], rows[0]
assert len(rows) == 1000 and all(row["address_space"] == "1" and row["slot"] == "3" for row in rows)
rows.sort(key=lambda row: int(row["at_ns"]))
assert [int(row["page"]) for row in rows] == [7 * at for at in range(1000)]
assert {(row["thread"], row["vcpu"]) for row in rows} == {("10", "0"), ("11", "")}
"#;

fn exported() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    trace(&dir.path().join("vm.trace"))?;
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["trace", "export", "vm.trace", "--format", "csv", "--out", "vm.csv"])
        .current_dir(dir.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !said.contains("3 of 1003 writes could not be recorded") {
        return Err(said.into_owned().into());
    }
    let rows = dir.path().join("vm.csv");
    python(ROWS, &[rows.to_str().ok_or("a plain path")?], b"").map(drop)
}

/// Every packet is known to Perfetto, field by field; slices of a row neither overlap nor stay open; rates are there.
const TIMELINE: &str = r#"
import sys
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent
from google.protobuf.unknown_fields import UnknownFieldSet
trace = Trace()
trace.ParseFromString(open(sys.argv[1], "rb").read())
tracks, events = {}, {}
def known(message):
    assert len(UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        if field.message_type:
            for one in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
                known(one)
for packet in trace.packet:
    known(packet)
    assert packet.trusted_packet_sequence_id
    if packet.HasField("track_descriptor"):
        tracks[packet.track_descriptor.uuid] = packet.track_descriptor
    else:
        events.setdefault(packet.track_event.track_uuid, []).append((packet.timestamp, packet.track_event))
names = {}
for uuid, track in tracks.items():
    assert not track.parent_uuid or tracks[track.parent_uuid].process.process_name == "dirtyrig run", track
    names[track.name] = uuid
pauses = events[names["vCPU 0 pauses"]]
assert [event.type for _, event in pauses] == [TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END] * (len(pauses) // 2)
assert [at for at, _ in pauses] == sorted(at for at, _ in pauses), "slices overlap"
assert any(annotation.name == "asked_us" and annotation.double_value > 0 for _, event in pauses for annotation in event.debug_annotations)
for name in ["vCPU 0 limit", "vCPU 0 ring reading", "vCPU 0 guest"]:
    assert tracks[names[name]].counter.unit_name == "MiB/s"
    rates = events[names[name]]
    assert len(rates) > 10 and all(event.type == TrackEvent.TYPE_COUNTER for _, event in rates), name
assert max(event.double_counter_value for _, event in events[names["vCPU 0 limit"]]) == 50
print(len(pauses) // 2)
"#;

fn timeline() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args([
            "run",
            "--limiter",
            "budget",
            "--quota",
            "50",
            "--memory",
            "64",
            "--probes",
            "off",
        ])
        .args([
            "--warm-up",
            "500ms",
            "--duration",
            "3s",
            "--out",
            "out",
            "--timeline",
            "run.pftrace",
        ])
        .current_dir(dir.path())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let timeline = dir.path().join("run.pftrace");
    let pauses = python(TIMELINE, &[timeline.to_str().ok_or("a plain path")?], b"")?;
    if pauses.trim().parse::<u64>()? == 0 {
        return Err("it has no pause".into());
    }
    Ok(())
}
