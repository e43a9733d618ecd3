//! The arguments of a command: taken one by one by name and type; what is left at the end was not expected.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::wire::Error;

/// The arguments that were not taken yet.
pub(super) struct Arguments(pub(super) Map<String, Value>);

impl Arguments {
    /// An argument that may be left out. `expected` says what it must be.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        serde_json::from_value(value.clone()).map(Some).map_err(|_| {
            let value = shortened(&value.to_string());
            Error::generic(format!("parameter '{name}' is {value}, but must be {expected}"))
        })
    }

    /// An argument that may not.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<T, Error> {
        self.optional(name, expected)?
            .ok_or_else(|| Error::generic(format!("parameter '{name}' is missing: give {expected}")))
    }

    /// Ends it: an argument that is left is one too many.
    pub(super) fn end(self) -> Result<(), Error> {
        match self.0.keys().next() {
            Some(name) => Err(Error::generic(format!("parameter '{}' is not known", shortened(name)))),
            None => Ok(()),
        }
    }
}

/// What a client wrote, short enough to be said back to it.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 100;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
