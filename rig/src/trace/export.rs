//! A trace as rows, for tools that know nothing of its format.

use std::io::{self, Write as _};

use super::{Reader, Record, TraceError};

/// The columns of the CSV. Names are a promise: columns are added at the end.
pub const COLUMNS: [&str; 6] = ["at_ns", "thread", "vcpu", "address_space", "slot", "page"];

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows.
    pub writes: u64,
    /// Writes that could not be recorded.
    pub lost: u64,
    /// Whether the trace ended in good order.
    pub whole: bool,
}

/// Why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// Where the rows go.
    #[error("can't write the rows")]
    Write(#[from] io::Error),
}

/// Writes a header and a row a write, those of one thread in the order of time. A vCPU that nothing has named is empty.
pub fn csv(reader: &mut Reader, to: &mut dyn io::Write) -> Result<Exported, ExportError> {
    let mut exported = Exported::default();
    let mut to = io::BufWriter::with_capacity(1 << 16, to);
    writeln!(to, "{}", COLUMNS.join(","))?;
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Writes { thread, vcpu, writes } => {
                exported.writes += writes.len() as u64;
                let vcpu = vcpu.map(|vcpu| vcpu.to_string()).unwrap_or_default();
                for write in writes {
                    let (space, slot) = (write.slot >> 16, write.slot & 0xffff);
                    writeln!(to, "{},{thread},{vcpu},{space},{slot},{}", write.at_ns, write.page)?;
                }
            }
            Record::Lost(count) => exported.lost = count,
            Record::End(tail) => (exported.lost, exported.whole) = (tail.lost, true),
        }
    }
    to.flush()?;
    Ok(exported)
}
