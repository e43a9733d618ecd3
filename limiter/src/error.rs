//! What can go wrong while vCPUs are limited.

use std::io;

/// An operation of the limiter that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dirty ring can't be mapped, harvested or reset.
    #[error(transparent)]
    Ring(#[from] dirtyrig_ring::Error),
    /// `KVM_RUN` failed.
    #[error("KVM_RUN of vCPU {vcpu} failed")]
    Run {
        /// Index of the vCPU.
        vcpu: usize,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A vCPU was taken in twice.
    #[error("vCPU {vcpu} is limited on another thread: drop its `LimitedVcpu` there first")]
    HasThread {
        /// Index of the vCPU.
        vcpu: usize,
    },
    /// An index beyond what the limiter has room for.
    #[error("vCPU {vcpu} does not fit: this limiter was made for {max} vCPUs, so give an index below that")]
    NoSuchVcpu {
        /// The index.
        vcpu: usize,
        /// How many vCPUs it was made for.
        max: usize,
    },
    /// A ring reports full although nothing in it can be harvested.
    #[error(
        "the dirty ring of vCPU {vcpu} reports full but holds nothing to harvest: the kernel pushed past its end \
         (a guest at CPL 0 is emulated under kvm-pvm and can do that); this VM can't go on"
    )]
    RingStuck {
        /// Index of the vCPU.
        vcpu: usize,
    },
    /// A limiter that stops a vCPU on the exact page has nothing that counts them.
    #[error("limiter `{limiter}` needs a page counter in the kernel: give each vCPU one, or choose `budget`")]
    NoPageCounter {
        /// The limiter.
        limiter: crate::law::LimiterKind,
    },
    /// The page counter can't be bound to the vCPU's thread.
    #[error("can't count the pages of a vCPU in the kernel")]
    PageCounter {
        /// What the counter says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A vCPU's timer can't be had.
    #[error("can't create or set the timer of a vCPU thread")]
    Timer {
        /// What the system answered.
        source: io::Error,
    },
    /// No real-time signal has this number.
    #[error("there is no real-time signal SIGRTMIN+{offset}: give an offset from 0 to {max}")]
    NoSuchSignal {
        /// The offset that was asked for.
        offset: u32,
        /// The largest possible one.
        max: u32,
    },
    /// The signal that kicks a vCPU has another handler already.
    #[error("signal {signal} is taken: this process handles or ignores it already; give the limiter another one")]
    SignalTaken {
        /// The signal's number.
        signal: i32,
    },
    /// The signal that kicks a vCPU can't be set up.
    #[error("can't install a handler of signal {signal}, which is to kick vCPUs")]
    Signal {
        /// The signal's number.
        signal: i32,
        /// What the system answered.
        source: io::Error,
    },
}
