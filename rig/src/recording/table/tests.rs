//! Tables as other programs save them, and arbitrary bytes.

use std::error::Error;

use proptest::prelude::*;

use super::*;
use crate::model::{ExitRow, Sample, Summary};

fn rows() -> Vec<Summary> {
    let row = |cell, rate: f64, reason: &str| Summary {
        cell,
        vmm: "rig".to_owned(),
        guest_mib_s: Some(rate).filter(|rate| rate.is_finite()),
        error_mib_s: Some(-1.5),
        reason: reason.to_owned(),
        ..Summary::default()
    };
    vec![
        row(0, 24.25, "held: 24.3 of 25 MiB/s, by 3 of 4"),
        row(1, 1e-7, "1;2"),
        row(2, f64::NAN, "a \"quoted\" word"),
    ]
}

fn ours() -> String {
    let mut bytes = header::<Summary>();
    bytes.extend(encode(&rows(), Path::new("summary.csv")).expect("it is written"));
    String::from_utf8(bytes).expect("text")
}

/// As a spreadsheet saves it whose separator and decimal sign are those.
fn saved(separator: u8, decimal: &str) -> String {
    let ours = ours();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(ours.as_bytes());
    let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
    for record in reader.records() {
        let record = record.expect("a row");
        writer
            .write_record(record.iter().map(|value| match value.parse::<f64>() {
                Ok(number) if number.is_finite() => value.replace('.', decimal),
                _ => value.to_owned(),
            }))
            .expect("it is written");
    }
    String::from_utf8(writer.into_inner().expect("it is written")).expect("text")
}

/// What is read from `bytes`, NaN as text.
fn read_as_text(bytes: &[u8]) -> String {
    let table: Table<Summary> = parse(Path::new("summary.csv"), bytes).expect("it reads");
    format!("{:?}", table.rows)
}

fn problem(bytes: &[u8]) -> String {
    let table: Result<Table<Summary>, _> = parse(Path::new("summary.csv"), bytes);
    let error = table.map(|_| ()).expect_err("it is damaged");
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[test]
fn what_spreadsheets_save_reads_the_same() {
    let expected = format!("{:?}", rows());
    let mark = "\u{feff}";
    for (what, text) in [
        ("ours", ours()),
        ("a byte-order mark", format!("{mark}{}", ours())),
        ("CRLF", ours().replace('\n', "\r\n")),
        ("both", format!("{mark}{}", ours().replace('\n', "\r\n"))),
        ("semicolons and decimal commas", saved(b';', ",")),
        ("semicolons and decimal points", saved(b';', ".")),
        ("all of it", format!("{mark}{}", saved(b';', ",").replace('\n', "\r\n"))),
        ("tabs", saved(b'\t', ",")),
        ("empty lines", ours().replace('\n', "\n\n")),
    ] {
        assert_eq!(read_as_text(text.as_bytes()), expected, "{what}");
    }
}

#[test]
fn what_can_not_be_read_is_named_by_line_and_column() {
    let crlf = ours().replace('\n', "\r\n");
    let count = columns::<Summary>().len();
    let wider = format!("line 2, {} values instead of {count}", count + 1);
    let third = |from: &str, to: &str| crlf.replacen(from, to, 1);
    for (bytes, expected) in [
        (third("24.25", "\"24,25\"").into_bytes(), "line 2, column `guest_mib_s`"),
        (third("24.25", "24,25").into_bytes(), wider.as_str()),
        (
            saved(b';', ",").replacen("24,25", "1.024,25", 1).into_bytes(),
            "line 2, column `guest_mib_s`",
        ),
        (
            saved(b';', ",").replacen("24,25", "Jan 24", 1).into_bytes(),
            "line 2, column `guest_mib_s`",
        ),
        (
            ours().replace('\n', "\n\n").replacen("24.25", "?", 1).into_bytes(),
            "line 3, column `guest_mib_s`",
        ),
        (
            ours()
                .into_bytes()
                .iter()
                .map(|&byte| if byte == b'/' { 0xb5 } else { byte })
                .collect(),
            "line 2, column `reason`: not UTF-8",
        ),
        ([&[0xff, 0xfe], ours().as_bytes()].concat(), "is UTF-16 text"),
    ] {
        let problem = problem(&bytes);
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn columns_that_a_spreadsheet_has_added_are_named() {
    let wider = ours().replace('\n', ",\n");
    assert!(
        problem(wider.as_bytes()).contains("column ``"),
        "{}",
        problem(wider.as_bytes())
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_table_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse::<Sample>(Path::new("samples.csv"), &bytes);
    }

    #[test]
    fn any_cells_are_a_table_or_an_error(
        values in prop::collection::vec(prop::sample::select(vec![
            "0", "-1", "1,5", "1.5", "NaN", "inf", "1e999", "", "userspace", "\"", ";", "18446744073709551616", "\r", "\u{feff}",
        ]), 0..30),
        separator in prop::sample::select(vec![",", ";", "\t"]),
    ) {
        let columns = columns::<ExitRow>().join(separator);
        let rows: String = values.chunks(5).map(|row| row.join(separator) + "\n").collect();
        let _ = parse::<ExitRow>(Path::new("exits.csv"), format!("{columns}\n{rows}").as_bytes());
    }
}
