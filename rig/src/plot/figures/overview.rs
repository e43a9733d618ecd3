//! Every cell of a sweep as a small picture of its convergence.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::number,
        data::{Exact, Series, ring_words, series},
        page::Page,
    },
    convergence, time_subtitle,
};
use crate::recording::schema::OBSERVED;

pub(crate) const FIGURE: Figure = Figure {
    name: "overview",
    about: "small multiples of convergence, a panel for each cell of the sweep",
    pages,
};

const COLUMNS: usize = 4;
const ROWS_A_PAGE: usize = 6;
const PANEL: (i32, i32) = (300, 200);

fn pages(view: &RecordingView<'_>, choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let cells = view
        .samples
        .iter()
        .map(|row| row.cell)
        .filter(|cell| choice.cells.is_empty() || choice.cells.contains(cell))
        .collect();
    let mut shown: Vec<Series<'_>> = series(view.samples, view.summaries, &cells)
        .into_iter()
        .filter(|series| series.samples.len() > 1)
        .collect();
    if shown.len() < 2 {
        return Err(Skip::because("it needs two cells or vCPUs or more"));
    }
    // Neighbours differ in one thing, so that the eye can compare them.
    shown.sort_by(|a, b| order(a).cmp(&order(b)));
    let pages: Vec<_> = shown.chunks(COLUMNS * ROWS_A_PAGE).collect();
    Ok(pages
        .iter()
        .enumerate()
        .map(|(i, here)| {
            let mut notes = vec!["Above each panel: cell, limiter, ring size in entries, quota in MiB/s.".to_owned()];
            let mut axes = convergence::axes(here, (4, 5), &mut notes);
            "time (s)".clone_into(&mut axes.0.title);
            "MiB/s".clone_into(&mut axes.1.title);
            let panels = here
                .iter()
                .map(|series| {
                    let mut panel = convergence::panel(series, axes.clone());
                    panel.title = title(series);
                    panel
                })
                .collect();
            Page {
                suffix: if i > 0 { format!("-{}", i + 1) } else { String::new() },
                title: if pages.len() > 1 {
                    format!("Dirty rate over time, all cells ({} of {})", i + 1, pages.len())
                } else {
                    "Dirty rate over time, all cells".to_owned()
                },
                subtitle: time_subtitle(view, here),
                legend: convergence::legend(here),
                panels,
                columns: COLUMNS.min(here.len()),
                panel_size: PANEL,
                notes,
            }
        })
        .collect())
}

/// Limiter, period, ring and quota; then cell and vCPU.
type Order<'a> = (Option<(&'a str, u64, Option<u32>, Exact)>, u32, u32);

fn order<'a>(series: &Series<'a>) -> Order<'a> {
    let key = series.summary.map(|row| {
        let quota = Exact(row.quota_mib_s.unwrap_or(f64::INFINITY));
        (row.limiter.as_str(), row.period_ms, row.ring_entries, quota)
    });
    (key, series.cell, series.vcpu)
}

fn title(series: &Series<'_>) -> String {
    let Some(row) = series.summary else {
        return series.label();
    };
    if row.limiter == OBSERVED {
        return series.label();
    }
    let quota = match (row.quota_mib_s, row.vm_quota_mib_s) {
        (Some(own), _) => number(own),
        (None, Some(all)) => format!("{} for all", number(all)),
        (None, None) => "no quota".to_owned(),
    };
    let vcpu = if row.vcpus > 1 {
        format!(", vCPU {}", series.vcpu)
    } else {
        String::new()
    };
    format!(
        "{}: {}, {}, {quota}{vcpu}",
        series.cell,
        row.limiter,
        ring_words(row.ring_entries)
    )
}
