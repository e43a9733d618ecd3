//! vCPUs that come and go. There are those whose rings the VMM has mapped; here it is found out who runs them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use dirtyrig_probes::{
    Options, Probes, Target,
    identity::{KvmId, NumberKind, Numbers, VcpuId, VcpuThread, vcpu_threads},
};

use super::{
    super::{
        Fault,
        error::OutsideError,
        held::{Hold, Vcpu},
        signal::StopSignal,
        threads,
    },
    MEETING, Tracer,
};

impl Tracer {
    /// Finds the vCPUs that there are, and gives them their numbers. Those that do not run are found when they do.
    pub(in crate::outside) fn meet(&mut self) -> Result<(), OutsideError> {
        let until = self.clock.now() + MEETING;
        let wanted: BTreeSet<u32> = threads::rings(self.process).into_keys().collect();
        let mut found = self.look_for(&wanted, false);
        let missing = |found: &BTreeMap<u32, VcpuThread>| -> BTreeSet<u32> {
            wanted.iter().copied().filter(|id| !found.contains_key(id)).collect()
        };
        let mut probes = None;
        while !missing(&found).is_empty() && self.clock.now() < until {
            let probes = match &mut probes {
                Some(probes) => probes,
                none => none.insert(Probes::attach(&Options::new(Target::Pid(self.process)))?),
            };
            self.wait(MEETING / 50)?;
            for seen in probes.vcpus()?.into_iter().filter(|seen| !seen.gone) {
                if let Some(vcpu) = seen.vcpu
                    && let Some(KvmId { id, .. }) = vcpu.kvm
                    && missing(&found).contains(&id)
                {
                    found.insert(
                        id,
                        self.labelled(VcpuThread {
                            thread: seen.thread,
                            vcpu,
                        }),
                    );
                }
            }
            found.extend(self.look_for(&missing(&found), false));
        }
        if !missing(&found).is_empty() {
            let guessed = self.look_for(&wanted, true);
            let fits = |(id, guess): &(u32, VcpuThread)| found.get(id).is_none_or(|found| found.thread == guess.thread);
            if guessed.clone().into_iter().all(|guess| fits(&guess)) {
                for (id, guess) in guessed {
                    found.entry(id).or_insert(guess);
                }
            }
        }
        self.numbers = Numbers::new(
            wanted
                .iter()
                .map(|&id| found.get(&id).map_or_else(VcpuId::default, |found| found.vcpu)),
        );
        self.board.lock().kind = self.numbers.kind();
        for &id in &wanted {
            if let Some(&found) = found.get(&id) {
                self.adopt(id, found)?;
            } else {
                let vcpu = self.announce(id, VcpuId::default());
                self.announced.insert(vcpu);
                self.board.lock().faults.push(Fault::NotFound { vcpu });
            }
        }
        let vcpus: Vec<usize> = self.guessed().into_keys().collect();
        if !vcpus.is_empty() {
            self.board.lock().faults.push(Fault::Guessed { vcpus });
        }
        Ok(())
    }

    /// The threads of those of the vCPUs `wanted`, by KVM's id, that nobody has found yet.
    fn look_for(&self, wanted: &BTreeSet<u32>, guess: bool) -> BTreeMap<u32, VcpuThread> {
        let known = self.vcpus.values().map(|held| held.thread).collect();
        let found = vcpu_threads(self.process, wanted, &known, guess);
        found
            .into_iter()
            .map(|(id, found)| (id, self.labelled(found)))
            .collect()
    }

    /// With the index that the VM's monitor gave it, if any did.
    fn labelled(&self, found: VcpuThread) -> VcpuThread {
        let index = self.indices.get(&found.thread).copied().or(found.vcpu.index);
        let vcpu = VcpuId { index, ..found.vcpu };
        VcpuThread { vcpu, ..found }
    }

    /// The vCPUs by whose number something else may be meant, because nothing but the order of their threads says who they
    /// are. A number that is the VMM's index is that of the thread, whatever its KVM id.
    fn guessed(&self) -> BTreeMap<usize, u32> {
        let is_guess = |held: &Vcpu| held.id.kvm.is_some_and(|kvm| kvm.evidence.is_guess());
        let guessed = self.vcpus.iter().filter(|(_, held)| is_guess(held));
        let guessed = guessed.filter_map(|(&vcpu, held)| Some((vcpu, held.id.kvm_id()?)));
        if self.numbers.kind() == NumberKind::CpuIndex {
            BTreeMap::new()
        } else {
            guessed.collect()
        }
    }

    /// Whether the number of a vCPU may be another's.
    pub(super) fn is_guessed(&self, vcpu: usize) -> bool {
        self.guessed().contains_key(&vcpu)
    }

    /// Looks for threads that are gone, for those of vCPUs that are missing, and for what says who the guessed ones are.
    pub(super) fn scan(&mut self) -> Result<(), OutsideError> {
        let lives = |thread: u32| fs::exists(format!("/proc/{}/task/{thread}", self.process)).unwrap_or(false);
        // The kernel reports the end of threads that are traced.
        let is_gone = |held: &Vcpu| matches!(held.hold, Hold::Free) && !lives(held.thread);
        let gone: Vec<usize> = self
            .vcpus
            .iter()
            .filter(|(_, held)| is_gone(held))
            .map(|(&vcpu, _)| vcpu)
            .collect();
        for vcpu in gone {
            self.forget(vcpu)?;
        }
        let bound: BTreeSet<u32> = self.vcpus.values().filter_map(|held| held.id.kvm_id()).collect();
        let mut missing: BTreeSet<u32> = threads::rings(self.process).into_keys().collect();
        self.tell_who_went(&missing);
        missing.retain(|id| !bound.contains(id));
        if !missing.is_empty() {
            for (id, found) in self.look_for(&missing, true) {
                let vcpu = self.adopt(id, found)?;
                // One that was there at the start, and had not run, was told of then.
                if !self.announced.remove(&vcpu) {
                    self.board.lock().faults.push(Fault::Came { vcpu });
                }
            }
        }
        self.confirm();
        Ok(())
    }

    /// Says of those whose threads are gone that they were unplugged, once their rings are gone too: of a VM that ends, both
    /// go for all.
    fn tell_who_went(&mut self, with_rings: &BTreeSet<u32>) {
        if with_rings.is_empty() {
            return;
        }
        let has_ring = |vcpu: usize| with_rings.iter().any(|&id| self.numbers.given(id) == Some(vcpu as u32));
        let (still, went): (BTreeSet<usize>, BTreeSet<usize>) = self.gone.iter().partition(|&&vcpu| has_ring(vcpu));
        self.gone = still;
        let faults = went.into_iter().map(|vcpu| Fault::Went { vcpu });
        self.board.lock().faults.extend(faults);
    }

    /// Asks the kernel about those that were guessed.
    fn confirm(&mut self) {
        let guessed = self.guessed();
        if guessed.is_empty() {
            return;
        }
        let wanted = guessed.values().copied().collect();
        let found = vcpu_threads(self.process, &wanted, &BTreeSet::new(), false);
        for (vcpu, id) in guessed {
            let (Some(found), Some(held)) = (found.get(&id), self.vcpus.get_mut(&vcpu)) else {
                continue;
            };
            held.id.kvm = found.vcpu.kvm;
            if held.thread != found.thread {
                let thread = found.thread;
                self.board.lock().faults.push(Fault::Mistaken { vcpu, thread });
            }
        }
    }

    /// Gives a vCPU its number, its slot and its book.
    fn announce(&mut self, kvm_id: u32, id: VcpuId) -> usize {
        let vcpu = self.numbers.give(kvm_id, id.index) as usize;
        let next = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let slot = *self.slots.entry(vcpu).or_insert(next);
        let mut board = self.board.lock();
        let book = board.vcpus.entry(vcpu).or_default();
        (book.slot, book.id) = (slot, id);
        vcpu
    }

    /// Takes a thread for that of the vCPU with this KVM id; returns its number.
    fn adopt(&mut self, kvm_id: u32, found: VcpuThread) -> Result<usize, OutsideError> {
        let VcpuThread { thread, vcpu: id } = found;
        let vcpu = self.announce(kvm_id, id);
        let slot = self.slots[&vcpu];
        self.gone.remove(&vcpu);
        self.quota.refill(slot, i64::MAX);
        let signal = StopSignal::NONE_SENT;
        self.quota.limit(self.process, thread, slot, signal.number)?;
        let held = Vcpu {
            id,
            thread,
            slot,
            signal,
            hold: Hold::Free,
            charged: self.quota.drawn(slot),
            overdrawn: 0,
        };
        self.vcpus.insert(vcpu, held);
        self.by_thread.insert(thread, vcpu);
        if let Some(book) = self.board.lock().vcpus.get_mut(&vcpu) {
            (book.thread, book.plugged) = (thread, true);
        }
        if self.limits.holds(vcpu)
            && let Err(error) = self.hold(vcpu)
        {
            let error = error.to_string();
            self.board.lock().faults.push(Fault::NotHeld { vcpu, error });
            return Ok(vcpu);
        }
        self.follow(self.clock.now(), vcpu)?;
        self.schedule(vcpu);
        Ok(vcpu)
    }

    pub(super) fn forget(&mut self, vcpu: usize) -> Result<(), OutsideError> {
        let now = self.clock.now();
        self.charge(now, vcpu);
        self.accounts.leave(now, vcpu);
        if let Some(held) = self.vcpus.remove(&vcpu) {
            self.by_thread.remove(&held.thread);
            self.quota.release(held.thread)?;
        }
        let mut board = self.board.lock();
        board.resume(vcpu, now, Duration::ZERO);
        if let Some(book) = board.vcpus.get_mut(&vcpu) {
            book.plugged = false;
        }
        self.gone.insert(vcpu);
        Ok(())
    }
}
