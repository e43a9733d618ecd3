//! What the observer has learnt of its threads. A thread runs one vCPU for its life, so what the kernel said once holds.

use std::collections::{BTreeMap, HashMap};

use super::{Evidence, KvmId, VcpuId, debugfs, labels::index_in_thread_name};
use crate::process::vcpu_of_descriptor;

/// What the probes have seen of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) process: u32,
    /// The vCPU that an event named on it.
    pub(crate) named: Option<KvmId>,
    /// The descriptor on which it called `KVM_RUN`.
    pub(crate) descriptor: Option<u32>,
}

/// The vCPUs of threads, by thread.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    known: HashMap<u32, (u32, VcpuId)>,
    /// What debugfs says of a process, read at most once between two [`refresh`](Self::refresh).
    debugfs: HashMap<u32, BTreeMap<u32, u32>>,
}

impl Identities {
    /// What was read of debugfs is to be read again where it is needed.
    pub(crate) fn refresh(&mut self) {
        self.debugfs.clear();
    }

    /// The vCPU of a thread of which the kernel has said it.
    pub(crate) fn known(&self, thread: u32) -> Option<VcpuId> {
        let (_, vcpu) = self.known.get(&thread)?;
        vcpu.kvm.is_some().then_some(*vcpu)
    }

    /// Which vCPU a thread runs, by the best evidence there is; `None` if nothing says so.
    pub(crate) fn of(&mut self, thread: u32, seen: Seen) -> Option<VcpuId> {
        let known = self.known.get(&thread).filter(|(process, _)| *process == seen.process);
        let mut vcpu = known.map_or_else(VcpuId::default, |(_, vcpu)| *vcpu);
        if let Some(named) = seen.named {
            vcpu.kvm = Some(named);
        }
        if vcpu.kvm.is_none() {
            vcpu.kvm = self.by_kernel(thread, seen);
        }
        vcpu.index = vcpu.index.or_else(|| index_in_thread_name(seen.process, thread));
        if vcpu == VcpuId::default() {
            return None;
        }
        self.known.insert(thread, (seen.process, vcpu));
        Some(vcpu)
    }

    /// Forgets a thread that has ended.
    pub(crate) fn forget(&mut self, thread: u32) {
        self.known.remove(&thread);
    }

    fn by_kernel(&mut self, thread: u32, seen: Seen) -> Option<KvmId> {
        let descriptor = seen
            .descriptor
            .and_then(|descriptor| vcpu_of_descriptor(seen.process, descriptor));
        if let Some(id) = descriptor {
            let evidence = Evidence::Descriptor;
            return Some(KvmId { id, evidence });
        }
        let process = seen.process;
        let by_thread = self
            .debugfs
            .entry(process)
            .or_insert_with(|| debugfs::vcpus_by_thread(process));
        let evidence = Evidence::Debugfs;
        by_thread.get(&thread).map(|&id| KvmId { id, evidence })
    }
}
