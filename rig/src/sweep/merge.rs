//! Recordings of one plan, put together into one.
//!
//! Everything that can be wrong is found before anything is written: a cell that is finished twice, another plan, another
//! build, another machine where none is expected.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::plan::Plan;
use crate::{
    model::{ExitRow, Sample, Summary},
    recording::{Manifest, Origin, Recorder, Recording, RecordingError, StallInterval},
};

/// Why recordings can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There is only one.
    #[error("`{}` is a single recording: give two or more to merge", dir.display())]
    Single {
        /// The recording.
        dir: PathBuf,
    },
    /// The recording of a run has no plan.
    #[error("`{}` is no recording of a sweep, so it has no plan to be merged by: give folders of `sweep --shard`", dir.display())]
    NoPlan {
        /// The recording.
        dir: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The recordings belong to different sweeps.
    #[error(
        "`{}` and `{}` have different plans ({difference}): only recordings of the same sweep can be merged; give every \
         share the same settings and the same --seed",
        first.display(), other.display()
    )]
    Plans {
        /// The first recording.
        first: PathBuf,
        /// The one that differs.
        other: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The figures may have been made differently.
    #[error(
        "`{}` was recorded by dirtyrig {ours}, `{}` by {theirs}: their figures need not mean the same; record the shares \
         with one build",
        first.display(), other.display()
    )]
    Builds {
        /// The first recording.
        first: PathBuf,
        /// The one that differs.
        other: PathBuf,
        /// Build of the first.
        ours: String,
        /// Build of the other.
        theirs: String,
    },
    /// The same cell twice.
    #[error(
        "`{}` and `{}` have both finished {cells}: each cell counts once; leave out one of the two, or record the shares \
         with different --shard",
        first.display(), other.display()
    )]
    Overlap {
        /// The recording that has it first.
        first: PathBuf,
        /// The one that has it too.
        other: PathBuf,
        /// The cells, in words.
        cells: String,
    },
    /// Not shares, and not of one machine.
    #[error(
        "`{}` and `{}` were recorded on different machines ({difference}), and `{}` is no share of a sweep: figures of two \
         machines belong together only where `sweep --shard` has spread a sweep on purpose",
        first.display(), other.display(), odd.display()
    )]
    Machines {
        /// The first recording.
        first: PathBuf,
        /// The one that differs.
        other: PathBuf,
        /// The one that is no share.
        odd: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

/// Writes the finished cells of `parts` into a new recording in `out`, and reads it back.
pub fn merge(parts: &[Recording], out: &Path) -> Result<Recording, MergeError> {
    let plan = check(parts)?;
    let manifest = manifest(parts, &plan);
    let mut sources: BTreeMap<u32, Source<'_>> = BTreeMap::new();
    for part in parts {
        for rows in part.summaries.chunk_by(|a, b| a.cell == b.cell) {
            let source = sources.entry(rows[0].cell).or_default();
            source.summaries.extend_from_slice(rows);
        }
        for rows in part.samples.chunk_by(|a, b| a.cell == b.cell) {
            let source = sources
                .get_mut(&rows[0].cell)
                .expect("samples are those of finished cells");
            source.samples.push(rows);
        }
        for interval in part.stalls()? {
            let source = sources
                .get_mut(&interval.cell)
                .expect("intervals are those of finished cells");
            source.stalls.push(interval);
        }
        for row in part.exits()? {
            let source = sources.get_mut(&row.cell).expect("exits are those of finished cells");
            source.exits.push(row);
        }
    }

    let mut recorder = Recorder::create(out, manifest)?;
    for cell in &plan.cells {
        if let Some(source) = sources.get(&cell.cell) {
            recorder.copy_cell(&source.samples.concat(), &source.stalls)?;
            recorder.append_exits(&source.exits)?;
            recorder.append_summaries(cell.cell, &source.summaries)?;
        }
    }
    recorder.finish()?;
    Ok(Recording::open(out)?)
}

/// What there is of a finished cell.
#[derive(Default)]
struct Source<'a> {
    samples: Vec<&'a [Sample]>,
    stalls: Vec<StallInterval>,
    exits: Vec<ExitRow>,
    summaries: Vec<Summary>,
}

/// Whether the recordings belong together. Returns their plan.
fn check(parts: &[Recording]) -> Result<Plan, MergeError> {
    let [first, others @ ..] = parts else {
        unreachable!("the command line asks for at least one recording")
    };
    if others.is_empty() {
        return Err(MergeError::Single { dir: first.dir.clone() });
    }
    let plan = plan(first)?;
    for other in others {
        compare(first, &plan, other)?;
    }
    let mut owners: BTreeMap<u32, &Recording> = BTreeMap::new();
    for part in parts {
        let finished = part.finished();
        let twice: BTreeSet<u32> = finished
            .iter()
            .copied()
            .filter(|cell| owners.contains_key(cell))
            .collect();
        if let Some(cell) = twice.first() {
            return Err(MergeError::Overlap {
                first: owners[cell].dir.clone(),
                other: part.dir.clone(),
                cells: format!(
                    "cell{} {}",
                    if twice.len() == 1 { "" } else { "s" },
                    crate::recording::ranges(&twice)
                ),
            });
        }
        owners.extend(finished.into_iter().map(|cell| (cell, part)));
    }
    Ok(plan)
}

fn plan(part: &Recording) -> Result<Plan, MergeError> {
    serde_json::from_value(part.manifest.scenario.clone()).map_err(|source| MergeError::NoPlan {
        dir: part.dir.clone(),
        source,
    })
}

fn compare(first: &Recording, plan_of_first: &Plan, other: &Recording) -> Result<(), MergeError> {
    let dirs = || (first.dir.clone(), other.dir.clone());
    if let Some(difference) = plan_difference(plan_of_first, &plan(other)?) {
        let (first, other) = dirs();
        return Err(MergeError::Plans {
            first,
            other,
            difference,
        });
    }
    let build = |manifest: &Manifest| format!("{} ({})", manifest.tool_version, manifest.git_revision);
    let (ours, theirs) = (build(&first.manifest), build(&other.manifest));
    if ours != theirs {
        let (first, other) = dirs();
        return Err(MergeError::Builds {
            first,
            other,
            ours,
            theirs,
        });
    }
    let is_share = |part: &Recording| part.manifest.shard.is_some() || !part.manifest.merged_from.is_empty();
    let odd = [first, other].into_iter().find(|part| !is_share(part));
    if let (Some(odd), Some(difference)) = (
        odd,
        machine_difference(&first.manifest.machine, &other.manifest.machine),
    ) {
        let odd = odd.dir.clone();
        let (first, other) = dirs();
        return Err(MergeError::Machines {
            first,
            other,
            odd,
            difference,
        });
    }
    Ok(())
}

/// In words what tells two plans apart.
fn plan_difference(ours: &Plan, theirs: &Plan) -> Option<String> {
    if ours == theirs {
        return None;
    }
    if ours.seed != theirs.seed {
        return Some(format!("seed {} and seed {}", ours.seed, theirs.seed));
    }
    if ours.repeat_disturbed != theirs.repeat_disturbed {
        let (ours, theirs) = (ours.repeat_disturbed, theirs.repeat_disturbed);
        return Some(format!("--repeat-disturbed {ours} and {theirs}"));
    }
    if ours.cells.len() != theirs.cells.len() {
        return Some(format!("{} and {} cells", ours.cells.len(), theirs.cells.len()));
    }
    let differs = ours.cells.iter().zip(&theirs.cells).find(|(a, b)| a != b);
    Some(differs.map_or_else(
        || "their remarks".to_owned(),
        |(a, b)| format!("cell {} is {}, and {} in the other", a.cell, a.title(), b.title()),
    ))
}

/// The facts that make a machine another one: what is measured anew each time (noise, free memory) is not among them.
const IDENTITY: [(&str, &str); 12] = [
    ("cpu", "model_name"),
    ("cpu", "model"),
    ("cpu", "stepping"),
    ("cpu", "microcode"),
    ("cpu", "online"),
    ("cpu", "smt"),
    ("cpu", "hypervisor"),
    ("cpu", "governors"),
    ("kernel", "release"),
    ("kernel", "cmdline"),
    ("kvm", "module"),
    ("kvm", "parameters"),
];

/// In words the first fact in which two machines differ.
fn machine_difference(ours: &Map<String, Value>, theirs: &Map<String, Value>) -> Option<String> {
    let fact = |machine: &Map<String, Value>, (section, name): (&str, &str)| {
        machine.get(section).and_then(|section| section.get(name)).cloned()
    };
    IDENTITY.into_iter().find_map(|key| {
        let (ours, theirs) = (fact(ours, key), fact(theirs, key));
        let words = |value: Option<Value>| value.map_or_else(|| "not known".to_owned(), |value| value.to_string());
        (ours != theirs).then(|| format!("{} {}: {} and {}", key.0, key.1, words(ours), words(theirs)))
    })
}

fn manifest(parts: &[Recording], plan: &Plan) -> Manifest {
    let first = &parts[0].manifest;
    let merged_from: Vec<Origin> = parts.iter().flat_map(origins).collect();
    let machines = merged_from
        .iter()
        .fold(Vec::new(), |mut kinds: Vec<&Map<String, Value>>, origin| {
            if kinds
                .iter()
                .all(|known| machine_difference(known, &origin.machine).is_some())
            {
                kinds.push(&origin.machine);
            }
            kinds
        });
    // Of several machines only what they have in common can stand for all; each has its own facts beside its cells.
    let machine = if machines.len() > 1 {
        let mut common = machines[1..]
            .iter()
            .fold(machines[0].clone(), |common, other| in_common(&common, other));
        common.insert("machines".to_owned(), machines.len().into());
        common
    } else {
        first.machine.clone()
    };
    Manifest {
        tool_version: first.tool_version.clone(),
        git_revision: first.git_revision.clone(),
        rustc_version: first.rustc_version.clone(),
        merged_from: merged_from.clone(),
        ..Manifest::new(
            first.seed,
            plan.cells.iter().map(|cell| cell.cell),
            machine,
            first.scenario.clone(),
        )
    }
}

/// Where the cells of `part` came from; of one that was itself merged, its own origins.
fn origins(part: &Recording) -> Vec<Origin> {
    let manifest = &part.manifest;
    if !manifest.merged_from.is_empty() {
        return manifest.merged_from.clone();
    }
    let dir = part.dir.canonicalize().unwrap_or_else(|_| part.dir.clone());
    vec![Origin {
        folder: dir
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        shard: manifest.shard,
        cells: part.finished(),
        command_line: manifest.command_line.clone(),
        started_utc: manifest.started_utc.clone(),
        resumed_utc: manifest.resumed_utc.clone(),
        machine: manifest.machine.clone(),
    }]
}

/// The facts that two machines share, section by section.
fn in_common(ours: &Map<String, Value>, theirs: &Map<String, Value>) -> Map<String, Value> {
    ours.iter()
        .filter_map(|(name, value)| {
            let shared = match (value, theirs.get(name)?) {
                (Value::Object(ours), Value::Object(theirs)) => Value::Object(in_common(ours, theirs)),
                (ours, theirs) => (ours == theirs).then(|| ours.clone())?,
            };
            Some((name.clone(), shared))
        })
        .collect()
}

#[cfg(test)]
mod tests;
