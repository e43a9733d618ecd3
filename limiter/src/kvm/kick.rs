//! How a vCPU is made to leave `KVM_RUN`: a signal to its thread.
//!
//! A signal that arrives just before `KVM_RUN` would be lost, as the handler has run by the time the guest is entered.
//! So the handler sets `immediate_exit` in the page that the thread shares with KVM: the next `KVM_RUN` then returns at
//! once. Kicking is therefore never lost, at the price of a spurious exit now and then.

use std::{cell::Cell, marker::PhantomData, ptr};

use nix::sys::{
    pthread::{Pthread, pthread_kill, pthread_self},
    signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

use super::Error;

/// The signal that makes a vCPU leave the guest, as in QEMU.
pub const KICK: Signal = Signal::SIGUSR1;

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

/// Installs the handler for the whole process; calling it again does no harm.
pub fn install_handler() -> Result<(), Error> {
    // No SA_RESTART: what a kick interrupts is meant to return.
    let action = SigAction::new(SigHandler::Handler(on_kick), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only touches a thread-local cell and a byte of shared memory: both are async-signal-safe.
    unsafe { sigaction(KICK, &action) }
        .map(drop)
        .map_err(|source| Error::Signal { source })
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
#[derive(Clone, Copy, Debug)]
pub struct Kicker(Pthread);

impl Kicker {
    /// The calling thread.
    pub fn this_thread() -> Self {
        Self(pthread_self())
    }

    /// Makes the thread leave `KVM_RUN`, or not enter it the next time.
    ///
    /// The caller knows that the thread hasn't been joined yet.
    pub fn kick(self) {
        // The only error is that the thread has ended, and then there is nothing to kick.
        let _ = pthread_kill(self.0, KICK);
    }
}
