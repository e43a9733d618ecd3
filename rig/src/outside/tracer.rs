//! The controlling thread: it alone seizes, stops and continues, because the kernel takes ptrace requests from the
//! thread alone that seized.
//!
//! It sleeps until a tracee stopped, a command came, a pause is over, or a tick is due. It owns the laws' buckets and
//! the state of every vCPU. However it ends, no thread stays stopped and no page is signalled: [`Tracer::drop`] takes
//! the budgets away, and the kernel detaches what a thread that ends still holds.
//!
//! It stops a vCPU by the eBPF program's signal alone, which comes in `KVM_RUN`. `PTRACE_INTERRUPT` could come in
//! `KVM_RESET_DIRTY_RINGS`, which it cuts short; QEMU aborts then.
//!
//! Here is its loop; what it does has a file each: [`commands`], [`hold`] (and let go), [`changes`] of its tracees,
//! [`pauses`] that end, the [`look`] at everything now and then, [`members`] that come and go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::Duration,
};

use dirtyrig_limiter::{
    law::{accounts::Accounts, depth::Depth},
    limit::Which,
    units::{Pages, Quota as Rate},
};
use dirtyrig_probes::{
    Quota,
    identity::{Numbers, proc_text},
};

use super::{
    End, agenda::Agenda, books::Board, clock::Clock, error::OutsideError, held::Vcpu, limits::Limits, wake::Wake,
};

mod changes;
mod commands;
mod hold;
mod look;
mod members;
mod pauses;

/// A command, and who waits for its outcome.
pub(super) enum Command {
    /// Sets, or with `None` cancels.
    Set(Which, Option<Rate>, Sender<Result<(), OutsideError>>),
    /// The same for the VM as a whole.
    SetVm(Option<Rate>, Sender<Result<(), OutsideError>>),
    /// Sets how much may be saved up.
    SetBurst(Duration, Sender<Result<(), OutsideError>>),
}

/// Time between two looks at the counters.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks for threads that came.
const SCAN_TICKS: u32 = 3;
/// Ticks that a reading covers.
const READING_TICKS: usize = 10;
/// Ticks on a spent grant after which a thread is taken for deaf.
const DEAF_TICKS: u32 = 10;
/// How long the threads of the vCPUs are looked for at the start.
const MEETING: Duration = Duration::from_secs(1);

/// What the controlling thread has.
pub(super) struct Tracer {
    process: u32,
    /// The index of the vCPU of each thread, as far as the VM's monitor has said it.
    indices: BTreeMap<u32, u32>,
    /// When that process began, so that another of the same id isn't taken for it.
    began: u64,
    quota: Arc<Quota>,
    clock: Clock,
    board: Arc<Board>,
    wake: Wake,
    commands: Receiver<Command>,
    limits: Limits,
    accounts: Accounts,
    /// Those whose threads are known, by number.
    vcpus: BTreeMap<usize, Vcpu>,
    numbers: Numbers,
    /// Those that had run on no thread at the start, and have not since.
    announced: BTreeSet<usize>,
    /// Those whose threads have ended, until it is known why.
    gone: BTreeSet<usize>,
    /// Whose thread is whose.
    by_thread: HashMap<u32, usize>,
    /// When each of them is to be looked after: see [`due`](super::held::Hold::due).
    agenda: Agenda,
    /// The slot of each vCPU that ever was there.
    slots: BTreeMap<usize, u32>,
    /// When counters were read, and what they were, by vCPU.
    history: VecDeque<(Duration, BTreeMap<usize, u64>)>,
    ticks: u32,
    end: Option<End>,
}

impl Tracer {
    #[expect(clippy::too_many_arguments, reason = "what it is made of")]
    pub(super) fn new(
        process: u32,
        indices: BTreeMap<u32, u32>,
        quota: Arc<Quota>,
        clock: Clock,
        board: Arc<Board>,
        wake: Wake,
        commands: Receiver<Command>,
        depth: Depth,
    ) -> Self {
        Self {
            process,
            indices,
            began: began(process),
            quota,
            clock,
            board,
            wake,
            commands,
            limits: Limits::default(),
            accounts: Accounts::new(depth),
            vcpus: BTreeMap::new(),
            by_thread: HashMap::new(),
            agenda: Agenda::default(),
            slots: BTreeMap::new(),
            numbers: Numbers::default(),
            announced: BTreeSet::new(),
            gone: BTreeSet::new(),
            history: VecDeque::new(),
            ticks: 0,
            end: None,
        }
    }

    /// Works until the VM ends or nobody can send commands any more.
    pub(super) fn run(mut self) {
        let end = match self.work() {
            Ok(None) => None,
            Ok(end) => end,
            Err(error) => Some(End::Failed(error.to_string())),
        };
        self.let_go();
        self.board.lock().end = end;
    }

    fn work(&mut self) -> Result<Option<End>, OutsideError> {
        let mut next_tick = self.clock.now() + TICK;
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(None),
                }
            }
            self.take_changes()?;
            self.act_on_what_is_due()?;
            if self.clock.now() >= next_tick {
                next_tick = self.clock.now() + TICK;
                self.tick()?;
            }
            if self.end.is_some() {
                return Ok(self.end.take());
            }
            let next = self.agenda.next().map_or(next_tick, |due| due.min(next_tick));
            let left = next.saturating_sub(self.clock.now());
            if !left.is_zero() {
                self.wait(left)?;
            }
        }
    }

    pub(super) fn wait(&mut self, timeout: Duration) -> Result<(), OutsideError> {
        self.wake.wait(timeout).map_err(system("wait for the VM's threads"))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        for held in self.vcpus.values() {
            // From here on nobody is signalled, whatever ended this thread.
            self.quota.refill(held.slot, i64::MAX);
            let _ = self.quota.release(held.thread);
        }
    }
}

/// Pages as the eBPF program counts them down.
fn pages(grant: Option<Pages>) -> i64 {
    grant.map_or(i64::MAX, |pages| i64::try_from(pages.0).unwrap_or(i64::MAX))
}

/// When a process began, in the kernel's ticks; 0 if it is gone.
fn began(process: u32) -> u64 {
    // Field 22 of `stat`; what follows the name in parentheses begins with field 3.
    proc_text(format!("/proc/{process}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok())
        .unwrap_or(0)
}

fn system(operation: &'static str) -> impl FnOnce(io::Error) -> OutsideError {
    move |source| OutsideError::System { operation, source }
}
