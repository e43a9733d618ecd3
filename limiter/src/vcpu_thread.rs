//! The thread of one vCPU of a [`Machine`](crate::machine::Machine): run the guest, let the enforcement reap and
//! throttle, do what is asked, again.
//!
//! It owns its [`BoundVcpu`](crate::kvm::vcpu::BoundVcpu) and its enforcement. [`Control`](crate::control::Control) may
//! kick it; it ends when told to stop there, or on an error, which it returns. What it dirties is reaped under the lock of
//! [`Rings`](crate::rings::Rings), by itself or by others.

use std::sync::Arc;

use crate::{
    enforce::Enforcement,
    kvm::{Error, vcpu::Vcpu},
    shared::Shared,
    turns::Turns,
};

/// Runs `vcpu` until it is told to stop.
pub(crate) fn run(vcpu: Vcpu, shared: &Arc<Shared>, enforcement: Box<dyn Enforcement>) -> Result<(), Error> {
    let index = vcpu.index();
    let mut vcpu = vcpu.bind();
    // Dropped before the vCPU, so that nobody kicks a thread whose vCPU is gone.
    let mut turns = Turns::new(index, Arc::clone(shared), enforcement);
    while turns.enter()? {
        let exit = vcpu.run()?;
        turns.leave(exit)?;
    }
    Ok(())
}
