//! What the commands say of the probes.

use std::collections::HashSet;

use crate::{commands::output::note, engine::probing, model::Summary, scenario::probe_mode::ProbeMode};

/// The mode that this machine allows, found out before anything runs. Tells the user if that is less than was asked for.
pub(super) fn resolve(mode: ProbeMode) -> anyhow::Result<ProbeMode> {
    let (mode, notes) = probing::resolve(mode)?;
    for line in notes {
        note(format_args!("note: {line}"));
    }
    Ok(mode)
}

/// Tells what the probes could not see; once where many cells say the same with other numbers.
pub(super) fn tell(summaries: &[Summary]) {
    let mut told = HashSet::new();
    for row in summaries.iter().filter(|row| !row.probe_notes.is_empty()) {
        let words: String = row.probe_notes.chars().filter(|c| !c.is_ascii_digit()).collect();
        if told.insert(words) {
            note(format_args!("probes: {}", row.probe_notes));
        }
    }
    let lost: u64 = summaries
        .iter()
        .filter(|row| row.vcpu == 0)
        .filter_map(|row| row.probe_lost)
        .sum();
    if lost > 0 {
        note(format_args!(
            "probes: {lost} records were lost: their stalls are missing from the figures"
        ));
    }
}
