//! Programs as they are written on the command line.

use std::{fmt, str::FromStr};

use super::{
    Percent, Program,
    length::{Length, length},
    phases::PhasesError,
};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => f.write_str("sequential"),
            Self::Random => f.write_str("random"),
            Self::HotCold { pages, writes } => write!(f, "hot-cold:{pages}/{writes}"),
            Self::Burst { pages, pause } => {
                write!(f, "burst:{pages}/{}", Length(*pause))
            }
            Self::Reader => f.write_str("reader"),
            Self::Mix { writes } => write!(f, "mix:{writes}"),
            Self::Paced { mib_per_sec } => write!(f, "paced:{mib_per_sec}"),
            Self::Replay => f.write_str("replay"),
            Self::Phases(phases) => write!(f, "phases:{phases}"),
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
            "phases" => argument
                .unwrap_or_default()
                .parse()
                .map(Self::Phases)
                .map_err(|problem| ProgramError::BadPhases {
                    program: text.to_owned(),
                    problem,
                }),
            "idle" => Err(ProgramError::Idle),
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
    let pause = length(pause)?;
    Some(Program::Burst { pages, pause })
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
#[non_exhaustive]
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
    /// Phases that make no program.
    #[error(
        "can't read guest `{program}`: {problem}; expected `phases:GUEST*TIME/GUEST*TIME/...`, such as \
         `phases:random*2s/idle*500ms`; a comma begins the next guest of a list"
    )]
    BadPhases {
        /// The text that was given.
        program: String,
        /// What is wrong with it.
        problem: PhasesError,
    },
    /// A guest that never writes or reads.
    #[error("`idle` is only a phase of a guest, as in `phases:random*2s/idle*500ms`: choose another guest")]
    Idle,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Program>().unwrap_err().to_string()
    }

    #[test]
    fn what_is_displayed_is_read_back() {
        for text in [
            "sequential",
            "random",
            "hot-cold:10/90",
            "hot-cold:1/0",
            "hot-cold:100/100",
            "burst:4096/200ms",
            "burst:1/1500us",
            "burst:1/0s",
            "burst:18446744073709551615/3600s",
            "reader",
            "mix:0",
            "mix:100",
            "paced:100",
            "paced:0.25",
            "replay",
            "phases:random*2s/idle*500ms",
            "phases:hot-cold:10/90*1s/burst:64/2ms*1500us/reader*1s",
        ] {
            assert_eq!(text.parse::<Program>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_pause_may_be_in_any_unit() {
        let pause = |text: &str| match text.parse() {
            Ok(Program::Burst { pages: 8, pause }) => pause,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(pause("burst:8/70us"), Duration::from_micros(70));
        assert_eq!(pause("burst:8/70ms"), Duration::from_millis(70));
        assert_eq!(pause("burst:8/70s"), Duration::from_secs(70));
        assert_eq!("burst:8/2000ms".parse::<Program>().unwrap().to_string(), "burst:8/2s");
    }

    #[test]
    fn names_are_those_that_are_read() {
        for (index, (spelling, description)) in Program::NAMES.into_iter().enumerate() {
            let text = [
                "PAGES/WRITES",
                "PAGES/PAUSE",
                "WRITES",
                "RATE",
                "GUEST*TIME/...",
                "GUEST*TIME",
            ]
            .into_iter()
            .zip(["10/90", "8/2ms", "30", "100", "idle*1s", "random*2s"])
            .fold(spelling.to_owned(), |text, (name, value)| text.replace(name, value));
            assert_eq!(text.parse::<Program>().unwrap().index(), index, "{spelling}");
            assert!(!description.contains('\n'), "{description}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let message = error("sequentail");
        assert!(message.contains("`sequentail`"), "{message}");
        for (spelling, _) in Program::NAMES {
            assert!(message.contains(spelling), "{message}");
        }
        for text in ["", "Random", " random", "random ", "hot-cold/10/90"] {
            assert!(
                matches!(text.parse::<Program>(), Err(ProgramError::Unknown { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn an_argument_too_many_is_named() {
        assert_eq!(
            error("reader:5"),
            "guest `reader` takes no argument, but `5` was given: write `reader`"
        );
        assert!(error("random:").contains("takes no argument"));
    }

    #[test]
    fn a_bad_argument_is_told_the_form() {
        for text in [
            "hot-cold",
            "hot-cold:",
            "hot-cold:10",
            "hot-cold:0/90",
            "hot-cold:101/90",
            "hot-cold:10/-1",
            "hot-cold:10/9/1",
            "burst:4096",
            "burst:0/20ms",
            "burst:4096/20",
            "burst:4096/20min",
            "burst:4096/ms",
            "burst:4096/3601s",
            "burst:4096/99999999999999999999s",
            "mix",
            "mix:101",
            "mix:3.5",
            "paced",
            "paced:0",
            "paced:-1",
            "paced:nan",
            "paced:inf",
            "paced:1e7",
        ] {
            let message = error(text);
            let name = text.split(':').next().unwrap();
            assert!(message.contains(&format!("`{text}`")), "{message}");
            assert!(message.contains(&format!("such as `{name}:")), "{message}");
            let ProgramError::BadArgument { example, .. } = text.parse::<Program>().unwrap_err() else {
                panic!("{message}");
            };
            assert!(example.parse::<Program>().is_ok(), "{example}");
        }
    }
}
