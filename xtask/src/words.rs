//! Sentences that are hard to read: those of more than 30 words, and "a" where "per" is meant (`4 ns an entry`).
//!
//! It reads Markdown as a reader does: code is left out, a span of code is one word, and list items and the cells of a table are
//! sentences of their own. Of Rust's files it reads the comments, which are Markdown too; the help of the command line is made of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

/// A sentence may have so many words.
const MOST: usize = 30;

/// What rates are counted in.
const COUNTED: [&str; 38] = [
    "%", "b", "bits", "byte", "bytes", "cell", "cells", "column", "columns", "cpu", "cpus", "cycle", "cycles",
    "entries", "exit", "exits", "file", "files", "gib", "kib", "line", "lines", "mib", "ms", "ns", "object", "objects",
    "one", "page", "pages", "point", "points", "rate", "row", "rows", "s", "us", "value",
];

/// What they are per.
const PER: [&str; 33] = [
    "bin",
    "cell",
    "column",
    "entry",
    "exit",
    "figure",
    "file",
    "fill",
    "guest",
    "host",
    "interval",
    "kind",
    "law",
    "limiter",
    "line",
    "minute",
    "month",
    "page",
    "pass",
    "pause",
    "period",
    "phase",
    "process",
    "recording",
    "ring",
    "row",
    "run",
    "sample",
    "second",
    "stall",
    "thread",
    "vcpu",
    "window",
];

/// Which files to read.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Markdown and Rust files [default: all of the repository]
    files: Vec<PathBuf>,
}

/// Lists what it finds; an error if there is anything.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let files = if arguments.files.is_empty() {
        all(Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has a parent")?)?
    } else {
        arguments.files.clone()
    };
    let mut found = 0;
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        for finding in findings_in(&file, &text) {
            found += 1;
            println!("{}:{}", file.display(), finding);
        }
    }
    anyhow::ensure!(found == 0, "{found} sentences to be written again");
    Ok(())
}

/// Every file that the repository has, but for what comes from elsewhere.
fn all(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "*.md", "*.rs"])
        .current_dir(root)
        .output()
        .context("can't run git")?;
    anyhow::ensure!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let listed = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    let files = listed.split_terminator('\0').map(|file| root.join(file));
    // A file may be listed and deleted already.
    Ok(files.filter(|file| file.exists()).collect())
}

/// What is found in a file's text, each with its line.
fn findings_in(file: &Path, text: &str) -> Vec<String> {
    if file.extension().is_some_and(|extension| extension == "rs") {
        findings(&comments(text))
    } else {
        findings(text)
    }
}

/// The comments of a Rust file, each on its line; what is not a comment is an empty line.
fn comments(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let comment = ["///", "//!", "//"]
            .iter()
            .find_map(|mark| line.trim_start().strip_prefix(mark));
        out.push_str(comment.unwrap_or_default());
        out.push('\n');
    }
    out
}

/// What is found in Markdown, each with its line.
fn findings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, block) in blocks(text) {
        for sentence in sentences(&block) {
            let words: Vec<&str> = sentence.split_whitespace().collect();
            if words.len() > MOST {
                found.push(format!("{line}: {} words: {sentence}", words.len()));
            }
            found.extend(for_per(&words).map(|phrase| format!("{line}: \"per\" is meant: {phrase}")));
        }
    }
    found
}

/// The "a" that stand for "per", with the words around them.
fn for_per<'a>(words: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    let plain = |word: &str| {
        word.trim_matches(|c: char| !c.is_alphanumeric() && c != '%')
            .to_lowercase()
    };
    words.windows(3).filter_map(move |three| {
        let [before, article, after] = three else { return None };
        let (before, after) = (plain(before), plain(after));
        let is_counted = COUNTED.contains(&before.as_str()) || before.chars().all(|c| c.is_ascii_digit() || c == '.');
        // Behind a comma something else begins.
        let is_one_phrase = !three[0].ends_with([',', ')', '.', ':']);
        let is_per = matches!(*article, "a" | "an") && is_counted && is_one_phrase && PER.contains(&after.as_str());
        (is_per && !before.is_empty()).then(|| three.join(" "))
    })
}

/// Paragraphs, list items and cells of tables, each with the line on which it begins; code is a word, or left out.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let (mut is_code, mut is_open) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with("```") {
            is_code = !is_code;
            is_open = false;
        } else if is_code || line.is_empty() {
            is_open = false;
        } else if line.starts_with('|') {
            is_open = false;
            blocks.extend(
                line.split(" | ")
                    .map(|cell| (number, without_code(cell.trim_matches('|')))),
            );
        } else {
            let numbered = line
                .split_once(". ")
                .is_some_and(|(before, _)| before.parse::<u32>().is_ok());
            let is_new = numbered || line.starts_with(['#', '-', '*', '>']);
            match blocks.last_mut().filter(|_| is_open && !is_new) {
                Some((_, block)) => *block = format!("{block} {}", without_code(line)),
                None => blocks.push((number, without_code(line))),
            }
            is_open = !line.starts_with('#');
        }
    }
    blocks
}

/// A span of code, and the address of a link, is no words.
fn without_code(line: &str) -> String {
    let mut out = String::new();
    for (index, part) in line.split('`').enumerate() {
        out.push_str(if index % 2 == 0 { part } else { "code" });
    }
    while let Some(from) = out.find("](") {
        let to = out[from..].find(')').map_or(out.len(), |end| from + end + 1);
        out.replace_range(from..to, "");
    }
    out
}

/// The sentences of a block: a full stop, a question or exclamation mark, a colon or a semicolon ends one.
fn sentences(block: &str) -> Vec<String> {
    let mut sentences = vec![Vec::new()];
    for word in block.split_whitespace() {
        if let Some(sentence) = sentences.last_mut() {
            sentence.push(word);
        }
        let end = word.trim_end_matches([')', '"', '*', '_']);
        // The number of a list's item ends none.
        let is_number_of_item = sentences.last().is_some_and(|sentence| sentence.len() == 1)
            && end.trim_end_matches('.').parse::<u32>().is_ok();
        if end.ends_with(['.', '?', '!', ':', ';']) && !is_number_of_item {
            sentences.push(Vec::new());
        }
    }
    sentences
        .into_iter()
        .map(|words| words.join(" "))
        .filter(|sentence| !sentence.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_article_that_stands_for_per_is_found() {
        for text in [
            "It takes 4.4 ns an entry.",
            "One row a vCPU.",
            "| cost | 2.4 us a page |",
            "at most 512 a vCPU",
        ] {
            assert_eq!(findings(text).len(), 1, "{text}");
        }
        for text in [
            "It takes 4.4 ns per entry.",
            "Once a second.",
            "It pushes a page.",
            "after 5 ms, a page",
            "`a page a row`",
            "give it a ring",
        ] {
            assert_eq!(findings(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn of_rust_the_comments_are_read() {
        let text =
            "    /// One row a vCPU,\n    /// and so on.\nlet rows = \"a row a vCPU\"; // one a page\n\n//! Fine.";
        assert_eq!(
            findings_in(Path::new("a.rs"), text),
            ["1: \"per\" is meant: row a vCPU,"]
        );
    }

    /// The words of this repository.
    #[test]
    fn nothing_is_to_be_written_again() {
        run(&Arguments { files: Vec::new() }).unwrap_or_else(|error| panic!("{error}: `cargo xtask words` lists them"));
    }

    #[test]
    fn a_sentence_is_counted_over_its_lines() {
        let long = "word ".repeat(31);
        assert_eq!(findings(&format!("{long}.")).len(), 1);
        assert_eq!(findings(&format!("Begins here\n{}.", "word ".repeat(29))).len(), 1);
        assert!(findings(&format!("Ends. {}.", "word ".repeat(29))).is_empty());
        assert!(findings(&format!("It is 11. {}.", "word ".repeat(29))).is_empty());
        assert_eq!(findings(&format!("1. {}.", "word ".repeat(30))).len(), 1);
        assert!(findings(&format!("```\n{long}\n```")).is_empty(), "code is none");
        assert!(findings(&format!("- {}\n- {}", "word ".repeat(20), "word ".repeat(20))).is_empty());
    }
}
