//! All rows of all recordings as one CSV, to be loaded elsewhere: the columns of `summary.csv` behind the recording's name.

use anyhow::Context;
use serde::Serialize;

use super::Report;
use crate::{model::Summary, recording::summary_columns};

/// Name of the column in front.
pub const FIRST_COLUMN: &str = "recording";

/// Writes it.
pub fn render(report: &Report) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let columns = summary_columns();
    writer.write_record(std::iter::once(FIRST_COLUMN).chain(columns.iter().map(String::as_str)))?;
    for part in &report.recordings {
        for row in &part.rows {
            writer.serialize(Line {
                recording: &part.name,
                row,
            })?;
        }
    }
    let bytes = writer.into_inner().context("can't put the rows into CSV")?;
    String::from_utf8(bytes).context("a name is not UTF-8")
}

#[derive(Serialize)]
struct Line<'a> {
    recording: &'a str,
    row: &'a Summary,
}
