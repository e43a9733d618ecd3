//! The steady-state error of every ring and quota, with the verdict written in.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::{Axis, number},
        data::{Facet, Periods, facets, verdict_words},
        marks::ink_on,
        page::{Mark, Page, Panel},
        style::{self, Color},
    },
    distinct, quotas,
};

pub(crate) const FIGURE: Figure = Figure {
    name: "error-map",
    about: "steady-state error by ring and quota with the verdicts written in",
    pages,
};

/// Shades from paper to the palette's colours: over the quota towards vermillion, under it towards blue.
const FULL_AT_PCT: f64 = 100.0;
const TILE: (i32, i32) = (88, 46);

fn pages(view: &RecordingView<'_>, _choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let facets = facets(
        view.summaries.iter().filter(|row| row.quota_mib_s.is_some()),
        Periods::Together,
    );
    let all = || facets.iter().flat_map(|facet| &facet.points);
    let asked = quotas(all());
    let rings = distinct(all(), |p| p.rows[0].ring_entries);
    let periods = distinct(all(), |p| p.rows[0].period_ms);
    if asked.len() < 2 || rings.len() * periods.len() < 2 {
        return Err(Skip::because(
            "it needs cells of two quotas and two rings (or periods) or more",
        ));
    }
    // Tables this size are read, not compared: one per page keeps the words in the tiles large.
    let rows: Vec<(Option<u32>, u64)> = rings
        .iter()
        .flat_map(|ring| periods.iter().map(move |p| (*ring, *p)))
        .collect();
    let panel_size = (
        (TILE.0 * asked.len() as i32 + 120).clamp(style::WIDTH - style::MARGIN, 1600),
        TILE.1 * rows.len() as i32 + 90,
    );
    let several = facets.len() > 1;
    Ok(facets
        .iter()
        .enumerate()
        .map(|(i, facet)| Page {
            suffix: if i > 0 { format!("-{}", i + 1) } else { String::new() },
            title: if several {
                format!("Steady-state error ({} of {})", i + 1, facets.len())
            } else {
                "Steady-state error".to_owned()
            },
            subtitle: vec![
                format!("{} \u{b7} {}", view.title, view.machine),
                format!("{}; guest's counter against quota, median of {}", facet.label, runs(facet)),
            ],
            legend: Vec::new(),
            panels: vec![panel(facet, &asked, &rows, periods.len() > 1)],
            columns: 1,
            panel_size,
            notes: vec![
                "Error: (guest's rate \u{2212} quota) / quota. Darker: further off; vermillion over the quota, blue under it."
                    .to_owned(),
            ],
        })
        .collect())
}

fn runs(facet: &Facet<'_>) -> String {
    let counts = distinct(&facet.points, |p| p.rows.len() as u64);
    match (counts.first(), counts.last()) {
        (Some(1), Some(1)) | (None, _) | (_, None) => "n = 1 run".to_owned(),
        (Some(least), Some(most)) if least == most => format!("n = {most} runs"),
        (Some(least), Some(most)) => format!("n = {least} to {most} runs"),
    }
}

fn panel(facet: &Facet<'_>, asked: &[f64], rows: &[(Option<u32>, u64)], name_periods: bool) -> Panel {
    let name = |(ring, period): &(Option<u32>, u64)| {
        let ring = ring.map_or_else(|| "unknown".to_owned(), |entries| entries.to_string());
        if name_periods {
            format!("{ring}, {period} ms")
        } else {
            ring
        }
    };
    let marks = facet
        .points
        .iter()
        .filter_map(|point| {
            let quota = point.quota()?;
            let column = asked.iter().position(|q| q.total_cmp(&quota).is_eq())? as f64;
            let key = (point.rows[0].ring_entries, point.rows[0].period_ms);
            let row = rows.iter().position(|row| *row == key)? as f64;
            let error = 100.0 * (point.truth()?.median - quota) / quota;
            let fill = shade(error);
            Some(Mark::Tile {
                x: (column, column + 1.0),
                y: (row, row + 1.0),
                fill,
                ink: ink_on(fill),
                lines: vec![signed(error), verdict_words(point.verdict()).to_owned()],
            })
        })
        .collect();
    Panel {
        title: String::new(),
        x: Axis::bands("quota asked for (MiB/s)", asked.iter().map(|quota| number(*quota))),
        y: Axis::bands(
            if name_periods {
                "dirty ring size (entries), period"
            } else {
                "dirty ring size (entries)"
            },
            rows.iter().map(name),
        ),
        marks,
    }
}

/// An error as a person writes it; beyond tenfold as a factor.
fn signed(error_pct: f64) -> String {
    if error_pct >= 1000.0 {
        return format!("\u{d7} {}", number((error_pct / 100.0 + 1.0).round()));
    }
    let rounded = error_pct.round();
    let sign = if rounded > 0.0 { "+" } else { "" };
    format!("{sign}{} %", number(rounded))
}

fn shade(error_pct: f64) -> Color {
    let full = if error_pct >= 0.0 {
        style::TILE_OVER
    } else {
        style::TILE_UNDER
    };
    // The square root sets small errors apart, where the verdict is decided.
    let depth = (error_pct.abs() / FULL_AT_PCT).min(1.0).sqrt();
    let mix = |paper: u8, ink: u8| (f64::from(paper) + (f64::from(ink) - f64::from(paper)) * depth).round() as u8;
    let pale = Color {
        0: 0xf4,
        1: 0xf4,
        2: 0xf4,
    };
    Color {
        0: mix(pale.0, full.0),
        1: mix(pale.1, full.1),
        2: mix(pale.2, full.2),
    }
}
