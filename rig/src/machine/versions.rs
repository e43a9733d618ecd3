//! What was built, from what, by what.

use serde::{Deserialize, Serialize};

/// This program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Version of the release.
    pub dirtyrig: String,
    /// Commit that it was built from, with `-dirty` behind it where the source was changed; `unknown` without git.
    pub revision: String,
    /// The compiler.
    pub rustc: String,
    /// `release` or `debug`: figures of the second are not worth comparing.
    pub profile: String,
}

impl Versions {
    /// What the build wrote down.
    pub fn gather() -> Self {
        Self {
            dirtyrig: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("DIRTYRIG_GIT_REVISION").to_owned(),
            rustc: env!("DIRTYRIG_RUSTC").to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }
}
