//! How a vCPU is made to leave `KVM_RUN`: a signal to its thread.
//!
//! A signal that arrives just before `KVM_RUN` would be lost, as the handler has run by the time the guest is entered.
//! So the handler sets `immediate_exit` in the page that the thread shares with KVM: the next `KVM_RUN` then returns at
//! once. Kicking is therefore never lost, at the price of a spurious exit now and then.

use std::{cell::Cell, io, marker::PhantomData, mem, ptr, thread};

use nix::{
    sys::signal::SigEvent,
    unistd::{Pid, getpid, gettid},
};

use crate::Error;

/// The default: well away from the first real-time signal, which rust-vmm's VMMs take to kick their own vCPUs.
const DEFAULT_OFFSET: libc::c_int = 8;

/// The signal that makes a vCPU leave the guest: a real-time signal that nothing else in the process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KickSignal(libc::c_int);

impl KickSignal {
    /// `SIGRTMIN + offset`.
    ///
    /// # Errors
    /// [`Error::NoSuchSignal`] if the system has no such signal.
    pub fn real_time(offset: u32) -> Result<Self, Error> {
        let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        let max = (last - first).unsigned_abs();
        match libc::c_int::try_from(offset) {
            Ok(above) if offset <= max => Ok(Self(first + above)),
            _ => Err(Error::NoSuchSignal { offset, max }),
        }
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Installs the handler for the whole process; doing it again does no harm. A handler of somebody else's stays.
    pub(crate) fn install(self) -> Result<(), Error> {
        let failed = |source| Error::Signal { signal: self.0, source };
        // No SA_RESTART: what a kick interrupts is meant to return.
        let handler: extern "C" fn(libc::c_int) = on_kick;
        let action = action(handler as libc::sighandler_t);
        let mut before = self::action(libc::SIG_DFL);
        // SAFETY: both point to live values; the handler only touches a thread-local cell and a byte of shared memory, which
        // is async-signal-safe.
        if unsafe { libc::sigaction(self.0, &raw const action, &raw mut before) } != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        if [libc::SIG_DFL, action.sa_sigaction].contains(&before.sa_sigaction) {
            return Ok(());
        }
        // SAFETY: it puts back what was there a moment ago.
        if unsafe { libc::sigaction(self.0, &raw const before, ptr::null_mut()) } != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        Err(Error::SignalTaken { signal: self.0 })
    }

    /// For a timer that kicks the calling thread.
    pub(crate) fn event_for_this_thread(self) -> SigEvent {
        // SAFETY: all zeros are valid for this structure of integers and a pointer that is not used.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = self.0;
        event.sigev_notify_thread_id = gettid().as_raw();
        SigEvent::from(&event)
    }
}

impl Default for KickSignal {
    fn default() -> Self {
        Self(libc::SIGRTMIN() + DEFAULT_OFFSET)
    }
}

fn action(handler: libc::sighandler_t) -> libc::sigaction {
    // SAFETY: all zeros are valid: no flags, an empty mask, no restorer.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action
}

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs. Without a destructor and with a constant initialiser, so that
    /// a signal handler may read it.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn on_kick(_signal: libc::c_int) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: `Kickable` set the pointer to a byte of this thread's live `kvm_run` page and clears it before that goes.
        unsafe { flag.write_volatile(1) };
    }
}

/// While it lives, a kick of this thread reaches the vCPU whose `immediate_exit` it was made with.
pub(crate) struct Kickable(PhantomData<*mut u8>);

impl Kickable {
    /// Takes the address of `immediate_exit` in a `kvm_run` page that outlives the value.
    pub(crate) fn new(immediate_exit: *mut u8) -> Self {
        IMMEDIATE_EXIT.set(immediate_exit);
        Self(PhantomData)
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

/// A thread that runs a vCPU, to be kicked by others.
///
/// It names the thread by the kernel's number, so that kicking one that has ended is safe: the signal goes nowhere, or to
/// a later thread of this process with the same number, where it is a spurious exit at worst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kicker {
    thread: Pid,
    signal: KickSignal,
}

impl Kicker {
    /// The calling thread.
    pub(crate) fn this_thread(signal: KickSignal) -> Self {
        Self {
            thread: gettid(),
            signal,
        }
    }

    /// Makes the thread leave `KVM_RUN`, or not enter it the next time.
    pub(crate) fn kick(self) {
        loop {
            // SAFETY: it takes no memory of ours; the handler of the signal is installed.
            let sent = unsafe { libc::tgkill(getpid().as_raw(), self.thread.as_raw(), self.signal.0) };
            // A real-time signal is refused while the user's queue of them is full: until others were delivered.
            if sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) {
                // Any other error says that the thread has ended, and then there is nothing to kick.
                return;
            }
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_taken_is_refused_and_stays_as_it_was() {
        extern "C" fn theirs(_signal: libc::c_int) {}

        let signal = KickSignal::real_time(11).expect("there are at least 32");
        let handler: extern "C" fn(libc::c_int) = theirs;
        let theirs = action(handler as libc::sighandler_t);
        // SAFETY: a live value and a handler that does nothing, for a signal that no other test uses.
        let set = unsafe { libc::sigaction(signal.0, &raw const theirs, ptr::null_mut()) };
        assert_eq!(set, 0);
        assert!(matches!(signal.install(), Err(Error::SignalTaken { signal: taken }) if taken == signal.0));
        let mut now = action(libc::SIG_DFL);
        // SAFETY: it only reads.
        let read = unsafe { libc::sigaction(signal.0, ptr::null(), &raw mut now) };
        assert_eq!(read, 0);
        assert_eq!(now.sa_sigaction, theirs.sa_sigaction);
    }

    #[test]
    fn installing_twice_does_no_harm() {
        let signal = KickSignal::real_time(12).expect("there are at least 32");
        signal.install().expect("it is free");
        signal.install().expect("it is ours");
    }

    #[test]
    fn a_thread_that_has_ended_is_kicked_in_vain() {
        let signal = KickSignal::default();
        signal.install().expect("it is free");
        let ended = thread::spawn(move || Kicker::this_thread(signal))
            .join()
            .expect("it ends");
        ended.kick();
    }

    #[test]
    fn signals_that_do_not_exist_are_refused() {
        let error = KickSignal::real_time(1000).expect_err("no system has so many");
        assert!(error.to_string().contains("SIGRTMIN+1000"), "{error}");
    }
}
