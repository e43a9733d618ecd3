//! Which VMs are still told of.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::super::watched::Reading;

/// For how long a VM that has ended is still served: as long as Prometheus looks back for a series' last value.
pub const LINGER: Duration = Duration::from_mins(5);

/// When VMs ended, by the process that each was.
#[derive(Debug, Default)]
pub(super) struct Lives {
    ended: BTreeMap<u32, Duration>,
    /// Threads of VMs that have ended, by process: one that gets the id again is another VM, and these are not its own.
    dead: BTreeMap<u32, BTreeSet<u32>>,
}

impl Lives {
    /// Leaves of `reading` what is to be served.
    pub(super) fn prune(&mut self, reading: &mut Reading) {
        let at = reading.at;
        self.ended.retain(|pid, _| reading.ended.contains(pid));
        for &pid in &reading.ended {
            self.ended.entry(pid).or_insert(at);
            let threads = reading.vcpus.iter().filter(|vcpu| vcpu.process == pid);
            self.dead
                .entry(pid)
                .or_default()
                .extend(threads.map(|vcpu| vcpu.thread));
        }
        let has_left = |pid: &u32| self.ended.get(pid).is_some_and(|&ended| at >= ended + LINGER);
        reading.vcpus.retain(|vcpu| {
            let lingers = self.ended.contains_key(&vcpu.process) && !has_left(&vcpu.process);
            let is_dead = self
                .dead
                .get(&vcpu.process)
                .is_some_and(|dead| vcpu.gone && dead.contains(&vcpu.thread));
            lingers || !is_dead && !has_left(&vcpu.process)
        });
        reading.vms.retain(|pid, _| !has_left(pid));
    }
}

#[cfg(test)]
mod tests {
    use dirtyrig_probes::VcpuCounters;

    use super::{
        super::super::rates::tests::{reading, thread},
        *,
    };

    fn ended(seconds: u32, vcpus: Vec<VcpuCounters>) -> Reading {
        let gone = |vcpu| VcpuCounters { gone: true, ..vcpu };
        let mut reading = reading(seconds, vcpus.into_iter().map(gone).collect());
        reading.ended.insert(1);
        reading
    }

    /// Threads and processes that are served.
    fn served(lives: &mut Lives, mut reading: Reading) -> (Vec<u32>, usize) {
        lives.prune(&mut reading);
        let threads = reading.vcpus.iter().map(|vcpu| vcpu.thread).collect();
        (threads, reading.vms.len())
    }

    #[test]
    fn a_vm_that_has_ended_leaves_after_the_stated_time() {
        let mut lives = Lives::default();
        let linger = LINGER.as_secs() as u32;
        assert_eq!(served(&mut lives, reading(1, vec![thread(7, 10)])), (vec![7], 1));
        assert_eq!(served(&mut lives, ended(100, vec![thread(7, 10)])), (vec![7], 1));
        assert_eq!(
            served(&mut lives, ended(99 + linger, vec![thread(7, 10)])),
            (vec![7], 1)
        );
        assert_eq!(
            served(&mut lives, ended(100 + linger, vec![thread(7, 10)])),
            (vec![], 0)
        );
    }

    #[test]
    fn a_process_that_gets_the_same_id_is_another_vm() {
        let mut lives = Lives::default();
        served(&mut lives, reading(1, vec![thread(7, 10)]));
        served(&mut lives, ended(2, vec![thread(7, 10)]));
        let dead = VcpuCounters {
            gone: true,
            ..thread(7, 10)
        };
        // Long after, so that the old one has left, and at once.
        for seconds in [1000, 3] {
            let again = reading(seconds, vec![dead.clone(), thread(70, 5)]);
            assert_eq!(served(&mut lives, again), (vec![70], 1));
        }
        // A thread may get its old id, too.
        let again = reading(1001, vec![thread(7, 1)]);
        assert_eq!(served(&mut lives, again), (vec![7], 1));
    }

    #[test]
    fn a_vcpu_that_is_unplugged_stays_while_its_vm_runs() {
        let mut lives = Lives::default();
        let unplugged = VcpuCounters {
            gone: true,
            ..thread(8, 10)
        };
        for seconds in [1, 1000] {
            let vcpus = vec![thread(7, 10), unplugged.clone()];
            assert_eq!(served(&mut lives, reading(seconds, vcpus)), (vec![7, 8], 1));
        }
    }
}
