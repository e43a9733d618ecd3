//! A timeline, read back packet by packet.

use std::{path::Path, time::Duration};

use prost::Message;

use super::{
    wire::{Event, Kind, Packet, Track},
    *,
};
use crate::{
    engine::{cell::Sink as _, sink::Discard},
    model::{Sample, Stall},
};

/// `Trace`.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<Packet>,
}

fn read(path: &Path) -> (Vec<Track>, Vec<(u64, Event)>) {
    let bytes = std::fs::read(path).expect("the file");
    let trace = Trace::decode(bytes.as_slice()).expect("a trace");
    let (tracks, events): (Vec<_>, Vec<_>) = trace
        .packet
        .into_iter()
        .partition(|packet| packet.track_descriptor.is_some());
    let tracks = tracks
        .into_iter()
        .filter_map(|packet| packet.track_descriptor)
        .collect();
    let event = |packet: Packet| Some((packet.timestamp?, packet.track_event?));
    (tracks, events.into_iter().filter_map(event).collect())
}

#[test]
fn a_cell_is_shown_from_its_first_sample_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("cell.pftrace");
    let timeline = Timeline::create(&path).expect("a new file");
    let mut discard = Discard;
    let mut sink = WithTimeline::new(&mut discard, Some(timeline), "a cell").expect("it is written");
    let sample = |t_s, quota| Sample {
        vcpu: 3,
        t_s,
        quota_mib_s: quota,
        ring_mib_s: Some(40.0),
        guest_mib_s: None,
        ..Sample::default()
    };
    sink.samples(&[sample(-1.5, None)]).expect("it is written");
    sink.samples(&[sample(0.5, Some(25.0))]).expect("it is written");
    let millis = Duration::from_millis;
    let stall = Stall {
        vcpu: 3,
        at: millis(250),
        length: millis(40),
        asked: millis(30),
        slept: millis(31),
    };
    sink.stalls(0, &(millis(0)..millis(1000)), &[stall])
        .expect("it is written");

    let (tracks, events) = read(&path);
    let name = |uuid: Option<u64>| {
        let track = tracks.iter().find(|track| track.uuid == uuid).expect("it is described");
        let process = track
            .process
            .as_ref()
            .and_then(|process| process.process_name.as_deref());
        process.or(track.name.as_deref()).expect("it has a name")
    };
    assert_eq!(
        tracks.len(),
        4,
        "a process, two counters and the pauses: what is not known is not shown"
    );
    for track in tracks.iter().filter(|track| track.process.is_none()) {
        assert_eq!(name(track.parent_uuid), "a cell");
    }
    let of = |what: &str| -> Vec<(u64, &Event)> {
        let own = events.iter().filter(|(_, event)| name(event.track_uuid) == what);
        own.map(|(at, event)| (*at, event)).collect()
    };
    let limits: Vec<_> = of("vCPU 3 limit")
        .iter()
        .map(|(at, event)| (*at, event.double_counter_value))
        .collect();
    assert_eq!(limits, [(0, Some(0.0)), (2_000_000_000, Some(25.0))]);
    let pauses = of("vCPU 3 pauses");
    let begin_and_end: Vec<_> = pauses.iter().map(|(at, event)| (*at, event.r#type())).collect();
    assert_eq!(
        begin_and_end,
        [(1_750_000_000, Kind::SliceBegin), (1_790_000_000, Kind::SliceEnd)]
    );
    let figures = &pauses[0].1.debug_annotations;
    assert_eq!((figures[0].name(), figures[0].double_value()), ("asked_us", 30_000.0));
}

#[test]
fn a_file_is_never_overwritten() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("mine");
    std::fs::write(&path, "precious").expect("a file");
    let error = Timeline::create(&path).expect_err("it exists").to_string();
    assert!(error.contains("mine") && error.contains("--timeline"), "{error}");
}
