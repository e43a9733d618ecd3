//! A QEMU that is held from outside instead of by its own limiter.

use std::{collections::HashMap, time::Duration};

use super::ability;
use crate::{
    commands::output::note,
    engine::target::VcpuSnapshot,
    model::Stall,
    outside::{End, Limiter},
    scenario::spec::VmSpec,
};

/// The limiter of a QEMU, outside it.
pub(super) struct Held {
    pub(super) limiter: Limiter,
    /// What the target's clock is ahead of the limiter's.
    ahead: Duration,
}

impl Held {
    /// Attaches to QEMU's process if `spec` asks for the limiter that works from outside. QEMU has said which index the vCPU
    /// of each thread has; `now` is on the target's clock.
    pub(super) fn if_asked(
        spec: &VmSpec,
        process: u32,
        indices: &HashMap<u32, usize>,
        now: Duration,
    ) -> anyhow::Result<Option<Self>> {
        if !ability::is_from_outside(spec.limiter.kind) {
            return Ok(None);
        }
        let indices = indices.iter().map(|(&thread, &index)| (thread, index as u32)).collect();
        let limiter = Limiter::attach_with(process, spec.limiter.depth(), indices)?;
        let ahead = now.saturating_sub(limiter.now());
        Ok(Some(Self { limiter, ahead }))
    }

    /// Adds what the limiter knows to what was seen of each vCPU: here its pauses are known, and what it asked for.
    pub(super) fn complete(&self, shots: &mut [VcpuSnapshot]) -> anyhow::Result<()> {
        if let Some(End::Failed(why)) = self.limiter.end() {
            anyhow::bail!("QEMU could not be limited any longer, and runs free: {why}");
        }
        for fault in self.limiter.take_faults() {
            note(fault);
        }
        for (vcpu, book) in self.limiter.books() {
            if let Some(shot) = shots.get_mut(vcpu) {
                shot.asked = Some(book.asked);
                shot.slept = Some(book.stopped);
                shot.throttle = Some(book.last_asked);
            }
        }
        Ok(())
    }

    /// The pauses since the last call, on the target's clock.
    pub(super) fn take_stalls(&self) -> Vec<Stall> {
        let mut stalls = self.limiter.take_stalls();
        for stall in &mut stalls {
            stall.at += self.ahead;
        }
        stalls
    }
}
