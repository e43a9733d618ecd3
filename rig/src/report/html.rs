//! The page: one file that needs no network, reads without its script, and follows the reader's light or dark. Or the same
//! without any script, with its style and pictures as files beside it, for servers whose `Content-Security-Policy` lets
//! nothing else through.
//!
//! The template escapes everything but the figures, which are SVG documents of our own making.

use std::{collections::BTreeMap, fmt};

use anyhow::Context;
use askama::Template;
use serde_json::Value;

use super::{Part, Report, definitions, markdown::range, points::Point, rate::rate};
use crate::{
    model::{Spread, Summary},
    plot::{Choice, FIGURES, RecordingView, Source, pictures},
    recording::{Recording, summary_columns},
};

/// Name of the page among its files.
pub const INDEX: &str = "index.html";
/// Name of its style.
const STYLE: &str = "report.css";

/// Writes it; `recordings` are those that the report was made of.
pub fn render(report: &Report, recordings: &[Recording]) -> anyhow::Result<String> {
    page(report, figures(report, recordings)?, false)
}

/// The page and the files beside it, by their names; the page comes last, for it needs the others.
pub fn render_files(report: &Report, recordings: &[Recording]) -> anyhow::Result<Vec<(String, String)>> {
    let figures = figures(report, recordings)?;
    let pictures = figures.iter().flat_map(|row| &row.pictures);
    let mut files: Vec<(String, String)> = pictures
        .filter_map(|shown| Some((shown.file.clone(), shown.picture.as_ref().ok()?.clone())))
        .collect();
    files.push((STYLE.to_owned(), include_str!("../../templates/report.css").to_owned()));
    files.push((INDEX.to_owned(), page(report, figures, true)?));
    Ok(files)
}

fn page(report: &Report, figures: Vec<Row>, files: bool) -> anyhow::Result<String> {
    let names: Vec<String> = report.recordings.iter().map(|part| part.name.clone()).collect();
    let columns = summary_columns();
    let page = Page {
        title: names.join(", "),
        several: names.len() > 1,
        report,
        figures,
        files,
        points: report
            .recordings
            .iter()
            .flat_map(|part| part.points.iter().map(|point| PointRow::of(&part.name, point)))
            .collect(),
        compared: compared(report),
        cells: report
            .recordings
            .iter()
            .flat_map(|part| part.rows.iter().map(|row| cell(&part.name, row)))
            .collect::<Result<_, _>>()?,
        columns: columns
            .iter()
            .map(|name| (name.clone(), definitions::meaning(name).unwrap_or_default()))
            .collect(),
        facts: facts(report),
        manifests: report
            .recordings
            .iter()
            .map(|part| Ok((part.name.clone(), serde_json::to_string_pretty(&part.manifest)?)))
            .collect::<anyhow::Result<_>>()?,
        columns_defined: definitions::summary_columns(),
        verdicts_defined: definitions::verdicts(),
        figures_defined: FIGURES.iter().map(|figure| (figure.name, figure.about)).collect(),
    };
    page.render().context("can't lay out the page")
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    several: bool,
    report: &'a Report,
    figures: Vec<Row>,
    /// Whether style and pictures are files beside the page.
    files: bool,
    points: Vec<PointRow<'a>>,
    compared: Vec<ComparedRow<'a>>,
    cells: Vec<Vec<Value>>,
    columns: Vec<(String, String)>,
    facts: Vec<(String, Vec<String>)>,
    manifests: Vec<(String, String)>,
    columns_defined: Vec<definitions::Definition>,
    verdicts_defined: Vec<definitions::Definition>,
    figures_defined: Vec<(&'static str, &'static str)>,
}

/// One kind of figure: its pictures of every recording.
struct Row {
    name: &'static str,
    about: &'static str,
    pictures: Vec<Shown>,
}

impl Row {
    fn about_sentence(&self) -> String {
        let mut letters = self.about.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    }
}

/// A picture, or why there is none.
struct Shown {
    recording: String,
    wide: bool,
    width: i32,
    /// Its name as a file.
    file: String,
    picture: Result<String, String>,
}

/// A point as it is shown.
struct PointRow<'a> {
    recording: &'a str,
    point: &'a Point,
    quota: Number,
    period_s: f64,
    floor: Number,
    reads: Number,
    truth: Number,
    settle: Number,
    stall_ms: Number,
    verdict: &'static str,
}

struct ComparedRow<'a> {
    first: PointRow<'a>,
    /// For each recording, in their order.
    values: Vec<Option<PointRow<'a>>>,
}

/// What is read, and what it is sorted by.
struct Number {
    shown: String,
    sort: f64,
}

impl Number {
    fn of(value: Option<Spread>) -> Self {
        Self {
            shown: range(value),
            sort: value.map_or(f64::INFINITY, |range| range.median),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl<'a> PointRow<'a> {
    fn of(recording: &'a str, point: &'a Point) -> Self {
        let plain = |value: f64| Number {
            shown: rate(value),
            sort: value,
        };
        let in_ms = |range: Spread| Spread {
            median: range.median / 1000.0,
            low: range.low / 1000.0,
            high: range.high / 1000.0,
        };
        Self {
            recording,
            point,
            quota: Number {
                shown: point.quota_words(),
                sort: point.quota_mib_s.or(point.vm_quota_mib_s).unwrap_or(f64::INFINITY),
            },
            period_s: point.settings.period_ms as f64 / 1000.0,
            floor: point.predicted_floor_mib_s.map_or_else(
                || Number {
                    shown: "none".to_owned(),
                    sort: 0.0,
                },
                plain,
            ),
            reads: Number::of(point.ring_mib_s),
            truth: Number::of(point.guest_mib_s),
            settle: Number::of(point.settle_s),
            stall_ms: Number::of(point.stall_p99_us.map(in_ms)),
            verdict: point.verdict.name(),
        }
    }
}

fn compared(report: &Report) -> Vec<ComparedRow<'_>> {
    let named = |row: &'_ super::points::Compared, part: &Part| row.points.iter().position(|(of, _)| *of == part.name);
    report
        .comparison
        .iter()
        .map(|row| ComparedRow {
            first: PointRow::of(&row.points[0].0, &row.points[0].1),
            values: report
                .recordings
                .iter()
                .map(|part| named(row, part).map(|index| PointRow::of(&row.points[index].0, &row.points[index].1)))
                .collect(),
        })
        .collect()
}

/// A row of `summary.csv`, its recording in front; values in the order of the columns.
fn cell(recording: &str, row: &Summary) -> anyhow::Result<Vec<Value>> {
    let Value::Object(mut values) = serde_json::to_value(row)? else {
        unreachable!("a row is a struct with named fields")
    };
    let mut cells = vec![Value::from(recording)];
    cells.extend(
        summary_columns()
            .iter()
            .map(|name| values.remove(name).unwrap_or(Value::Null)),
    );
    Ok(cells)
}

/// The beginning of a finding, which is the answer, and the rest.
fn answered(finding: &str) -> (&str, &str) {
    let ends = [". ", "; "].into_iter().filter_map(|end| finding.find(end));
    let end = ends.min().map_or(finding.len(), |end| end + 1);
    finding.split_at(end)
}

/// A value as the table of cells shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => rate(float),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// What of the manifests is compared at a glance, a value for each recording.
fn facts(report: &Report) -> Vec<(String, Vec<String>)> {
    let row =
        |name: &str, value: &dyn Fn(&Part) -> String| (name.to_owned(), report.recordings.iter().map(value).collect());
    let state = |part: &Part| match serde_json::to_value(part.state) {
        Ok(Value::String(word)) => word,
        _ => unreachable!("a state is a word"),
    };
    vec![
        row("folder", &|part| part.folder.clone()),
        row("machine", &|part| part.machine.clone()),
        row("state", &state),
        row("cells", &|part| {
            let planned = part.manifest.cells.len();
            format!("{} of {planned} finished", planned - part.missing_cells.len())
        }),
        row("begun", &|part| part.manifest.started_utc.clone()),
        row("continued", &|part| part.manifest.resumed_utc.join(", ")),
        row("command", &|part| part.manifest.command_line.join(" ")),
        row("seed", &|part| part.manifest.seed.to_string()),
        row("dirtyrig", &|part| {
            format!("{} ({})", part.manifest.tool_version, part.manifest.git_revision)
        }),
        row("compiler", &|part| part.manifest.rustc_version.clone()),
        row("share of a sweep", &|part| {
            part.manifest.shard.map_or_else(String::new, |shard| shard.to_string())
        }),
        row("made of", &|part| {
            let origins = part.manifest.merged_from.iter();
            origins
                .map(|origin| format!("{} ({} cells)", origin.folder, origin.cells.len()))
                .collect::<Vec<_>>()
                .join(", ")
        }),
    ]
    .into_iter()
    .filter(|(_, values): &(String, Vec<String>)| values.iter().any(|value| !value.is_empty()))
    .collect()
}

/// Every figure that at least one recording has something to show for.
fn figures(report: &Report, recordings: &[Recording]) -> anyhow::Result<Vec<Row>> {
    let mut rows: BTreeMap<&str, Vec<Shown>> = BTreeMap::new();
    let sources = report
        .recordings
        .iter()
        .zip(recordings)
        .map(|(part, recording)| Source::of(recording, &part.name))
        .collect::<Result<Vec<_>, _>>()?;
    let views: Vec<RecordingView<'_>> = sources.iter().map(Source::view).collect();
    for (index, (part, view)) in report.recordings.iter().zip(&views).enumerate() {
        let choice = Choice {
            others: if index == 0 { &views[1..] } else { &[] },
            ..Choice::default()
        };
        for outcome in pictures(view, &choice)? {
            let shown = rows.entry(outcome.figure.name).or_default();
            match outcome.pictures {
                Ok(pictures) => {
                    for picture in pictures {
                        shown.push(Shown {
                            recording: part.name.clone(),
                            wide: picture.width > NARROW,
                            width: picture.width,
                            file: format!("{}-{}.svg", outcome.figure.name, shown.len() + 1),
                            picture: Ok(picture.svg),
                        });
                    }
                }
                Err(reason) => shown.push(Shown {
                    recording: part.name.clone(),
                    wide: false,
                    width: 0,
                    file: String::new(),
                    picture: Err(reason.to_string()),
                }),
            }
        }
    }
    let mut row = |name, about| {
        let pictures = rows.remove(name)?;
        pictures
            .iter()
            .any(|shown| shown.picture.is_ok())
            .then_some(Row { name, about, pictures })
    };
    Ok(FIGURES
        .iter()
        .filter_map(|figure| row(figure.name, figure.about))
        .collect())
}

/// Wider pictures get a row of their own.
const NARROW: i32 = 820;
