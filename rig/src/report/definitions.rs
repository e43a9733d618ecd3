//! What each column means: read from `results/README.md`, so that there is one definition and no other.

/// The document that defines files and columns.
const DOCUMENT: &str = include_str!("../../../results/README.md");

/// One row of the document's table: the columns it defines together, and their meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// What they mean.
    pub meaning: String,
}

/// The definitions of the columns of `summary.csv`.
pub fn summary_columns() -> Vec<Definition> {
    table("## summary.csv")
}

/// The definitions of the verdicts.
pub fn verdicts() -> Vec<Definition> {
    table("### Verdicts")
}

/// The rows of the tables under a heading.
fn table(heading: &str) -> Vec<Definition> {
    let section = DOCUMENT
        .split_once(&format!("\n{heading}\n"))
        .map_or("", |(_, rest)| rest);
    section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| {
            let (names, meaning) = line.trim_matches('|').split_once(" | ")?;
            Some(Definition {
                columns: names
                    .split(',')
                    .map(|name| name.trim().trim_matches('`').to_owned())
                    .collect(),
                // Backticks and escaped bars are Markdown's.
                meaning: meaning.trim().replace('`', "").replace("\\|", "|"),
            })
        })
        .collect()
}

/// What the column `name` of `summary.csv` means.
pub fn meaning(name: &str) -> Option<String> {
    summary_columns()
        .into_iter()
        .find(|definition| definition.columns.iter().any(|column| column == name))
        .map(|definition| definition.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Summary, Verdict};

    #[test]
    fn every_column_is_defined() {
        let row = serde_json::to_value(Summary::default()).expect("a row is JSON");
        for name in row.as_object().expect("an object").keys() {
            assert!(
                meaning(name).is_some_and(|meaning| meaning.len() > 8),
                "results/README.md does not define `{name}`"
            );
        }
    }

    #[test]
    fn every_verdict_is_defined() {
        let defined: Vec<String> = verdicts()
            .into_iter()
            .flat_map(|definition| definition.columns)
            .collect();
        for verdict in [
            Verdict::Held,
            Verdict::CapBound,
            Verdict::NotSettled,
            Verdict::Unlimited,
            Verdict::Missed,
        ] {
            let name = verdict.name();
            assert!(
                defined.iter().any(|known| known == name),
                "{name} is not among {defined:?}"
            );
        }
    }
}
