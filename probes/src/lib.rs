//! Sees from inside the kernel what KVM's vCPUs do: pages dirtied, rings full, stalls, exits by reason; of one process
//! or of every VM on the host. And counts down a vCPU's budget of pages, exact to the page.
//!
//! ```no_run
//! use dirtyrig_probes::{Event, Options, Probes, Target};
//!
//! let mut probes = Probes::attach(&Options::new(Target::Pid(4711)))?;
//! loop {
//!     std::thread::sleep(std::time::Duration::from_millis(100));
//!     probes.drain(|event| {
//!         if let Event::Stall(stall) = event {
//!             println!("vCPU {:?} stalled for {:?}", stall.vcpu, stall.length());
//!         }
//!     })?;
//!     for vcpu in probes.vcpus()? {
//!         println!("{:?}: {} pages, {} ring-full exits", vcpu.vcpu, vcpu.pushed_pages, vcpu.ring_full_exits);
//!     }
//!     println!("{}", probes.status()?);
//! #   break;
//! }
//! # Ok::<(), dirtyrig_probes::Error>(())
//! ```
//!
//! # How it works
//!
//! Programs (`probes/ebpf`, embedded as `probes/prebuilt/*.bpf.o`) run at KVM's tracepoints, on the vCPU threads
//! themselves. They filter by process, count in maps by thread, and write a record for each finished [`Stall`], and on
//! request for each [`Push`]. Pages are told by the index of each vCPU's ring, so that no program runs for each of them
//! ([`Probes::runs_for_each_page`]). Nothing wakes the reader: it drains on its own timer. What could not be recorded is
//! counted: [`Lost`].
//!
//! Each event is attached the cheapest way that this kernel takes, [`AttachKind`]; [`Status`] names the way taken,
//! what could not be attached and why, and which events have not fired although they should have.
//!
//! # Clock
//!
//! Every time is a [`Duration`](std::time::Duration) of `CLOCK_MONOTONIC`, which [`monotonic_now`] reads: the clock of
//! [`std::time::Instant`] on Linux, so a limiter's own times can be joined with those of the probes.
//!
//! # What it needs
//!
//! Linux 5.15 or later on x86-64; root, or `CAP_BPF` and `CAP_PERFMON`; the initial PID namespace. tracefs is read
//! wherever it is mounted; where it is not, from a mount that no other process sees and that ends with the reading, if that
//! is permitted; without it raw tracepoints alone are used. BTF of the kernel is optional: with it a vCPU that was in
//! `KVM_RUN` before the probes came is told by its descriptor.

// Of a library, unlike the workspace: whoever calls it asks first what can go wrong.
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod attach;
mod btf;
mod clock;
mod counters;
mod error;
mod event;
mod exits;
mod histogram;
pub mod identity;
mod kvm_event;
mod map;
mod marking;
mod moment;
mod object;
mod observer;
mod options;
mod pages;
mod perf;
mod process;
mod quota;
mod sources;
mod status;
mod target;
mod tracefs;

pub use attach::AttachKind;
pub use clock::monotonic_now;
pub use counters::{ExitCount, StallCounters, VcpuCounters};
pub use error::Error;
pub use event::{Event, Push, Stall, StallCause, StallEnd};
pub use exits::ExitReason;
pub use histogram::StallHistogram;
pub use identity::VcpuId;
pub use kvm_event::KvmEvent;
pub use observer::Probes;
pub use options::Options;
pub use process::{PidNamespace, check_target, kvm_processes, process_lives, vcpu_of_descriptor};
pub use quota::{Log, Quota};
pub use sources::{Source, SourceStatus, page_sources};
pub use status::{EventStatus, Lost, Sees, Status};
pub use target::Target;
pub use tracefs::{NoTracefs, Tracefs};
