//! How others make a vCPU thread stop, park, synchronise, or wake from its throttle.
//!
//! ```text
//!             plug                    ring full, throttled
//!   Parked ─────────▶ Running ◀──────────────────────────▶ Asleep
//!      ▲                 │            time up, or woken       │
//!      └─────────────────┼───────────── unplug ◀──────────────┤
//!                        ▼                                    │
//!                      Ended ◀──────────── stop ──────────────┘
//! ```
//!
//! A request is made in three steps: change the state under the lock, raise `attention`, kick. The thread looks at
//! `attention` between two runs of the guest, and sleeps by waiting on the condition variable. So no request waits for a
//! throttle to run out.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{KickSignal, kvm::kick::Kicker, law::periodic::SleepEnd};

/// What a vCPU thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// In the guest or on the way there.
    Running,
    /// Sleeping its throttle.
    Asleep,
    /// Unplugged: out of the guest until it is plugged again.
    Parked,
    /// The thread has ended.
    Ended,
}

/// What a vCPU thread is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Run the guest.
    Run,
    /// Leave the guest and wait.
    Park,
    /// End.
    Stop,
}

#[derive(Debug)]
struct State {
    order: Order,
    phase: Phase,
    /// Synchronisations asked for and done.
    syncs_wanted: u64,
    syncs_done: u64,
    /// Raised to end a sleep whose reason is gone, or is about to begin although it is gone.
    wakes: u64,
    wakes_seen: u64,
    kicker: Option<Kicker>,
}

/// The control block of one vCPU thread.
#[derive(Debug)]
pub(crate) struct Control {
    /// Raised after a request was put into `state`, lowered by the thread before it looks there.
    attention: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    /// For a thread that is about to start.
    pub(crate) fn new() -> Self {
        let state = State {
            order: Order::Run,
            phase: Phase::Parked,
            syncs_wanted: 0,
            syncs_done: 0,
            wakes: 0,
            wakes_seen: 0,
            kicker: None,
        };
        Self {
            attention: AtomicBool::new(true),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    // ---- called by others -----------------------------------------------------------------------------------------

    /// Gives the thread an order; returns at once.
    pub(crate) fn order(&self, order: Order) {
        self.request(|state| state.order = order);
    }

    /// Ends the sleep that the vCPU is in, if it is in one.
    pub(crate) fn wake(&self) {
        self.request(|state| state.wakes += 1);
    }

    /// Makes the vCPU leave the guest once and waits until it has, so that every page it dirtied is in its ring.
    ///
    /// Whether that ends its throttle is up to the [`SleepEnd`] it sleeps with. A parked or ended vCPU needs no waiting.
    pub(crate) fn sync(&self) {
        let wanted = self.request(|state| {
            state.syncs_wanted += 1;
            state.syncs_wanted
        });
        let out = |state: &State| state.syncs_done >= wanted || matches!(state.phase, Phase::Parked | Phase::Ended);
        let mut state = self.lock();
        while !out(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the thread is doing.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Waits until the thread is in a phase of which `reached` holds, at most `limit`; tells whether it is.
    pub(crate) fn wait_for(&self, reached: impl Fn(Phase) -> bool, limit: Duration) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| !reached(state.phase))
            .unwrap_or_else(PoisonError::into_inner);
        reached(state.phase)
    }

    fn request<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        // Release: pairs with the acquire in `attend`, though it is the lock that publishes the state.
        self.attention.store(true, Ordering::Release);
        self.changed.notify_all();
        if let Some(kicker) = state.kicker {
            // Under the lock: the thread takes its kicker away, under the lock, before it ends.
            kicker.kick();
        }
        result
    }

    // ---- called by the vCPU thread --------------------------------------------------------------------------------

    /// The calling thread is to run the vCPU, and can be kicked from now on. `false` if another one runs it.
    pub(crate) fn started(&self, signal: KickSignal) -> bool {
        let mut state = self.lock();
        if state.kicker.is_some() {
            return false;
        }
        state.kicker = Some(Kicker::this_thread(signal));
        // A vCPU that ended before may come back: whatever it is told to do is looked at anew. Release: as in `request`.
        self.attention.store(true, Ordering::Release);
        true
    }

    /// The thread is about to end.
    pub(crate) fn ended(&self) {
        let mut state = self.lock();
        state.kicker = None;
        state.phase = Phase::Ended; // any -> Ended
        self.changed.notify_all();
    }

    /// Between two runs of the guest: does what was asked for. `false` if the thread is to end.
    pub(crate) fn attend(&self) -> bool {
        // Acquire: pairs with the release in `request`.
        if !self.attention.swap(false, Ordering::Acquire) {
            return true;
        }
        let mut state = self.lock();
        loop {
            state.syncs_done = state.syncs_wanted;
            state.wakes_seen = state.wakes;
            match state.order {
                Order::Run => {
                    state.phase = Phase::Running; // Parked -> Running
                    self.changed.notify_all();
                    return true;
                }
                Order::Stop => return false,
                Order::Park => {
                    state.phase = Phase::Parked; // Running -> Parked
                    self.changed.notify_all();
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Sleeps the throttle: for `asked`, or until an order, a wake or, if `end` says so, a kick; returns how long.
    pub(crate) fn sleep(&self, asked: Duration, end: SleepEnd) -> Duration {
        let begin = Instant::now();
        let mut state = self.lock();
        state.phase = Phase::Asleep; // Running -> Asleep
        loop {
            let kicked = end == SleepEnd::KickEndsIt && state.syncs_wanted != state.syncs_done;
            let left = asked.saturating_sub(begin.elapsed());
            if kicked || state.order != Order::Run || state.wakes != state.wakes_seen || left.is_zero() {
                break;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.phase = Phase::Running; // Asleep -> Running
        begin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every field is written in one go: a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
