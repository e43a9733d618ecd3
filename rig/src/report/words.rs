//! The findings in words: what held, what did not, and why; and how far the figures can be trusted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{answer, points::Point};
use crate::{analysis, model::Verdict, recording::Recording};

/// What came out: the answer for each limiter, then how many runs ended how.
pub(super) fn findings(points: &[Point], verdicts: &BTreeMap<Verdict, usize>) -> Vec<String> {
    answer::answers(points).into_iter().chain(headline(verdicts)).collect()
}

fn headline(verdicts: &BTreeMap<Verdict, usize>) -> Option<String> {
    let count = |wanted: Verdict| verdicts.get(&wanted).copied().unwrap_or(0);
    let limited: usize = verdicts.values().sum::<usize>() - count(Verdict::Unlimited);
    if limited == 0 {
        let unlimited = count(Verdict::Unlimited);
        return (unlimited > 0).then(|| format!("No vCPU was limited; {} ran free.", of(unlimited, "run")));
    }
    let mut others: Vec<(usize, Verdict)> = verdicts
        .iter()
        .filter(|(verdict, _)| !matches!(verdict, Verdict::Held | Verdict::Unlimited))
        .map(|(verdict, count)| (*count, *verdict))
        .collect();
    others.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let others: Vec<String> = others
        .into_iter()
        .map(|(count, verdict)| format!("{count} {}", why(verdict)))
        .collect();
    let held = count(Verdict::Held);
    Some(if others.is_empty() {
        format!("All {} held their quota.", of(limited, "limited run"))
    } else {
        format!(
            "{held} of {} held {} quota; {}.",
            of(limited, "limited run"),
            if held == 1 { "its" } else { "their" },
            others.join(", ")
        )
    })
}

/// What a verdict means, as the end of a sentence that begins with a number.
fn why(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "held it",
        Verdict::FloorBound => "ended at the floor of ring bytes / period",
        Verdict::ToleranceBound => "ended off it by less than the law acts on",
        Verdict::CapBound => "ended at what the longest sleep lets through",
        Verdict::Missed => "missed it without a bound that explains it",
        Verdict::Oscillating => "kept swinging",
        Verdict::NotSettled => "had not settled when time was up",
        Verdict::GuestTooSlow => "ran with a guest too slow for the limiter to act on",
        Verdict::Unlimited => "had no limit",
        Verdict::Unknown => "can't be judged, as nobody knows what the guest dirtied",
    }
}

/// How far the figures of a recording can be trusted.
pub(super) fn trust(recording: &Recording) -> Vec<String> {
    let mut lines = Vec::new();
    let manifest = &recording.manifest;
    if let Some(gaps) = recording.gaps() {
        lines.push(format!("Not complete: {gaps}."));
    }
    for torn in &recording.torn {
        lines.push(format!(
            "Line {} of {} was being written when the run was killed and does not count.",
            torn.line, torn.file
        ));
    }
    if recording.summaries.is_empty() {
        lines.push("No cell is finished, so there are no figures yet.".to_owned());
    }
    lines.extend(analysis::trust(&manifest.machine, &recording.summaries));
    if manifest.merged_from.len() > 1 {
        let machines = manifest.machine.get("machines").and_then(Value::as_u64).unwrap_or(1);
        lines.push(format!(
            "Put together from {} recordings of {}; the manifest says which cells came from where.",
            manifest.merged_from.len(),
            of(machines as usize, "machine")
        ));
    }
    if manifest.git_revision.ends_with("-dirty") {
        lines.push("Recorded by a build whose source was changed after its commit.".to_owned());
    }
    lines
}

fn of(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
