//! One check: two recordings in, all that there is to say of them out.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    Comparison, Verdict,
    cell::{Cell, cells},
    compare,
    differences::differences,
    power,
};
use crate::{model::Summary, recording::Recording};

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
    /// Of many recordings none can be the baseline.
    #[error(
        "none of the recordings in `{}` can be a baseline of `{}`: {}",
        folder.display(),
        candidate.display(),
        if why.is_empty() { "no other one was begun before it".to_owned() } else { format!("\n  {}", why.join("\n  ")) }
    )]
    NoneFits {
        /// The folder that they are in.
        folder: PathBuf,
        /// Folder of the candidate.
        candidate: PathBuf,
        /// Why each does not, a sentence each.
        why: Vec<String>,
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

/// What a recording is compared with: one recording, or several whose repetitions are pooled.
#[derive(Clone, Debug)]
pub struct Baseline {
    newest: Recording,
    /// Newest first.
    older: Vec<Recording>,
    notes: Vec<String>,
}

impl Baseline {
    /// One recording.
    pub fn one(recording: Recording) -> Self {
        Self {
            newest: recording,
            older: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Of `recordings` in `folder`, newest first, the first `most` that `candidate` can be compared with. Those left out
    /// on the way are noted.
    pub fn last(
        folder: &Path,
        recordings: Vec<Recording>,
        most: usize,
        candidate: &Recording,
        force: bool,
    ) -> Result<Self, CheckError> {
        let (mut fitting, mut why) = (Vec::new(), Vec::new());
        for recording in recordings {
            if fitting.len() == most {
                break;
            }
            let differences = differences(&recording, candidate);
            if recording.summaries.is_empty() {
                why.push(format!("`{}` has no finished cell", recording.dir.display()));
            } else if let Some(difference) = differences.first().filter(|_| !force) {
                why.push(format!(
                    "`{}` is another experiment: {difference}",
                    recording.dir.display()
                ));
            } else {
                fitting.push(recording);
            }
        }
        if fitting.is_empty() {
            return Err(CheckError::NoneFits {
                folder: folder.to_owned(),
                candidate: candidate.dir.clone(),
                why,
            });
        }
        let mut notes: Vec<String> = why
            .into_iter()
            .map(|why| format!("not in the baseline: {why}"))
            .collect();
        if fitting.len() < most {
            notes.push(format!("the baseline has {} recordings, not {most}", fitting.len()));
        }
        let newest = fitting.remove(0);
        Ok(Self {
            newest,
            older: fitting,
            notes,
        })
    }

    fn recordings(&self) -> impl Iterator<Item = &Recording> {
        std::iter::once(&self.newest).chain(&self.older)
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The baseline.
    pub baseline: Subject,
    /// The candidate.
    pub candidate: Subject,
    /// The folders of all recordings of the baseline, newest first.
    pub baseline_dirs: Vec<String>,
    /// What the reader should know: what was compared all the same, what is missing, what was disturbed.
    pub notes: Vec<String>,
    /// Cells that only the baseline has.
    pub only_in_baseline: Vec<Cell>,
    /// Cells that only the candidate has.
    pub only_in_candidate: Vec<Cell>,
    /// One per cell and metric.
    pub comparisons: Vec<Comparison>,
}

impl Outcome {
    /// Compares `candidate` with `baseline`, cell by cell of those that both have; with `force` also where their machines
    /// or scenarios differ.
    pub fn of(baseline: &Baseline, candidate: &Recording, force: bool) -> Result<Self, CheckError> {
        if let Some(empty) = baseline
            .recordings()
            .chain([candidate])
            .find(|recording| recording.summaries.is_empty())
        {
            return Err(CheckError::Empty { dir: empty.dir.clone() });
        }
        let mut notes = baseline.notes.clone();
        for recording in baseline.recordings() {
            let differences = differences(recording, candidate);
            if !force && !differences.is_empty() {
                return Err(CheckError::Different {
                    baseline: recording.dir.clone(),
                    candidate: candidate.dir.clone(),
                    differences,
                });
            }
            notes.extend(
                differences
                    .into_iter()
                    .map(|text| format!("compared all the same: {text}")),
            );
            notes.extend(notes_on("baseline", recording));
        }
        notes.extend(notes_on("candidate", candidate));

        let rows: Vec<Summary> = baseline
            .recordings()
            .flat_map(|recording| recording.summaries.iter().cloned())
            .collect();
        let (old, new) = same_vmm(&rows, &candidate.summaries);
        let (before, after) = (cells(&old), cells(&new));
        let comparisons = compare(&old, &new);
        if comparisons.is_empty() {
            let first = |cells: &BTreeSet<Cell>| cells.first().map_or_else(String::new, ToString::to_string);
            return Err(CheckError::NothingInCommon {
                baseline: baseline.newest.dir.clone(),
                candidate: candidate.dir.clone(),
                baseline_has: first(&before),
                candidate_has: first(&after),
            });
        }
        check_enough(&comparisons)?;
        let only = |mine: &BTreeSet<Cell>, other: &BTreeSet<Cell>| mine.difference(other).cloned().collect();
        let outcome = Self {
            baseline: subject(&baseline.newest),
            candidate: subject(candidate),
            baseline_dirs: baseline
                .recordings()
                .map(|recording| recording.dir.display().to_string())
                .collect(),
            notes,
            only_in_baseline: only(&before, &after),
            only_in_candidate: only(&after, &before),
            comparisons,
        };
        Ok(outcome)
    }

    /// Which cells were not compared, a sentence a side.
    pub fn not_compared(&self) -> Vec<String> {
        let told = |cells: &[Cell], name: &str| {
            let names: Vec<String> = cells.iter().map(ToString::to_string).collect();
            (!names.is_empty()).then(|| format!("in the {name} only, and not compared: {}", names.join("; ")))
        };
        let sides = [
            (&self.only_in_baseline, "baseline"),
            (&self.only_in_candidate, "candidate"),
        ];
        sides
            .into_iter()
            .filter_map(|(cells, name)| told(cells, name))
            .collect()
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
