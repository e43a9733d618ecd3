//! How far the figures of a recording can be trusted, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{machine::noise::NoiseReport, model::Summary};

/// What the machine's own noise leaves of the figures: sentences for the reader of a report. `machine` are the facts of
/// the manifest, `summaries` the finished cells.
pub fn trust(machine: &Map<String, Value>, summaries: &[Summary]) -> Vec<String> {
    let baseline = machine
        .get("noise")
        .and_then(|noise| serde_json::from_value::<NoiseReport>(noise.clone()).ok());
    let mut sentences = vec![baseline.map_or_else(
        || "The machine's noise was not measured, so nothing says how much of a figure is the machine's.".to_owned(),
        |noise| quiet(&noise),
    )];
    sentences.extend(during(summaries));
    sentences.extend(repeated(summaries));
    sentences
}

fn quiet(noise: &NoiseReport) -> String {
    let stolen = noise.steal_worst_cpu_pct.map_or_else(
        || "the kernel does not tell what its hypervisor steals".to_owned(),
        |pct| format!("its hypervisor stole {pct:.1} % of a CPU"),
    );
    format!(
        "Before anything ran, this machine woke a sleeper {:.0} us late, {:.0} us at p99, and {stolen}: differences of \
         stalls and of lateness below that are the machine's.",
        noise.timer_late_p50_us, noise.timer_late_p99_us
    )
}

fn during(summaries: &[Summary]) -> Option<String> {
    let cells = |rows: &mut dyn Iterator<Item = &Summary>| rows.map(|row| row.cell).collect::<BTreeSet<_>>();
    let all = cells(&mut summaries.iter());
    if all.is_empty() {
        return None;
    }
    let watched = cells(&mut summaries.iter().filter(|row| row.timer_late_p99_us.is_some()));
    if watched.is_empty() {
        return Some(
            "Nobody listened to the machine while the cells ran: whether one was disturbed is not known.".to_owned(),
        );
    }
    let disturbed = cells(&mut summaries.iter().filter(|row| !row.disturbed.is_empty()));
    let late = summaries
        .iter()
        .filter_map(|row| row.timer_late_p99_us)
        .fold(0.0, f64::max);
    let first = summaries.iter().find(|row| !row.disturbed.is_empty());
    Some(match first {
        None => format!(
            "While the cells ran it stayed as quiet: none of {} was disturbed; a sleeper beside the guest was woken at \
             most {late:.0} us late at p99.",
            watched.len()
        ),
        Some(row) => format!(
            "{} of {} cells were disturbed by what is not part of the experiment (cell {}: {}): don't rest anything on \
             their figures; `sweep --repeat-disturbed 3` runs such cells again.",
            disturbed.len(),
            watched.len(),
            row.cell,
            row.disturbed
        ),
    })
}

/// Whether there is a spread between repetitions to judge by.
fn repeated(summaries: &[Summary]) -> Option<String> {
    let mut times: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    for row in summaries {
        let quota = row.quota_mib_s.map(f64::to_bits);
        let key = (
            &row.vmm,
            &row.limiter,
            &row.guest,
            row.ring_entries,
            row.period_ms,
            row.vcpus,
            row.vcpu,
            quota,
        );
        times.entry(key).or_default().insert(row.cell);
    }
    let fewest = times.values().map(BTreeSet::len).min()?;
    Some(if fewest == 1 {
        "Cells were measured once: confidence intervals cover what changes within a cell, not from one run to the next."
            .to_owned()
    } else {
        format!("Each cell was measured at least {fewest} times: how far repetitions lie apart is in the tables.")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn machine() -> Map<String, Value> {
        let facts = json!({ "noise": {
            "span_s": 0.4, "samples": 368, "timer_late_p50_us": 90.7, "timer_late_p99_us": 105.0,
            "timer_late_max_us": 166.0, "steal_pct": 0.0, "steal_worst_cpu_pct": 0.5, "others_cpus": 0.0, "idle_cpus": 2.0,
        }});
        facts.as_object().expect("an object").clone()
    }

    fn row(cell: u32, late: Option<f64>, disturbed: &str) -> Summary {
        Summary {
            cell,
            vcpus: 1,
            timer_late_p99_us: late,
            disturbed: disturbed.to_owned(),
            ..Summary::default()
        }
    }

    #[test]
    fn a_quiet_sweep_says_how_quiet() {
        let text = trust(&machine(), &[row(0, Some(80.0), ""), row(1, Some(120.0), "")]).join("\n");
        assert!(
            text.contains("91 us late, 105 us at p99") && text.contains("stole 0.5 %"),
            "{text}"
        );
        assert!(
            text.contains("none of 2 was disturbed") && text.contains("at most 120 us"),
            "{text}"
        );
        assert!(text.contains("at least 2 times"), "{text}");
    }

    #[test]
    fn a_disturbed_cell_is_named_with_its_reason() {
        let text = trust(
            &machine(),
            &[row(0, Some(80.0), ""), row(7, Some(80.0), "other processes used 1 CPU")],
        )
        .join("\n");
        assert!(text.contains("1 of 2 cells were disturbed"), "{text}");
        assert!(text.contains("cell 7: other processes used 1 CPU"), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_not_claimed() {
        let text = trust(&Map::new(), &[row(0, None, "")]).join("\n");
        assert!(text.contains("not measured") && text.contains("not known"), "{text}");
        assert!(text.contains("measured once"), "{text}");
        assert_eq!(trust(&Map::new(), &[]).len(), 1);
    }
}
