//! What happens around each run of a vCPU, whoever runs it: requests are attended to, pauses slept, exits accounted for.

use std::{sync::Arc, time::Duration};

use crate::{Error, clock::thread_cpu, enforce::Enforcement, exit::Exit, shared::Shared, stats::Stall, units::Pages};

/// Wake-ups are as late as the kernel's default slack of 50 us otherwise.
const TIMER_SLACK_NS: u64 = 1;

/// The turns of one vCPU, on its thread.
pub(crate) struct Turns {
    index: usize,
    shared: Arc<Shared>,
    enforcement: Box<dyn Enforcement>,
    /// The stall that the vCPU is in since its last exit.
    stall: Option<Stall>,
    /// The pages harvested when its ring was last full.
    at_last_full: Option<Pages>,
    left: Duration,
    cpu_at_exit: Duration,
}

impl Turns {
    /// For the thread that calls it; from here on it can be kicked.
    ///
    /// # Errors
    /// If the vCPU has another thread already.
    pub(crate) fn new(index: usize, shared: Arc<Shared>, enforcement: Box<dyn Enforcement>) -> Result<Self, Error> {
        if !shared.vcpus[index].control.started(shared.signal) {
            return Err(Error::HasThread { vcpu: index });
        }
        // Late wake-ups aren't worth failing for: they show in the results.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK_NS);
        Ok(Self {
            index,
            enforcement,
            stall: None,
            at_last_full: None,
            left: shared.clock.now(),
            cpu_at_exit: thread_cpu(),
            shared,
        })
    }

    /// Does what was asked for and sleeps what is due, until the vCPU may enter the guest. `false` if it is to end.
    pub(crate) fn enter(&mut self) -> Result<bool, Error> {
        let vcpu = &self.shared.vcpus[self.index];
        let (control, books, clock) = (&vcpu.control, &vcpu.books, &self.shared.clock);
        while control.attend() {
            let now = clock.now();
            let pause = self.enforcement.before_entry(now)?;
            if pause.asked.is_zero() {
                let entered = clock.now();
                let outside_cpu = thread_cpu().saturating_sub(self.cpu_at_exit);
                let stall = self.stall.take().map(|stall| stall.until(entered));
                books.enter(entered, stall, outside_cpu);
                return Ok(true);
            }
            books.fall_asleep(now, pause.asked);
            let slept = control.sleep(pause.asked, pause.end);
            books.wake_up(clock.now());
            let stall = self.stall.get_or_insert(Stall::since(self.left));
            stall.asked += pause.asked;
            stall.slept += slept;
        }
        Ok(false)
    }

    /// The vCPU has left the guest.
    pub(crate) fn leave(&mut self, exit: Exit) -> Result<(), Error> {
        self.left = self.shared.clock.now();
        self.cpu_at_exit = thread_cpu();
        self.shared.vcpus[self.index].books.leave(self.left, exit);
        self.enforcement.after_exit(exit, self.left)?;
        if exit == Exit::RingFull {
            self.stall = Some(Stall::since(self.left));
            // Others may have emptied the ring first, but somebody must have, since it was full the last time.
            let harvested = self.shared.rings.harvested(self.index);
            if self.at_last_full.replace(harvested) == Some(harvested) {
                return Err(Error::RingStuck { vcpu: self.index });
            }
        }
        Ok(())
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.shared.vcpus[self.index].control.ended();
    }
}
