//! The tables that make the rig's guest repeat a trace.

use dirtyrig_guests::replay::table;

use super::{Outline, Reader, Record, TraceError};

/// A page number beyond every region: its entry only waits.
const NO_PAGE: u32 = u32::MAX;

/// A table for each vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// In the order of [`Outline::vcpus`], entries as `dirtyrig_guests::replay` has them.
    pub tables: Vec<Vec<u64>>,
}

impl Replay {
    /// Makes the tables for a guest whose time-stamp counter ticks `tsc_hz` times a second. Every vCPU uses one and the
    /// same region, as those of the traced VM shared their memory; all runs begin at the first write of any of them
    /// and are as long as the trace, so that vCPUs stay together however often it is repeated.
    pub fn load(outline: &Outline, tsc_hz: u64) -> Result<Self, TraceError> {
        let path = outline.path.as_path();
        let numbers = outline.pages.numbered();
        let (start_ns, end_ns) = outline.span_ns;
        let ticks = |ns: u64| (u128::from(ns.saturating_sub(start_ns)) * u128::from(tsc_hz) / 1_000_000_000) as u64;
        let mut writes: Vec<Vec<(u32, u64)>> = (outline.vcpus.iter())
            .map(|vcpu| Vec::with_capacity(vcpu.writes as usize + 1))
            .collect();
        let mut reader = Reader::open(path)?;
        while let Some(record) = reader.next_record()? {
            let Record::Writes {
                thread, writes: block, ..
            } = record
            else {
                continue;
            };
            let vcpu = outline.vcpu_of_thread.get(&thread).copied();
            let changed = || TraceError::Damaged {
                path: path.to_owned(),
                at: 0,
                problem: "it changed while it was read".to_owned(),
            };
            let own = &mut writes[vcpu.ok_or_else(changed)?];
            for write in block {
                let number = numbers.of(write.slot, write.page).ok_or_else(changed)?;
                own.push((number as u32, ticks(write.at_ns)));
            }
        }
        let tables = writes
            .into_iter()
            .map(|mut writes| {
                // A vCPU that was unplugged and plugged again had two threads, each in order.
                writes.sort_by_key(|&(_, tick)| tick);
                writes.push((NO_PAGE, ticks(end_ns)));
                table(writes)
            })
            .collect();
        Ok(Self { tables })
    }
}
