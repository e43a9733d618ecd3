//! One check: two recordings in, all that there is to say of them out.

use std::{collections::BTreeSet, path::PathBuf};

use super::{Comparison, Verdict, cell::cells, compare, differences::differences, power};
use crate::recording::{Recording, schema::Summary};

/// Why two recordings are not compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// What differs would be taken for a change of the limiter.
    #[error(
        "`{}` can't be compared with the baseline `{}`:\n  {}\nrecord both on one machine with the same settings, or compare \
         all the same with --force",
        candidate.display(),
        baseline.display(),
        differences.join("\n  ")
    )]
    Different {
        /// Folder of the baseline.
        baseline: PathBuf,
        /// Folder of the candidate.
        candidate: PathBuf,
        /// What differs, a sentence each.
        differences: Vec<String>,
    },
    /// A recording without a finished cell.
    #[error("`{}` has no finished cell: go on with `dirtyrig sweep --resume {}`, or record again", dir.display(), dir.display())]
    Empty {
        /// Its folder.
        dir: PathBuf,
    },
    /// No cell that both have.
    #[error(
        "`{}` and the baseline `{}` have no cell in common: the one has {candidate_has}, the other {baseline_has}; record both \
         with the same settings",
        candidate.display(),
        baseline.display()
    )]
    NothingInCommon {
        /// Folder of the baseline.
        baseline: PathBuf,
        /// Folder of the candidate.
        candidate: PathBuf,
        /// A cell of the baseline.
        baseline_has: String,
        /// A cell of the candidate.
        candidate_has: String,
    },
    /// A gate that could not fail.
    #[error(
        "nothing can be told of {comparisons} figures from {baseline} repetitions in the baseline and {candidate} in the \
         candidate: record at least {needed} of each (`dirtyrig sweep --repetitions {needed}`)"
    )]
    TooFew {
        /// How many comparisons there are.
        comparisons: usize,
        /// Most repetitions that a cell of the baseline has.
        baseline: usize,
        /// The same of the candidate.
        candidate: usize,
        /// Repetitions a side with which a change could be found at all.
        needed: usize,
    },
}

/// A recording, as far as the outcome names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The folder.
    pub dir: String,
    /// The commit that dirtyrig was built from.
    pub revision: String,
    /// When it was begun.
    pub started_utc: String,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The baseline.
    pub baseline: Subject,
    /// The candidate.
    pub candidate: Subject,
    /// What the reader should know: what was compared all the same, what is missing, what was disturbed.
    pub notes: Vec<String>,
    /// One a cell and metric.
    pub comparisons: Vec<Comparison>,
}

impl Outcome {
    /// Compares `candidate` with `baseline`; with `force` also where their machines or scenarios differ.
    pub fn of(baseline: &Recording, candidate: &Recording, force: bool) -> Result<Self, CheckError> {
        if let Some(empty) = [baseline, candidate]
            .into_iter()
            .find(|recording| recording.summaries.is_empty())
        {
            return Err(CheckError::Empty { dir: empty.dir.clone() });
        }
        let differences = differences(baseline, candidate);
        if !force && !differences.is_empty() {
            return Err(CheckError::Different {
                baseline: baseline.dir.clone(),
                candidate: candidate.dir.clone(),
                differences,
            });
        }
        let mut notes: Vec<String> = differences
            .into_iter()
            .map(|text| format!("compared all the same: {text}"))
            .collect();
        notes.extend(notes_on("baseline", baseline));
        notes.extend(notes_on("candidate", candidate));

        let (old, new) = same_vmm(&baseline.summaries, &candidate.summaries);
        let (before, after) = (cells(&old), cells(&new));
        let only = |mine: &BTreeSet<_>, other: &BTreeSet<_>, name: &str| {
            let count = mine.difference(other).count();
            let first = mine.difference(other).next()?;
            Some(format!(
                "{count} cells are in the {name} only and are not compared, such as {first}"
            ))
        };
        notes.extend(only(&before, &after, "baseline"));
        notes.extend(only(&after, &before, "candidate"));
        let comparisons = compare(&old, &new);
        if comparisons.is_empty() {
            let first =
                |cells: &BTreeSet<super::cell::Cell>| cells.first().map_or_else(String::new, ToString::to_string);
            return Err(CheckError::NothingInCommon {
                baseline: baseline.dir.clone(),
                candidate: candidate.dir.clone(),
                baseline_has: first(&before),
                candidate_has: first(&after),
            });
        }
        check_enough(&comparisons)?;
        Ok(Self {
            baseline: subject(baseline),
            candidate: subject(candidate),
            notes,
            comparisons,
        })
    }

    /// How many comparisons have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.comparisons.iter().filter(|one| one.verdict == verdict).count()
    }

    /// Whether anything got worse.
    pub fn is_regression(&self) -> bool {
        self.count(Verdict::Regressed) > 0
    }

    /// The outcome in one line.
    pub fn headline(&self) -> String {
        let counts: Vec<String> = [Verdict::Regressed, Verdict::Improved, Verdict::Same, Verdict::CantTell]
            .into_iter()
            .map(|verdict| format!("{} {}", self.count(verdict), verdict.name()))
            .collect();
        let mut line = format!("{} comparisons: {}", self.comparisons.len(), counts.join(", "));
        let needed = self.comparisons.iter().filter_map(|one| one.needed);
        let (enough, most) = (needed.clone().filter(|&n| n < power::MOST).max(), needed.max());
        if let Some(n) = enough {
            line = format!("{line}; {n} repetitions would tell");
        }
        if most == Some(power::MOST) {
            let hopeless = self
                .comparisons
                .iter()
                .filter(|one| one.needed == Some(power::MOST))
                .count();
            line = format!("{line}; {hopeless} of them scatter too much for any number");
        }
        line
    }
}

fn subject(recording: &Recording) -> Subject {
    Subject {
        dir: recording.dir.display().to_string(),
        revision: recording.manifest.git_revision.clone(),
        started_utc: recording.manifest.started_utc.clone(),
    }
}

fn notes_on(name: &str, recording: &Recording) -> Vec<String> {
    let rows = &recording.summaries;
    let cells = |rows: &mut dyn Iterator<Item = &Summary>| rows.map(|row| row.cell).collect::<BTreeSet<_>>().len();
    let disturbed = cells(&mut rows.iter().filter(|row| !row.disturbed.is_empty()));
    let gaps = recording.gaps().map(|gaps| format!("the {name} is not whole: {gaps}"));
    let example = rows.iter().find(|row| !row.disturbed.is_empty());
    let noise = example.map(|row| {
        format!(
            "{disturbed} of {} cells of the {name} were disturbed, such as {}: {}; what changed may be the machine's doing",
            cells(&mut rows.iter()),
            row.cell,
            row.disturbed
        )
    });
    gaps.into_iter().chain(noise).collect()
}

/// Both sides' rows; where each has a single VMM but not the same (a forced comparison), under one name for both.
fn same_vmm(old: &[Summary], new: &[Summary]) -> (Vec<Summary>, Vec<Summary>) {
    let single = |rows: &[Summary]| {
        let first = rows.first()?.vmm.clone();
        rows.iter().all(|row| row.vmm == first).then_some(first)
    };
    let (mut old_rows, mut new_rows) = (old.to_vec(), new.to_vec());
    if let (Some(old), Some(new)) = (single(old), single(new))
        && old != new
    {
        for row in old_rows.iter_mut().chain(&mut new_rows) {
            row.vmm = format!("{old}, then {new}");
        }
    }
    (old_rows, new_rows)
}

/// A check in which no figure has the repetitions that a change could show with would pass whatever happened.
fn check_enough(comparisons: &[Comparison]) -> Result<(), CheckError> {
    let undecided = comparisons.iter().filter(|one| one.verdict == Verdict::CantTell);
    if undecided.count() < comparisons.len() {
        return Ok(());
    }
    let most = |side: fn(&Comparison) -> usize| comparisons.iter().map(side).max().unwrap_or_default();
    let (baseline, candidate) = (
        most(|one| one.baseline.values.len()),
        most(|one| one.candidate.values.len()),
    );
    let needed = super::rank::least_size(super::ALPHA / comparisons.len() as f64);
    if baseline.min(candidate) >= needed {
        return Ok(());
    }
    Err(CheckError::TooFew {
        comparisons: comparisons.len(),
        baseline,
        candidate,
        needed,
    })
}
