//! One vCPU and how its thread is held.
//!
//! ```text
//!            limit set: seize                 grant spent: the signal stops it
//!    Free ───────────────────▶ Running ◀──────────────────────────────────────▶ Paused
//!     ▲                         │    ▲            debt slept off: resume
//!     │     it stopped: detach  │    │ SIGCONT
//!     └─────────── Leaving ◀────┘    └──────▶ Listening (its whole process is stopped)
//!                   limit cancelled: its next page is to stop it
//! ```

use std::{fs, io, thread, time::Duration};

use dirtyrig_limiter::law::interim::Interim;
use dirtyrig_probes::identity::{VcpuId, proc_text, process_name};
use nix::errno::Errno;

use super::{
    error::OutsideError,
    signal::{Masks, StopSignal},
    tracee::Tracee,
};

/// How the thread is held.
pub(super) enum Hold {
    /// Not at all.
    Free,
    /// Seized, on its way, to be charged should it run for long.
    Running(Tracee, Interim),
    /// Stopped until its debt is paid.
    Paused(Tracee, Pause),
    /// Stopped with its process.
    Listening(Tracee),
    /// About to be let go: its next page stops it, because only a stopped thread can be detached.
    Leaving(Tracee),
}

impl Hold {
    /// When something is to be done about it: a pause is over, or one that runs is to be charged.
    pub(super) fn due(&self) -> Option<Duration> {
        match self {
            Self::Paused(_, pause) => Some(pause.due),
            Self::Running(_, interim) => Some(interim.due()),
            Self::Free | Self::Listening(_) | Self::Leaving(_) => None,
        }
    }
}

/// A pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    /// When it was begun.
    pub(super) since: Duration,
    /// When it is over.
    pub(super) due: Duration,
    /// The signal to deliver then, 0 for none.
    pub(super) deliver: i32,
}

/// A vCPU whose thread is known.
pub(super) struct Vcpu {
    pub(super) id: VcpuId,
    pub(super) thread: u32,
    /// Where the eBPF program counts its pages.
    pub(super) slot: u32,
    pub(super) signal: StopSignal,
    pub(super) hold: Hold,
    /// Pages of its slot that were charged.
    pub(super) charged: u64,
    /// At how many looks in a row it ran on a spent grant.
    pub(super) overdrawn: u32,
}

/// How often a thread's masks are read, with a millisecond between: libraries block everything for an instant.
const MASK_TRIES: u32 = 5;

/// The signal with which the thread of `vcpu` can be stopped.
pub(super) fn choose_signal(process: u32, vcpu: usize, thread: u32) -> Result<StopSignal, OutsideError> {
    let mut masks = Masks::default();
    for _ in 0..MASK_TRIES {
        masks = Masks::of(process, thread).unwrap_or_default();
        if let Some(signal) = masks.choose() {
            return Ok(signal);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(OutsideError::NoSignal {
        vcpu,
        thread,
        blocked: masks.blocked,
        caught: masks.caught,
    })
}

/// Seizes a thread; `None` if it is gone.
pub(super) fn seize(process: u32, thread: u32) -> Result<Option<Tracee>, OutsideError> {
    match Tracee::seize(thread) {
        Ok(tracee) => Ok(Some(tracee)),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(source) => Err(refusal(process, thread, source)),
    }
}

/// Why a thread could not be seized.
fn refusal(process: u32, thread: u32, source: io::Error) -> OutsideError {
    let status = proc_text(format!("/proc/{process}/task/{thread}/status")).unwrap_or_default();
    match number_in(&status, "TracerPid:") {
        Some(tracing) => {
            // The kernel names the thread that traces.
            let status = proc_text(format!("/proc/{tracing}/status")).unwrap_or_default();
            let tracer = number_in(&status, "Tgid:").unwrap_or(tracing);
            OutsideError::Held {
                thread,
                tracer,
                name: process_name(tracer).unwrap_or_else(|| "?".to_owned()),
            }
        }
        None => OutsideError::NotPermitted {
            thread,
            scope: fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
                .map_or_else(|_| "absent".to_owned(), |scope| scope.trim_end().to_owned()),
            source,
        },
    }
}

/// A number in a thread's `status`, if it is there and not 0.
fn number_in(status: &str, key: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().parse().ok().filter(|&number| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracer_is_read_from_status() {
        assert_eq!(
            number_in("Name:\tCPU 0/KVM\nTracerPid:\t4711\nUid:\t0\n", "TracerPid:"),
            Some(4711)
        );
        assert_eq!(number_in("Name:\tCPU 0/KVM\nTracerPid:\t0\n", "TracerPid:"), None);
        assert_eq!(number_in("", "TracerPid:"), None);
    }
}
