//! A CSV file of rows: written as whole lines, read back with every fault named by its line.

use std::{fs, path::Path};

use csv::{ErrorKind, StringRecord};

use super::{
    RecordingError,
    dialect::{self, Dialect},
    schema::Row,
};

/// What a file of rows holds.
#[derive(Debug)]
pub(super) struct Table<R> {
    pub(super) rows: Vec<R>,
    /// The line that has no end: what a crash in the middle of a write leaves.
    pub(super) torn_line: Option<u64>,
}

impl<R> Table<R> {
    /// The last line of the file that is whole, counted from 1 with the header.
    pub(super) fn last_line(&self) -> u64 {
        self.rows.len() as u64 + 1
    }
}

/// How many lines end in `bytes`.
pub(super) fn line_ends(bytes: &[u8]) -> u64 {
    bytes.split(|&byte| byte == b'\n').count() as u64 - 1
}

/// Where the last whole line ends: behind it lies what a crash left of a row.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

/// The names of a row's columns, in their order.
pub(super) fn columns<R: Row>() -> Vec<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .serialize(R::default())
        .expect("rows are flat structs, written to memory");
    let bytes = writer.into_inner().expect("memory takes every write");
    let text = String::from_utf8(bytes).expect("column names are ASCII");
    let header = text.lines().next().expect("the header comes first");
    header.split(',').map(str::to_owned).collect()
}

/// The names of the columns of `summary.csv`, in their order.
pub fn summary_columns() -> Vec<String> {
    columns::<crate::model::Summary>()
}

/// The header line.
pub(super) fn header<R: Row>() -> Vec<u8> {
    (columns::<R>().join(",") + "\n").into_bytes()
}

/// Rows as they are appended: one line each, without a header.
pub(super) fn encode<R: Row>(rows: &[R], path: &Path) -> Result<Vec<u8>, RecordingError> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).expect("rows are flat structs, written to memory");
    }
    let bytes = writer.into_inner().expect("memory takes every write");
    // A line end inside quotes is good CSV, but after a crash nobody could tell it from the end of a row.
    if line_ends(&bytes) == rows.len() as u64 {
        Ok(bytes)
    } else {
        Err(RecordingError::LineBreak { path: path.to_owned() })
    }
}

/// Reads the rows that are whole. A file that a spreadsheet has saved reads as well: see [`Dialect`].
pub(super) fn read<R: Row>(path: &Path) -> Result<Table<R>, RecordingError> {
    let bytes = fs::read(path).map_err(|source| RecordingError::read(path, source))?;
    parse(path, &bytes)
}

fn parse<R: Row>(path: &Path, bytes: &[u8]) -> Result<Table<R>, RecordingError> {
    let whole = whole_lines(bytes);
    let torn_line = (whole < bytes.len()).then(|| line_ends(bytes) + 1);
    if let Some(encoding) = dialect::foreign_encoding(bytes) {
        let path = path.to_owned();
        return Err(RecordingError::Encoding { path, encoding });
    }

    let mut rows = Vec::new();
    if whole > 0 {
        let text = dialect::without_mark(&bytes[..whole]);
        let dialect = Dialect::of(text);
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(dialect.delimiter())
            .from_reader(text);
        let header = reader
            .headers()
            .map_err(|source| bad_row(path, text, &[], source))?
            .clone();
        check_columns::<R>(path, &header)?;
        let names: Vec<&str> = header.iter().collect();
        let mut record = StringRecord::new();
        loop {
            let more = reader.read_record(&mut record);
            if !more.map_err(|source| bad_row(path, text, &names, source))? {
                break;
            }
            let row: Result<R, _> = dialect.plain(&record).deserialize(Some(&header));
            let row = row.map_err(|source| bad_row(path, text, &names, source))?;
            rows.push(row.without_stand_ins());
        }
    }
    Ok(Table { rows, torn_line })
}

fn check_columns<R: Row>(path: &Path, header: &StringRecord) -> Result<(), RecordingError> {
    let expected = columns::<R>();
    if let Some(column) = header.iter().find(|name| !expected.iter().any(|known| known == name)) {
        let (path, column) = (path.to_owned(), column.to_owned());
        return Err(
            match expected
                .into_iter()
                // `guest` has no unit; it is `guest_mib_s` that `guest_mb_s` stands for.
                .filter(|known| quantity(known) != known)
                .find(|known| quantity(known) == quantity(&column))
            {
                Some(expected) => RecordingError::WrongUnit { path, column, expected },
                None => RecordingError::UnknownColumn { path, column },
            },
        );
    }
    for column in expected {
        let found = header.iter().filter(|name| *name == column).count();
        if found != 1 && !(found == 0 && R::LATER.contains(&column.as_str())) {
            let path = path.to_owned();
            return Err(RecordingError::ColumnCount { path, column, found });
        }
    }
    Ok(())
}

/// A column's name without its unit; all of it where it has none.
fn quantity(column: &str) -> &str {
    // Longer ones first: `_mib_s` ends in `_s` too.
    const UNITS: [&str; 22] = [
        "_pages_s", "_kib_s", "_mib_s", "_gib_s", "_kb_s", "_mb_s", "_gb_s", "_mbps", "_pages", "_bytes", "_kib",
        "_mib", "_gib", "_kb", "_mb", "_gb", "_pct", "_per_s", "_ns", "_us", "_ms", "_s",
    ];
    UNITS
        .iter()
        .find_map(|unit| column.strip_suffix(unit))
        .unwrap_or(column)
}

/// The line in which a row begins that the reader met at `byte`, which may be the line end before it.
fn line_at(text: &[u8], byte: usize) -> u64 {
    let is_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let ends = text.get(byte..).unwrap_or_default().iter().take_while(is_end).count();
    line_ends(&text[..(byte + ends).min(text.len())]) + 1
}

fn bad_row(path: &Path, text: &[u8], columns: &[&str], source: csv::Error) -> RecordingError {
    let line = source
        .position()
        .map_or(1, |position| line_at(text, position.byte() as usize));
    let column = |field: Option<u64>| field.and_then(|field| columns.get(field as usize));
    let place = match source.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} values instead of {expected_len}")
        }
        ErrorKind::Deserialize { err, .. } => column(err.field()).map_or_else(
            || "a value that does not fit its column".to_owned(),
            |name| format!("column `{name}`"),
        ),
        ErrorKind::Utf8 { err, .. } => column(Some(err.field() as u64))
            .map_or_else(|| "not UTF-8".to_owned(), |name| format!("column `{name}`: not UTF-8")),
        _ => "not readable as CSV".to_owned(),
    };
    RecordingError::BadRow {
        path: path.to_owned(),
        line,
        place,
        source,
    }
}

#[cfg(test)]
mod tests;
