//! A trace as rows, for tools that know nothing of its format.

mod csv;
mod parquet;

use std::io;

use super::{Reader, Record, TraceError, Write};

pub use self::{csv::csv, parquet::parquet};

/// The columns. Names are a promise: columns are added at the end.
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

/// Hands over the writes of the trace: the thread and vCPU, and what it wrote, in the order of time. A vCPU may have no name.
fn each(
    reader: &mut Reader,
    mut take: impl FnMut(u32, Option<u32>, &[Write]) -> io::Result<()>,
) -> Result<Exported, ExportError> {
    let mut exported = Exported::default();
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Writes { thread, vcpu, writes } => {
                exported.writes += writes.len() as u64;
                take(thread, vcpu, &writes)?;
            }
            Record::Lost(count) => exported.lost = count,
            Record::End(tail) => (exported.lost, exported.whole) = (tail.lost, true),
        }
    }
    Ok(exported)
}

/// Address space and slot of a write.
fn place(write: &Write) -> (u32, u32) {
    (write.slot >> 16, write.slot & 0xffff)
}
