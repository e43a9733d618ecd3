//! Why a migration can't be promised or driven, each with its remedy.

use dirtyrig_limiter::law::migration::Refusal;

use crate::{outside::OutsideError, qemu::error::QemuError, qmp::client::QmpError};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Its monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// It can't be used.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// It can't be limited.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// A device or a setting forbids it.
    #[error("this VM can't be migrated: {}", reasons.join("; "))]
    Blocked {
        /// QEMU's words.
        reasons: Vec<String>,
    },
    /// Somebody else migrates it.
    #[error(
        "a migration of this VM is under way already (QEMU says `{status}`): wait for its end, or cancel it (`migrate_cancel`)"
    )]
    UnderWay {
        /// QEMU's word.
        status: String,
    },
    /// It stands still.
    #[error(
        "the VM does not run (QEMU says `{status}`): it dirties nothing, so there is nothing to promise; let it run (`cont`), \
         or migrate it as it is with QEMU's own `migrate`"
    )]
    NotRunning {
        /// QEMU's word.
        status: String,
    },
    /// The promise can't be kept.
    #[error("a total time of {within} and a blackout of {downtime} can't be promised: it takes {refusal}")]
    NotPromised {
        /// What was asked for.
        within: String,
        /// What was asked for.
        downtime: String,
        /// What could be.
        refusal: Refusal,
    },
}
