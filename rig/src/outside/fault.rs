//! What goes wrong while a VM is held: what ends it, and what is only told.

use std::fmt;

/// Why a limiter ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The VM, or its VMM, has ended.
    Gone,
    /// The kernel refused something that it did before.
    Failed(String),
}

/// What goes on although something isn't as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A vCPU's thread was not found.
    NotFound {
        /// The vCPU.
        vcpu: usize,
    },
    /// Nothing but their order says which threads run these.
    Guessed {
        /// The vCPUs.
        vcpus: Vec<usize>,
    },
    /// The order that was gone by turned out to be another.
    Mistaken {
        /// The vCPU as it is shown.
        vcpu: usize,
        /// The vCPU's thread as it turned out to be.
        thread: u32,
    },
    /// A vCPU was plugged.
    Came {
        /// The vCPU.
        vcpu: usize,
    },
    /// A vCPU was unplugged.
    Went {
        /// The vCPU.
        vcpu: usize,
    },
    /// A vCPU that came later can't be held.
    NotHeld {
        /// The vCPU.
        vcpu: usize,
        /// Why.
        error: String,
    },
    /// A thread doesn't stop on its signal.
    SignalUnheard {
        /// The vCPU.
        vcpu: usize,
        /// The signal that was sent.
        signal: i32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { vcpu } => write!(
                f,
                "warning: vCPU {vcpu} has run on no thread yet (is the VM paused?): it is limited from when it does"
            ),
            Self::Guessed { vcpus } => write!(
                f,
                "warning: which threads run {} is not known, so they are taken in order and can only be limited together; the \
                 kernel tells in debugfs, or when they enter KVM_RUN",
                listed(vcpus)
            ),
            Self::Mistaken { vcpu, thread } => write!(
                f,
                "warning: vCPU {vcpu} runs on thread {thread}, not on the one that its order suggested: what is shown as \
                 vCPU {vcpu} is another's"
            ),
            Self::Came { vcpu } => write!(f, "vCPU {vcpu} was plugged"),
            Self::Went { vcpu } => write!(f, "vCPU {vcpu} was unplugged"),
            Self::NotHeld { vcpu, error } => {
                write!(f, "warning: vCPU {vcpu}, which came later, is not limited: {error}")
            }
            Self::SignalUnheard { vcpu, signal } => write!(
                f,
                "warning: vCPU {vcpu} does not stop on signal {signal}, so it is not limited: its VMM seems to block that outside \
                 KVM_RUN"
            ),
        }
    }
}

/// `vCPU 3`, `vCPUs 0, 1, 4`.
pub(super) fn listed(vcpus: &[usize]) -> String {
    let numbers: Vec<String> = vcpus.iter().map(ToString::to_string).collect();
    format!("vCPU{} {}", if vcpus.len() == 1 { "" } else { "s" }, numbers.join(", "))
}
