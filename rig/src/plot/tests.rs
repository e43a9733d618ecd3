//! Draws made-up recordings and checks the pictures' structure.
//!
//! To look at them: `DIRTYRIG_FIGURES=/tmp/figures cargo test -p dirtyrig-rig plot::tests::draws`.

pub(crate) mod fixture;

use fixture::{Made, Recipe, made};
use resvg::usvg::{self, roxmltree::Document};

use super::{Choice, FIGURES, Format, Outcome, PlotError, Skip, draw_all, export, pictures, style, text};

fn drawn(made: &Made) -> Vec<Outcome> {
    pictures(&made.view(), &Choice::default()).expect("made-up recordings can be drawn")
}

fn svg_of(made: &Made, figure: &str) -> String {
    let names = [figure.to_owned()];
    let choice = Choice {
        figures: Some(&names),
        ..Choice::default()
    };
    let mut outcomes = pictures(&made.view(), &choice).expect("the figure exists");
    match outcomes.remove(0).pictures {
        Ok(mut pictures) => pictures.remove(0).svg,
        Err(Skip(reason)) => panic!("{figure} was skipped: {reason}"),
    }
}

/// Every word stands within the picture, as the font that is bundled sets it, and every coordinate is a number.
fn check(name: &str, svg: &str) {
    let document = Document::parse(svg).unwrap_or_else(|error| panic!("{name} is no XML: {error}"));
    let root = document.root_element();
    let number = |node: &usvg::roxmltree::Node<'_, '_>, key: &str| -> f64 {
        let value = node.attribute(key).unwrap_or_else(|| panic!("{name}: no {key}"));
        value.parse().unwrap_or_else(|_| panic!("{name}: {key} is {value}"))
    };
    let units = f64::from(style::UNITS);
    let (width, height) = (number(&root, "width") * units, number(&root, "height") * units);
    let texts: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .collect();
    assert!(texts.len() > 5, "{name} has next to no words");
    for node in texts {
        let words = node.text().unwrap_or_default().trim();
        assert!(!words.is_empty(), "{name} has an empty text");
        let weight = if node.attribute("font-weight").is_some() {
            text::Weight::Bold
        } else {
            text::Weight::Regular
        };
        let size = number(&node, "font-size");
        let length = text::width(words, size / units, weight) * units;
        let (x, y) = (number(&node, "x"), number(&node, "y"));
        let before = match node.attribute("text-anchor") {
            Some("end") => length,
            Some("middle") => length / 2.0,
            _ => 0.0,
        };
        let baseline = match node.attribute("dy") {
            Some("0.76em") => 0.76 * size,
            Some("0.5ex") => 0.26 * size,
            _ => -0.26 * size,
        };
        let (rise, fall) = (baseline - 0.73 * size, baseline + 0.22 * size);
        let (left, right, low, high) = if node.attribute("transform").is_some() {
            (x + rise, x + fall, y - (length - before), y + before)
        } else {
            (x - before, x - before + length, y + rise, y + fall)
        };
        assert!(
            left >= 0.0 && right <= width && low >= 0.0 && high <= height,
            "{name}: `{words}` at {left:.0}..{right:.0}, {low:.0}..{high:.0} is outside {width} x {height}"
        );
    }
    assert!(
        !svg.contains("NaN") && !svg.contains("inf\""),
        "{name} has a coordinate that is no number"
    );
}

fn check_all(made: &Made) -> usize {
    let mut count = 0;
    for outcome in drawn(made) {
        for picture in outcome.pictures.into_iter().flatten() {
            check(&picture.name, &picture.svg);
            count += 1;
        }
    }
    count
}

#[test]
fn draws_every_figure_of_a_full_sweep_in_both_formats() {
    let kept = std::env::var_os("DIRTYRIG_FIGURES").map(std::path::PathBuf::from);
    let scratch = tempfile::tempdir().expect("a folder for scratch files");
    let out = kept.unwrap_or_else(|| scratch.path().to_owned());
    let made = made(&Recipe::default());
    let files = draw_all(&made.view(), &out, &[Format::Svg, Format::Png], &Choice::default())
        .expect("drawn")
        .files;
    // A sweep is no comparison, one recording is none either, and one VMM has none to be compared with.
    let others = ["compared", "stalls-compared", "fidelity"];
    for figure in FIGURES.iter().filter(|figure| !others.contains(&figure.name)) {
        for extension in ["svg", "png"] {
            let path = out.join(format!("{}.{extension}", figure.name));
            assert!(files.contains(&path), "{} was not written", path.display());
        }
    }
    for path in files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "svg"))
    {
        let svg = std::fs::read_to_string(path).expect("it was just written");
        check(&path.display().to_string(), &svg);
    }
}

#[test]
fn draws_several_vcpus_periods_and_changes() {
    let recipe = Recipe {
        limiters: &["qemu-7.2"],
        rings: &[16384, 32768, 65536],
        periods_ms: &[500, 1000, 2000],
        quotas: &[25.0, 500.0],
        repetitions: 1,
        vcpus: 2,
        then: Some(100.0),
    };
    let made = made(&recipe);
    if let Some(out) = std::env::var_os("DIRTYRIG_FIGURES").map(std::path::PathBuf::from) {
        let view = made.view();
        draw_all(&view, &out.join("vcpus"), &[Format::Png], &Choice::default()).expect("drawn");
        let choice = Choice {
            cells: &[3],
            ..Choice::default()
        };
        draw_all(&view, &out.join("one-cell"), &[Format::Png], &choice).expect("drawn");
    }
    assert!(check_all(&made) >= FIGURES.len() - 1);
}

fn small() -> Recipe<'static> {
    Recipe {
        limiters: &["qemu-7.2"],
        rings: &[4096, 65536],
        quotas: &[25.0, 256.0],
        repetitions: 1,
        ..Recipe::default()
    }
}

fn skipped(made: &Made) -> Vec<&'static str> {
    drawn(made)
        .into_iter()
        .filter(|outcome| outcome.pictures.is_err())
        .map(|outcome| outcome.figure.name)
        // It needs a second recording, and has a test of its own.
        .filter(|name| *name != "stalls-compared")
        .collect()
}

#[test]
fn figures_say_what_they_show() {
    let made = made(&Recipe::default());
    let floor = svg_of(&made, "floor");
    for words in [
        "dirty ring size (entries)",
        "settled dirty rate (MiB/s)",
        "65536",
        "qemu-10",
        "n = 3 runs",
        "No Machine 8000",
    ] {
        assert!(floor.contains(words), "floor doesn't say `{words}`");
    }
    let utilisation = svg_of(&made, "utilisation");
    assert!(utilisation.contains("ring 4096") && utilisation.contains("24 %"));
    let achieved = svg_of(&made, "achieved");
    assert!(achieved.contains("F floor-bound") && achieved.contains("O oscillating"));
    assert!(svg_of(&made, "error-map").contains("held"));
}

#[test]
fn an_empty_recording_skips_every_figure() {
    let made = Made {
        samples: Vec::new(),
        summaries: Vec::new(),
        stalls: Vec::new(),
    };
    assert_eq!(skipped(&made).len(), FIGURES.len() - 1);
}

#[test]
fn a_figure_that_would_be_empty_is_skipped() {
    let one_ring = made(&Recipe {
        rings: &[4096],
        quotas: &[25.0],
        ..small()
    });
    assert_eq!(
        skipped(&one_ring),
        [
            "floor",
            "achieved",
            "utilisation",
            "error-map",
            "settle",
            "overview",
            "compared",
            "fidelity"
        ]
    );
    check_all(&one_ring);

    let mut unlimited = made(&small());
    for sample in &mut unlimited.samples {
        (sample.quota_mib_s, sample.throttle_us, sample.asked_us, sample.slept_us) = (None, Some(0), Some(0), Some(0));
    }
    for row in &mut unlimited.summaries {
        (row.quota_mib_s, row.asked_us) = (None, Some(0));
    }
    assert_eq!(
        skipped(&unlimited),
        [
            "floor",
            "achieved",
            "utilisation",
            "throttle",
            "error-map",
            "settle",
            "slept",
            "compared",
            "fidelity"
        ]
    );
    check_all(&unlimited);
}

#[test]
fn rates_of_zero_are_drawn() {
    let mut made = made(&small());
    for sample in made.samples.iter_mut().filter(|s| s.t_s > 5.0) {
        sample.guest_mib_s = Some(0.0);
    }
    for row in &mut made.summaries {
        (
            row.guest_mib_s,
            row.guest_ci_low_mib_s,
            row.guest_ci_high_mib_s,
            row.utilisation_pct,
        ) = (Some(0.0), Some(0.0), Some(0.0), Some(0.0));
    }
    assert_eq!(skipped(&made), ["compared", "fidelity"]);
    check_all(&made);
}

#[test]
fn one_sample_is_no_curve() {
    let mut made = made(&small());
    made.samples.truncate(1);
    assert_eq!(
        skipped(&made),
        ["convergence", "throttle", "overview", "compared", "fidelity"]
    );
}

#[test]
fn a_comparison_shows_every_limiter_with_its_repetitions() {
    let mut made = made(&Recipe {
        limiters: &["qemu-7.2", "qemu-10", "budget"],
        rings: &[65536],
        quotas: &[100.0],
        repetitions: 2,
        then: Some(25.0),
        ..small()
    });
    for sample in &mut made.samples {
        // As finely sampled as a comparison.
        sample.t_s /= 20.0;
    }
    if let Some(out) = std::env::var_os("DIRTYRIG_FIGURES").map(std::path::PathBuf::from) {
        draw_all(&made.view(), &out.join("compared"), &[Format::Png], &Choice::default()).expect("drawn");
    }
    let picture = svg_of(&made, "compared");
    for name in ["qemu-7.2", "qemu-10", "budget"] {
        assert!(picture.contains(name), "{name} has no panel");
    }
    check("compared", &picture);
}

#[test]
fn an_outlier_is_cut_off_and_said_to_be() {
    let mut made = made(&small());
    made.samples[40].guest_mib_s = Some(1e9);
    made.samples[41].ring_mib_s = None;
    made.summaries[0].guest_ci_high_mib_s = None;
    check_all(&made);
    let svg = svg_of(&made, "convergence");
    assert!(
        svg.contains("1 value above") && svg.contains("1,000,000,000"),
        "the cut is not told"
    );
}

#[test]
fn two_hundred_cells_stay_small() {
    let made = made(&Recipe {
        limiters: &["qemu-7.2", "qemu-10"],
        rings: &[1024, 4096, 16384, 32768, 65536],
        quotas: &[25.0, 64.0, 128.0, 256.0, 500.0],
        repetitions: 4,
        ..Recipe::default()
    });
    assert_eq!(made.summaries.len(), 200);
    let size: usize = drawn(&made)
        .into_iter()
        .flat_map(|outcome| outcome.pictures.into_iter().flatten())
        .map(|picture| picture.svg.len())
        .sum();
    // All of it must fit into a report of 5 MB.
    assert!(size < 4 << 20, "{size} bytes of SVG");
    check_all(&made);
}

#[test]
fn an_unfinished_cell_is_drawn_without_its_summary() {
    let mut made = made(&small());
    made.summaries.retain(|row| row.cell != 0);
    check_all(&made);
    assert!(svg_of(&made, "convergence").contains("unfinished"));
}

#[test]
fn recordings_are_compared_where_they_share_settings() {
    let (one, other) = (
        made(&small()),
        made(&Recipe {
            quotas: &[25.0],
            ..small()
        }),
    );
    let views = [other.view()];
    let choice = Choice {
        others: &views,
        ..Choice::default()
    };
    let outcomes = pictures(&one.view(), &choice).expect("drawn");
    let compared = outcomes
        .into_iter()
        .find(|outcome| outcome.figure.name == "stalls-compared");
    let pictures = compared.expect("it exists").pictures.expect("they share a quota");
    check("stalls-compared", &pictures[0].svg);
    assert!(pictures[0].svg.contains("25 MiB/s") && !pictures[0].svg.contains("256 MiB/s"));
    if let Some(out) = std::env::var_os("DIRTYRIG_FIGURES").map(std::path::PathBuf::from) {
        draw_all(&one.view(), &out.join("compared"), &[Format::Png], &choice).expect("drawn");
    }

    let elsewhere = made(&Recipe {
        quotas: &[1.0],
        ..small()
    });
    let views = [elsewhere.view()];
    let choice = Choice {
        others: &views,
        ..Choice::default()
    };
    let outcomes = super::pictures(&one.view(), &choice).expect("drawn");
    let compared = outcomes
        .into_iter()
        .find(|outcome| outcome.figure.name == "stalls-compared");
    assert!(compared.expect("it exists").pictures.is_err());
}

#[test]
fn names_and_cells_that_are_not_there_are_refused() {
    let made = made(&small());
    let names = ["flor".to_owned()];
    let wrong_name = Choice {
        figures: Some(&names),
        ..Choice::default()
    };
    let error = pictures(&made.view(), &wrong_name).err().expect("no such figure");
    assert!(matches!(error, PlotError::UnknownFigure { .. }) && error.to_string().contains("floor"));
    let wrong_cell = Choice {
        cells: &[9],
        ..Choice::default()
    };
    let error = pictures(&made.view(), &wrong_cell).err().expect("no such cell");
    assert!(error.to_string().contains("cells 0-3"), "{error}");
}

#[test]
fn the_png_has_words_without_any_system_font() {
    let svg = |words: &str| {
        format!(
            "<svg width=\"200\" height=\"40\" viewBox=\"0 0 200 40\" xmlns=\"http://www.w3.org/2000/svg\">\
             <text x=\"5\" y=\"25\" font-family=\"{}\" font-size=\"16\">{words}</text></svg>",
            text::FAMILY
        )
    };
    let (blank, words) = (
        export::png(&svg("")).expect("rendered"),
        export::png(&svg("ring 65536")).expect("rendered"),
    );
    assert_ne!(blank, words, "no word was drawn");
}
