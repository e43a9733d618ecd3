//! The page that host and guest share, one per vCPU.
//!
//! ```text
//! offset    0  counters      written by the guest alone, with plain stores
//!         128  what to do    written by the host, read by the guest at every write or every pass
//!         256  how to do it  written by the host: the parameters of the vCPU's program
//!         512  phases        the same, one after the other, of a program of phases
//!        4096  end
//! ```
//!
//! The parts lie on pairs of cache lines of their own: pairs, because the adjacent-line prefetcher fetches two. So a
//! host that polls the counters costs the guest no miss on its parameters.
//!
//! # Orderings
//! A counter is stored after the access that it counts has retired, and x86 keeps stores in order. So a host that loads
//! a counter with `Acquire` also sees every page write that it counts; to look at the count alone, `Relaxed` will do.
//! A counter never runs ahead. It may lag by one: a write that faulted (a dirty fault, a ring-full exit) is logged
//! before it is made, and made before it is counted.
//!
//! # What may change while the guest runs
//! `iteration` and what is marked *live*. Everything else belongs to a pass: [`park`](VcpuBlock::park) the program and
//! see a pass end, or stop the vCPU, before it gets other parameters or another region.
//!
//! The block must live in memory that is not dirty-logged.

use std::{
    mem::{align_of, offset_of, size_of},
    sync::atomic::{AtomicU64, Ordering},
};

/// The pages that a vCPU's program works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address of the first page.
    pub gpa: u64,
    /// How many pages.
    pub pages: u64,
}

/// Counters and parameters of one vCPU. All zero is valid: the guest then waits for `region_pages`.
#[derive(Default)]
#[repr(C, align(4096))]
pub struct VcpuBlock {
    /// Pages written since the vCPU was first started; a page written twice counts twice.
    pub pages_written: AtomicU64,
    /// Pages read, counted in the same way.
    pub pages_read: AtomicU64,
    /// Passes ended. A pass is as many accesses as the region has pages, and of `replay` one run through its table.
    pub passes: AtomicU64,
    /// `phases`: phases begun.
    pub phases_begun: AtomicU64,
    _guest: [AtomicU64; 12],

    /// Pages of the region, read at the start of each pass. While it is 0 the guest waits.
    pub region_pages: AtomicU64,
    /// Guest-physical address of the region, read after `region_pages`.
    pub region_gpa: AtomicU64,
    /// The value that each write leaves in the first word of its page; read anew before every write.
    pub iteration: AtomicU64,
    _host: [AtomicU64; 13],

    /// Start of the random sequence; not 0.
    pub seed: AtomicU64,
    /// `hot-cold`: how many pages, from the first on, are hot. From 1 to the region's pages.
    pub hot_pages: AtomicU64,
    /// `hot-cold`: the share of writes that go to hot pages, of [`SHARE_ONE`]; [`SHARE_ONE`] if every page is hot.
    pub hot_share: AtomicU64,
    /// `mix`: the share of accesses that write, of [`SHARE_ONE`]. Live.
    pub write_share: AtomicU64,
    /// `burst`: pages written before each pause; above 0. Live, from the next burst on.
    pub burst_pages: AtomicU64,
    /// `burst`: length of the pause in TSC ticks. Live, from the next pause on.
    pub pause_ticks: AtomicU64,
    /// `paced`: TSC ticks from one write's due time to the next one's, whole part. Live.
    pub page_ticks: AtomicU64,
    /// `paced`: the rest of `page_ticks` in units of 2^-64 ticks. Live.
    pub page_ticks_fraction: AtomicU64,
    /// `paced`, `replay`: how many TSC ticks behind its schedule a program may be and still catch up. Live.
    pub catch_up_ticks: AtomicU64,
    /// `replay`: guest-physical address of the table.
    pub replay_gpa: AtomicU64,
    /// `replay`: entries in the table; while it is 0 the guest waits.
    pub replay_entries: AtomicU64,
    /// `replay`: the guest plays the table while `passes` is below this, then waits. [`REPLAY_FOREVER`] wraps. Live.
    pub replay_runs: AtomicU64,
    /// `phases`: where they end, from the start of the block.
    pub phases_end: AtomicU64,
    _rest: [AtomicU64; 19],

    /// `phases`: each of them, in their order.
    pub phases: [PhaseBlock; MOST_PHASES],
}

/// How many phases a program has room for.
pub const MOST_PHASES: usize = 16;

/// Parameters of one phase; those of the block's own that have the same name mean the same.
#[derive(Default)]
#[repr(C)]
pub struct PhaseBlock {
    /// How long it lasts, in TSC ticks; above 0.
    pub ticks: AtomicU64,
    /// How it picks pages: one of [`order`].
    pub order: AtomicU64,
    /// Guest-physical address of the first hot page: the start of the region.
    pub hot_gpa: AtomicU64,
    /// How many pages, from there on, are hot: all, of a phase that knows no difference.
    pub hot_pages: AtomicU64,
    /// Guest-physical address of the first cold page.
    pub cold_gpa: AtomicU64,
    /// How many are cold.
    pub cold_pages: AtomicU64,
    /// The share of accesses that go to hot pages.
    pub hot_share: AtomicU64,
    /// The share of accesses that write.
    pub write_share: AtomicU64,
    /// TSC ticks from one access's due time to the next one's, whole part; 0: as fast as it can.
    pub page_ticks: AtomicU64,
    /// The rest of it in units of 2^-64 ticks.
    pub page_ticks_fraction: AtomicU64,
    /// Accesses before each pause; 0: no pauses.
    pub burst_pages: AtomicU64,
    /// Length of a pause in TSC ticks.
    pub pause_ticks: AtomicU64,
}

impl PhaseBlock {
    fn words(&self) -> [&AtomicU64; 12] {
        [
            &self.ticks,
            &self.order,
            &self.hot_gpa,
            &self.hot_pages,
            &self.cold_gpa,
            &self.cold_pages,
            &self.hot_share,
            &self.write_share,
            &self.page_ticks,
            &self.page_ticks_fraction,
            &self.burst_pages,
            &self.pause_ticks,
        ]
    }
}

/// How a phase picks pages.
pub mod order {
    /// It makes no access.
    pub const IDLE: u64 = 0;
    /// One after the other.
    pub const IN_ORDER: u64 = 1;
    /// At random.
    pub const RANDOM: u64 = 2;
}

/// A share of 1, of which the shares in the block are fractions.
pub const SHARE_ONE: u64 = 1 << 32;

/// The number of runs that makes `replay` start over for ever.
pub const REPLAY_FOREVER: u64 = u64::MAX;

impl VcpuBlock {
    /// Tells `replay` which table to follow and how often; the guest starts as soon as it also has a region.
    pub fn set_replay(&self, table_gpa: u64, entries: u64, runs: u64) {
        self.replay_gpa.store(table_gpa, Ordering::Relaxed);
        self.replay_runs.store(runs, Ordering::Relaxed);
        // Pairs with the guest's load of the count, which comes before the one of the address: loads stay in order.
        self.replay_entries.store(entries, Ordering::Release);
    }

    /// The offset and the value of every parameter.
    pub(crate) fn parameters(&self) -> Vec<(usize, u64)> {
        let Self {
            pages_written: _,
            pages_read: _,
            passes: _,
            phases_begun: _,
            _guest: _,
            region_pages,
            region_gpa,
            iteration,
            _host: _,
            seed,
            hot_pages,
            hot_share,
            write_share,
            burst_pages,
            pause_ticks,
            page_ticks,
            page_ticks_fraction,
            catch_up_ticks,
            replay_gpa,
            replay_entries,
            replay_runs,
            phases_end,
            _rest: _,
            phases,
        } = self;
        let own = [
            region_pages,
            region_gpa,
            iteration,
            seed,
            hot_pages,
            hot_share,
            write_share,
            burst_pages,
            pause_ticks,
            page_ticks,
            page_ticks_fraction,
            catch_up_ticks,
            replay_gpa,
            replay_entries,
            replay_runs,
            phases_end,
        ];
        own.into_iter()
            .chain(phases.iter().flat_map(PhaseBlock::words))
            .map(|field| {
                let offset = (&raw const *field).addr() - (&raw const *self).addr();
                (offset, field.load(Ordering::Relaxed))
            })
            .collect()
    }

    /// Takes the guest's region away: its program waits at the end of the pass that it is in.
    pub fn park(&self) {
        self.region_pages.store(0, Ordering::Relaxed);
    }

    /// Hands the guest its region; a program that waits starts, and sees every parameter stored before.
    pub fn start(&self, region: Region) {
        self.region_gpa.store(region.gpa, Ordering::Relaxed);
        // Pairs with the guest's load of the count, which comes before those of the other parameters.
        self.region_pages.store(region.pages, Ordering::Release);
    }
}

// The assembly addresses the block through these offsets; other tools may too, so they are kept where they are.
const _: () = {
    assert!(size_of::<VcpuBlock>() == 4096 && align_of::<VcpuBlock>() == 4096);
    assert!(offset_of!(VcpuBlock, pages_written) == 0);
    assert!(offset_of!(VcpuBlock, pages_read) == 8);
    assert!(offset_of!(VcpuBlock, passes) == 16);
    assert!(offset_of!(VcpuBlock, phases_begun) == 24);
    assert!(offset_of!(VcpuBlock, region_pages) == 128);
    assert!(offset_of!(VcpuBlock, region_gpa) == 136);
    assert!(offset_of!(VcpuBlock, iteration) == 144);
    assert!(offset_of!(VcpuBlock, seed) == 256);
    assert!(offset_of!(VcpuBlock, hot_pages) == 264);
    assert!(offset_of!(VcpuBlock, hot_share) == 272);
    assert!(offset_of!(VcpuBlock, write_share) == 280);
    assert!(offset_of!(VcpuBlock, burst_pages) == 288);
    assert!(offset_of!(VcpuBlock, pause_ticks) == 296);
    assert!(offset_of!(VcpuBlock, page_ticks) == 304);
    assert!(offset_of!(VcpuBlock, page_ticks_fraction) == 312);
    assert!(offset_of!(VcpuBlock, catch_up_ticks) == 320);
    assert!(offset_of!(VcpuBlock, replay_gpa) == 328);
    assert!(offset_of!(VcpuBlock, replay_entries) == 336);
    assert!(offset_of!(VcpuBlock, replay_runs) == 344);
    assert!(offset_of!(VcpuBlock, phases_end) == 352);
    assert!(offset_of!(VcpuBlock, phases) == 512);
    assert!(size_of::<PhaseBlock>() == 96 && offset_of!(PhaseBlock, pause_ticks) == 88);
};
