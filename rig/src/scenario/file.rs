//! TOML files of settings.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::settings::Settings;

/// Why a file of settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("can't read {}: give the path of a TOML file of settings", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no TOML, or has a key or a value that is not known.
    #[error("{} is no valid file of settings:\n{}{}", path.display(), source.to_string().trim_end(), hint(nearest.as_deref()))]
    Parse {
        /// Its path.
        path: PathBuf,
        /// What the parser says, with line and column.
        source: Box<toml::de::Error>,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest
        .map(|key| format!("\ndid you mean `{key}`?"))
        .unwrap_or_default()
}

/// Reads the settings in `path`.
pub fn read(path: &Path) -> Result<Settings, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Settings, FileError> {
    toml::from_str(text).map_err(|source: toml::de::Error| FileError::Parse {
        path: path.to_owned(),
        nearest: nearest_key(source.message()),
        source: Box::new(source),
    })
}

/// Out of serde's "unknown field `quotta`, expected one of `ring`, `quota`, ...", the expected key most like the unknown.
fn nearest_key(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    quoted
        .map(|key| (strsim::jaro_winkler(unknown, key), key))
        // Below it, the words have little more in common than letters.
        .filter(|&(likeness, _)| likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, Path::new("a.toml")).expect_err(text).to_string()
    }

    #[test]
    fn a_misspelt_key_is_shown_with_its_line_and_the_one_meant() {
        let error = error("ring = 4096\nquotta = 25\n");
        assert!(error.contains("a.toml"), "{error}");
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("unknown field `quotta`"), "{error}");
        assert!(error.ends_with("did you mean `quota`?"), "{error}");
    }

    #[test]
    fn a_key_like_no_other_gets_no_guess() {
        assert!(!error("xyz = 1").contains("did you mean"));
    }

    #[test]
    fn bad_values_name_line_and_remedy() {
        let error = error("ring = [4096, 5000]");
        assert!(error.contains("line 1"), "{error}");
        assert!(error.contains("use 4096 or 8192"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_settings_or_an_error(words in proptest::collection::vec(proptest::sample::select(vec![
            "ring", "quota", "period", "guest", "at", "vcpus", "memory", " = ", "[", "]", "\"", "'", "4096", "-1", "1e400", "nan",
            "1s", "10s set 500 all", "burst:1/1s", "hot-cold:10/90", ",", "\n", "\u{e9}", "18446744073709551616", "#",
        ]), 0..40)) {
            let _ = parse(&words.concat(), Path::new("a.toml"));
        }
    }
}
