//! Writes a timeline as it happens.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use prost::Message;

use super::wire::{Annotation, Counter, Event, Kind, Packet, Process, Track};
use crate::model::Stall;

/// Any number but 0, the same in all packets: there is one writer.
const SEQUENCE: u32 = 1;
/// The field of `Trace` that packets are, as protobuf writes it: number 1, delimited by its length.
const PACKET_FIELD: u8 = 1 << 3 | 2;

/// A timeline being written.
#[derive(Debug)]
pub struct Timeline {
    file: BufWriter<File>,
    /// The tracks there are, by process, vCPU and what they show.
    tracks: BTreeMap<(u32, Option<u32>, &'static str), u64>,
}

/// What is shown of one vCPU, or of a VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) process: u32,
    pub(super) vcpu: Option<u32>,
    pub(super) what: &'static str,
}

impl Timeline {
    /// Begins one in a file that must not exist.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.with_context(|| {
            format!(
                "can't make the timeline `{}`: it must not exist, and its folder must; give another file with --timeline",
                path.display()
            )
        })?;
        Ok(Self {
            file: BufWriter::new(file),
            tracks: BTreeMap::new(),
        })
    }

    /// Names a process, before anything of it is shown.
    pub(super) fn process(&mut self, process: u32, name: &str) -> anyhow::Result<()> {
        let (uuid, is_new) = self.uuid((process, None, ""));
        if !is_new {
            return Ok(());
        }
        self.describe(Track {
            uuid: Some(uuid),
            process: Some(Process {
                pid: i32::try_from(process).ok(),
                process_name: Some(name.to_owned()),
            }),
            ..Track::default()
        })
    }

    /// A span of time, with figures that explain it.
    pub(super) fn span(
        &mut self,
        row: Row,
        name: &str,
        (from, length): (Duration, Duration),
        figures: &[(&str, f64)],
    ) -> anyhow::Result<()> {
        let track = self.track(row, None)?;
        let annotation = |&(name, value): &(&str, f64)| Annotation {
            name: Some(name.to_owned()),
            double_value: Some(value),
        };
        let begin = Event {
            r#type: Some(Kind::SliceBegin.into()),
            track_uuid: Some(track),
            name: Some(name.to_owned()),
            debug_annotations: figures.iter().map(annotation).collect(),
            ..Event::default()
        };
        let end = Event {
            r#type: Some(Kind::SliceEnd.into()),
            track_uuid: Some(track),
            ..Event::default()
        };
        self.event(from, begin)?;
        self.event(from + length, end)
    }

    /// A pause that the limiter made, from `at` on.
    pub(super) fn pause(&mut self, row: Row, at: Duration, pause: &Stall) -> anyhow::Result<()> {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let figures = [("asked_us", micros(pause.asked)), ("slept_us", micros(pause.slept))];
        self.span(row, "pause", (at, pause.length), &figures)
    }

    /// A figure from `at` on, in `unit`.
    pub(super) fn count(&mut self, row: Row, unit: &str, at: Duration, value: f64) -> anyhow::Result<()> {
        let track = self.track(row, Some(unit))?;
        self.event(
            at,
            Event {
                r#type: Some(Kind::Counter.into()),
                track_uuid: Some(track),
                double_counter_value: Some(value),
                ..Event::default()
            },
        )
    }

    /// Hands everything to the operating system: it survives the death of this process.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.file.flush().context("can't write the timeline")
    }

    fn track(&mut self, row: Row, unit: Option<&str>) -> anyhow::Result<u64> {
        let (uuid, is_new) = self.uuid((row.process, row.vcpu, row.what));
        if is_new {
            let (parent, _) = self.uuid((row.process, None, ""));
            self.describe(Track {
                uuid: Some(uuid),
                name: Some(match row.vcpu {
                    Some(vcpu) => format!("vCPU {vcpu} {}", row.what),
                    None => row.what.to_owned(),
                }),
                parent_uuid: Some(parent),
                counter: unit.map(|unit| Counter {
                    unit_name: Some(unit.to_owned()),
                }),
                process: None,
            })?;
        }
        Ok(uuid)
    }

    fn uuid(&mut self, key: (u32, Option<u32>, &'static str)) -> (u64, bool) {
        let next = self.tracks.len() as u64 + 1;
        match self.tracks.entry(key) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(free) => (*free.insert(next), true),
        }
    }

    fn describe(&mut self, track: Track) -> anyhow::Result<()> {
        self.packet(&Packet {
            track_descriptor: Some(track),
            ..Packet::default()
        })
    }

    fn event(&mut self, at: Duration, event: Event) -> anyhow::Result<()> {
        self.packet(&Packet {
            timestamp: Some(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)),
            track_event: Some(event),
            ..Packet::default()
        })
    }

    fn packet(&mut self, packet: &Packet) -> anyhow::Result<()> {
        let packet = Packet {
            trusted_packet_sequence_id: Some(SEQUENCE),
            ..packet.clone()
        };
        let mut bytes = vec![PACKET_FIELD];
        bytes.extend(packet.encode_length_delimited_to_vec());
        self.file.write_all(&bytes).context("can't write the timeline")
    }
}
