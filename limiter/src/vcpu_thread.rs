//! The thread of one vCPU: run the guest, let the enforcement reap and throttle, do what is asked, again.
//!
//! It owns its [`BoundVcpu`] and its enforcement. [`Control`](crate::control::Control) may kick it; it ends when told to
//! stop there, or on an error, which it returns. What it dirties is reaped under the lock of
//! [`Rings`](crate::rings::Rings), by itself or by others.

use crate::{
    enforce::{Enforcement, Pause},
    kvm::{
        Error,
        vcpu::{BoundVcpu, Exit, Vcpu},
    },
    shared::Shared,
    stats::Stall,
};

/// Wake-ups are as late as the kernel's default slack of 50 us otherwise.
const TIMER_SLACK_NS: u64 = 1;

/// Runs `vcpu` until it is told to stop.
pub(crate) fn run(vcpu: Vcpu, shared: &Shared, enforcement: Box<dyn Enforcement>) -> Result<(), Error> {
    let control = &shared.vcpus[vcpu.index()].control;
    // Late wake-ups aren't worth failing for: they show in the results.
    let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK_NS);
    let index = vcpu.index();
    let bound = vcpu.bind();
    control.started();
    let result = run_bound(bound, index, shared, enforcement);
    control.ended();
    result
}

fn run_bound(
    mut vcpu: BoundVcpu,
    index: usize,
    shared: &Shared,
    mut enforcement: Box<dyn Enforcement>,
) -> Result<(), Error> {
    let (control, books, clock) = (&shared.vcpus[index].control, &shared.vcpus[index].books, &shared.clock);
    let mut stall: Option<Stall> = None;
    while control.attend() {
        enforcement.before_entry()?;
        let entered = clock.now();
        books.enter(
            entered,
            stall.take().map(|stall| Stall {
                length: entered.saturating_sub(stall.at),
                ..stall
            }),
        );
        let exit = vcpu.run()?;
        let left = clock.now();
        books.leave(left, exit);
        let Pause { asked, end } = enforcement.after_exit(exit, left)?;
        let mut slept = std::time::Duration::ZERO;
        if !asked.is_zero() {
            books.fall_asleep(clock.now(), asked);
            slept = control.sleep(asked, end);
            books.wake_up(clock.now());
        }
        if exit == Exit::RingFull || !asked.is_zero() {
            stall = Some(Stall {
                at: left,
                length: std::time::Duration::ZERO,
                asked,
                slept,
            });
        }
    }
    Ok(())
}
