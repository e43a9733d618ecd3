//! A dirty trace as CSV and as Parquet, in Python's `csv` and in pyarrow; and a timeline of a real run, in Perfetto's own bindings.

use std::{path::Path, process::Command};

use dirtyrig_probes::monotonic_now;
use dirtyrig_rig::trace::{Head, Write, Writer};
use dirtyrig_testkit::{Need, trial};
use libtest_mimic::{Failed, Trial};

use super::python;

pub(crate) fn trials() -> Vec<Trial> {
    const PYTHON: &[Need] = &[Need::PythonReaders];
    const PYTHON_AND_QEMU: &[Need] = &[Need::Qemu, Need::Bpf, Need::PythonReaders];
    const PYTHON_AND_KVM: &[Need] = &[Need::Kvm, Need::PythonReaders];
    vec![
        trial("csv reads an exported trace", PYTHON, || exported("csv", ROWS)),
        trial("pyarrow reads an exported trace", PYTHON, || {
            exported("parquet", PARQUET)
        }),
        trial("Perfetto reads the timeline of a run", PYTHON_AND_KVM, || {
            let run = [
                "run",
                "--limiter",
                "budget",
                "--quota",
                "5",
                "--memory",
                "64",
                "--probes",
                "off",
            ];
            let length = ["--warm-up", "500ms", "--duration", "3s"];
            timeline(&[run.as_slice(), &length].concat(), RUN)
        }),
        trial("Perfetto reads the timeline of a migration", PYTHON_AND_QEMU, || {
            let link = ["migrate", "--vmm", "qemu", "--memory", "64", "--bandwidth", "48MiB/s"];
            let promise = ["--within", "9s", "--downtime", "400ms"];
            timeline(&[link.as_slice(), &promise].concat(), MIGRATION)
        }),
    ]
}

/// More than a group of rows of Parquet.
const WRITES: u64 = 300_000;

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
    for at_ns in 0..WRITES {
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
assert len(rows) == 300_000 and all(row["address_space"] == "1" and row["slot"] == "3" for row in rows)
rows.sort(key=lambda row: int(row["at_ns"]))
assert [int(row["page"]) for row in rows] == [7 * at for at in range(300_000)]
assert {(row["thread"], row["vcpu"]) for row in rows} == {("10", "0"), ("11", "")}
"#;

/// Unsigned columns under the names of the CSV, in two groups of rows.
const PARQUET: &str = r#"
import sys, pyarrow as pa, pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1])
assert file.metadata.num_row_groups == 2, file.metadata
said = file.metadata.metadata
assert (said[b"dirtyrig.lost_writes"], said[b"dirtyrig.started_utc"]) == (b"3", b"2026-01-01T00:00:00Z"), said
rows = file.read()
kinds = {name: rows.schema.field(name).type for name in rows.column_names}
assert kinds == dict(at_ns=pa.uint64(), thread=pa.uint32(), vcpu=pa.uint32(), address_space=pa.uint16(), slot=pa.uint16(),
                     page=pa.uint64()), kinds
rows = rows.sort_by("at_ns").to_pylist()
assert len(rows) == 300_000
for at, row in enumerate(rows):
    thread, vcpu = ((10, 0), (11, None))[at % 2]
    assert row == dict(at_ns=at, thread=thread, vcpu=vcpu, address_space=1, slot=3, page=7 * at), row
"#;

fn exported(format: &str, reader: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    trace(&dir.path().join("vm.trace"))?;
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["trace", "export", "vm.trace", "--format", format, "--out", "rows"])
        .current_dir(dir.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !said.contains("3 of 300003 writes could not be recorded") {
        return Err(said.into_owned().into());
    }
    let rows = dir.path().join("rows");
    python(reader, &[rows.to_str().ok_or("a plain path")?], b"").map(drop)
}

/// Every packet is known to Perfetto, field by field; slices of a row neither overlap nor stay open.
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
names, processes = {}, {}
for uuid, track in tracks.items():
    if track.parent_uuid:
        names[track.name] = uuid
        processes[track.name] = tracks[track.parent_uuid].process.process_name
def slices(name):
    of = events[names[name]]
    assert [event.type for _, event in of] == [TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END] * (len(of) // 2)
    assert [at for at, _ in of] == sorted(at for at, _ in of), f"slices of {name} overlap"
    return of
def counter(name, unit):
    assert tracks[names[name]].counter.unit_name == unit
    of = events[names[name]]
    assert len(of) > 10 and all(event.type == TrackEvent.TYPE_COUNTER for _, event in of), name
    return [event.double_counter_value for _, event in of]
pauses = slices("vCPU 0 pauses")
assert any(annotation.name == "asked_us" and annotation.double_value > 0 for _, event in pauses for annotation in event.debug_annotations)
"#;

/// Of a run.
const RUN: &str = r#"
assert set(processes.values()) == {"dirtyrig run"}, processes
for name in ["vCPU 0 ring reading", "vCPU 0 guest"]:
    counter(name, "MiB/s")
assert max(counter("vCPU 0 limit", "MiB/s")) == 5
print(len(pauses) // 2)
"#;

/// Of a migration: pass after pass without a gap, and then the guest is away.
const MIGRATION: &str = r#"
assert set(processes.values()) == {"dirtyrig"}, processes
passes = slices("passes")
numbers = [int(event.name.removeprefix("pass ")) for _, event in passes[::2]]
assert numbers == sorted(set(numbers)), numbers
assert all(end == next for (end, _), (next, _) in zip(passes[1::2], passes[2::2])), passes
[(away, event), _] = slices("guest")
assert event.name == "away, by QEMU's figure" and passes[0][0] < away < passes[-1][0], (away, passes[-1])
assert 0 < max(counter("quota", "MiB/s")) < 48 and 32 < max(counter("left", "MiB")) < 128
counter("sends", "MiB/s")
print(len(passes) // 2)
"#;

/// What it has counted on the timeline of a command, which is not none.
fn timeline(arguments: &[&str], reader: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(arguments)
        .args(["--out", "out", "--timeline", "its.pftrace"])
        .current_dir(dir.path())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let timeline = dir.path().join("its.pftrace");
    let counted = python(
        &[TIMELINE, reader].concat(),
        &[timeline.to_str().ok_or("a plain path")?],
        b"",
    )?;
    if counted.trim().parse::<u64>()? == 0 {
        return Err("there is nothing on it".into());
    }
    Ok(())
}
