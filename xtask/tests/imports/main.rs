//! What imports what: in no crate of the workspace do files import each other in a circle.

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
