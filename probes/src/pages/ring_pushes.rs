//! Pages counted one by one as they are pushed to a ring, where nobody would tell when a vCPU enters `KVM_RUN` or where its
//! ring is.

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use dirtyrig_probes_common::{Pushed, Thread};

use super::PageSource;
use crate::{
    Error,
    map::{self, Raw},
};

const PUSHED: &str = "PUSHED";

/// The counts, by [`Thread::slot`].
pub(crate) struct RingPushes {
    pushed: Array<MapData, Raw<Pushed>>,
}

impl RingPushes {
    pub(crate) fn of(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            pushed: map::take(ebpf, PUSHED)?,
        })
    }
}

impl PageSource for RingPushes {
    fn pages(&self, _ebpf: &Ebpf, thread: &Thread, _look: bool) -> Result<u64, Error> {
        let pushed = self.pushed.get(&(thread.slot as u32), 0);
        Ok(pushed.map_err(map::failed(PUSHED, "read"))?.0.pages)
    }

    fn runs_for_each_page(&self) -> bool {
        true
    }

    fn forget(&mut self, thread: &Thread) -> Result<(), Error> {
        let slot = thread.slot as u32;
        self.pushed
            .set(slot, Raw(Pushed::default()), 0)
            .map_err(map::failed(PUSHED, "write"))
    }
}
