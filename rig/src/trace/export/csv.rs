//! Rows as comma-separated values.

use std::io::{self, Write as _};

use super::{COLUMNS, ExportError, Exported, each, place};
use crate::trace::Reader;

/// Writes a header and a row a write, those of one thread in the order of time. A vCPU that nothing has named is empty.
pub fn csv(reader: &mut Reader, to: &mut dyn io::Write) -> Result<Exported, ExportError> {
    let mut to = io::BufWriter::with_capacity(1 << 16, to);
    writeln!(to, "{}", COLUMNS.join(","))?;
    let exported = each(reader, |thread, vcpu, writes| {
        let vcpu = vcpu.map(|vcpu| vcpu.to_string()).unwrap_or_default();
        writes.iter().try_for_each(|write| {
            let (space, slot) = place(write);
            writeln!(to, "{},{thread},{vcpu},{space},{slot},{}", write.at_ns, write.page)
        })
    })?;
    to.flush()?;
    Ok(exported)
}
