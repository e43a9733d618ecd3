//! Reports of made-up recordings, whole, half finished and damaged.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    model::Stall,
    plot::tests::fixture::{Recipe, made},
    recording::Recorder,
};

/// Writes a made-up sweep with `finished` of its cells.
fn record(dir: &Path, recipe: &Recipe<'_>, finished: usize) -> Recording {
    let made = made(recipe);
    let cells: Vec<u32> = made.stalls.iter().map(|stalls| stalls.cell).collect();
    let machine = json!({ "cpu": { "model_name": "No <Machine> & 8000", "online": 2 } });
    let manifest = Manifest::new(
        1,
        cells.iter().copied(),
        machine.as_object().expect("an object").clone(),
        json!({ "remarks": ["<script>alert(1)</script>"] }),
    );
    let mut recorder = Recorder::create(dir, manifest).expect("a new folder");
    for cell in cells.into_iter().take(finished) {
        let samples: Vec<_> = made.samples.iter().filter(|row| row.cell == cell).cloned().collect();
        let mut rows: Vec<_> = made.summaries.iter().filter(|row| row.cell == cell).cloned().collect();
        for row in &mut rows {
            row.pauses = Some(50);
            "steady at <b>25</b> MiB/s & \"no bound\" explains it".clone_into(&mut row.reason);
        }
        recorder.append_samples(&samples).expect("written");
        for second in 0..10_u64 {
            let interval = Duration::from_secs(second)..Duration::from_secs(second + 1);
            recorder
                .append_stalls(cell, &interval, &stalls(u64::from(cell) + second))
                .expect("written");
        }
        recorder.append_summaries(cell, &rows).expect("written");
    }
    recorder.finish().expect("written");
    Recording::open(dir).expect("readable")
}

fn stalls(salt: u64) -> Vec<Stall> {
    (0..40)
        .map(|index| {
            let length = Duration::from_micros(1000 + (index * 7919 + salt * 104_729) % 90_000);
            Stall {
                vcpu: 0,
                at: Duration::ZERO,
                length,
                asked: length,
                slept: length,
            }
        })
        .collect()
}

fn small() -> Recipe<'static> {
    Recipe {
        limiters: &["qemu-7.2", "budget"],
        rings: &[4096, 65536],
        quotas: &[25.0, 500.0],
        repetitions: 2,
        ..Recipe::default()
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary folder")
}

fn page(recordings: &[Recording]) -> String {
    html::render(&Report::of(recordings), recordings).expect("a page")
}

#[test]
fn the_page_of_a_sweep_of_two_hundred_cells_is_small() {
    let dir = folder();
    let recipe = Recipe {
        limiters: &["qemu-7.2", "qemu-10"],
        rings: &[1024, 4096, 16384, 32768, 65536],
        quotas: &[25.0, 64.0, 128.0, 256.0, 500.0],
        repetitions: 4,
        ..Recipe::default()
    };
    let kept = std::env::var_os("DIRTYRIG_BIG_RECORDING").map(std::path::PathBuf::from);
    let path = kept.unwrap_or_else(|| dir.path().join("big"));
    let recording = record(&path, &recipe, 200);
    assert_eq!(recording.finished().len(), 200);
    let page = page(&[recording]);
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
}

#[test]
fn findings_come_first_and_in_words() {
    let dir = folder();
    let recording = record(&dir.path().join("sweep"), &small(), 99);
    let report = Report::of(std::slice::from_ref(&recording));
    let part = &report.recordings[0];
    assert!(
        part.findings[2].starts_with("14 of 16 limited runs held their quota; 2 "),
        "{:?}",
        part.findings
    );
    assert!(
        part.findings[1].starts_with(
            "qemu-7.2 held 500 MiB/s with each of 2 combinations of ring, period and guest, 25 with 1 of 2."
        ),
        "{:?}",
        part.findings
    );
    assert!(
        part.findings[0].starts_with("budget held 500 and 25 MiB/s with each of 2 combinations"),
        "{:?}",
        part.findings
    );
    let floor = part
        .floors
        .iter()
        .find(|floor| floor.settings.limiter == "qemu-7.2" && floor.settings.ring_entries == Some(65536));
    let words = &floor.expect("a floor").words;
    assert!(words.starts_with("Held 500. Asked for 25 the guest does 2"), "{words}");

    let page = page(&[recording]);
    let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("the page lacks `{words}`"));
    assert!(at("id=\"findings\"") < at("id=\"figures\"") && at("id=\"figures\"") < at("id=\"manifest\""));
}

#[test]
fn what_comes_from_outside_is_escaped_and_nothing_is_fetched() {
    let dir = folder();
    let recording = record(&dir.path().join("a <b> & c"), &small(), 99);
    let page = page(&[recording]);
    assert!(
        !page.contains("<b>25</b>") && !page.contains("<script>alert"),
        "unescaped"
    );
    assert!(!page.contains("a <b> & c"));
    for outside in ["src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
    let addresses = page.matches("http").count();
    assert_eq!(
        addresses,
        page.matches("http://www.w3.org/2000/svg").count(),
        "only the name of SVG"
    );
}

#[test]
fn a_half_finished_sweep_is_reported_with_what_is_missing() {
    let dir = folder();
    let recording = record(&dir.path().join("half"), &small(), 5);
    let report = Report::of(std::slice::from_ref(&recording));
    assert_eq!(report.recordings[0].missing_cells.len(), 11);
    assert!(report.recordings[0].trust[0].contains("5 of 16 cells are finished; missing: 5-15"));
    assert!(
        page(std::slice::from_ref(&recording))
            .contains("<b>Not complete.</b> 5 of 16 cells are finished; missing: 5-15")
    );
    assert!(markdown::render(&report).contains("missing: 5-15"));
}

#[test]
fn a_recording_without_a_finished_cell_is_reported_too() {
    let dir = folder();
    let recording = record(&dir.path().join("none"), &small(), 0);
    let page = page(std::slice::from_ref(&recording));
    assert!(page.contains("There is nothing to draw yet.") && page.contains("0 of 16 cells are finished"));
}

#[test]
fn recordings_stand_side_by_side() {
    let dir = folder();
    let before = record(&dir.path().join("before/run"), &small(), 99);
    let after = record(
        &dir.path().join("after/run"),
        &Recipe {
            quotas: &[25.0],
            ..small()
        },
        99,
    );
    let recordings = [before, after];
    let report = Report::of(&recordings);
    assert_eq!(
        (report.recordings[0].name.as_str(), report.recordings[1].name.as_str()),
        ("run (1)", "run (2)")
    );
    assert_eq!(report.comparison.len(), 4, "one quota on two rings under two limiters");
    let page = page(&recordings);
    assert!(page.contains("id=\"compared\"") && page.contains("the same settings in several recordings"));
    let text = markdown::render(&report);
    assert!(
        text.contains("# Side by side") && text.contains("| run (1) | run (2) |"),
        "{text}"
    );
}

#[test]
fn csv_is_the_summary_with_the_recording_in_front() {
    let dir = folder();
    let recording = record(&dir.path().join("sweep"), &small(), 3);
    let text = csv::render(&Report::of(std::slice::from_ref(&recording))).expect("CSV");
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().expect("a header").clone();
    assert_eq!(&header[0], "recording");
    assert!(header.iter().skip(1).eq(crate::recording::summary_columns().iter()));
    let rows: Vec<Summary> = reader.deserialize().collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows, recording.summaries);
}

/// Every key that the JSON has, as paths; keys of maps whose names are data are left out.
fn keys(value: &Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
    const DATA: [&str; 3] = ["verdicts", "machine", "scenario"];
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                if !(DATA.contains(&key.as_str()) && value.is_object()) {
                    keys(value, &path, found);
                }
                found.insert(path.trim_start_matches('.').to_owned());
            }
        }
        Value::Array(values) => {
            for value in values {
                keys(value, path, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_key_of_the_json_is_documented_and_every_documented_key_is_there() {
    let document = include_str!("../../../docs/report-schema.md");
    let dir = folder();
    let recordings = [
        record(&dir.path().join("a"), &small(), 99),
        record(&dir.path().join("b"), &small(), 99),
    ];
    let report = serde_json::to_value(Report::of(&recordings)).expect("JSON");
    assert_eq!(
        (&report["schema"], &report["schema_version"]),
        (&json!("dirtyrig-report"), &json!(1))
    );
    let mut found = std::collections::BTreeSet::new();
    keys(&report, "", &mut found);
    // Rows and manifests are defined elsewhere, under the same names as in the recording.
    let inside = |path: &String| !path.starts_with("recordings.rows.") && !path.starts_with("recordings.manifest.");
    let found: Vec<String> = found.into_iter().filter(inside).collect();
    let mut documented: Vec<String> = document
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once('`')
                .map(|(path, _)| path.to_owned())
        })
        .collect();
    documented.sort();
    assert_eq!(found, documented);
}

#[test]
fn only_a_report_is_overwritten() {
    let dir = folder();
    let recording = record(&dir.path().join("sweep"), &small(), 3);
    let recordings = std::slice::from_ref(&recording);
    let report = Report::of(recordings);
    let path = dir.path().join("out");
    for text in [
        page(recordings),
        markdown::render(&report),
        csv::render(&report).expect("CSV"),
        serde_json::to_string_pretty(&report).expect("JSON"),
    ] {
        write::write(&path, &text).expect("over an older report, of whatever kind");
        assert_eq!(fs::read_to_string(&path).expect("readable"), text);
    }
    fs::write(&path, "precious").expect("written");
    let error = write::write(&path, "new").expect_err("not ours").to_string();
    assert!(
        error.contains("no report of dirtyrig's") && error.contains("--out"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).expect("readable"), "precious");
    let error = write::write(&dir.path().join("no/where"), "new")
        .expect_err("no folder")
        .to_string();
    assert!(error.contains("check that the folder exists"), "{error}");
    assert_eq!(
        fs::read_dir(dir.path()).expect("the folder").count(),
        2,
        "nothing is left over"
    );
}

#[test]
fn a_page_of_files_has_neither_script_nor_style_nor_picture_in_it() {
    let dir = folder();
    let recording = record(&dir.path().join("sweep"), &small(), 99);
    let recordings = std::slice::from_ref(&recording);
    let report = Report::of(recordings);
    let files = html::render_files(&report, recordings).expect("a page");
    let (name, page) = files.last().expect("the page");
    assert_eq!(name, html::INDEX);
    for inside in ["<script", "<style", "style=", "<svg", "onclick"] {
        assert!(!page.contains(inside), "the page has {inside}");
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let pictures: Vec<&str> = page
        .split("<img src=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(pictures.len() > 5);
    for picture in pictures.iter().chain(&["report.css"]) {
        assert_eq!(names.iter().filter(|name| *name == picture).count(), 1, "{picture}");
    }

    let out = dir.path().join("out");
    write::write_files(&out, html::INDEX, &files).expect("a new folder");
    write::write_files(&out, html::INDEX, &files).expect("over an older report");
    let mine = dir.path().join("mine");
    fs::create_dir(&mine).expect("a folder");
    fs::write(mine.join("notes"), "precious").expect("a file");
    let error = write::write_files(&mine, html::INDEX, &files)
        .expect_err("not ours")
        .to_string();
    assert!(error.contains("mine") && error.contains("--out"), "{error}");
}
