//! Which file of a crate imports which, and who imports each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path as FsPath,
};

use crate::source::{Path, Source, child};

/// Names that lead from one to the next before a chain of re-exports counts as endless.
const LONGEST_CHAIN: usize = 16;

/// The files of one crate, by the module that each is.
#[derive(Debug)]
pub(crate) struct Crate {
    files: BTreeMap<Path, Source>,
}

impl Crate {
    /// Reads the crate whose sources are in `folder`.
    pub(crate) fn in_folder(folder: &FsPath) -> io::Result<Self> {
        let mut texts = Vec::new();
        collect(folder, &[], &mut texts)?;
        Ok(Self::of(texts))
    }

    /// The crate of files whose module and text are given; `[]` is its root.
    pub(crate) fn of(texts: impl IntoIterator<Item = (Path, String)>) -> Self {
        let read = |(module, text): (Path, String)| (module.clone(), Source::read(&module, &text));
        let mut files: BTreeMap<Path, Source> = texts.into_iter().map(read).collect();
        let only_tested: Vec<Path> = files.values().flat_map(|source| source.test_modules.clone()).collect();
        files.retain(|module, _| !only_tested.iter().any(|test| module.starts_with(test)));
        Self { files }
    }

    /// Which files each file imports from. A name that a file only passes on is imported from where it is defined.
    pub(crate) fn imports(&self) -> BTreeMap<Path, BTreeSet<Path>> {
        let of = |module: &Path, source: &Source| {
            let aliases = source
                .aliases
                .iter()
                .filter(|(name, _)| !source.passed_on.contains(*name));
            let paths = source
                .named
                .iter()
                .chain(aliases.map(|(_, path)| path))
                .chain(&source.globs);
            let mut to: BTreeSet<Path> = paths
                .filter_map(|(within, path)| self.origin(module, within, path, 0))
                .collect();
            to.remove(module);
            to
        };
        self.files
            .iter()
            .map(|(module, source)| (module.clone(), of(module, source)))
            .collect()
    }

    /// The file that defines `path`, as named in module `within` of the file `file`; `None` if another crate does.
    fn origin(&self, file: &Path, within: &[String], path: &[String], chain: usize) -> Option<Path> {
        if chain > LONGEST_CHAIN {
            return None;
        }
        let source = &self.files[file];
        match path[0].as_str() {
            "crate" => self.absolute(&[], &path[1..], chain),
            "self" => self.absolute(within, &path[1..], chain),
            "super" => {
                let ups = path.iter().take_while(|word| *word == "super").count();
                self.absolute(&within[..within.len().checked_sub(ups)?], &path[ups..], chain)
            }
            name if self.files.contains_key(&child(within, name)) => self.absolute(within, path, chain),
            name => {
                let (within, target) = source.aliases.get(name)?;
                let full: Path = target.iter().chain(&path[1..]).cloned().collect();
                (full != path).then(|| self.origin(file, within, &full, chain + 1))?
            }
        }
    }

    /// The file that defines `path`, seen from the module `from`.
    fn absolute(&self, from: &[String], path: &[String], chain: usize) -> Option<Path> {
        // Inline modules are part of their file.
        let known = (0..=from.len())
            .rev()
            .find(|&depth| self.files.contains_key(&from[..depth]))?;
        let mut file = from[..known].to_vec();
        for (at, name) in path.iter().enumerate() {
            let source = &self.files[&file];
            let deeper = child(&file, name);
            if self.files.contains_key(&deeper) {
                file = deeper;
            } else if let Some((within, target)) = source.aliases.get(name).filter(|_| !source.items.contains(name)) {
                let full: Path = target.iter().chain(&path[at + 1..]).cloned().collect();
                return self.origin(&file, within, &full, chain + 1);
            } else {
                let through = |(within, glob): &(Path, Path)| {
                    let module = self.origin(&file, within, glob, chain + 1)?;
                    let has =
                        self.files[&module].items.contains(name) || self.files[&module].aliases.contains_key(name);
                    (has && module != file).then(|| self.absolute(&module, &path[at..], chain + 1))?
                };
                let passed_on = || source.globs.iter().find_map(through);
                return if source.items.contains(name) {
                    Some(file)
                } else {
                    passed_on().or(Some(file))
                };
            }
        }
        Some(file)
    }

    /// Files that import each other in a circle.
    pub(crate) fn circles(&self) -> Vec<Vec<Path>> {
        circles(&self.imports())
    }
}

/// The shortest circle of each node that is in one, each circle once.
pub(crate) fn circles(edges: &BTreeMap<Path, BTreeSet<Path>>) -> Vec<Vec<Path>> {
    let mut seen = BTreeSet::new();
    let all = edges.keys().filter_map(|start| shortest_circle(edges, start));
    all.filter(|circle| seen.insert(circle.iter().cloned().collect::<BTreeSet<_>>()))
        .collect()
}

/// The shortest way from `start` back to it, breadth first.
fn shortest_circle(edges: &BTreeMap<Path, BTreeSet<Path>>, start: &Path) -> Option<Vec<Path>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in edges.get(way.last().expect("a way has a start")).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(child_way(&way, next));
                }
            }
        }
        ways = longer;
    }
    None
}

fn child_way(way: &[Path], next: &Path) -> Vec<Path> {
    way.iter().chain([next]).cloned().collect()
}

/// The `.rs` files below `folder`, which is the module `module`.
fn collect(folder: &FsPath, module: &[String], texts: &mut Vec<(Path, String)>) -> io::Result<()> {
    let has_library = folder.join("lib.rs").exists();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, &child(module, &stem), texts)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = match stem.as_str() {
                // A program beside its library is another crate.
                "main" if has_library => continue,
                "lib" | "main" | "mod" => module.to_vec(),
                _ => child(module, &stem),
            };
            texts.push((file, fs::read_to_string(&path)?));
        }
    }
    Ok(())
}
