//! Programs of phases: which make one, their words in the block, how they are written.

use std::{fmt, str::FromStr, sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Phase, Phases, Program, hot,
    length::{Length, length},
    page_ticks, ticks,
};
use crate::{
    PAGE_SIZE,
    block::{MOST_PHASES, PhaseBlock, Region, SHARE_ONE, VcpuBlock, order},
};

/// What a phase is called in which nothing is written or read.
const IDLE: &str = "idle";

/// Why phases make no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhasesError {
    /// One phase alone is no change.
    #[error("give two phases or more")]
    TooFew,
    /// More than there is room for.
    #[error("{phases} phases are too many: give at most {MOST_PHASES}")]
    TooMany {
        /// How many were given.
        phases: usize,
    },
    /// Nothing is ever written or read.
    #[error("every phase is `{IDLE}`: let one write or read")]
    AllIdle,
    /// A phase that takes no time.
    #[error("phase `{phase}` takes no time: give it 1us or more")]
    NoTime {
        /// The phase.
        phase: String,
    },
    /// A pattern that can be no phase.
    #[error("phase `{phase}` can't be one: choose any guest but phases and replay, or `{IDLE}`")]
    NoPhase {
        /// The phase.
        phase: String,
    },
    /// A phase without its length, or with one that can't be read.
    #[error("phase `{phase}` needs its length, as in `random*500ms`: a whole number of us, ms or s up to an hour")]
    NoLength {
        /// The phase.
        phase: String,
    },
    /// A phase of no known pattern.
    #[error("phase `{phase}`: {problem}; or choose `{IDLE}`")]
    Unreadable {
        /// The phase.
        phase: String,
        /// What is wrong with its program.
        problem: String,
    },
}

impl Phases {
    /// Takes `phases` if they make a program.
    ///
    /// # Errors
    /// [`PhasesError`], which says what they lack.
    pub fn new(phases: Vec<Phase>) -> Result<Self, PhasesError> {
        if phases.len() > MOST_PHASES {
            return Err(PhasesError::TooMany { phases: phases.len() });
        }
        if let Some(phase) = phases.iter().find(|phase| phase.length.is_zero()) {
            return Err(PhasesError::NoTime {
                phase: phase.to_string(),
            });
        }
        let no_phase = |phase: &&Phase| matches!(phase.program, Some(Program::Phases(_) | Program::Replay));
        if let Some(phase) = phases.iter().find(no_phase) {
            return Err(PhasesError::NoPhase {
                phase: phase.to_string(),
            });
        }
        if phases.len() < 2 {
            return Err(PhasesError::TooFew);
        }
        if phases.iter().all(|phase| phase.program.is_none()) {
            return Err(PhasesError::AllIdle);
        }
        Ok(Self(phases))
    }

    /// The phases in their order.
    pub fn phases(&self) -> &[Phase] {
        &self.0
    }

    /// How long all of them take together.
    pub fn cycle(&self) -> Duration {
        self.0.iter().map(|phase| phase.length).sum()
    }

    pub(super) fn configure(&self, block: &VcpuBlock, region: Region, tsc_hz: u64) {
        for (phase, words) in self.0.iter().zip(&block.phases) {
            phase.configure(words, region, tsc_hz);
        }
        let start = std::mem::offset_of!(VcpuBlock, phases);
        let end = start + self.0.len() * size_of::<PhaseBlock>();
        block.phases_end.store(end as u64, Relaxed);
    }
}

impl Phase {
    fn configure(&self, words: &PhaseBlock, region: Region, tsc_hz: u64) {
        let whole = (region.pages, SHARE_ONE);
        let (order, (hot_pages, hot_share)) = match &self.program {
            None => (order::IDLE, whole),
            Some(Program::HotCold { pages, writes }) => (order::RANDOM, hot(*pages, *writes, region)),
            Some(Program::Random | Program::Mix { .. }) => (order::RANDOM, whole),
            Some(_) => (order::IN_ORDER, whole),
        };
        let write_share = match &self.program {
            Some(Program::Reader) => 0,
            Some(Program::Mix { writes }) => writes.share(),
            _ => SHARE_ONE,
        };
        let (whole_ticks, fraction) = match &self.program {
            Some(Program::Paced { mib_per_sec }) => page_ticks(*mib_per_sec, tsc_hz),
            _ => (0, 0),
        };
        let (burst_pages, pause) = match &self.program {
            Some(Program::Burst { pages, pause }) => (*pages, *pause),
            _ => (0, Duration::ZERO),
        };
        // Of a counter so slow that the phase is less than a tick, it is one.
        words.ticks.store(ticks(self.length, tsc_hz).max(1), Relaxed);
        words.order.store(order, Relaxed);
        words.hot_gpa.store(region.gpa, Relaxed);
        words.hot_pages.store(hot_pages, Relaxed);
        words.cold_gpa.store(region.gpa + hot_pages * PAGE_SIZE, Relaxed);
        words
            .cold_pages
            .store(region.pages - hot_pages.min(region.pages), Relaxed);
        words.hot_share.store(hot_share, Relaxed);
        words.write_share.store(write_share, Relaxed);
        words.page_ticks.store(whole_ticks, Relaxed);
        words.page_ticks_fraction.store(fraction, Relaxed);
        words.burst_pages.store(burst_pages, Relaxed);
        words.pause_ticks.store(ticks(pause, tsc_hz), Relaxed);
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => fmt::Display::fmt(program, f)?,
            None => f.write_str(IDLE)?,
        }
        write!(f, "*{}", Length(self.length))
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, phase) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            fmt::Display::fmt(phase, f)?;
        }
        Ok(())
    }
}

impl FromStr for Phases {
    type Err = PhasesError;

    fn from_str(text: &str) -> Result<Self, PhasesError> {
        let mut phases = Vec::new();
        // A slash also stands within a guest, as in `hot-cold:10/90`: a phase goes on until its length has ended.
        let mut rest = Some(text);
        while let Some(left) = rest {
            let length_at = left.find('*').unwrap_or(left.len());
            let end = left[length_at..]
                .find('/')
                .map_or(left.len(), |slash| length_at + slash);
            phases.push(phase(&left[..end])?);
            rest = left.get(end + 1..);
        }
        Self::new(phases)
    }
}

fn phase(text: &str) -> Result<Phase, PhasesError> {
    let phase = || text.to_owned();
    let no_length = || PhasesError::NoLength { phase: phase() };
    let (program, time) = text.split_once('*').ok_or_else(no_length)?;
    let length = length(time).ok_or_else(no_length)?;
    let program = match program {
        IDLE => None,
        _ if program.starts_with("phases") => return Err(PhasesError::NoPhase { phase: phase() }),
        _ => Some(program.parse::<Program>().map_err(|problem| PhasesError::Unreadable {
            phase: phase(),
            problem: problem.to_string(),
        })?),
    };
    Ok(Phase { program, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TSC_HZ: u64 = 1_000_000_000;

    fn error(text: &str) -> String {
        text.parse::<Program>().expect_err(text).to_string()
    }

    #[test]
    fn phases_are_read_whatever_slashes_their_guests_have() {
        let text = "hot-cold:10/90*2s/burst:64/20ms*500ms/idle*1500us";
        let Ok(Program::Phases(phases)) = format!("phases:{text}").parse() else {
            panic!("they can be read");
        };
        let programs: Vec<String> = phases.phases().iter().map(ToString::to_string).collect();
        assert_eq!(programs, ["hot-cold:10/90*2s", "burst:64/20ms*500ms", "idle*1500us"]);
        assert_eq!(phases.cycle(), Duration::from_micros(2_501_500));
        assert_eq!(Program::Phases(phases).to_string(), format!("phases:{text}"));
    }

    #[test]
    fn each_phase_has_its_own_words() {
        let region = Region {
            gpa: 1 << 24,
            pages: 1000,
        };
        let block = VcpuBlock::default();
        let program: Program = "phases:hot-cold:10/50*1s/reader*2s/paced:100*3s/mix:25*4s/burst:8/2ms*5s/idle*6s"
            .parse()
            .expect("phases");
        program.configure(&block, region, 1, TSC_HZ);
        let words = |field: fn(&PhaseBlock) -> &std::sync::atomic::AtomicU64| -> Vec<u64> {
            block.phases[..6]
                .iter()
                .map(|phase| field(phase).load(Relaxed))
                .collect()
        };
        assert_eq!(block.phases_end.load(Relaxed), 512 + 6 * 96);
        assert_eq!(words(|phase| &phase.ticks), [1, 2, 3, 4, 5, 6].map(|s| s * TSC_HZ));
        assert_eq!(words(|phase| &phase.order), [2, 1, 1, 2, 1, 0]);
        assert_eq!(words(|phase| &phase.hot_gpa), [region.gpa; 6]);
        assert_eq!(words(|phase| &phase.hot_pages), [100, 1000, 1000, 1000, 1000, 1000]);
        assert_eq!(words(|phase| &phase.cold_pages), [900, 0, 0, 0, 0, 0]);
        assert_eq!(words(|phase| &phase.cold_gpa)[0], region.gpa + 100 * PAGE_SIZE);
        assert_eq!(words(|phase| &phase.hot_share)[..2], [SHARE_ONE / 2, SHARE_ONE]);
        assert_eq!(
            words(|phase| &phase.write_share),
            [SHARE_ONE, 0, SHARE_ONE, SHARE_ONE / 4, SHARE_ONE, SHARE_ONE]
        );
        assert_eq!(words(|phase| &phase.page_ticks), [0, 0, 39062, 0, 0, 0]);
        assert_eq!(words(|phase| &phase.page_ticks_fraction), [0, 0, 1 << 63, 0, 0, 0]);
        assert_eq!(words(|phase| &phase.burst_pages), [0, 0, 0, 0, 8, 0]);
        assert_eq!(words(|phase| &phase.pause_ticks), [0, 0, 0, 0, 2_000_000, 0]);
    }

    #[test]
    fn what_makes_no_program_is_told_its_remedy() {
        for (text, words) in [
            ("phases", "such as `phases:random*2s/idle*500ms`"),
            ("phases:", "phase `` needs its length"),
            ("phases:random*2s", "give two phases or more"),
            ("phases:random/idle*2s", "phase `random/idle*2s`"),
            ("phases:random*2s/idle", "phase `idle` needs its length"),
            ("phases:random*2/idle*1s", "phase `random*2` needs its length"),
            ("phases:random*2s/idle*2h", "phase `idle*2h` needs its length"),
            ("phases:random*2s/idle*3601s", "up to an hour"),
            ("phases:random*0s/idle*1s", "phase `random*0s` takes no time"),
            ("phases:idle*1s/idle*2s", "let one write or read"),
            ("phases:replay*1s/idle*2s", "any guest but phases and replay"),
            ("phases:phases:random*1s/idle*1s", "any guest but phases and replay"),
            ("phases:wander*1s/idle*2s", "unknown guest `wander`"),
            ("phases:mix:101*1s/idle*2s", "`mix:WRITES`, in percent from 0 to 100"),
            ("idle", "only a phase"),
        ] {
            let message = error(text);
            assert!(message.contains(words), "{text}: {message}");
        }
        let many = ["idle*1s"; MOST_PHASES].join("/");
        assert!(error(&format!("phases:random*1s/{many}")).contains("17 phases are too many: give at most 16"));
    }
}
