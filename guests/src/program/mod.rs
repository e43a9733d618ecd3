//! Which pattern a vCPU follows, and what that means for its block.

mod length;
mod phases;
mod text;

use std::{fmt, sync::atomic::Ordering::Relaxed, time::Duration};

use crate::{
    PAGE_SIZE,
    block::{Region, SHARE_ONE, VcpuBlock},
    programs,
};
pub use phases::PhasesError;
pub use text::ProgramError;

/// The pattern in which a vCPU writes and reads the pages of its region.
///
/// Every access touches one 8-byte word, the first of its page.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// Writes one page after the other, as fast as it can.
    Sequential,
    /// Writes pages picked at random, each as likely as any other.
    Random,
    /// Writes pages picked at random, some of them more often.
    HotCold {
        /// Share of the pages that are hot: the first ones of the region.
        pages: Percent,
        /// Share of the writes that go to hot pages.
        writes: Percent,
    },
    /// Writes one page after the other, with a pause every so many.
    Burst {
        /// Pages written before each pause; above 0.
        pages: u64,
        /// Length of a pause.
        pause: Duration,
    },
    /// Reads one page after the other and never writes.
    Reader,
    /// Picks pages at random, and writes some and reads the others.
    Mix {
        /// Share of the accesses that write.
        writes: Percent,
    },
    /// Writes one page after the other at a set rate, in MiB/s; finite and above 0.
    Paced {
        /// The rate.
        mib_per_sec: f64,
    },
    /// Follows a table of page numbers and delays; see [`crate::replay`] and [`VcpuBlock::set_replay`].
    Replay,
    /// Goes from one of the other patterns to the next, and starts over.
    Phases(Phases),
}

/// At least one phase that does something, none of them with phases of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Phases(Vec<Phase>);

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// What it does; `None`: nothing.
    pub program: Option<Program>,
    /// How long; above 0.
    pub length: Duration,
}

/// A whole number from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// Takes `value` if it is at most 100.
    pub fn new(value: u8) -> Option<Self> {
        (value <= 100).then_some(Self(value))
    }

    /// As a number from 0 to 100.
    pub fn get(self) -> u8 {
        self.0
    }

    /// As a fraction of [`SHARE_ONE`].
    fn share(self) -> u64 {
        SHARE_ONE * u64::from(self.0) / 100
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How far behind its schedule `paced` and `replay` may fall and still catch up, as a fraction of a second: 10 ms covers
/// a scheduler's slice or an exit to the host, and makes a burst of at most a hundredth of a second's pages.
const CATCH_UP_PER_SECOND: u64 = 100;

impl Program {
    /// Each program's spelling on the command line, and what it does in one line.
    pub const NAMES: [(&'static str, &'static str); 9] = [
        ("sequential", "writes one page after the other, as fast as it can"),
        ("random", "writes pages picked at random"),
        (
            "hot-cold:PAGES/WRITES",
            "random, PAGES % of the pages get WRITES % of the writes",
        ),
        (
            "burst:PAGES/PAUSE",
            "writes PAGES pages in order, pauses (200us, 20ms, 2s), goes on",
        ),
        ("reader", "reads one page after the other and never writes"),
        ("mix:WRITES", "random, WRITES % of the accesses write, the others read"),
        ("paced:RATE", "writes one page after the other at RATE MiB/s"),
        ("replay", "follows a table of page numbers and delays"),
        (
            "phases:GUEST*TIME/GUEST*TIME/...",
            "goes from phase to phase and starts over; a phase is another guest, or `idle`",
        ),
    ];

    /// The program's machine code: position independent, entered at its first byte with RDI = the gpa of its block.
    pub fn code(&self) -> &'static [u8] {
        programs::CODE[self.index()]()
    }

    /// How long it takes until it does the same again, of a program whose rate changes in time.
    pub fn cycle(&self) -> Option<Duration> {
        match self {
            Self::Phases(phases) => Some(phases.cycle()),
            _ => None,
        }
    }

    /// Its place in [`Program::NAMES`], which is also the order of the code in a guest.
    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Sequential => 0,
            Self::Random => 1,
            Self::HotCold { .. } => 2,
            Self::Burst { .. } => 3,
            Self::Reader => 4,
            Self::Mix { .. } => 5,
            Self::Paced { .. } => 6,
            Self::Replay => 7,
            Self::Phases(_) => 8,
        }
    }

    /// Writes the program's parameters into a vCPU's block and hands it its region, upon which a waiting guest starts.
    ///
    /// The program must be waiting, or its vCPU stopped: a pass that is under way would mix old and new.
    ///
    /// `seed` may be any number; `tsc_hz` is the frequency of the guest's TSC. The counters are left alone. `iteration`
    /// is set to 1 if it is 0, so that a page which was written can be told from one which was not.
    pub fn configure(&self, block: &VcpuBlock, region: Region, seed: u64, tsc_hz: u64) {
        block.park();
        if block.iteration.load(Relaxed) == 0 {
            block.iteration.store(1, Relaxed);
        }
        block.seed.store(spread(seed), Relaxed);
        block.catch_up_ticks.store(tsc_hz / CATCH_UP_PER_SECOND, Relaxed);
        match self {
            Self::Sequential | Self::Random | Self::Reader | Self::Replay => {}
            Self::HotCold { pages, writes } => {
                let (hot_pages, share) = hot(*pages, *writes, region);
                block.hot_pages.store(hot_pages, Relaxed);
                block.hot_share.store(share, Relaxed);
            }
            Self::Burst { pages, pause } => {
                block.burst_pages.store(*pages, Relaxed);
                block.pause_ticks.store(ticks(*pause, tsc_hz), Relaxed);
            }
            Self::Mix { writes } => block.write_share.store(writes.share(), Relaxed),
            Self::Paced { mib_per_sec } => {
                let (whole, fraction) = page_ticks(*mib_per_sec, tsc_hz);
                block.page_ticks.store(whole, Relaxed);
                block.page_ticks_fraction.store(fraction, Relaxed);
            }
            Self::Phases(phases) => phases.configure(block, region, tsc_hz),
        }
        block.start(region);
    }
}

/// How many pages of a region are hot, and the share of the accesses that go to them.
fn hot(pages: Percent, writes: Percent, region: Region) -> (u64, u64) {
    let hot_pages = (region.pages * u64::from(pages.get())).div_ceil(100).max(1);
    // Without a cold page there is none to pick.
    let share = if hot_pages < region.pages {
        writes.share()
    } else {
        SHARE_ONE
    };
    (hot_pages, share)
}

fn ticks(time: Duration, tsc_hz: u64) -> u64 {
    (time.as_secs_f64() * tsc_hz as f64) as u64
}

/// What a page takes at a rate: whole ticks, and the rest in units of 2^-64 ticks.
fn page_ticks(mib_per_sec: f64, tsc_hz: u64) -> (u64, u64) {
    let ticks = tsc_hz as f64 * PAGE_SIZE as f64 / (mib_per_sec * f64::from(1 << 20));
    (ticks as u64, (ticks.fract() * 2_f64.powi(64)) as u64)
}

/// Spreads a seed over 64 bits, so that seeds 1, 2, 3 ... start unlike sequences; never 0, on which xorshift stays.
///
/// The finaliser of `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn spread(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TSC_HZ: u64 = 3_000_000_000;

    fn configured(program: &str, pages: u64) -> VcpuBlock {
        let block = VcpuBlock::default();
        let program: Program = program.parse().unwrap();
        program.configure(&block, Region { gpa: 1 << 24, pages }, 1, TSC_HZ);
        block
    }

    #[test]
    fn every_program_gets_its_region_and_a_value_to_write() {
        let block = configured("sequential", 77);
        assert_eq!(block.region_gpa.load(Relaxed), 1 << 24);
        assert_eq!(block.region_pages.load(Relaxed), 77);
        assert_eq!(block.iteration.load(Relaxed), 1);
        assert_eq!(block.catch_up_ticks.load(Relaxed), TSC_HZ / 100);
    }

    #[test]
    fn counters_and_iteration_survive() {
        let block = VcpuBlock::default();
        block.pages_written.store(5, Relaxed);
        block.iteration.store(9, Relaxed);
        Program::Random.configure(&block, Region { gpa: 0, pages: 1 }, 1, TSC_HZ);
        assert_eq!(block.pages_written.load(Relaxed), 5);
        assert_eq!(block.iteration.load(Relaxed), 9);
    }

    #[test]
    fn there_is_always_a_hot_page_and_never_a_cold_one_missing() {
        let hot = |program, pages| {
            let block = configured(program, pages);
            (block.hot_pages.load(Relaxed), block.hot_share.load(Relaxed))
        };
        assert_eq!(hot("hot-cold:10/50", 1000), (100, SHARE_ONE / 2));
        assert_eq!(hot("hot-cold:10/50", 5), (1, SHARE_ONE / 2));
        assert_eq!(hot("hot-cold:10/50", 1), (1, SHARE_ONE));
        assert_eq!(hot("hot-cold:100/0", 5), (5, SHARE_ONE));
    }

    #[test]
    fn times_become_ticks() {
        assert_eq!(configured("burst:8/2ms", 9).pause_ticks.load(Relaxed), 6_000_000);
        // 100 MiB/s is 25,600 pages per second.
        let block = configured("paced:100", 9);
        assert_eq!(block.page_ticks.load(Relaxed), 117_187);
        assert_eq!(block.page_ticks_fraction.load(Relaxed), 1 << 63);
        // The slowest and the fastest rate that can be written.
        assert_eq!(configured("paced:0.001", 9).page_ticks.load(Relaxed), 11_718_750_000);
        assert_eq!(configured("paced:1000000", 9).page_ticks.load(Relaxed), 11);
    }

    #[test]
    fn no_seed_is_one_that_xorshift_stays_on() {
        // The number that the finaliser would turn into 0.
        let zero = 0_u64.wrapping_sub(0x9e37_79b9_7f4a_7c15);
        assert_eq!(spread(zero), 1);
        assert_ne!(spread(0), spread(1));
    }

    #[test]
    fn every_program_has_code_of_its_own() {
        let codes: std::collections::HashSet<&[u8]> = programs::CODE.iter().map(|code| code()).collect();
        assert_eq!(codes.len(), Program::NAMES.len());
        for code in codes {
            assert!((32..=PAGE_SIZE as usize).contains(&code.len()), "{} bytes", code.len());
        }
    }
}
