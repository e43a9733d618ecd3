//! Live migrations of QEMU under a promise: planned, driven, watched, judged.
//!
//! ```text
//!   promise ─▶ plan (a law) ─▶ drive ──▶ QEMU's monitor: parameters, migrate, events, progress
//!                 ▲              │  ▲
//!                 │ solved again │  └──── meter: what the link carries
//!                 └── each pass ─┤
//!                                └──────▶ outside::Limiter: the quota, lifted at the stop
//! ```
//!
//! - [`bandwidth`]: a link's speed, as it is written.
//! - [`monitor`]: what a migration needs of QEMU's monitor; [`settings`]: its parameters, changed and put back.
//! - [`promise`]: what was promised, as the task that the law solves.
//! - [`sample`]: what the guest writes, seen from the content of its memory before the start.
//! - [`meter`]: the rate at which pages go.
//! - [`strategy`]: who throttles.
//! - [`drive`]: the migration itself; [`course`]: what came of it.
//! - [`cell`]: a migration of our own guest, between a [`pair`] of QEMUs, judged by the guest's counters ([`truth`]).
//! - [`rows`]: what is recorded.

pub mod bandwidth;
pub mod cell;
pub mod course;
pub mod drive;
pub mod error;
mod meter;
pub mod monitor;
pub mod pair;
pub mod promise;
pub mod rows;
pub mod sample;
mod settings;
pub mod strategy;
pub mod truth;
