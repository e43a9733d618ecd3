//! VMs with a dirty bitmap: the pages that eBPF counts are the bits that a sync finds, and the pages that the guest wrote.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use dirtyrig_probes::{Log, Options, Probes, Quota, Target, VcpuCounters};

use crate::support::{AfterExit, Guest, KICK, Shape};

/// Pages of each vCPU between two syncs, each written once.
const BATCH: u64 = 100;
const SYNCS: u32 = 100;

const SHAPE: Shape = Shape {
    ring_entries: 0,
    vcpus: 1,
    pages_per_vcpu: 512,
};

/// What is known of a vCPU after a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    probes: u64,
    bitmap: u64,
    guest: u64,
}

pub(crate) fn check(vcpus: usize) {
    let mut guest = Guest::in_batches(Shape { vcpus, ..SHAPE }, BATCH);
    let batches = guest.start_batches();
    let mut probes = Probes::attach(&Options::new(Target::Pid(std::process::id()))).expect("the probes attach");
    let mut total = vec![Counts::default(); vcpus];
    // The first pass begins in the middle: it is counted from the second on.
    for sync in 0..=SYNCS {
        probes.drain(|_| {}).expect("the buffers are there");
        batches.run();
        let seen = probes.vcpus().expect("the maps are there");
        for (vcpu, total) in total.iter_mut().enumerate() {
            let now = Counts {
                probes: pages(&seen, guest.thread(vcpu)),
                bitmap: total.bitmap + guest.sync(vcpu),
                guest: guest.written(vcpu),
            };
            let gain = [
                now.probes - total.probes,
                now.bitmap - total.bitmap,
                now.guest - total.guest,
            ];
            if sync > 0 {
                assert_eq!(
                    gain,
                    [BATCH; 3],
                    "sync {sync}, vCPU {vcpu}: by the probes, the bitmap, the guest; {}",
                    probes.status().expect("the maps are there")
                );
            }
            *total = now;
        }
    }
    println!("{vcpus} vCPUs with a bitmap, {SYNCS} syncs: {total:?}");
    let status = probes.status().expect("the maps are there");
    assert!(!status.lost.any(), "something was lost");
    drop(batches);
    guest.stop();
}

/// The budget of a vCPU ends on its very page, by the bitmap too.
pub(crate) fn check_quota() {
    const ROUNDS: usize = 40;
    for budget in [1, 7, 32] {
        // No page is met twice.
        let shape = Shape {
            pages_per_vcpu: 2048,
            ..SHAPE
        };
        let quota = Arc::new(Quota::attach_to(Log::Bitmap, 1).expect("the quota attaches"));
        let left: Arc<Mutex<Vec<i64>>> = Arc::default();
        let after_exit: AfterExit = {
            let (quota, left) = (quota.clone(), left.clone());
            Arc::new(move |_, _| {
                let mut left = left.lock().expect("nobody panics");
                if left.len() < ROUNDS {
                    left.push(quota.left(0));
                    quota.refill(0, budget);
                }
            })
        };
        let mut guest = Guest::new(shape);
        let go = Arc::new(AtomicBool::new(false));
        guest.start(&go, &after_exit);
        quota.refill(0, budget);
        let limited = quota.limit(std::process::id(), guest.thread(0), 0, KICK as i32);
        limited.expect("the slot is free");
        go.store(true, Ordering::Release);
        while left.lock().expect("nobody panics").len() < ROUNDS {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        guest.stop();
        let left = left.lock().expect("nobody panics").clone();
        assert!(
            left.iter().all(|&left| left == 0),
            "budget {budget}, left at each exit: {left:?}"
        );
        let (drawn, marked) = (quota.drawn(0), guest.sync(0));
        assert_eq!(drawn, marked, "budget {budget}: pages drawn, and bits of the bitmap");
        println!(
            "a budget of {budget} by {}: {ROUNDS} exits on its last page, {drawn} pages",
            quota.kind()
        );
    }
}

fn pages(seen: &[VcpuCounters], thread: u32) -> u64 {
    let own = seen.iter().find(|vcpu| vcpu.thread == thread);
    own.map_or(0, |vcpu| vcpu.pushed_pages)
}
