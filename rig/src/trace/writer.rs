//! Writes a trace as it happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use dirtyrig_probes::{Push, VcpuId};

use super::{
    Head, MAGIC, Slot, Tail, TraceError, VERSION, Write,
    block::{self, MAX_WRITES, OfThread},
};

/// A trace being recorded. What was flushed survives the death of this process.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    started: Duration,
    pending: BTreeMap<u32, Pending>,
    vcpus: BTreeSet<u32>,
    slots: BTreeMap<u32, u64>,
    written: u64,
    lost: u64,
    bytes: u64,
}

/// The writes of a thread that are not in the file yet.
#[derive(Debug, Default)]
struct Pending {
    vcpu: Option<u32>,
    writes: Vec<Write>,
}

impl Writer {
    /// Begins a trace in a file that must not exist.
    pub fn create(path: &Path, head: &Head) -> Result<Self, TraceError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => TraceError::Exists { path: path.to_owned() },
            _ => failed(path, source),
        })?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            started: Duration::from_nanos(head.started_ns),
            pending: BTreeMap::new(),
            vcpus: BTreeSet::new(),
            slots: BTreeMap::new(),
            written: 0,
            lost: 0,
            bytes: 0,
        };
        let json = serde_json::to_vec(head).expect("a head is a flat struct");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((json.len() as u32).to_le_bytes());
        bytes.extend(json);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        writer.append(&bytes)?;
        Ok(writer)
    }

    /// Takes in a page that was dirtied.
    pub fn push(&mut self, push: &Push) -> Result<(), TraceError> {
        let write = Write {
            at_ns: push.at.saturating_sub(self.started).as_nanos() as u64,
            slot: u32::from(push.address_space) << 16 | u32::from(push.slot),
            page: push.offset,
        };
        self.write(push.thread, push.vcpu.and_then(VcpuId::kvm_id), write)
    }

    /// Takes in a write of a thread, which is that of `vcpu` as far as is known by now.
    pub fn write(&mut self, thread: u32, vcpu: Option<u32>, write: Write) -> Result<(), TraceError> {
        let highest = self.slots.entry(write.slot).or_default();
        *highest = write.page.max(*highest);
        let pending = self.pending.entry(thread).or_default();
        pending.vcpu = vcpu.or(pending.vcpu);
        pending.writes.push(write);
        if pending.writes.len() >= MAX_WRITES {
            return self.flush_thread(thread);
        }
        Ok(())
    }

    /// Hands everything to the operating system, with the number of writes `lost` so far.
    pub fn flush(&mut self, lost: u64) -> Result<(), TraceError> {
        let threads: Vec<u32> = self.pending.keys().copied().collect();
        for thread in threads {
            self.flush_thread(thread)?;
        }
        if lost != self.lost {
            self.lost = lost;
            self.append(&block::framed(block::LOST, &lost.to_le_bytes()))?;
        }
        Ok(())
    }

    fn flush_thread(&mut self, thread: u32) -> Result<(), TraceError> {
        let Some(pending) = self
            .pending
            .get_mut(&thread)
            .filter(|pending| !pending.writes.is_empty())
        else {
            return Ok(());
        };
        self.vcpus.extend(pending.vcpu);
        self.written += pending.writes.len() as u64;
        let body = OfThread::encode(thread, pending.vcpu, &pending.writes);
        pending.writes.clear();
        self.append(&block::framed(block::WRITES, &body))
    }

    /// Ends the trace in good order, at `now` on the clock of its pushes.
    pub fn finish(mut self, lost: u64, now: Duration) -> Result<Finished, TraceError> {
        self.flush(lost)?;
        let tail = Tail {
            vcpus: self.vcpus.iter().copied().collect(),
            slots: (self.slots.iter())
                .map(|(&slot, &highest_page)| Slot { slot, highest_page })
                .collect(),
            writes: self.written,
            lost,
            ended_ns: now.saturating_sub(self.started).as_nanos() as u64,
        };
        let body = serde_json::to_vec(&tail).expect("a tail has only string keys");
        self.append(&block::framed(block::END, &body))?;
        let synced = self.file.sync_data();
        synced.map_err(|source| failed(&self.path, source))?;
        Ok(Finished {
            tail,
            bytes: self.bytes,
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        let appended = self.file.write_all(bytes);
        appended.map_err(|source| failed(&self.path, source))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// What became of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What it holds.
    pub tail: Tail,
    /// Size of the file.
    pub bytes: u64,
}

fn failed(path: &Path, source: io::Error) -> TraceError {
    TraceError::Io {
        operation: "write",
        path: path.to_owned(),
        source,
    }
}
