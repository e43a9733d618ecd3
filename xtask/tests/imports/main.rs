//! What imports what: in no crate of the workspace do files import each other in a circle, and in the rig no module imports
//! one that is above it.

mod graph;
mod source;

use std::{fs, path::Path};

use graph::Crate;

/// Crates whose circles are still to be broken up.
const PENDING: [&str; 1] = ["rig"];

/// The folders of the workspace's crates, and of the eBPF programs', which are a workspace of their own.
fn crates() -> Vec<String> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .expect("the workspace has a manifest")
        .parse()
        .expect("the manifest is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members are a list");
    let folder = |member: &toml::Value| member.as_str().expect("a member is a folder").to_owned();
    members.iter().map(folder).chain(["probes/ebpf".to_owned()]).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the workspace")
}

/// Imports of the rig that still run upwards: a QEMU that is started or held says on stderr what happened to it.
const UPWARDS: [&str; 2] = ["qemu::held -> commands", "qemu::process -> commands"];

/// The rig's modules as `ARCHITECTURE.md` draws them, a line each level, from the top.
fn drawn(text: &str) -> Vec<Vec<&str>> {
    let (_, after) = text.split_once("reads this drawing").expect("the order is drawn");
    let drawing = after.split("```").nth(1).expect("the drawing is a block");
    let levels = drawing.lines().skip(1).map(|line| line.split_whitespace().collect());
    levels.collect()
}

/// What in `read` imports a module of its own level or above: `a::b -> c`. A module that isn't drawn is above none.
fn upwards(read: &Crate, levels: &[Vec<&str>]) -> Vec<String> {
    let level = |module: &str| levels.iter().position(|level| level.contains(&module));
    let mut found = Vec::new();
    for (file, imports) in read.imports() {
        let Some(own) = file.first() else { continue };
        for other in imports
            .iter()
            .filter_map(|path| path.first())
            .filter(|other| *other != own)
        {
            if level(own).is_none() || level(own) >= level(other) {
                found.push(format!("{} -> {other}", file.join("::")));
            }
        }
    }
    found.dedup();
    found
}

#[test]
fn in_the_rig_nothing_imports_upwards() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("there is an ARCHITECTURE.md");
    let levels = drawn(&text);
    let read = Crate::in_folder(&root().join("rig/src")).expect("the rig has sources");
    assert_eq!(upwards(&read, &levels), UPWARDS);
    let all: Vec<&str> = levels.iter().flatten().copied().collect();
    let there = read.imports();
    let missing: Vec<_> = there
        .keys()
        .filter_map(|file| file.first())
        .filter(|module| !all.contains(&module.as_str()))
        .collect();
    assert!(missing.is_empty(), "not drawn: {missing:?}");
    let gone: Vec<_> = all
        .iter()
        .filter(|module| {
            !there
                .keys()
                .any(|file| file.first().is_some_and(|first| first == *module))
        })
        .collect();
    assert!(gone.is_empty(), "drawn, but not there: {gone:?}");
}

#[test]
fn an_import_of_the_same_level_or_above_is_found() {
    let files = [
        ("", "mod top; mod left; mod right; mod low;"),
        ("top", "use crate::{left::Left, low::Low}; pub struct Top(Left, Low);"),
        ("left", "use crate::right::Right; pub struct Left(Right);"),
        ("right", "pub struct Right;"),
        ("low", "pub struct Low; fn f() { crate::top::Top; }"),
    ];
    let levels = drawn("It reads this drawing.\n```text\ntop\nleft right\nlow\n```\n");
    assert_eq!(upwards(&of(&files), &levels), ["left -> right", "low -> top"]);
}

fn shown(circles: &[Vec<Vec<String>>]) -> Vec<String> {
    let module = |path: &Vec<String>| {
        if path.is_empty() {
            "crate".to_owned()
        } else {
            path.join("::")
        }
    };
    let circle = |circle: &Vec<Vec<String>>| {
        circle
            .iter()
            .chain(circle.first())
            .map(module)
            .collect::<Vec<_>>()
            .join(" -> ")
    };
    circles.iter().map(circle).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut all = Vec::new();
    for folder in crates()
        .into_iter()
        .filter(|folder| !PENDING.contains(&folder.as_str()))
    {
        let read = Crate::in_folder(&root().join(&folder).join("src")).expect("a crate has sources");
        all.extend(
            shown(&read.circles())
                .iter()
                .map(|circle| format!("{folder}: {circle}")),
        );
    }
    assert!(all.is_empty(), "circles of imports:\n{}", all.join("\n"));
}

/// A crate of `files`: "a/b" is the module `a::b`, "" the root.
fn of(files: &[(&str, &str)]) -> Crate {
    let module = |name: &str| {
        name.split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Crate::of(files.iter().map(|(name, text)| (module(name), (*text).to_owned())))
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    for (written, a, b) in [
        (
            "use",
            "use crate::b::B; pub struct A(B);",
            "use crate::a::A; pub struct B(A);",
        ),
        ("a path", "pub fn a() { crate::b::b() }", "pub fn b() { super::a::a() }"),
        (
            "a group",
            "use crate::{b::{self, c}}; pub fn a() { b::b(); c() }",
            "use super::a::*; pub fn b() {}",
        ),
        (
            "a macro",
            "pub fn a() { vec![crate::b::B] }",
            "use crate::a::a as other; pub const B: u8 = 0;",
        ),
        (
            "re-exports",
            "use crate::FromB; pub struct FromA(FromB);",
            "use crate::FromA; pub struct FromB(FromA);",
        ),
    ] {
        let files = [
            ("", "mod a; mod b; pub use a::FromA; pub use b::FromB;"),
            ("a", a),
            ("b", b),
        ];
        assert_eq!(shown(&of(&files).circles()), ["a -> b -> a"], "by {written}");
    }
}

#[test]
fn a_child_that_needs_what_its_parent_defines_is_a_circle_if_the_parent_needs_the_child() {
    let needs = [
        ("", "mod a;"),
        ("a", "mod b; pub struct A; fn f() { b::b() }"),
        ("a/b", "use super::A; pub fn b() {}"),
    ];
    assert_eq!(shown(&of(&needs).circles()), ["a -> a::b -> a"]);
    let passes_on = [
        ("", "mod a;"),
        ("a", "mod b; pub struct A; pub use b::b;"),
        ("a/b", "use super::A; pub fn b() {}"),
    ];
    assert!(of(&passes_on).circles().is_empty());
}

#[test]
fn comments_strings_and_tests_import_nothing() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "use crate::b::B; pub struct A(B);"),
        (
            "b",
            "/// [`crate::a::A`]\npub struct B; const S: &str = \"crate::a\"; #[cfg(test)] mod tests { use crate::a::A; }",
        ),
    ];
    assert!(of(&files).circles().is_empty());
}

#[test]
fn siblings_that_are_named_through_their_parent_do_not_import_it() {
    let files = [
        ("", "mod a; use a::b::B;"),
        ("a", "pub mod b; mod c; pub fn f() { b::b() }"),
        ("a/b", "use super::{c::C, c,}; pub struct B(C);"),
        ("a/c", "pub struct C;"),
    ];
    assert!(of(&files).circles().is_empty());
}
