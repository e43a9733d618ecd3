//! What was promised of a migration, as the task that the law solves.

use std::{fs, time::Duration};

use dirtyrig_limiter::{
    law::{
        depth::Depth,
        migration::{Bounded, Burst, Dirtying, Log, Task, Vmm},
    },
    units::{MibPerSec, PAGE_SIZE, Pages},
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
#[derive(Clone, Debug, PartialEq)]
pub struct Circumstances {
    /// Memory of the VM.
    pub memory: Pages,
    /// What of it is in use: the rest is zeros.
    pub in_use: Pages,
    /// What it writes, where that was seen.
    pub dirtying: Option<Dirtying>,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// Entries of each one's dirty ring.
    pub ring_entries: u32,
    /// What the link carries.
    pub bandwidth: MibPerSec,
    /// The longest pause that the limiter asks for.
    pub max_stall: Duration,
    /// This host.
    pub host: Host,
}

/// What of a host matters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// What a TCP socket holds at most: QEMU writes ahead of the link, and what lies there is sent after the stop.
    pub socket_bytes: u64,
    /// Pages that a vCPU may write beyond its grant until it is stopped.
    pub overrun: Pages,
}

impl Host {
    /// This one, as the kernel is set (`net.ipv4.tcp_wmem`, `kvm_intel.pml`); where that can't be read, its defaults.
    pub fn here() -> Self {
        let is_logged_together = fs::read_to_string("/sys/module/kvm_intel/parameters/pml");
        Self {
            socket_bytes: fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem")
                .ok()
                .and_then(|sizes| sizes.split_whitespace().nth(2)?.parse().ok())
                .unwrap_or(4 << 20),
            overrun: match is_logged_together {
                Ok(flag) if flag.trim() == "Y" => LOGGED_TOGETHER,
                _ => LOGGED_ONE_BY_ONE,
            },
        }
    }
}

/// Entries of Intel's page-modification log, which the kernel reads when it is full or the vCPU leaves the guest.
const LOGGED_TOGETHER: Pages = Pages(512);
/// Until the signal arrives.
const LOGGED_ONE_BY_ONE: Pages = Pages(16);

/// What of a link's rate isn't the content of pages: headers, and what its pacing leaves unused.
const OVERHEAD: f64 = 0.005;

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
            memory: self.in_use.min(self.memory),
            left: self.memory,
            bandwidth: MibPerSec(self.bandwidth.0 * (1.0 - OVERHEAD)),
            within: promise.within,
            downtime: promise.downtime,
            devices: MibPerSec(0.0),
            burst: Burst {
                span: depth(self.max_stall).burst,
                pages: Pages(self.host.overrun.0 * self.vcpus as u64),
            },
            vmm: self.qemu(),
            dirtying: self.dirtying.clone(),
        }
    }

    /// The part of a blackout that doesn't depend on what is left, at most.
    pub fn beside(&self) -> Duration {
        let vmm = self.qemu();
        vmm.fixed.bound + Duration::from_secs_f64(vmm.buffered.bound.to_mib() / self.bandwidth.0)
    }

    /// How QEMU migrates.
    fn qemu(&self) -> Vmm {
        // A sync looks at every page's bit: well below 0.3 ms for a GiB.
        let look = Duration::from_secs_f64(self.memory.to_mib() / 1024.0 * 0.0003);
        let socket = self.host.socket_bytes / PAGE_SIZE;
        Vmm {
            setup: Bounded {
                expected: Duration::from_millis(20),
                bound: Duration::from_millis(100),
            },
            shortest_step: Duration::from_millis(25),
            usual_step: Duration::from_millis(50),
            longest_step: Duration::from_millis(100),
            sync: Bounded {
                expected: Duration::from_millis(2) + look,
                bound: Duration::from_millis(6) + look * 3,
            },
            stop: Duration::from_millis(15) + look * 3,
            fixed: Bounded {
                // Measured on a busy host: 35 to 45 ms beside what is in the socket, which is nearly full then.
                expected: Duration::from_millis(30),
                bound: Duration::from_millis(60),
            },
            buffered: Bounded {
                expected: Pages(socket * 4 / 5),
                bound: Pages(socket),
            },
            log: Log {
                pages: Pages(u64::from(self.ring_entries) * self.vcpus as u64),
                every: RELOGGED,
            },
        }
    }
}

/// After about so long, a page that is written again is logged again. QEMU empties rings that are not full once a second, but
/// pages come back sooner. So long fits guests that write the same pages again and again, on rings of 1024 to 65536.
const RELOGGED: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use dirtyrig_limiter::law::migration::plan;

    use super::*;

    #[test]
    fn fifty_ms_above_the_fixed_part_can_be_promised_over_any_link() {
        for (memory_mib, mib_per_sec) in [(64, 8.0), (64, 1_280.0), (65_536, 112.0), (1_048_576, 2_560.0)] {
            let circumstances = Circumstances {
                memory: Pages(memory_mib * 256),
                in_use: Pages(memory_mib * 256),
                dirtying: None,
                vcpus: 1,
                ring_entries: 4096,
                bandwidth: MibPerSec(mib_per_sec),
                max_stall: Duration::from_millis(5),
                host: Host {
                    socket_bytes: 4 << 20,
                    overrun: LOGGED_ONE_BY_ONE,
                },
            };
            let mut task = circumstances.task(Promise {
                within: Duration::ZERO,
                downtime: Duration::ZERO,
            });
            task.downtime = circumstances.beside() + Duration::from_millis(50);
            let least = plan(&task).expect_err("no time at all").within;
            task.within = least.expect("a time does").mul_f64(1.2);
            assert!(plan(&task).is_ok(), "{memory_mib} MiB over {mib_per_sec} MiB/s");
        }
    }
}
