//! Which share of a sweep a machine runs.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// Which share, of how many: `1/4` to `4/4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    pub(crate) index: u32,
    pub(crate) of: u32,
}

/// Why a text names no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// Not of the form `K/N`.
    #[error("`{value}` is no share of a sweep: write which and of how many, such as 1/4")]
    Form {
        /// What was given.
        value: String,
    },
    /// One of the two numbers is none.
    #[error("`{value}` is no share of a sweep ({source}): write two numbers, such as 1/4")]
    Number {
        /// What was given.
        value: String,
        /// What the parser says.
        source: ParseIntError,
    },
    /// The share is not among them.
    #[error("share {index} of {of} does not exist: the first is 1/{}, the last {}/{}", .of.max(&1), .of.max(&1), .of.max(&1))]
    Range {
        /// Which was asked for.
        index: u32,
        /// Of how many.
        of: u32,
    },
}

impl Shard {
    /// Share `index`, counted from 1, of `of`.
    pub fn new(index: u32, of: u32) -> Result<Self, ShardError> {
        if (1..=of).contains(&index) {
            Ok(Self { index, of })
        } else {
            Err(ShardError::Range { index, of })
        }
    }

    /// For a file's name: `1-of-4`.
    pub fn file_name(self) -> String {
        format!("{}-of-{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let (index, of) = text
            .split_once('/')
            .ok_or_else(|| ShardError::Form { value: text.to_owned() })?;
        let number = |digits: &str| {
            digits.trim().parse().map_err(|source| ShardError::Number {
                value: text.to_owned(),
                source,
            })
        };
        Self::new(number(index)?, number(of)?)
    }
}

impl TryFrom<String> for Shard {
    type Error = ShardError;

    fn try_from(text: String) -> Result<Self, ShardError> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}
