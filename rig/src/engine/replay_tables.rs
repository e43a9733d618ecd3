//! A trace in the guest's memory: a table for each vCPU, behind the region that is dirtied, and not logged.

use std::path::Path;

use anyhow::Context as _;
use dirtyrig_guests::{PAGE_SIZE, Region as Pattern, VcpuBlock, block::REPLAY_FOREVER};
use dirtyrig_machine::memory::{GuestMemory, Region};

use crate::trace::{Outline, Replay};

/// How far behind its trace a replay may fall and still catch up, as a fraction of a second: 100 ms, which is more than a
/// busy host takes a vCPU away for, so that what is lost there is made up; and less than what most throttles add up to, so
/// that a limited guest does not owe all that it was kept from.
const CATCH_UP_PER_SECOND: u64 = 10;

/// The same in ticks of a time-stamp counter of `tsc_hz`.
pub fn catch_up_ticks(tsc_hz: u64) -> u64 {
    tsc_hz / CATCH_UP_PER_SECOND
}

const ENTRY_BYTES: u64 = 8;
/// Entries that are written at a time.
const CHUNK: usize = 1 << 17;

/// Room for a trace.
pub(super) struct ReplayTables {
    outline: Outline,
    region: Region,
    data: Region,
}

/// Where the table of a vCPU lies.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    gpa: u64,
    entries: u64,
}

impl ReplayTables {
    /// Makes room behind `data` for the trace at `path`.
    pub(super) fn plan(path: &Path, data: Region) -> anyhow::Result<Self> {
        let outline = Outline::read(path)?;
        let bytes = (outline.most_entries() * ENTRY_BYTES).next_multiple_of(PAGE_SIZE);
        let region = Region {
            gpa: data.gpa + data.bytes,
            bytes,
            logged: false,
        };
        Ok(Self { outline, region, data })
    }

    /// The stretch of memory that the tables take.
    pub(super) fn region(&self) -> Region {
        self.region
    }

    /// Writes the tables, for a time-stamp counter of `tsc_hz`.
    pub(super) fn write(&self, memory: &GuestMemory, tsc_hz: u64) -> anyhow::Result<Vec<Placed>> {
        let replay = Replay::load(&self.outline, tsc_hz)?;
        let mut gpa = self.region.gpa;
        let mut placed = Vec::with_capacity(replay.tables.len());
        for table in &replay.tables {
            placed.push(Placed {
                gpa,
                entries: table.len() as u64,
            });
            for chunk in table.chunks(CHUNK) {
                let bytes: Vec<u8> = chunk.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                memory
                    .write(gpa, &bytes)
                    .context("the tables of the trace don't fit where room was made for them")?;
                gpa += bytes.len() as u64;
            }
        }
        Ok(placed)
    }

    /// Hands a vCPU its table, to be repeated for ever; returns the pages that it works on, the same for every vCPU.
    pub(super) fn give(&self, placed: Placed, block: &VcpuBlock) -> Pattern {
        block.set_replay(placed.gpa, placed.entries, REPLAY_FOREVER);
        Pattern {
            gpa: self.data.gpa,
            pages: self.data.bytes / PAGE_SIZE,
        }
    }
}
