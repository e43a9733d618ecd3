//! Limits a running, unmodified VM from outside.
//!
//! ```text
//!  the VM's vCPU thread                     kernel                        here
//!    KVM_RUN ── writes page after page ──▶ eBPF program on
//!                                          kvm_dirty_ring_push:
//!                                          budget - 1
//!    leaves KVM_RUN ◀── signal ─────────── budget spent
//!    stops on its way out ──────────────── ptrace ─────────────────────▶ charges the pages,
//!                                                                        sleeps off the debt,
//!    KVM_RUN says EINTR, ◀──────────────── continue ◀─────────────────── sets the next budget
//!    as after any signal
//! ```
//!
//! The VM knows nothing of it: to its VMM this is a signal that made `KVM_RUN` return. The vCPU's thread alone is
//! seized, so the VMM's others answer as ever; a signal of the VMM's own passes at once.
//!
//! A vCPU is never interrupted elsewhere: a signal, or ptrace's own interrupt, that comes while its thread resets a dirty
//! ring cuts the reset short, and QEMU aborts. For the same reason a vCPU that goes free while others are limited keeps its
//! tracer until its next page.
//!
//! The VM goes free however this ends, `kill -9` included: the kernel detaches what a tracer that dies holds, and the
//! eBPF program goes with its file descriptors.

use std::{
    collections::BTreeMap,
    fs, io,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use dirtyrig_limiter::{
    law::depth::Depth,
    limit::{LimitInfo, Which},
    units::Quota,
};
use dirtyrig_probes::{check_target, identity::NumberKind};
use nix::{sys::prctl, unistd::gettid};

use self::{
    books::Board,
    clock::Clock,
    tracer::{Command, Tracer},
    wake::Waker,
};
use crate::{
    engine::limits::{InForce, Limits, Whom},
    model::Stall,
};

mod agenda;
mod books;
mod clock;
mod error;
mod fault;
mod held;
mod limits;
mod remote;
mod signal;
mod target;
mod threads;
mod tracee;
mod tracer;
mod wake;

pub use books::VcpuBook;
pub use error::OutsideError;
pub use fault::{End, Fault};
pub use remote::Remote;
pub use target::OutsideTarget;

/// Room for as many vCPUs.
const SLOTS: u32 = 1024;

/// How long the kernel is waited for to be rid of a thread that has ended.
const PARTING: Duration = Duration::from_secs(1);

/// Holds the vCPUs of one running VM to their quotas, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Limiter {
    process: u32,
    ring_entries: u32,
    clock: Clock,
    counters: Arc<dirtyrig_probes::Quota>,
    board: Arc<Board>,
    /// Dropped to end the thread.
    commands: Option<Sender<Command>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    /// Its id.
    tracer: i32,
}

impl Limiter {
    /// Attaches to the VM of `process`. Nothing is limited, and no thread seized, until a limit is set; from here on
    /// pages are counted. `depth` says how long the pauses of a vCPU are and how much of its quota it may save up.
    pub fn attach(process: u32, depth: Depth) -> Result<Self, OutsideError> {
        Self::attach_with(process, depth, BTreeMap::new())
    }

    /// The same, of a VM whose monitor has said which index the vCPU of each thread has.
    pub fn attach_with(process: u32, depth: Depth, indices: BTreeMap<u32, u32>) -> Result<Self, OutsideError> {
        check_target(process)?;
        if process == std::process::id() {
            return Err(OutsideError::Itself { pid: process });
        }
        let ring_entries = threads::rings(process).into_values().max();
        let ring_entries = ring_entries.ok_or(OutsideError::NoDirtyRing { pid: process })?;
        let counters = Arc::new(dirtyrig_probes::Quota::attach(SLOTS)?);
        let (wake, waker) = wake::channel().map_err(system("listen for SIGCHLD"))?;
        let (commands, receiver) = mpsc::channel();
        let (ready, met) = mpsc::channel();
        let (clock, board) = (Clock::start(), Arc::<Board>::default());
        let tracer = {
            let (counters, board) = (Arc::clone(&counters), Arc::clone(&board));
            move || Tracer::new(process, indices, counters, clock, board, wake, receiver, depth)
        };
        let body = move || {
            // The kernel may be 50 us late by default, to wake threads together; a failure leaves it so.
            let _ = prctl::set_timerslack(1);
            let mut tracer = tracer();
            let outcome = tracer.meet();
            let goes_on = outcome.is_ok();
            let outcome = outcome.map(|()| gettid().as_raw());
            // It fails if nobody waits any more, and then nobody sends commands either.
            let _ = ready.send(outcome);
            if goes_on {
                tracer.run();
            }
        };
        let thread = thread::Builder::new()
            .name("outside".to_owned())
            .spawn(body)
            .map_err(system("start a thread"))?;
        let mut limiter = Self {
            process,
            ring_entries,
            clock,
            counters,
            board,
            commands: Some(commands),
            waker,
            thread: Some(thread),
            tracer: 0,
        };
        limiter.tracer = met.recv().unwrap_or(Err(OutsideError::Ended))?;
        Ok(limiter)
    }

    /// The VMM.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Entries of each vCPU's dirty ring.
    pub fn ring_entries(&self) -> u32 {
        self.ring_entries
    }

    /// Time since it attached: the clock of its stalls.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Limits one vCPU, or each one, those that are plugged later included. On an error nothing has changed.
    pub fn set(&self, which: Which, quota: Quota) -> Result<(), OutsideError> {
        self.ask(|reply| Command::Set(which, Some(quota), reply))
    }

    /// Takes the limit of one vCPU, or of each one, away; one that pauses for it runs on at once.
    pub fn cancel(&self, which: Which) -> Result<(), OutsideError> {
        self.ask(|reply| Command::Set(which, None, reply))
    }

    /// Limits all vCPUs together, beside the limits that each has.
    pub fn set_vm(&self, quota: Quota) -> Result<(), OutsideError> {
        self.ask(|reply| Command::SetVm(Some(quota), reply))
    }

    /// Takes the limit of the VM as a whole away.
    pub fn cancel_vm(&self) -> Result<(), OutsideError> {
        self.ask(|reply| Command::SetVm(None, reply))
    }

    /// Changes the time's worth of quota that may be saved up. What was saved up beyond it is lost, from now on.
    pub fn set_burst(&self, burst: Duration) -> Result<(), OutsideError> {
        self.ask(|reply| Command::SetBurst(burst, reply))
    }

    /// The vCPUs that have a limit of their own, with the rate at which their pages went to the ring over the last
    /// second.
    pub fn query(&self) -> Vec<LimitInfo> {
        let books = self.board.lock();
        let limited = books.vcpus.iter().filter_map(|(&vcpu, book)| {
            Some(LimitInfo {
                vcpu,
                quota: book.quota?,
                current: book.reading,
            })
        });
        limited.collect()
    }

    /// The limit of the VM as a whole.
    pub fn vm_quota(&self) -> Option<Quota> {
        self.board.lock().vm_quota
    }

    /// What the numbers of its vCPUs are.
    pub fn number_kind(&self) -> NumberKind {
        self.board.lock().kind
    }

    /// Every vCPU that is or was there, by number, up to now.
    pub fn books(&self) -> Vec<(usize, VcpuBook)> {
        let now = self.now();
        let books = self.board.lock();
        let book = |(&vcpu, book): (&usize, &VcpuBook)| {
            let pages = self.counters.drawn(book.slot);
            (
                vcpu,
                VcpuBook {
                    pages,
                    ..book.clone().at(now)
                },
            )
        };
        books.vcpus.iter().map(book).collect()
    }

    /// The pauses since the last call, their times on the limiter's clock.
    pub fn take_stalls(&self) -> Vec<Stall> {
        self.board.lock().take_stalls()
    }

    /// What the user should know, since the last call.
    pub fn take_faults(&self) -> Vec<Fault> {
        std::mem::take(&mut self.board.lock().faults)
    }

    /// Why it ended by itself, if it has.
    pub fn end(&self) -> Option<End> {
        self.board.lock().end.clone()
    }

    fn ask(&self, command: impl FnOnce(Sender<Result<(), OutsideError>>) -> Command) -> Result<(), OutsideError> {
        let (reply, outcome) = mpsc::channel();
        let commands = self.commands.as_ref().ok_or(OutsideError::Ended)?;
        commands.send(command(reply)).map_err(|_| OutsideError::Ended)?;
        self.waker.wake();
        outcome.recv().unwrap_or(Err(OutsideError::Ended))
    }
}

impl Limits for Limiter {
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()> {
        match whom {
            Whom::Vcpus(which) => Self::set(self, which, quota)?,
            Whom::Vm => self.set_vm(quota)?,
        }
        Ok(())
    }

    fn cancel(&self, whom: Whom) -> anyhow::Result<()> {
        match whom {
            Whom::Vcpus(which) => Self::cancel(self, which)?,
            Whom::Vm => self.cancel_vm()?,
        }
        Ok(())
    }

    fn set_burst(&self, burst: Duration) -> anyhow::Result<()> {
        Ok(Self::set_burst(self, burst)?)
    }

    fn query(&self) -> anyhow::Result<InForce> {
        Ok(InForce {
            vcpus: Self::query(self),
            vm: self.vm_quota(),
        })
    }
}

impl Drop for Limiter {
    /// Lets every vCPU run free and untraced.
    fn drop(&mut self) {
        self.commands = None;
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed, and the kernel has let the VM go.
            let _ = thread.join();
            // The kernel detaches what it held a little later, just before the thread is gone from here.
            let task = format!("/proc/self/task/{}", self.tracer);
            let given_up = self.now() + PARTING;
            while self.now() < given_up && fs::exists(&task).unwrap_or(false) {
                thread::sleep(PARTING / 10_000);
            }
        }
    }
}

fn system(operation: &'static str) -> impl FnOnce(io::Error) -> OutsideError {
    move |source| OutsideError::System { operation, source }
}
