//! Finds the threads of a VM's vCPUs from outside, interrupting nobody: a signal that comes while a thread resets a dirty
//! ring would cut the reset short, and QEMU aborts over that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::{Evidence, KvmId, VcpuId, debugfs, labels::index_in_thread_name, proc};
use crate::process::vcpu_of_descriptor;

/// A thread and the vCPU that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuThread {
    /// The thread.
    pub thread: u32,
    /// The vCPU.
    pub vcpu: VcpuId,
}

/// The threads of `process` that run the vCPUs with the KVM ids `wanted`, by id; threads in `known` are others'. With
/// `guess`, those of which the kernel says nothing are taken in order ([`Evidence::Order`]): if as many threads have run a
/// guest as vCPUs are left, or, of a VM that never ran, if as many are named like vCPUs.
pub fn vcpu_threads(
    process: u32,
    wanted: &BTreeSet<u32>,
    known: &BTreeSet<u32>,
    guess: bool,
) -> BTreeMap<u32, VcpuThread> {
    let by_debugfs = debugfs::vcpus_by_thread(process);
    let candidate = |thread: u32| {
        let evident = |id, evidence| KvmId { id, evidence };
        let kvm = by_debugfs
            .get(&thread)
            .map(|&id| evident(id, Evidence::Debugfs))
            .or_else(|| in_kvm_run(process, thread).map(|id| evident(id, Evidence::Descriptor)));
        let index = index_in_thread_name(process, thread);
        Candidate {
            thread,
            vcpu: VcpuId { kvm, index },
            has_run: kvm.is_some() || proc::has_run_a_guest(process, thread),
        }
    };
    let threads = proc::threads(process).into_iter();
    let candidates = threads.filter(|thread| !known.contains(thread)).map(candidate);
    bind(wanted, &candidates.collect::<Vec<_>>(), guess)
}

/// A thread that may run a vCPU.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    thread: u32,
    vcpu: VcpuId,
    /// Whether it has ever run a guest.
    has_run: bool,
}

fn bind(wanted: &BTreeSet<u32>, candidates: &[Candidate], guess: bool) -> BTreeMap<u32, VcpuThread> {
    let mut bound: BTreeMap<u32, VcpuThread> = BTreeMap::new();
    let mut rest = Vec::new();
    for &candidate in candidates {
        let Candidate { thread, vcpu, .. } = candidate;
        match vcpu.kvm_id() {
            Some(id) if wanted.contains(&id) => drop(bound.insert(id, VcpuThread { thread, vcpu })),
            Some(_) => {}
            None => rest.push(candidate),
        }
    }
    let missing: Vec<u32> = wanted.iter().copied().filter(|id| !bound.contains_key(id)).collect();
    if guess && !missing.is_empty() {
        let (ran, idle): (Vec<Candidate>, Vec<Candidate>) = rest.iter().partition(|candidate| candidate.has_run);
        let named: Vec<Candidate> = idle
            .into_iter()
            .filter(|candidate| candidate.vcpu.index.is_some())
            .collect();
        for mut threads in [ran, named] {
            if threads.len() != missing.len() {
                continue;
            }
            let indices: BTreeSet<Option<u32>> = threads.iter().map(|candidate| candidate.vcpu.index).collect();
            if indices.len() == threads.len() && !indices.contains(&None) {
                threads.sort_by_key(|candidate| candidate.vcpu.index);
            } else {
                threads.sort_by_key(|candidate| candidate.thread);
            }
            for (&id, Candidate { thread, vcpu, .. }) in missing.iter().zip(threads) {
                let evidence = Evidence::Order;
                let kvm = Some(KvmId { id, evidence });
                let index = vcpu.index;
                bound.insert(
                    id,
                    VcpuThread {
                        thread,
                        vcpu: VcpuId { kvm, index },
                    },
                );
            }
            break;
        }
    }
    bound
}

const SYS_IOCTL: u64 = 16;
const KVM_RUN: u64 = 0xAE80;

/// The vCPU for which a thread that stands still is in `KVM_RUN`.
fn in_kvm_run(process: u32, thread: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")).ok()?;
    vcpu_of_descriptor(process, kvm_run_descriptor(&text)?)
}

fn kvm_run_descriptor(syscall: &str) -> Option<u32> {
    // The call's number, six arguments, the stack's and the program's address.
    let (number, rest) = syscall.trim_end().split_once(' ')?;
    let word = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let words: Vec<u64> = rest.split(' ').map(word).collect::<Option<_>>()?;
    let &[descriptor, request, _, _, _, _, _, program] = words.as_slice() else {
        return None;
    };
    // KVM's own worker was forked by a vCPU's thread, and seems to be in its call, but is nowhere in the program.
    (number.parse() == Ok(SYS_IOCTL) && request == KVM_RUN && program != 0).then_some(descriptor as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kvm_run_counts() {
        let line = "16 0xb 0xae80 0x0 0x0 0x7f 0x0 0x7ffe 0x7f12\n";
        assert_eq!(kvm_run_descriptor(line), Some(11));
        for other in [
            "running\n",
            "16 0xb 0xaec7 0x0 0x0 0x7f 0x0 0x7ffe 0x7f12\n",
            "7 0xb 0xae80 0x0 0x0 0x7f 0x0 0x7ffe 0x7f12\n",
            "16 0x10 0xae80 0x0 0x0 0x0 0x0 0x0 0x0\n",
            "-1 0x7ffe 0x7f12\n",
            "",
        ] {
            assert_eq!(kvm_run_descriptor(other), None, "{other}");
        }
    }

    fn candidate(thread: u32, kvm: Option<u32>, index: Option<u32>, has_run: bool) -> Candidate {
        let evidence = Evidence::Debugfs;
        Candidate {
            thread,
            vcpu: VcpuId {
                kvm: kvm.map(|id| KvmId { id, evidence }),
                index,
            },
            has_run,
        }
    }

    fn threads(wanted: &[u32], candidates: &[Candidate], guess: bool) -> Vec<(u32, u32)> {
        let wanted = wanted.iter().copied().collect();
        let bound = bind(&wanted, candidates, guess);
        bound.into_iter().map(|(id, found)| (id, found.thread)).collect()
    }

    #[test]
    fn the_kernel_wins_over_a_name() {
        let candidates = [
            candidate(11, Some(4), Some(0), true),
            candidate(12, Some(0), Some(1), true),
            candidate(13, None, Some(0), false),
            candidate(14, Some(9), None, true),
        ];
        assert_eq!(threads(&[0, 4], &candidates, true), [(0, 12), (4, 11)]);
    }

    #[test]
    fn an_order_is_taken_only_where_the_numbers_agree_and_a_guess_will_do() {
        let nameless = [candidate(12, None, None, true), candidate(11, None, None, true)];
        assert_eq!(threads(&[0, 4], &nameless, true), [(0, 11), (4, 12)]);
        assert_eq!(threads(&[0, 4], &nameless, false), []);
        assert_eq!(threads(&[0, 4, 5], &nameless, true), []);
        let named = [candidate(11, None, Some(1), true), candidate(12, None, Some(0), true)];
        assert_eq!(threads(&[0, 4], &named, true), [(0, 12), (4, 11)]);
        // Another thread is called like a vCPU that never ran.
        let paused = [
            candidate(11, None, Some(0), false),
            candidate(12, None, Some(1), false),
            candidate(13, None, Some(0), false),
        ];
        assert_eq!(threads(&[0, 1], &paused, true), []);
        assert_eq!(threads(&[0, 1], &paused[..2], true), [(0, 11), (1, 12)]);
        let guessed = bind(&BTreeSet::from([0, 4]), &nameless, true);
        assert!(
            guessed
                .values()
                .all(|found| found.vcpu.kvm.is_some_and(|kvm| kvm.evidence.is_guess()))
        );
    }

    #[test]
    fn what_is_known_in_part_leaves_the_rest_to_the_order() {
        let candidates = [
            candidate(11, None, None, true),
            candidate(12, Some(0), None, true),
            candidate(13, None, None, false),
        ];
        assert_eq!(threads(&[0, 1], &candidates, true), [(0, 12), (1, 11)]);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_kvm_run_or_not(line in ".{0,80}", words in proptest::collection::vec("(0x)?[0-9a-f]{0,20}", 0..10)) {
            let _ = kvm_run_descriptor(&line);
            let _ = kvm_run_descriptor(&format!("16 {}", words.join(" ")));
        }
    }
}
