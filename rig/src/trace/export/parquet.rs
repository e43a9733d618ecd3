//! Rows as Parquet.

use std::{io, sync::Arc};

use parquet::{
    basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical},
    data_type::{DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{ColumnPath, Type},
};

use super::{COLUMNS, ExportError, Exported, each, place};
use crate::trace::{Reader, Write};

/// Rows of a group: they are in memory, some 28 bytes each, until the group is written.
const GROUP: usize = 1 << 18;

/// Writes a row a write, those of one thread in the order of time. A vCPU that nothing has named is null.
pub fn parquet(reader: &mut Reader, to: impl io::Write + Send) -> Result<Exported, ExportError> {
    let started = reader.head().started_utc.clone();
    let mut file = SerializedFileWriter::new(to, schema(), properties()).map_err(into_io)?;
    let mut group = Group::default();
    let exported = each(reader, |thread, vcpu, writes| {
        writes.iter().try_for_each(|write| {
            group.push(thread, vcpu, write);
            if group.at_ns.len() == GROUP {
                std::mem::take(&mut group).write(&mut file).map_err(into_io)?;
            }
            Ok(())
        })
    })?;
    let said = [
        ("dirtyrig.started_utc", started),
        ("dirtyrig.lost_writes", exported.lost.to_string()),
    ];
    for (key, value) in said {
        file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
    }
    let last = if group.at_ns.is_empty() {
        Ok(())
    } else {
        group.write(&mut file)
    };
    last.and_then(|()| file.close()).map_err(into_io)?;
    Ok(exported)
}

/// Of the columns as they are named in CSV. All are unsigned.
fn schema() -> Arc<Type> {
    let bits = [64, 32, 32, 16, 16, 64];
    let columns = COLUMNS.iter().zip(bits).map(|(&name, bits)| {
        let physical = if bits == 64 { Physical::INT64 } else { Physical::INT32 };
        let repetition = if name == "vcpu" {
            Repetition::OPTIONAL
        } else {
            Repetition::REQUIRED
        };
        let column = Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_logical_type(Some(LogicalType::integer(bits, false)));
        Arc::new(column.build().expect("the physical type has room for it"))
    });
    let rows = Type::group_type_builder("writes").with_fields(columns.collect());
    Arc::new(rows.build().expect("the columns have names of their own"))
}

/// Snappy, which every reader has. Times and pages follow one another: what they grow by is written, not a dictionary.
fn properties() -> Arc<WriterProperties> {
    let growing = ["at_ns", "page"].map(ColumnPath::from);
    let mut properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    for column in growing {
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    Arc::new(properties.build())
}

/// The rows of a group, by column. Parquet has unsigned numbers in the bits of signed ones.
#[derive(Default)]
struct Group {
    at_ns: Vec<i64>,
    thread: Vec<i32>,
    /// Of the rows that have one.
    vcpu: Vec<i32>,
    /// 1 for a row that has a vCPU.
    has_vcpu: Vec<i16>,
    space: Vec<i32>,
    slot: Vec<i32>,
    page: Vec<i64>,
}

impl Group {
    fn push(&mut self, thread: u32, vcpu: Option<u32>, write: &Write) {
        let (space, slot) = place(write);
        self.at_ns.push(write.at_ns.cast_signed());
        self.thread.push(thread.cast_signed());
        self.vcpu.extend(vcpu.map(u32::cast_signed));
        self.has_vcpu.push(vcpu.is_some().into());
        self.space.push(space.cast_signed());
        self.slot.push(slot.cast_signed());
        self.page.push(write.page.cast_signed());
    }

    fn write<W: io::Write + Send>(self, file: &mut SerializedFileWriter<W>) -> Result<(), ParquetError> {
        let mut group = file.next_row_group()?;
        column::<Int64Type, W>(&mut group, &self.at_ns, None)?;
        column::<Int32Type, W>(&mut group, &self.thread, None)?;
        column::<Int32Type, W>(&mut group, &self.vcpu, Some(&self.has_vcpu))?;
        column::<Int32Type, W>(&mut group, &self.space, None)?;
        column::<Int32Type, W>(&mut group, &self.slot, None)?;
        column::<Int64Type, W>(&mut group, &self.page, None)?;
        group.close()?;
        Ok(())
    }
}

/// Writes the next column of a group; `present` has a 1 for each row that has a value, where some have none.
fn column<T: DataType, W: io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    present: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has so many columns");
    column.typed::<T>().write_batch(values, present, None)?;
    column.close()
}

/// What the operating system said, if it was that.
fn into_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}
