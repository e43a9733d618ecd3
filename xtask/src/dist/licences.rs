//! The licences of all that is linked into the binary: crates, Rust's library, and the C library.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::said::said;

/// How the files begin that carry the terms of a crate.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The terms of the C library, which is linked statically, where Debian keeps them.
const OF_C_LIBRARY: [&str; 2] = ["/usr/share/doc/libc6/copyright", "/usr/share/common-licenses/LGPL-2.1"];

/// All of them as one text; crates with the same text share it.
pub(super) fn text(root: &Path) -> Result<String> {
    let mut list = String::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in linked(root)? {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} {}", field("name"), field("version"));
        let folder = Path::new(field("manifest_path")).parent().context("a crate's folder")?;
        let terms = terms_in(folder)?;
        let licence = match (field("license"), terms.is_empty()) {
            ("", true) => bail!("{name} names no licence and carries none: replace it"),
            ("", false) => "its own terms, below",
            (licence, _) => licence,
        };
        let carried = if terms.is_empty() {
            "; its package carries no copy"
        } else {
            ""
        };
        // Writing to a String can't fail.
        let _ = writeln!(list, "{name}: {licence}{carried}; {}", field("repository"));
        for term in terms {
            texts.entry(term).or_default().insert(name.clone());
        }
    }
    let library = format!(
        "{}/share/doc/rust/COPYRIGHT-library.html",
        said("rustc", &["--print", "sysroot"], root)?
    );
    for (of, file) in [
        ("Rust's standard library", library.as_str()),
        ("GNU C library", OF_C_LIBRARY[0]),
        ("GNU C library", OF_C_LIBRARY[1]),
    ] {
        let text = fs::read_to_string(file).with_context(|| format!("reading the licence of the {of}, {file}"))?;
        texts.entry(text).or_default().insert(of.to_owned());
    }
    let mut all = format!(
        "What is linked into dirtyrig, and its terms. The GNU C library is linked statically: the sources of dirtyrig, \
         which are free, let anyone link it with another version.\n\n{list}"
    );
    for (text, of) in texts {
        let of: Vec<String> = of.into_iter().collect();
        let _ = write!(
            all,
            "\n{:=<100}\n{}\n{:=<100}\n\n{}\n",
            "",
            of.join(", "),
            "",
            text.trim()
        );
    }
    Ok(all)
}

/// What cargo says of each crate of others that is linked in, sorted by name.
fn linked(root: &Path) -> Result<Vec<Value>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .context("starting cargo")?;
    ensure!(output.status.success(), "cargo metadata: {}", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let by_id = |list: &Value| -> HashMap<String, Value> {
        let list = list.as_array().into_iter().flatten();
        list.map(|entry| (entry["id"].as_str().unwrap_or_default().to_owned(), entry.clone()))
            .collect()
    };
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let rig = packages.values().find(|package| package["name"] == "dirtyrig-rig");
    let mut open = vec![rig.context("the workspace has dirtyrig-rig")?["id"].clone()];
    let mut seen = BTreeSet::new();
    let mut linked = Vec::new();
    while let Some(id) = open.pop() {
        let id = id.as_str().unwrap_or_default().to_owned();
        let package = &packages[&id];
        // A macro runs in the compiler, and so does what it is made of.
        let is_macro = package["targets"][0]["kind"][0] == "proc-macro";
        if is_macro || !seen.insert(id.clone()) {
            continue;
        }
        // A crate of ours has no source but its folder.
        if !package["source"].is_null() {
            linked.push(package.clone());
        }
        for dependency in nodes[&id]["deps"].as_array().into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            if kinds.into_iter().any(|kind| kind["kind"].is_null()) {
                open.push(dependency["pkg"].clone());
            }
        }
    }
    linked.sort_by_key(|package| (package["name"].to_string(), package["version"].to_string()));
    Ok(linked)
}

/// The terms that a crate's folder carries, in the order of their files' names.
fn terms_in(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            files.push(path);
        }
    }
    files.sort();
    files
        .iter()
        .map(|path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display())))
        .collect()
}
