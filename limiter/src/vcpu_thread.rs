//! The thread of one vCPU: run the guest, let the enforcement reap and throttle, do what is asked, again.
//!
//! It owns its [`BoundVcpu`] and its enforcement. [`Control`](crate::control::Control) may kick it; it ends when told to
//! stop there, or on an error, which it returns. What it dirties is reaped under the lock of
//! [`Rings`](crate::rings::Rings), by itself or by others.

use crate::{
    clock::thread_cpu,
    enforce::Enforcement,
    kvm::{
        Error,
        vcpu::{BoundVcpu, Exit, Vcpu},
    },
    shared::Shared,
    stats::Stall,
    units::Pages,
};

/// Wake-ups are as late as the kernel's default slack of 50 us otherwise.
const TIMER_SLACK_NS: u64 = 1;

/// Runs `vcpu` until it is told to stop.
pub(crate) fn run(vcpu: Vcpu, shared: &Shared, enforcement: Box<dyn Enforcement>) -> Result<(), Error> {
    let index = vcpu.index();
    let control = &shared.vcpus[index].control;
    // Late wake-ups aren't worth failing for: they show in the results.
    let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK_NS);
    let vcpu = vcpu.bind();
    control.started();
    run_bound(vcpu, index, shared, enforcement)
}

fn run_bound(
    mut vcpu: BoundVcpu,
    index: usize,
    shared: &Shared,
    mut enforcement: Box<dyn Enforcement>,
) -> Result<(), Error> {
    let (control, books, clock) = (&shared.vcpus[index].control, &shared.vcpus[index].books, &shared.clock);
    // The stall that the vCPU is in since its last exit, and the pages harvested when its ring was last full.
    let mut stall: Option<Stall> = None;
    let mut at_last_full: Option<Pages> = None;
    let mut left = clock.now();
    let mut cpu_at_exit = thread_cpu();
    while control.attend() {
        let now = clock.now();
        let pause = enforcement.before_entry(now)?;
        if !pause.asked.is_zero() {
            books.fall_asleep(now, pause.asked);
            let slept = control.sleep(pause.asked, pause.end);
            books.wake_up(clock.now());
            let stall = stall.get_or_insert(Stall::since(left));
            stall.asked += pause.asked;
            stall.slept += slept;
            continue;
        }
        let entered = clock.now();
        let outside_cpu = thread_cpu().saturating_sub(cpu_at_exit);
        books.enter(entered, stall.take().map(|stall| stall.until(entered)), outside_cpu);
        let exit = vcpu.run()?;
        left = clock.now();
        cpu_at_exit = thread_cpu();
        books.leave(left, exit);
        enforcement.after_exit(exit, left)?;
        if exit == Exit::RingFull {
            stall = Some(Stall::since(left));
            // Others may have emptied the ring first, but somebody must have, since it was full the last time.
            let harvested = shared.rings.harvested(index);
            if at_last_full.replace(harvested) == Some(harvested) {
                return Err(Error::RingStuck { vcpu: index });
            }
        }
    }
    Ok(())
}
