//! Changes in time: `10s set 500 all`, `30s cancel 0`, `40s unplug 1`, `50s plug 1`.

use std::{fmt, str::FromStr, time::Duration};

use dirtyrig_limiter::{
    limit::Which,
    units::{Quota, QuotaError},
};
use serde::{Deserialize, Serialize};

use super::values::Span;

/// What happens at an instant of a script.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Limits the dirty rate.
    Set(Quota, Which),
    /// Takes the limit away.
    Cancel(Which),
    /// Limits the dirty rate of all vCPUs together.
    SetVm(Quota),
    /// Takes that limit away.
    CancelVm,
    /// Changes the time's worth of quota that may be saved up.
    SetBurst(Duration),
    /// Plugs a vCPU.
    Plug(usize),
    /// Unplugs a vCPU.
    Unplug(usize),
}

/// An action and its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Event {
    /// Time since the cell began to be measured: since the initial limits were set.
    pub at: Duration,
    /// What to do.
    pub action: Action,
}

impl Action {
    /// The highest vCPU index that it names.
    pub fn vcpu(self) -> Option<usize> {
        match self {
            Self::Set(_, Which::One(vcpu)) | Self::Cancel(Which::One(vcpu)) | Self::Plug(vcpu) | Self::Unplug(vcpu) => {
                Some(vcpu)
            }
            Self::Set(_, Which::All)
            | Self::Cancel(Which::All)
            | Self::SetVm(_)
            | Self::CancelVm
            | Self::SetBurst(_) => None,
        }
    }
}

/// What every error of this file points to.
const FORM: &str = "`TIME set MIB_S VCPU`, `TIME cancel VCPU`, `TIME set-vm MIB_S`, `TIME cancel-vm`, `TIME burst TIME`, `TIME plug N` or \
                    `TIME unplug N`, where VCPU is an index or `all`; such as `10s set 500 all`";

/// Why a text is no event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not one of the known forms.
    #[error("`{text}` is no change of a script: write {FORM}")]
    Form {
        /// The text that was given.
        text: String,
    },
    /// The time can't be read.
    #[error("`{time}` in `{text}` is no time: give one such as 500ms, 10s or 1m")]
    Time {
        /// The text that was given.
        text: String,
        /// Its first word.
        time: String,
        /// What the parser says.
        source: humantime::DurationError,
    },
    /// A burst of no time.
    #[error("`{text}`: a burst of no time lets a vCPU dirty nothing: give a time above 0, such as 10ms")]
    NoBurst {
        /// The text that was given.
        text: String,
    },
    /// The quota can't be held.
    #[error("`{text}`: {source}")]
    Quota {
        /// The text that was given.
        text: String,
        /// What is wrong with it.
        source: QuotaError,
    },
    /// The vCPU is no index.
    #[error("`{vcpu}` in `{text}` names no vCPU: give an index such as 0, or `all` where all can be meant")]
    Vcpu {
        /// The text that was given.
        text: String,
        /// Its last word.
        vcpu: String,
    },
}

impl FromStr for Event {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Self, EventError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let bad_vcpu = |vcpu: &str| EventError::Vcpu {
            text: text.to_owned(),
            vcpu: vcpu.to_owned(),
        };
        let one = |vcpu: &str| vcpu.parse::<usize>().map_err(|_| bad_vcpu(vcpu));
        let which = |vcpu: &str| {
            if vcpu == "all" {
                Ok(Which::All)
            } else {
                one(vcpu).map(Which::One)
            }
        };
        let rate = |quota: &str| {
            quota.parse().map_err(|source| EventError::Quota {
                text: text.to_owned(),
                source,
            })
        };
        let time = |time: &str| {
            humantime::parse_duration(time).map_err(|source| EventError::Time {
                text: text.to_owned(),
                time: time.to_owned(),
                source,
            })
        };
        let span = |burst: &str| match time(burst)? {
            Duration::ZERO => Err(EventError::NoBurst { text: text.to_owned() }),
            span => Ok(span),
        };
        let action = match words[..] {
            // In QEMU's commands a rate of 0 cancels.
            [_, "cancel", vcpu] | [_, "set", "0", vcpu] => Action::Cancel(which(vcpu)?),
            [_, "set", quota, vcpu] => Action::Set(rate(quota)?, which(vcpu)?),
            [_, "cancel-vm"] | [_, "set-vm", "0"] => Action::CancelVm,
            [_, "set-vm", quota] => Action::SetVm(rate(quota)?),
            [_, "burst", burst] => Action::SetBurst(span(burst)?),
            [_, "plug", vcpu] => Action::Plug(one(vcpu)?),
            [_, "unplug", vcpu] => Action::Unplug(one(vcpu)?),
            _ => return Err(EventError::Form { text: text.to_owned() }),
        };
        let at = time(words[0])?;
        Ok(Self { at, action })
    }
}

impl TryFrom<String> for Event {
    type Error = EventError;

    fn try_from(text: String) -> Result<Self, EventError> {
        text.parse()
    }
}

impl From<Event> for String {
    fn from(event: Event) -> Self {
        event.to_string()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Span(self.at);
        write!(f, "{time} {}", self.action)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |which| match which {
            Which::All => "all".to_owned(),
            Which::One(vcpu) => vcpu.to_string(),
        };
        match *self {
            Self::Set(quota, which) => write!(f, "set {} {}", quota.mib_per_sec(), name(which)),
            Self::Cancel(which) => write!(f, "cancel {}", name(which)),
            Self::SetVm(quota) => write!(f, "set-vm {}", quota.mib_per_sec()),
            Self::CancelVm => f.write_str("cancel-vm"),
            Self::SetBurst(burst) => write!(f, "burst {}", Span(burst)),
            Self::Plug(vcpu) => write!(f, "plug {vcpu}"),
            Self::Unplug(vcpu) => write!(f, "unplug {vcpu}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(mib_s: f64) -> Quota {
        Quota::new(mib_s).expect("a quota")
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        let forms = [
            ("10s set 500 all", Action::Set(quota(500.0), Which::All)),
            ("1m30s set 0.25 1", Action::Set(quota(0.25), Which::One(1))),
            ("30s cancel 0", Action::Cancel(Which::One(0))),
            ("500ms cancel all", Action::Cancel(Which::All)),
            ("10s set-vm 50", Action::SetVm(quota(50.0))),
            ("20s cancel-vm", Action::CancelVm),
            ("30s burst 1m30s", Action::SetBurst(Duration::from_secs(90))),
            ("40s unplug 1", Action::Unplug(1)),
            ("50s plug 1", Action::Plug(1)),
        ];
        for (text, action) in forms {
            let event: Event = text.parse().expect("a known form");
            assert_eq!(event.action, action, "{text}");
            assert_eq!(event.to_string(), text);
        }
    }

    #[test]
    fn a_rate_of_zero_cancels_as_in_qemu() {
        let event: Event = "1s set 0 all".parse().expect("a known form");
        assert_eq!(event.action, Action::Cancel(Which::All));
        let event: Event = "1s set-vm 0".parse().expect("a known form");
        assert_eq!(event.action, Action::CancelVm);
    }

    #[test]
    fn errors_name_the_word_that_is_wrong() {
        let error = |text: &str| text.parse::<Event>().expect_err(text).to_string();
        assert!(error("10 set 500 all").contains("`10` in `10 set 500 all` is no time"));
        assert!(error("10s set -5 all").contains("a quota of -5 MiB/s"));
        assert!(error("10s set 5 first").contains("`first`"));
        assert!(error("10s burst 5").contains("`5` in `10s burst 5` is no time"));
        assert!(error("10s burst 0s").contains("give a time above 0"));
        assert!(error("10s plug all").contains("`all`"), "plugging all is no form");
        assert!(error("10s throttle 5").contains("write `TIME set MIB_S VCPU`"));
        assert!(error("").contains("is no change of a script"));
    }
}
