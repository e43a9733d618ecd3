//! What was promised of a migration, as the task that the law solves.

use std::{fs, time::Duration};

use dirtyrig_limiter::{
    law::{
        depth::Depth,
        migration::{Bounded, Burst, Task, Vmm},
    },
    units::{MibPerSec, Pages},
};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// From the start until the guest runs at the destination.
    pub within: Duration,
    /// In which the guest runs nowhere.
    pub downtime: Duration,
}

/// What is known of the VM and the way to its destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Circumstances {
    /// Memory of the VM.
    pub memory: Pages,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// What the link carries.
    pub bandwidth: MibPerSec,
    /// The longest pause that the limiter asks for.
    pub max_stall: Duration,
    /// What a socket of QEMU's may hold of its data: see [`socket_buffer`].
    pub buffer_bytes: u64,
}

/// What a TCP socket of this host holds at most, as the kernel is set (`net.ipv4.tcp_wmem`); 4 MiB, its default, where that
/// can't be read.
pub fn socket_buffer() -> u64 {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem")
        .ok()
        .and_then(|sizes| sizes.split_whitespace().nth(2)?.parse().ok())
        .unwrap_or(4 << 20)
}

/// What of a link's rate isn't the content of pages: headers, and what its pacing leaves unused.
const OVERHEAD: f64 = 0.015;

/// A vCPU may write as many pages beyond its grant until the signal reaches it, on a host that logs 512 at a time.
const OVERRUN: u64 = 512;

/// What the guest may save up, in times of the longest pause: no more than pauses need, because it must fit into the last
/// pass.
const PAUSES: u32 = 2;

/// Of what the limiter's buckets are made during a migration.
pub fn depth(max_stall: Duration) -> Depth {
    Depth {
        max_stall,
        burst: max_stall * PAUSES,
    }
}

impl Circumstances {
    /// The task, from the start on.
    pub fn task(&self, promise: Promise) -> Task {
        Task {
            memory: self.memory,
            left: self.memory,
            bandwidth: MibPerSec(self.bandwidth.0 * (1.0 - OVERHEAD)),
            within: promise.within,
            downtime: promise.downtime,
            devices: MibPerSec(0.0),
            burst: Burst {
                span: depth(self.max_stall).burst,
                pages: Pages(OVERRUN * self.vcpus as u64),
            },
            vmm: self.qemu(),
            dirtying: None,
        }
    }

    /// How QEMU migrates.
    fn qemu(&self) -> Vmm {
        // A sync looks at every page's bit: 2 ms for a GiB.
        let look = Duration::from_secs_f64(self.memory.to_mib() / 1024.0 * 0.002);
        // It writes into its socket ahead of the link: what lies there is sent after the stop.
        let drain = Duration::from_secs_f64(self.buffer_bytes as f64 / f64::from(1 << 20) / self.bandwidth.0);
        Vmm {
            setup: Duration::from_millis(100),
            shortest_step: Duration::from_millis(25),
            longest_step: Duration::from_millis(100),
            sync: Bounded {
                expected: Duration::from_millis(2) + look,
                bound: Duration::from_millis(6) + look * 3,
            },
            stop: Duration::from_millis(15) + look * 3,
            fixed: Bounded {
                expected: Duration::from_millis(15) + drain / 2,
                bound: Duration::from_millis(40) + drain,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use dirtyrig_limiter::law::migration::plan;

    use super::*;

    #[test]
    fn fifty_ms_above_the_fixed_part_can_be_promised_over_any_link() {
        for (memory_mib, mib_per_sec) in [(64, 8.0), (64, 1_280.0), (65_536, 112.0), (1_048_576, 2_560.0)] {
            let circumstances = Circumstances {
                memory: Pages(memory_mib * 256),
                vcpus: 1,
                bandwidth: MibPerSec(mib_per_sec),
                max_stall: Duration::from_millis(5),
                buffer_bytes: 4 << 20,
            };
            let mut task = circumstances.task(Promise {
                within: Duration::ZERO,
                downtime: Duration::ZERO,
            });
            task.downtime = task.vmm.fixed.bound + task.vmm.stop + Duration::from_millis(50);
            let least = plan(&task).expect_err("no time at all").within;
            task.within = least.expect("a time does").mul_f64(1.2);
            assert!(plan(&task).is_ok(), "{memory_mib} MiB over {mib_per_sec} MiB/s");
        }
    }
}
