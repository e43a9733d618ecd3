//! All dirty rings of a VM, and the one lock under which they are reaped.
//!
//! The reset ioctl walks every ring of the VM. Were one thread to release entries while another runs the ioctl, the
//! kernel would take back some of them in the wrong call. Nobody could then check that what was given back was reset.
//! So harvest, release and reset happen under one lock, whoever reaps: a vCPU thread, the reaper or the governor.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use dirtyrig_ring::{DirtyPage, DirtyRing};
use kvm_ioctls::VmFd;

use crate::{Error, costs::RingCosts, units::Pages};

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
pub(crate) enum Whose {
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

/// What the lock guards.
struct Locked {
    slots: Vec<Option<Slot>>,
    /// Four readings of the clock for each reap: some 100 ns beside the microseconds of an exit.
    costs: RingCosts,
}

/// The rings of a VM's vCPUs, by index.
pub(crate) struct Rings {
    vm: Arc<VmFd>,
    locked: Mutex<Locked>,
    /// Pages harvested of each vCPU. Statistics, written under the lock and read at any time: Relaxed is
    /// enough, as nothing else is published through them.
    harvested: Vec<AtomicU64>,
    sink: Option<Box<dyn DirtySink>>,
}

impl Rings {
    /// Room for the rings of `max_vcpus` vCPUs of `vm`. Pages are counted, and passed to `sink` if there is one.
    pub(crate) fn new(vm: Arc<VmFd>, max_vcpus: usize, sink: Option<Box<dyn DirtySink>>) -> Self {
        let slots = (0..max_vcpus).map(|_| None).collect();
        let harvested = (0..max_vcpus).map(|_| AtomicU64::new(0)).collect();
        Self {
            vm,
            locked: Mutex::new(Locked {
                slots,
                costs: RingCosts::default(),
            }),
            harvested,
            sink,
        }
    }

    /// Puts in the ring of a vCPU that was just created.
    pub(crate) fn insert(&self, vcpu: usize, ring: DirtyRing) {
        self.lock().slots[vcpu] = Some(Slot { ring, hold: 0 });
    }

    /// Harvests, releases and resets; returns the pages harvested.
    pub(crate) fn reap(&self, whose: Whose) -> Result<Pages, Error> {
        let mut locked = self.lock();
        let range = match whose {
            Whose::One(vcpu) => vcpu..vcpu + 1,
            Whose::All => 0..locked.slots.len(),
        };
        let pages = self.take(&mut locked, range.clone());
        self.give_back(&mut locked, range)?;
        Ok(Pages(pages))
    }

    /// Harvests the ring of one vCPU and gives nothing back; returns how many of its entries are outstanding now.
    pub(crate) fn harvest(&self, vcpu: usize) -> u64 {
        let mut locked = self.lock();
        self.take(&mut locked, vcpu..vcpu + 1);
        locked.slots[vcpu].as_ref().map_or(0, |slot| slot.ring.held())
    }

    /// From now on holds the newest `entries` of a vCPU's harvested entries back from reset, and resets the others; returns
    /// how many are held now. Fewer than `entries` while not so many have been harvested.
    pub(crate) fn set_hold(&self, vcpu: usize, entries: u64) -> Result<u64, Error> {
        let mut locked = self.lock();
        let Some(slot) = &mut locked.slots[vcpu] else {
            return Ok(0);
        };
        slot.hold = entries;
        self.give_back(&mut locked, vcpu..vcpu + 1)?;
        Ok(locked.slots[vcpu].as_ref().map_or(0, |slot| slot.ring.held()))
    }

    /// Takes note of every page that waits in the rings of `vcpus`.
    fn take(&self, locked: &mut Locked, vcpus: Range<usize>) -> u64 {
        let begun = Instant::now();
        let mut pages = 0;
        for vcpu in vcpus {
            if let Some(slot) = &mut locked.slots[vcpu] {
                let harvested = slot.ring.harvest();
                self.harvested[vcpu].fetch_add(harvested, Ordering::Relaxed);
                pages += harvested;
            }
        }
        locked.costs.harvesting += begun.elapsed();
        locked.costs.harvested += pages;
        pages
    }

    /// Gives back what the rings of `vcpus` don't hold, and has the kernel take it.
    fn give_back(&self, locked: &mut Locked, vcpus: Range<usize>) -> Result<(), Error> {
        let begun = Instant::now();
        let mut released = 0;
        for vcpu in vcpus {
            if let Some(slot) = &mut locked.slots[vcpu] {
                released += self.give(vcpu, slot);
            }
        }
        if released > 0 {
            dirtyrig_ring::reset(&self.vm, released)?;
            locked.costs.resetting += begun.elapsed();
            locked.costs.reset += released;
        }
        Ok(())
    }

    /// Gives back what `slot` doesn't hold.
    fn give(&self, vcpu: usize, slot: &mut Slot) -> u64 {
        match &self.sink {
            None => slot.ring.release(slot.hold, |_| ()),
            Some(sink) => slot.ring.release(slot.hold, |page| sink.dirty(vcpu, page)),
        }
    }

    /// Pages harvested from a vCPU's ring so far.
    pub(crate) fn harvested(&self, vcpu: usize) -> Pages {
        Pages(self.harvested[vcpu].load(Ordering::Relaxed))
    }

    /// What harvests and resets have cost so far.
    pub(crate) fn costs(&self) -> RingCosts {
        self.lock().costs
    }

    /// Pages harvested from a vCPU's ring whose entries are held back from reset.
    pub(crate) fn held(&self, vcpu: usize) -> Pages {
        Pages(self.lock().slots[vcpu].as_ref().map_or(0, |slot| slot.ring.held()))
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        // A thread that panicked while reaping leaves the counters of its ring consistent: the next reap goes on.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
