//! tracefs, where the kernel says how its tracepoints are laid out: found by the code that reads it for the probes.

use std::path::PathBuf;

use dirtyrig_probes::{KvmEvent, NoTracefs, Tracefs as Opened};
use serde::{Deserialize, Serialize};

/// How far one gets with tracefs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Tracefs {
    /// This kernel has none.
    Unsupported,
    /// It is mounted nowhere, and this process may not mount it.
    Unmounted,
    /// This user may not read it.
    Denied {
        /// Where it is mounted.
        at: PathBuf,
    },
    /// It is readable.
    Readable {
        /// Where it is mounted.
        at: PathBuf,
        /// Those of the probes' events that exist; none of KVM while that is not loaded.
        events: Vec<String>,
    },
    /// It is mounted nowhere; the probes read a mount that no other process sees.
    Private {
        /// Those of the probes' events that exist; none of KVM while that is not loaded.
        events: Vec<String>,
    },
}

impl Tracefs {
    /// Looks for it as the probes do, and for their events in it.
    pub fn gather() -> Self {
        match Opened::open() {
            Ok(opened) => {
                let there = KvmEvent::ALL.into_iter().filter(|&event| opened.has(event));
                let events = there.map(|event| event.to_string()).collect();
                match opened.mounted_at() {
                    Some(at) => Self::Readable { at: at.into(), events },
                    None => Self::Private { events },
                }
            }
            Err(NoTracefs::Unsupported) => Self::Unsupported,
            Err(NoTracefs::Unmounted { .. }) => Self::Unmounted,
            Err(NoTracefs::Denied { at }) => Self::Denied { at },
        }
    }
}
