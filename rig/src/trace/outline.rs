//! What a trace needs of the guest that is to replay it.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use dirtyrig_guests::{
    PAGE_SIZE,
    image::{MAX_MEMORY_END, MAX_VCPUS, REGION_BASE},
};

use super::{Head, Reader, Record, TraceError, pages::PageSet};

/// Bytes of an entry of the guest's table.
const ENTRY_BYTES: u64 = 8;
/// What the longest wait of one entry, 2^38 ticks, lasts at 10 GHz, which no counter exceeds.
const SHORTEST_FULL_WAIT_NS: u64 = 27_000_000_000;

/// A trace, read once.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The file.
    pub path: PathBuf,
    /// What was known when it began.
    pub head: Head,
    /// Each vCPU of the replay: the one it had in the traced VM, if that is known, and its writes.
    pub vcpus: Vec<TracedVcpu>,
    /// From the first write to the last, of any vCPU.
    pub span_ns: (u64, u64),
    /// Writes that could not be recorded.
    pub lost: u64,
    /// Whether it ended in good order.
    pub whole: bool,
    pub(super) pages: PageSet,
    pub(super) vcpu_of_thread: HashMap<u32, usize>,
}

/// One vCPU of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedVcpu {
    /// Its number in the traced VM.
    pub id: Option<u32>,
    /// How many writes it made.
    pub writes: u64,
}

impl Outline {
    /// Reads a trace through.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let mut reader = Reader::open(path)?;
        let mut threads: BTreeMap<u32, (Option<u32>, u64)> = BTreeMap::new();
        let mut pages = PageSet::default();
        let mut span_ns = (u64::MAX, 0);
        let (mut lost, mut whole) = (0, false);
        while let Some(record) = reader.next_record()? {
            match record {
                Record::Writes { thread, vcpu, writes } => {
                    let known = threads.entry(thread).or_default();
                    known.0 = vcpu.or(known.0);
                    known.1 += writes.len() as u64;
                    pages.extend(writes.iter().map(|write| (write.slot, write.page)));
                    if let (Some(first), Some(last)) = (writes.first(), writes.last()) {
                        span_ns = (span_ns.0.min(first.at_ns), span_ns.1.max(last.at_ns));
                    }
                }
                Record::Lost(count) => lost = count,
                Record::End(tail) => (lost, whole) = (tail.lost, true),
            }
        }
        let (vcpus, vcpu_of_thread) = vcpus(&threads);
        let path = path.to_owned();
        if vcpus.is_empty() {
            return Err(TraceError::Empty { path });
        }
        if vcpus.len() > MAX_VCPUS {
            return Err(TraceError::TooManyVcpus {
                path,
                vcpus: vcpus.len(),
                most: MAX_VCPUS,
            });
        }
        let outline = Self {
            path,
            head: reader.head().clone(),
            vcpus,
            span_ns,
            lost,
            whole,
            pages,
            vcpu_of_thread,
        };
        let (needed, most) = (outline.total_mib(), MAX_MEMORY_END >> 20);
        if needed > most {
            return Err(TraceError::TooLarge {
                path: outline.path,
                needed,
                most,
            });
        }
        Ok(outline)
    }

    /// Different pages that are written.
    pub fn pages(&self) -> u64 {
        self.pages.len()
    }

    /// Writes of all vCPUs.
    pub fn writes(&self) -> u64 {
        self.vcpus.iter().map(|vcpu| vcpu.writes).sum()
    }

    /// MiB that hold its pages.
    pub fn memory_mib(&self) -> u64 {
        (self.pages() * PAGE_SIZE).div_ceil(1 << 20)
    }

    /// Entries of all tables, at most: the writes, an end for each vCPU, and waits where nothing is written for as long
    /// as an entry can hold.
    pub fn most_entries(&self) -> u64 {
        let waits = (self.span_ns.1 - self.span_ns.0) / SHORTEST_FULL_WAIT_NS;
        self.writes() + self.vcpus.len() as u64 * (2 + waits)
    }

    /// MiB that hold all tables, at most.
    pub fn tables_mib(&self) -> u64 {
        (self.most_entries() * ENTRY_BYTES).div_ceil(1 << 20)
    }

    /// MiB that the guest has in all: what lies before the region, the region, and the tables behind it.
    fn total_mib(&self) -> u64 {
        (REGION_BASE >> 20) + self.memory_mib() + self.tables_mib()
    }

    /// What the user should know before it is replayed.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.whole {
            notes.push(format!(
                "`{}` was cut off: it is replayed up to there, and whether writes are missing before is not known",
                self.path.display()
            ));
        }
        if self.lost > 0 {
            notes.push(format!(
                "{} of {} writes could not be recorded in `{}`: the replay lacks them",
                self.lost,
                self.lost + self.writes(),
                self.path.display()
            ));
        }
        notes
    }
}

/// The vCPUs in the order of their numbers, unnamed ones last; threads of one number are one vCPU.
fn vcpus(threads: &BTreeMap<u32, (Option<u32>, u64)>) -> (Vec<TracedVcpu>, HashMap<u32, usize>) {
    let mut order: Vec<(u32, Option<u32>, u64)> = threads
        .iter()
        .map(|(&thread, &(id, writes))| (thread, id, writes))
        .collect();
    order.sort_by_key(|&(thread, id, _)| (id.is_none(), id, thread));
    let mut vcpus: Vec<TracedVcpu> = Vec::new();
    let mut of_thread = HashMap::new();
    for (thread, id, writes) in order {
        match vcpus.last_mut() {
            Some(last) if id.is_some() && last.id == id => last.writes += writes,
            _ => vcpus.push(TracedVcpu { id, writes }),
        }
        of_thread.insert(thread, vcpus.len() - 1);
    }
    (vcpus, of_thread)
}
