//! The ring against a naive oracle: a queue. The kernel's side is played on the same memory, entry by entry.

use std::{collections::VecDeque, fs::File, os::fd::AsRawFd};

use proptest::prelude::*;

use super::*;

/// The kernel's side of a ring: pushes entries and takes back those that are marked.
struct Kernel {
    dirty_index: u64,
    reset_index: u64,
}

impl Kernel {
    fn push(&mut self, ring: &DirtyRing, page: DirtyPage) {
        assert_eq!(
            ring.entry(self.dirty_index).flags.load(Ordering::Relaxed) & DIRTY,
            0,
            "pushed over a live entry"
        );
        let entry = ring.entry(self.dirty_index);
        entry.slot.store(page.slot, Ordering::Relaxed);
        entry.offset.store(page.offset, Ordering::Relaxed);
        entry.flags.store(DIRTY, Ordering::Release);
        self.dirty_index += 1;
    }

    fn reset(&mut self, ring: &DirtyRing) -> u64 {
        let first = self.reset_index;
        while self.reset_index < self.dirty_index
            && ring.entry(self.reset_index).flags.load(Ordering::Acquire) & RESET != 0
        {
            ring.entry(self.reset_index).flags.store(0, Ordering::Relaxed);
            self.reset_index += 1;
        }
        self.reset_index - first
    }

    fn room(&self, ring: &DirtyRing) -> u64 {
        u64::from(ring.size) - (self.dirty_index - self.reset_index)
    }
}

fn ring(size: u32) -> DirtyRing {
    let file: File = tempfile_of(size as usize * ENTRY_BYTES);
    DirtyRing::map_shared(file.as_raw_fd(), 0, size).expect("a small file can be mapped")
}

fn tempfile_of(bytes: usize) -> File {
    let fd = nix::sys::memfd::memfd_create(c"ring", nix::sys::memfd::MFdFlags::empty()).expect("memfd");
    let file = File::from(fd);
    file.set_len(bytes as u64).expect("memfd grows");
    file
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Harvest,
    Release(u64),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..400_u64).prop_map(Step::Push),
        Just(Step::Harvest),
        (0..300_u64).prop_map(Step::Release),
        Just(Step::Reset),
    ]
}

proptest! {
    #[test]
    fn every_page_comes_out_once_and_in_order(steps in prop::collection::vec(step(), 1..200)) {
        let mut ring = ring(256);
        let mut kernel = Kernel { dirty_index: 0, reset_index: 0 };
        let (mut waiting, mut held, mut marked) = (0, VecDeque::new(), 0_u64);
        let mut next = 0;
        for step in steps {
            match step {
                Step::Push(pages) => {
                    for _ in 0..pages.min(kernel.room(&ring)) {
                        kernel.push(&ring, DirtyPage { slot: 1, offset: next });
                        next += 1;
                        waiting += 1;
                    }
                }
                Step::Harvest => {
                    prop_assert_eq!(ring.harvest(), waiting);
                    held.extend(next - waiting..next);
                    waiting = 0;
                }
                Step::Release(hold) => {
                    let mut seen = Vec::new();
                    let released = ring.release(hold, |page| seen.push(page.offset));
                    let free = held.len().saturating_sub(hold as usize);
                    prop_assert_eq!(seen, held.drain(..free).collect::<Vec<_>>());
                    prop_assert_eq!(released, free as u64);
                    marked += released;
                }
                Step::Reset => {
                    prop_assert_eq!(kernel.reset(&ring), marked);
                    marked = 0;
                }
            }
            prop_assert_eq!(ring.held(), held.len() as u64);
            prop_assert_eq!(ring.harvested() + waiting, next);
        }
    }
}

#[test]
fn a_full_ring_is_harvested_once_though_every_entry_says_dirty() {
    let mut ring = ring(256);
    let mut kernel = Kernel {
        dirty_index: 0,
        reset_index: 0,
    };
    for offset in 0..256 {
        kernel.push(&ring, DirtyPage { slot: 0, offset });
    }
    assert_eq!(ring.harvest(), 256);
    assert_eq!(
        ring.harvest(),
        0,
        "harvested entries still say DIRTY, and must not be taken twice"
    );
}
