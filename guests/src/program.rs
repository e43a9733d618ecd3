//! Which pattern a vCPU follows, as it is written on the command line.

use std::{fmt, str::FromStr, sync::atomic::Ordering::Relaxed, time::Duration};

use crate::{
    PAGE_SIZE,
    block::{Region, SHARE_ONE, VcpuBlock},
    programs,
};

/// The pattern in which a vCPU writes and reads the pages of its region.
///
/// Every access touches one 8-byte word, the first of its page.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    pub const NAMES: [(&'static str, &'static str); 8] = [
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
    ];

    /// The program's machine code: position independent, entered at its first byte with RDI = the gpa of its block.
    pub fn code(&self) -> &'static [u8] {
        programs::CODE[self.index()]()
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
        }
    }

    /// Writes the program's parameters into a vCPU's block and hands it its region, upon which a waiting guest starts.
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
        match *self {
            Self::Sequential | Self::Random | Self::Reader | Self::Replay => {}
            Self::HotCold { pages, writes } => {
                let hot_pages = (region.pages * u64::from(pages.get())).div_ceil(100).max(1);
                // Without a cold page there is none to pick.
                let share = if hot_pages < region.pages {
                    writes.share()
                } else {
                    SHARE_ONE
                };
                block.hot_pages.store(hot_pages, Relaxed);
                block.hot_share.store(share, Relaxed);
            }
            Self::Burst { pages, pause } => {
                block.burst_pages.store(pages, Relaxed);
                block
                    .pause_ticks
                    .store((pause.as_secs_f64() * tsc_hz as f64) as u64, Relaxed);
            }
            Self::Mix { writes } => block.write_share.store(writes.share(), Relaxed),
            Self::Paced { mib_per_sec } => {
                let ticks = tsc_hz as f64 * PAGE_SIZE as f64 / (mib_per_sec * f64::from(1 << 20));
                block.page_ticks.store(ticks as u64, Relaxed);
                block
                    .page_ticks_fraction
                    .store((ticks.fract() * 2_f64.powi(64)) as u64, Relaxed);
            }
        }
        block.start(region);
    }
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

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => f.write_str("sequential"),
            Self::Random => f.write_str("random"),
            Self::HotCold { pages, writes } => write!(f, "hot-cold:{pages}/{writes}"),
            Self::Burst { pages, pause } => {
                write!(f, "burst:{pages}/")?;
                match pause.as_micros() {
                    us if us % 1_000_000 == 0 => write!(f, "{}s", us / 1_000_000),
                    us if us % 1_000 == 0 => write!(f, "{}ms", us / 1_000),
                    us => write!(f, "{us}us"),
                }
            }
            Self::Reader => f.write_str("reader"),
            Self::Mix { writes } => write!(f, "mix:{writes}"),
            Self::Paced { mib_per_sec } => write!(f, "paced:{mib_per_sec}"),
            Self::Replay => f.write_str("replay"),
        }
    }
}

impl FromStr for Program {
    type Err = ProgramError;

    fn from_str(text: &str) -> Result<Self, ProgramError> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let plain = |program: Self| match argument {
            None => Ok(program),
            Some(argument) => Err(ProgramError::UnexpectedArgument {
                name: name.to_owned(),
                argument: argument.to_owned(),
            }),
        };
        let bad = |form: &'static str, example: &'static str| ProgramError::BadArgument {
            program: text.to_owned(),
            form,
            example,
        };
        match name {
            "sequential" => plain(Self::Sequential),
            "random" => plain(Self::Random),
            "reader" => plain(Self::Reader),
            "replay" => plain(Self::Replay),
            "hot-cold" => argument.and_then(hot_cold).ok_or_else(|| {
                bad(
                    "`hot-cold:PAGES/WRITES`, both in percent: PAGES from 1 to 100, WRITES from 0 to 100",
                    "hot-cold:10/90",
                )
            }),
            "burst" => argument.and_then(burst).ok_or_else(|| {
                bad(
                    "`burst:PAGES/PAUSE`, PAGES above 0, PAUSE a whole number of us, ms or s up to an hour",
                    "burst:4096/200ms",
                )
            }),
            "mix" => argument
                .and_then(percent)
                .map(|writes| Self::Mix { writes })
                .ok_or_else(|| bad("`mix:WRITES`, in percent from 0 to 100", "mix:30")),
            "paced" => argument
                .and_then(rate)
                .map(|mib_per_sec| Self::Paced { mib_per_sec })
                .ok_or_else(|| bad("`paced:RATE`, in MiB/s, from 0.001 to 1000000", "paced:100")),
            _ => Err(ProgramError::Unknown { name: name.to_owned() }),
        }
    }
}

fn hot_cold(argument: &str) -> Option<Program> {
    let (pages, writes) = argument.split_once('/')?;
    let pages = percent(pages).filter(|pages| pages.get() > 0)?;
    Some(Program::HotCold {
        pages,
        writes: percent(writes)?,
    })
}

fn burst(argument: &str) -> Option<Program> {
    let (pages, pause) = argument.split_once('/')?;
    let pages = pages.parse().ok().filter(|&pages| pages > 0)?;
    let digits = pause.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_us = match &pause[digits.len()..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    let micros = digits.parse::<u64>().ok()?.checked_mul(unit_us)?;
    let pause = Duration::from_micros(micros);
    (pause <= Duration::from_hours(1)).then_some(Program::Burst { pages, pause })
}

fn percent(text: &str) -> Option<Percent> {
    text.parse().ok().and_then(Percent::new)
}

/// The bounds keep the ticks of a page, and those of a second, within what 64 bits hold of any TSC.
fn rate(text: &str) -> Option<f64> {
    text.parse().ok().filter(|rate| (0.001..=1e6).contains(rate))
}

/// Why a text names no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// No program of this name.
    #[error("unknown guest `{name}`: expected one of {}", Program::NAMES.map(|(spelling, _)| spelling).join(", "))]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// An argument after a program that takes none.
    #[error("guest `{name}` takes no argument, but `{argument}` was given: write `{name}`")]
    UnexpectedArgument {
        /// The program.
        name: String,
        /// What followed its colon.
        argument: String,
    },
    /// An argument that is missing, malformed or out of range.
    #[error("can't read guest `{program}`: expected {form}, such as `{example}`")]
    BadArgument {
        /// The text that was given.
        program: String,
        /// What is expected.
        form: &'static str,
        /// A program that would be accepted.
        example: &'static str,
    },
}
