//! The controlling thread: it alone seizes, stops and continues, because the kernel takes ptrace requests from the
//! thread alone that seized.
//!
//! It sleeps until a tracee stopped, a command came, a pause is over, or a tick is due. It owns the laws' buckets and
//! the state of every vCPU. However it ends, no thread stays stopped and no page is signalled: [`Tracer::drop`] takes
//! the budgets away, and the kernel detaches what a thread that ends still holds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::Duration,
};

use dirtyrig_limiter::{
    clock::Clock,
    limit::Which,
    units::{Pages, Quota as Rate},
};
use dirtyrig_probes::{Change, Quota, Tracee, check_target, next_change, process_lives};

use super::{
    End, Fault,
    account::{Accounts, Limits},
    books::Board,
    error::OutsideError,
    held::{self, Hold, Pause, Vcpu},
    signal::StopSignal,
    threads,
    wake::Wake,
};

/// A command, and who waits for its outcome.
pub(super) enum Command {
    /// Sets, or with `None` cancels.
    Set(Which, Option<Rate>, Sender<Result<(), OutsideError>>),
    /// The same for the VM as a whole.
    SetVm(Option<Rate>, Sender<Result<(), OutsideError>>),
}

/// Time between two looks at the counters.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks for threads that came.
const SCAN_TICKS: u32 = 3;
/// Ticks that a reading covers.
const READING_TICKS: usize = 10;
/// How long the threads that run when the limiter ends are waited for; the kernel detaches those that don't stop.
const PARTING: Duration = Duration::from_secs(1);
/// How long vCPUs that don't show are waited for at the attach: those of a paused VM, or not plugged yet, come later.
const MEETING: Duration = Duration::from_secs(1);
/// Time between two looks for them.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What the controlling thread has.
pub(super) struct Tracer {
    process: u32,
    /// When that process began, so that another of the same id isn't taken for it.
    began: u64,
    quota: Arc<Quota>,
    clock: Clock,
    board: Arc<Board>,
    wake: Wake,
    commands: Receiver<Command>,
    limits: Limits,
    accounts: Accounts,
    vcpus: BTreeMap<usize, Vcpu>,
    /// The slot of each vCPU that ever was there.
    slots: BTreeMap<usize, u32>,
    /// Threads that spend time in a guest, interrupted to see for which vCPU.
    strangers: BTreeMap<u32, Tracee>,
    /// When counters were read, and what they were, by vCPU.
    history: VecDeque<(Duration, BTreeMap<usize, u64>)>,
    ticks: u32,
    end: Option<End>,
}

impl Tracer {
    pub(super) fn new(
        process: u32,
        quota: Arc<Quota>,
        clock: Clock,
        board: Arc<Board>,
        wake: Wake,
        commands: Receiver<Command>,
        max_stall: Duration,
    ) -> Self {
        Self {
            process,
            began: began(process),
            quota,
            clock,
            board,
            wake,
            commands,
            limits: Limits::default(),
            accounts: Accounts::new(max_stall),
            vcpus: BTreeMap::new(),
            slots: BTreeMap::new(),
            strangers: BTreeMap::new(),
            history: VecDeque::new(),
            ticks: 0,
            end: None,
        }
    }

    /// Finds the vCPUs that there are.
    pub(super) fn meet(&mut self) -> Result<(), OutsideError> {
        // Each vCPU has a ring; a thread without a name shows as a vCPU's once it has spent some time in the guest.
        let expected = threads::ring_entries(self.process).len();
        let until = self.clock.now() + MEETING;
        loop {
            self.scan()?;
            self.take_changes()?;
            if self.vcpus.len() >= expected || self.clock.now() >= until {
                break;
            }
            self.wait(LOOK_AGAIN)?;
        }
        if self.vcpus.is_empty() {
            return Err(OutsideError::NoVcpus { pid: self.process });
        }
        Ok(())
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
            self.end_pauses()?;
            if self.clock.now() >= next_tick {
                next_tick = self.clock.now() + TICK;
                self.tick()?;
            }
            if self.end.is_some() {
                return Ok(self.end.take());
            }
            let next = self.next_due().map_or(next_tick, |due| due.min(next_tick));
            let left = next.saturating_sub(self.clock.now());
            if !left.is_zero() {
                self.wait(left)?;
            }
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), OutsideError> {
        self.wake.wait(timeout).map_err(system("wait for the VM's threads"))
    }

    // ---- commands -------------------------------------------------------------------------------------------------

    fn obey(&mut self, command: Command) {
        let (outcome, reply) = match command {
            Command::Set(which, quota, reply) => (self.set(which, quota), reply),
            Command::SetVm(quota, reply) => {
                let mut limits = self.limits.clone();
                limits.vm = quota;
                (self.change(limits), reply)
            }
        };
        // It fails if nobody waits any more.
        let _ = reply.send(outcome);
    }

    fn set(&mut self, which: Which, quota: Option<Rate>) -> Result<(), OutsideError> {
        if let Which::One(vcpu) = which
            && !self.slots.contains_key(&vcpu)
        {
            let known: Vec<String> = self.vcpus.keys().map(|vcpu| format!("vCPU {vcpu}")).collect();
            return Err(OutsideError::UnknownVcpu {
                vcpu,
                known: known.join(", "),
            });
        }
        let mut limits = self.limits.clone();
        limits.set(which, quota);
        self.change(limits)
    }

    /// Puts `limits` into force, all or, where a thread can't be held, none.
    fn change(&mut self, limits: Limits) -> Result<(), OutsideError> {
        let vcpus: Vec<usize> = self.vcpus.keys().copied().collect();
        let mut seized = Vec::new();
        for &vcpu in &vcpus {
            if limits.holds(vcpu) {
                match self.hold(vcpu) {
                    Ok(true) => seized.push(vcpu),
                    Ok(false) => {}
                    Err(error) => {
                        for vcpu in seized {
                            self.free(vcpu)?;
                        }
                        return Err(error);
                    }
                }
            }
        }
        let now = self.clock.now();
        for &vcpu in &vcpus {
            self.charge(now, vcpu);
        }
        if limits.vm != self.limits.vm {
            self.accounts.follow_vm(now, limits.vm);
        }
        self.limits = limits;
        self.board.lock().vm_quota = self.limits.vm;
        for vcpu in vcpus {
            self.follow(now, vcpu)?;
        }
        Ok(())
    }

    /// Brings a vCPU that was charged, and seized if it is to be held, under the limits in force.
    fn follow(&mut self, now: Duration, vcpu: usize) -> Result<(), OutsideError> {
        let quota = self.limits.quota(vcpu);
        if let Some(book) = self.board.lock().vcpus.get_mut(&vcpu) {
            book.quota = quota;
        }
        self.accounts.follow(now, vcpu, quota);
        if !self.limits.holds(vcpu) {
            return self.free(vcpu);
        }
        let pause = self.accounts.pause(now, vcpu);
        let grant = self.accounts.grant(now, vcpu);
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        match &mut held.hold {
            Hold::Paused(_, paused) => paused.due = now + pause,
            Hold::Running(_) | Hold::Listening(_) | Hold::Leaving(_) | Hold::Free => {
                // One that owes stops at its next page.
                let left = if pause.is_zero() { pages(grant) } else { 0 };
                // Relaxed: the count is all that is shared; what is drawn meanwhile is charged at the next stop.
                self.quota.budget(held.slot).store(left, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    // ---- holding and letting go -----------------------------------------------------------------------------------

    /// Seizes a vCPU that is free; tells whether it was.
    fn hold(&mut self, vcpu: usize) -> Result<bool, OutsideError> {
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(false);
        };
        match std::mem::replace(&mut held.hold, Hold::Free) {
            Hold::Free => {}
            // The stop that it was asked for comes, and is one like any other.
            Hold::Leaving(tracee) => {
                held.hold = Hold::Running(tracee);
                return Ok(false);
            }
            other => {
                held.hold = other;
                return Ok(false);
            }
        }
        held.signal = held::choose_signal(self.process, vcpu, held.thread)?;
        let Some(tracee) = held::seize(self.process, vcpu, held.thread)? else {
            return Ok(false);
        };
        held.hold = Hold::Running(tracee);
        self.quota
            .limit(self.process, held.thread, held.slot, held.signal.number)?;
        Ok(true)
    }

    /// Lets a vCPU run unlimited and, once it has stopped for that, without a tracer.
    fn free(&mut self, vcpu: usize) -> Result<(), OutsideError> {
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        // Relaxed: as in `follow`.
        self.quota.budget(held.slot).store(i64::MAX, Ordering::Relaxed);
        held.hold = match std::mem::replace(&mut held.hold, Hold::Free) {
            Hold::Running(tracee) | Hold::Listening(tracee) => {
                tracee.interrupt().map_err(system("interrupt a vCPU thread"))?;
                Hold::Leaving(tracee)
            }
            Hold::Paused(tracee, pause) => {
                tracee.detach(pause.deliver).map_err(system("let a vCPU thread go"))?;
                let now = self.clock.now();
                self.board
                    .lock()
                    .resume(vcpu, now, pause.due.saturating_sub(pause.since));
                Hold::Free
            }
            other @ (Hold::Free | Hold::Leaving(_)) => other,
        };
        Ok(())
    }

    /// The end: every vCPU goes free.
    fn let_go(&mut self) {
        let vcpus: Vec<usize> = self.vcpus.keys().copied().collect();
        for vcpu in vcpus {
            // What fails here is done by the kernel when this thread ends.
            let _ = self.free(vcpu);
        }
        let until = self.clock.now() + PARTING;
        let is_leaving = |held: &Vcpu| matches!(held.hold, Hold::Leaving(_));
        while self.vcpus.values().any(is_leaving) && self.clock.now() < until {
            if self.wait(TICK).and_then(|()| self.take_changes()).is_err() {
                return;
            }
        }
    }

    // ---- changes of the tracees -----------------------------------------------------------------------------------

    fn take_changes(&mut self) -> Result<(), OutsideError> {
        while let Some((thread, change)) = next_change().map_err(system("ask what the VM's threads do"))? {
            if change == Change::Exec {
                // Its id may be another now; the kernel detaches it when this thread ends.
                self.end = Some(End::Gone);
            } else if let Some(stranger) = self.strangers.remove(&thread) {
                self.identify(stranger, change)?;
            } else if let Some((&vcpu, _)) = self.vcpus.iter().find(|(_, held)| held.thread == thread) {
                self.changed(vcpu, change)?;
            }
        }
        Ok(())
    }

    fn changed(&mut self, vcpu: usize, change: Change) -> Result<(), OutsideError> {
        if change == Change::Gone {
            return self.forget(vcpu);
        }
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        let StopSignal { number, is_kick } = held.signal;
        let (tracee, is_leaving) = match std::mem::replace(&mut held.hold, Hold::Free) {
            Hold::Free => return Ok(()),
            Hold::Leaving(tracee) => (tracee, true),
            Hold::Running(tracee) | Hold::Paused(tracee, _) | Hold::Listening(tracee) => (tracee, false),
        };
        let (is_ours, deliver) = match change {
            Change::Signal(signal) if signal == number && tracee.is_from_kernel().unwrap_or(false) => {
                (true, if is_kick { signal } else { 0 })
            }
            Change::Signal(signal) => (false, signal),
            _ => (true, 0),
        };
        if is_leaving {
            return tracee.detach(deliver).map_err(system("let a vCPU thread go"));
        }
        if change == Change::GroupStop {
            tracee.listen().map_err(system("leave a vCPU thread stopped"))?;
            held.hold = Hold::Listening(tracee);
            return Ok(());
        }
        if !is_ours {
            // A signal of the VMM's own is never delayed. If the grant is spent, the next page stops it again.
            tracee.resume(deliver).map_err(system("continue a vCPU thread"))?;
            held.hold = Hold::Running(tracee);
            if let Some(book) = self.board.lock().vcpus.get_mut(&vcpu) {
                book.passed_on += 1;
            }
            return Ok(());
        }
        self.stopped(vcpu, tracee, deliver)
    }

    /// A vCPU stopped because its grant is spent, or was interrupted: charges it, and lets it run or pause.
    fn stopped(&mut self, vcpu: usize, tracee: Tracee, deliver: i32) -> Result<(), OutsideError> {
        let now = self.clock.now();
        self.charge(now, vcpu);
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        // Relaxed, here and below: the thread stands still.
        let is_spent = self.quota.budget(held.slot).load(Ordering::Relaxed) <= 0;
        let asked = if is_spent {
            self.accounts.pause(now, vcpu)
        } else {
            Duration::ZERO
        };
        let mut board = self.board.lock();
        if let Some(book) = board.vcpus.get_mut(&vcpu) {
            book.stops += u64::from(is_spent);
        }
        if asked.is_zero() {
            drop(board);
            if is_spent {
                let grant = self.accounts.grant(now, vcpu);
                self.quota.budget(held.slot).store(pages(grant), Ordering::Relaxed);
            }
            tracee.resume(deliver).map_err(system("continue a vCPU thread"))?;
            held.hold = Hold::Running(tracee);
        } else {
            board.pause(vcpu, now, asked);
            let pause = Pause {
                since: now,
                due: now + asked,
                deliver,
            };
            held.hold = Hold::Paused(tracee, pause);
        }
        Ok(())
    }

    // ---- pauses ---------------------------------------------------------------------------------------------------

    fn next_due(&self) -> Option<Duration> {
        self.vcpus
            .values()
            .filter_map(|held| match held.hold {
                Hold::Paused(_, pause) => Some(pause.due),
                _ => None,
            })
            .min()
    }

    /// Continues those whose pause is over, unless others have drawn on the VM's quota meanwhile.
    fn end_pauses(&mut self) -> Result<(), OutsideError> {
        let now = self.clock.now();
        for (&vcpu, held) in &mut self.vcpus {
            let Hold::Paused(_, pause) = &mut held.hold else {
                continue;
            };
            if pause.due > now {
                continue;
            }
            let more = self.accounts.pause(now, vcpu);
            if !more.is_zero() {
                pause.due = now + more;
                continue;
            }
            let Pause { since, due, deliver } = *pause;
            let grant = self.accounts.grant(now, vcpu);
            // Relaxed: the thread stands still, and continuing it orders this before its first page.
            self.quota.budget(held.slot).store(pages(grant), Ordering::Relaxed);
            if let Hold::Paused(tracee, _) = std::mem::replace(&mut held.hold, Hold::Free) {
                tracee.resume(deliver).map_err(system("continue a vCPU thread"))?;
                held.hold = Hold::Running(tracee);
            }
            self.board
                .lock()
                .resume(vcpu, self.clock.now(), due.saturating_sub(since));
        }
        Ok(())
    }

    fn charge(&mut self, now: Duration, vcpu: usize) {
        if let Some(held) = self.vcpus.get_mut(&vcpu) {
            let drawn = self.quota.drawn(held.slot);
            let pages = Pages(drawn.saturating_sub(held.charged));
            held.charged = drawn;
            self.accounts.charge(now, vcpu, pages);
        }
    }

    // ---- what is looked at every now and then ---------------------------------------------------------------------

    fn tick(&mut self) -> Result<(), OutsideError> {
        self.read();
        self.interrupt_overdrawn()?;
        self.ticks += 1;
        if self.ticks.is_multiple_of(SCAN_TICKS) {
            let is_gone = !process_lives(self.process)
                || began(self.process) != self.began
                || (self.vcpus.is_empty() && check_target(self.process).is_err());
            if is_gone {
                self.end = Some(End::Gone);
                return Ok(());
            }
            self.scan()?;
        }
        Ok(())
    }

    /// What each vCPU dirtied over the last second.
    fn read(&mut self) {
        let now = self.clock.now();
        let drawn = self.slots.iter().map(|(&vcpu, &slot)| (vcpu, self.quota.drawn(slot)));
        self.history.push_back((now, drawn.collect()));
        while self.history.len() > READING_TICKS + 1 {
            self.history.pop_front();
        }
        let (Some((from, old)), Some((to, new))) = (self.history.front(), self.history.back()) else {
            return;
        };
        let mut board = self.board.lock();
        for (vcpu, &drawn) in new {
            if let Some(book) = board.vcpus.get_mut(vcpu) {
                let before = old.get(vcpu).copied().unwrap_or(drawn);
                let span = to.saturating_sub(*from);
                book.reading = Pages(drawn.saturating_sub(before)).per(span).unwrap_or_default();
            }
        }
    }

    /// A thread that has run on a spent grant for a whole tick doesn't stop on its signal: a VMM may block it outside
    /// `KVM_RUN`. It is stopped by ptrace's own means then, once a tick.
    fn interrupt_overdrawn(&mut self) -> Result<(), OutsideError> {
        for (&vcpu, held) in &mut self.vcpus {
            let Hold::Running(tracee) = &held.hold else {
                held.overdrawn = false;
                continue;
            };
            // Relaxed: a look.
            let is_spent = self.quota.budget(held.slot).load(Ordering::Relaxed) < 0;
            if std::mem::replace(&mut held.overdrawn, is_spent) && is_spent {
                tracee.interrupt().map_err(system("interrupt a vCPU thread"))?;
                let signal = held.signal.number;
                self.board.lock().faults.push(Fault::SignalUnheard { vcpu, signal });
            }
        }
        Ok(())
    }

    // ---- vCPUs that come and go -----------------------------------------------------------------------------------

    fn scan(&mut self) -> Result<(), OutsideError> {
        let lives = |thread: u32| fs::exists(format!("/proc/{}/task/{thread}", self.process)).unwrap_or(false);
        // Of those that it traces the kernel says so.
        let is_gone = |held: &Vcpu| matches!(held.hold, Hold::Free) && !lives(held.thread);
        let gone: Vec<usize> = self
            .vcpus
            .iter()
            .filter(|(_, held)| is_gone(held))
            .map(|(&vcpu, _)| vcpu)
            .collect();
        for vcpu in gone {
            self.forget(vcpu)?;
        }
        let mut known: BTreeSet<u32> = self.vcpus.values().map(|held| held.thread).collect();
        known.extend(self.strangers.keys());
        for found in threads::find(self.process, &known) {
            if let Some(vcpu) = found.vcpu {
                self.adopt(vcpu, found.thread)?;
            } else if let Ok(tracee) = Tracee::seize(found.thread) {
                tracee.interrupt().map_err(system("interrupt a thread"))?;
                self.strangers.insert(found.thread, tracee);
            }
        }
        Ok(())
    }

    /// A thread that spends time in a guest stands still: if it is in `KVM_RUN`, that says for which vCPU.
    fn identify(&mut self, stranger: Tracee, change: Change) -> Result<(), OutsideError> {
        let thread = stranger.thread();
        let deliver = match change {
            Change::Gone => return Ok(()),
            Change::Signal(signal) => signal,
            _ => 0,
        };
        let vcpu = threads::in_kvm_run(self.process, thread);
        stranger.detach(deliver).map_err(system("let a thread go"))?;
        vcpu.map_or(Ok(()), |vcpu| self.adopt(vcpu, thread))
    }

    fn adopt(&mut self, vcpu: usize, thread: u32) -> Result<(), OutsideError> {
        if self.vcpus.contains_key(&vcpu) {
            // The thread that had this number is about to be reported as gone; this one is found again after that.
            return Ok(());
        }
        let next = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let slot = *self.slots.entry(vcpu).or_insert(next);
        // Relaxed: nobody draws on it yet.
        self.quota.budget(slot).store(i64::MAX, Ordering::Relaxed);
        let signal = StopSignal::NONE_SENT;
        self.quota.limit(self.process, thread, slot, signal.number)?;
        let held = Vcpu {
            thread,
            slot,
            signal,
            hold: Hold::Free,
            charged: self.quota.drawn(slot),
            overdrawn: false,
        };
        self.vcpus.insert(vcpu, held);
        {
            let mut board = self.board.lock();
            let book = board.vcpus.entry(vcpu).or_default();
            (book.thread, book.plugged, book.slot) = (thread, true, slot);
        }
        if self.limits.holds(vcpu)
            && let Err(error) = self.hold(vcpu)
        {
            self.board.lock().faults.push(Fault::NotHeld(error.to_string()));
            return Ok(());
        }
        self.follow(self.clock.now(), vcpu)
    }

    fn forget(&mut self, vcpu: usize) -> Result<(), OutsideError> {
        let now = self.clock.now();
        self.charge(now, vcpu);
        self.accounts.leave(now, vcpu);
        if let Some(held) = self.vcpus.remove(&vcpu) {
            self.quota.release(held.thread)?;
        }
        let mut board = self.board.lock();
        board.resume(vcpu, now, Duration::ZERO);
        if let Some(book) = board.vcpus.get_mut(&vcpu) {
            book.plugged = false;
        }
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        for held in self.vcpus.values() {
            // Relaxed: from here on nobody is signalled, whatever ended this thread.
            self.quota.budget(held.slot).store(i64::MAX, Ordering::Relaxed);
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
    fs::read_to_string(format!("/proc/{process}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok())
        .unwrap_or(0)
}

fn system(operation: &'static str) -> impl FnOnce(io::Error) -> OutsideError {
    move |source| OutsideError::System { operation, source }
}
