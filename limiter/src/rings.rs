//! All dirty rings of a VM, and the one lock under which they are reaped.
//!
//! The reset ioctl walks every ring of the VM. Were one thread to release entries while another runs the ioctl, the
//! kernel would take back some of them in the wrong call, and nobody could check that what was given back was reset.
//! So harvest, release and reset happen under one lock, whoever reaps: a vCPU thread, the reaper or the governor.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use kvm_ioctls::VmFd;

use crate::kvm::{
    Error,
    ring::{DirtyPage, DirtyRing},
    vm::reset_dirty_rings,
};
use crate::units::Pages;

/// Where dirty pages go: in a VMM, the bitmap of what must be sent again.
///
/// A page is passed on when its entry is given back, just before the reset that write-protects it: mark it only, and read
/// its contents later. A page whose entry is held back comes when it is released.
pub trait DirtySink: Send + Sync {
    /// `vcpu` has dirtied `page`.
    fn dirty(&self, vcpu: usize, page: DirtyPage);
}

/// Whose rings a reap is to empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// That of one vCPU.
    One(usize),
    /// Those of all vCPUs.
    All,
}

/// One vCPU's ring and how much of it stays held back.
struct Slot {
    ring: DirtyRing,
    hold: u64,
}

/// The rings of a VM's vCPUs, by index.
pub struct Rings {
    vm: Arc<VmFd>,
    slots: Mutex<Vec<Option<Slot>>>,
    /// Pages harvested of each vCPU. Statistics, written under the lock of `slots` and read at any time: Relaxed is
    /// enough, as nothing else is published through them.
    harvested: Vec<AtomicU64>,
    sink: Option<Box<dyn DirtySink>>,
}

impl Rings {
    /// Room for the rings of `max_vcpus` vCPUs of `vm`. Pages are counted, and passed to `sink` if there is one.
    pub fn new(vm: Arc<VmFd>, max_vcpus: usize, sink: Option<Box<dyn DirtySink>>) -> Self {
        let slots = (0..max_vcpus).map(|_| None).collect();
        let harvested = (0..max_vcpus).map(|_| AtomicU64::new(0)).collect();
        Self {
            vm,
            slots: Mutex::new(slots),
            harvested,
            sink,
        }
    }

    /// Puts in the ring of a vCPU that was just created.
    pub fn insert(&self, vcpu: usize, ring: DirtyRing) {
        self.lock()[vcpu] = Some(Slot { ring, hold: 0 });
    }

    /// Harvests, releases and resets; returns the pages harvested.
    pub fn reap(&self, whose: Whose) -> Result<Pages, Error> {
        let mut slots = self.lock();
        let range = match whose {
            Whose::One(vcpu) => vcpu..vcpu + 1,
            Whose::All => 0..slots.len(),
        };
        let (mut pages, mut released) = (0, 0);
        for vcpu in range {
            let Some(slot) = &mut slots[vcpu] else { continue };
            pages += self.take(vcpu, slot);
            released += self.give(vcpu, slot);
        }
        self.reset(released)?;
        Ok(Pages(pages))
    }

    /// Harvests the ring of one vCPU and gives nothing back; returns how many of its entries are outstanding now.
    pub fn harvest(&self, vcpu: usize) -> u64 {
        self.lock()[vcpu].as_mut().map_or(0, |slot| {
            self.take(vcpu, slot);
            slot.ring.held()
        })
    }

    /// From now on holds the newest `entries` of a vCPU's harvested entries back from reset, and resets the others; returns
    /// how many are held now. Fewer than `entries` while not so many have been harvested.
    pub fn set_hold(&self, vcpu: usize, entries: u64) -> Result<u64, Error> {
        let mut slots = self.lock();
        let Some(slot) = &mut slots[vcpu] else { return Ok(0) };
        slot.hold = entries;
        let released = self.give(vcpu, slot);
        let held = slot.ring.held();
        self.reset(released)?;
        Ok(held)
    }

    /// Takes note of every page that waits in `slot`.
    fn take(&self, vcpu: usize, slot: &mut Slot) -> u64 {
        let harvested = slot.ring.harvest();
        self.harvested[vcpu].fetch_add(harvested, Ordering::Relaxed);
        harvested
    }

    /// Gives back what `slot` doesn't hold.
    fn give(&self, vcpu: usize, slot: &mut Slot) -> u64 {
        match &self.sink {
            None => slot.ring.release(slot.hold, |_| ()),
            Some(sink) => slot.ring.release(slot.hold, |page| sink.dirty(vcpu, page)),
        }
    }

    /// Has the kernel take back the `released` entries. The caller holds the lock.
    fn reset(&self, released: u64) -> Result<(), Error> {
        if released > 0 {
            reset_dirty_rings(&self.vm, released)
        } else {
            Ok(())
        }
    }

    /// Pages harvested from a vCPU's ring so far.
    pub fn harvested(&self, vcpu: usize) -> Pages {
        Pages(self.harvested[vcpu].load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Slot>>> {
        // A thread that panicked while reaping leaves the counters of its ring consistent: the next reap goes on.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
