//! A simulated pre-copy: QEMU's rule, page by page, a millisecond at a time, against a guest that does its worst.

use std::time::Duration;

use super::{Plan, Task, again};
use crate::units::{MibPerSec, Pages};

/// What a guest does with what it may dirty.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// It writes as fast as it may.
    Always,
    /// It saves up, and writes all at once when the VMM is about to look at what is left.
    BeforeLook,
    /// It saves up, and writes all at once after the last look, before it is stopped.
    BeforeStop,
    /// By the bits of a number, 16 ms each.
    Pattern(u64),
}

/// Which pages it writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    /// Those that were sent and are clean, so that every write adds to what is left.
    Sent,
    /// One after the other.
    Sequential,
    /// Some part of memory, again and again.
    Hot(u64),
}

/// A guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    pub(super) when: When,
    pub(super) where_: Where,
    /// Pages that it writes in a millisecond while nobody limits it.
    pub(super) free_per_ms: u64,
    /// Whether its devices write what they may, and where it hurts.
    pub(super) devices: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) total: Duration,
    pub(super) blackout: Duration,
    pub(super) passes: u32,
}

const MS: f64 = 1e-3;

/// Pages and what is known of each.
struct Memory {
    /// To be sent, as far as the VMM knows.
    known: Vec<bool>,
    /// Written since the last sync.
    fresh: Vec<bool>,
    known_count: u64,
    next_sent: usize,
    next_written: usize,
}

impl Memory {
    fn new(pages: u64) -> Self {
        Self {
            known: vec![true; pages as usize],
            fresh: vec![false; pages as usize],
            known_count: pages,
            next_sent: 0,
            next_written: 0,
        }
    }

    /// Sends the next page; false if there is none.
    fn send(&mut self) -> bool {
        if self.known_count == 0 {
            return false;
        }
        while !self.known[self.next_sent] {
            self.next_sent = (self.next_sent + 1) % self.known.len();
        }
        self.known[self.next_sent] = false;
        self.known_count -= 1;
        true
    }

    fn write(&mut self, place: Where) {
        let pages = self.known.len();
        let page = match place {
            // The one that was sent last and is clean.
            Where::Sent => {
                let back = (0..pages.min(4096)).map(|back| (self.next_sent + pages - back) % pages);
                let clean = back.into_iter().find(|&page| !self.known[page] && !self.fresh[page]);
                clean.unwrap_or(self.next_written)
            }
            Where::Sequential => self.next_written,
            Where::Hot(hot) => self.next_written % (hot as usize).clamp(1, pages),
        };
        self.next_written = (self.next_written + 1) % pages;
        self.fresh[page] = true;
    }

    fn sync(&mut self) {
        for (known, fresh) in self.known.iter_mut().zip(&mut self.fresh) {
            *known |= std::mem::take(fresh);
        }
        self.known_count = self.known.iter().filter(|known| **known).count() as u64;
    }
}

/// Runs the migration that `plan` is for. The limit is solved again after each sync if `solves_again`. `None` if it doesn't end
/// within twice the promised time.
pub(super) fn migrate(task: &Task, plan: &Plan, guest: Guest, solves_again: bool) -> Option<Outcome> {
    let vmm = &task.vmm;
    let millis = |time: Duration| time.as_millis() as u64;
    let sent_per_ms = task.bandwidth.pages_per_sec() * MS;
    let device_per_ms = task.devices.pages_per_sec() * MS;
    let end = 2 * millis(task.within) + 1_000;
    let mut memory = Memory::new(task.left.0);
    let mut threshold = sent_per_ms * millis(plan.downtime_limit) as f64;
    let mut quota: Option<f64> = None;
    let mut next_quota = plan.quota.rate().pages_per_sec();
    let (mut tokens, mut send_credit, mut device_credit) = (0.0, 0.0, 0.0);
    let mut passes = 1;
    let mut looks_at = millis(vmm.setup.bound) + millis(vmm.longest_step);
    // Sending stands still until then: the setup, a sync.
    let mut sends_from = millis(vmm.setup.bound);
    // The last look is over, the stop is to come.
    let mut stops_at = None;
    for now in 0..end {
        let is_limited = plan.free_until.is_none_or(|left| memory.known_count <= left.0) || passes > 1;
        if is_limited && quota.is_none() {
            quota = Some(next_quota);
            tokens = burst(task, next_quota);
        }
        let looks = looks_at <= now || (memory.known_count == 0 && now >= sends_from);
        // The guest first: what it writes in this millisecond is in the log when the VMM looks.
        let wants = match guest.when {
            When::Always => true,
            When::BeforeLook => looks || now + 1 >= looks_at,
            When::BeforeStop => stops_at.is_some(),
            When::Pattern(bits) => bits >> ((now / 16) % 64) & 1 == 1,
        };
        let may = match quota {
            None => guest.free_per_ms,
            Some(quota) => {
                tokens = (tokens + quota * MS).min(burst(task, quota));
                tokens as u64
            }
        };
        if wants {
            (0..may).for_each(|_| memory.write(guest.where_));
            tokens -= may as f64;
        }
        if guest.devices {
            device_credit += device_per_ms;
            while device_credit >= 1.0 {
                memory.write(Where::Sent);
                device_credit -= 1.0;
            }
        }
        if let Some(at) = stops_at {
            if at == now {
                memory.sync();
                let rest = Duration::from_secs_f64(
                    (memory.known_count + vmm.buffered.bound.0) as f64 / task.bandwidth.pages_per_sec(),
                );
                let blackout = rest + vmm.fixed.bound;
                return Some(Outcome {
                    total: Duration::from_millis(now) + blackout,
                    blackout,
                    passes: passes + 1,
                });
            }
            continue;
        }
        if now >= sends_from {
            send_credit += sent_per_ms;
            while send_credit >= 1.0 {
                send_credit -= 1.0;
                if !memory.send() {
                    send_credit = 0.0;
                }
            }
        }
        if looks && now >= sends_from {
            looks_at = now + step(vmm.shortest_step, vmm.longest_step, now);
            if (memory.known_count as f64) < threshold {
                memory.sync();
                sends_from = now + millis(vmm.sync.bound);
                looks_at = sends_from + step(vmm.shortest_step, vmm.longest_step, now);
                if (memory.known_count as f64) < threshold {
                    stops_at = Some(now + millis(vmm.stop));
                    continue;
                }
                passes += 1;
                if solves_again {
                    let rest = Task {
                        left: Pages(memory.known_count),
                        within: task.within.saturating_sub(Duration::from_millis(now)),
                        vmm: super::Vmm {
                            setup: super::Bounded::default(),
                            ..*vmm
                        },
                        ..task.clone()
                    };
                    if let Ok(solved) = again(&rest) {
                        next_quota = solved.quota.rate().pages_per_sec();
                        quota = Some(next_quota);
                        threshold = sent_per_ms * millis(solved.downtime_limit) as f64;
                    }
                }
            }
        }
    }
    None
}

fn burst(task: &Task, quota: f64) -> f64 {
    quota * task.burst.span.as_secs_f64() + task.burst.pages.0 as f64
}

/// Some step between the shortest and the longest, in milliseconds.
fn step(shortest: Duration, longest: Duration, seed: u64) -> u64 {
    let (shortest, longest) = (shortest.as_millis() as u64, longest.as_millis() as u64);
    shortest + seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (longest - shortest + 1)
}

/// A task of small numbers, so that a run takes milliseconds.
pub(super) fn small(left: u64, pages_per_ms: f64, within: Duration, downtime: Duration) -> Task {
    Task {
        memory: Pages(left),
        left: Pages(left),
        bandwidth: MibPerSec(pages_per_ms * 1e3 / 256.0),
        within,
        downtime,
        devices: MibPerSec(0.0),
        burst: super::Burst {
            span: Duration::from_millis(10),
            pages: Pages(4),
        },
        vmm: super::Vmm {
            setup: super::Bounded {
                expected: Duration::from_millis(50),
                bound: Duration::from_millis(50),
            },
            shortest_step: Duration::from_millis(25),
            usual_step: Duration::from_millis(60),
            longest_step: Duration::from_millis(100),
            sync: super::Bounded {
                expected: Duration::from_millis(1),
                bound: Duration::from_millis(3),
            },
            stop: Duration::from_millis(8),
            fixed: super::Bounded {
                expected: Duration::from_millis(15),
                bound: Duration::from_millis(40),
            },
            buffered: super::Bounded::default(),
            log: super::Log::BITMAP,
        },
        dirtying: None,
    }
}
