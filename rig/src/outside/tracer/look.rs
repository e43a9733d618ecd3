//! What is looked at every now and then: the counters, threads that do not stop, whether the VM is still there.

use dirtyrig_limiter::units::Pages;
use dirtyrig_probes::{check_target, process_lives};

use super::{
    super::{End, Fault, error::OutsideError, held::Hold},
    DEAF_TICKS, READING_TICKS, SCAN_TICKS, Tracer, began,
};

impl Tracer {
    pub(super) fn tick(&mut self) -> Result<(), OutsideError> {
        self.read();
        self.look_for_deaf();
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
    pub(super) fn read(&mut self) {
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

    /// A thread that has run on a spent grant for a second doesn't stop on its signal: its VMM blocks it outside
    /// `KVM_RUN`.
    fn look_for_deaf(&mut self) {
        for (&vcpu, held) in &mut self.vcpus {
            let is_spent = self.quota.left(held.slot) < 0;
            if !is_spent || !matches!(held.hold, Hold::Running(..)) {
                held.overdrawn = 0;
                continue;
            }
            held.overdrawn += 1;
            if held.overdrawn == DEAF_TICKS {
                let signal = held.signal.number;
                self.board.lock().faults.push(Fault::SignalUnheard { vcpu, signal });
            }
        }
    }
}
