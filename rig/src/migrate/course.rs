//! What came of a migration.

use std::time::{Duration, Instant};

use dirtyrig_limiter::units::{MibPerSec, Quota};

use super::promise::Promise;

/// A pass, as it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// Its number, from 1 on.
    pub number: u64,
    /// When it began, from the start of the migration.
    pub at: Duration,
    /// What QEMU knew to be left, in MiB.
    pub left_mib: f64,
    /// What had been sent, in MiB.
    pub sent_mib: f64,
    /// The rate of sending over the last seconds.
    pub rate: Option<MibPerSec>,
    /// The quota in force from here on.
    pub quota: Option<Quota>,
    /// Pages that vCPUs dirtied since the last sync, as their ring says; `None` where nobody counts them.
    pub dirtied_pages: Option<u64>,
    /// When the migration will be over, as far as can be foreseen.
    pub expected_end: Option<Duration>,
    /// The time that every vCPU is made to sleep, where QEMU throttles.
    pub throttle_pct: Option<u64>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest is at the destination.
    Completed,
    /// The guest stays; QEMU's reason.
    Failed(String),
    /// The guest stays, because it was told to: by the user, or by somebody else.
    Cancelled,
    /// It goes on, and is not followed any more.
    Left,
}

/// A migration that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// How.
    pub ended: Ended,
    /// When it was started.
    pub begun: Instant,
    /// From the start to the end, by QEMU's word.
    pub total: Duration,
    /// When the guest was stopped.
    pub stopped_at: Option<Duration>,
    /// When its limit began.
    pub limited_from: Option<Duration>,
    /// QEMU's own figure for the blackout.
    pub qemu_downtime: Option<Duration>,
    /// What a blackout has beside QEMU's figure, at most.
    pub beside_downtime: Duration,
    /// Why the promise was said to be lost on the way, and when.
    pub lost: Option<(Duration, String)>,
    /// Its passes.
    pub passes: Vec<Pass>,
    /// Bytes on the wire, in MiB.
    pub sent_mib: f64,
}

/// Whether a promise was kept, and, if not, why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was broken.
    pub broken: Vec<String>,
}

impl Verdict {
    /// Whether nothing was broken.
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }
}

impl Course {
    /// Judges by the source alone: QEMU's figure leaves a part of the blackout out, which is taken at its most.
    pub fn judge(&self, promise: Promise) -> Verdict {
        let blackout = self.qemu_downtime.map(|downtime| downtime + self.beside_downtime);
        self.judge_by(promise, self.total, blackout)
    }

    /// Judges by what was measured at both ends.
    pub fn judge_by(&self, promise: Promise, total: Duration, blackout: Option<Duration>) -> Verdict {
        let mut broken = Vec::new();
        match &self.ended {
            Ended::Completed => {}
            Ended::Failed(why) => broken.push(format!("it failed: {why}")),
            Ended::Cancelled => broken.push("it was cancelled".to_owned()),
            Ended::Left => broken.push("it goes on without a limit".to_owned()),
        }
        if broken.is_empty() {
            if total > promise.within {
                broken.push(format!(
                    "it took {} instead of {}",
                    seconds(total),
                    seconds(promise.within)
                ));
            }
            match blackout {
                Some(blackout) if blackout > promise.downtime => broken.push(format!(
                    "the guest was away for {} ms instead of {}",
                    blackout.as_millis(),
                    promise.downtime.as_millis()
                )),
                Some(_) => {}
                None => broken.push("nobody knows how long the guest was away".to_owned()),
            }
        }
        if let (false, Some((at, why))) = (broken.is_empty(), &self.lost) {
            broken.push(format!("after {} it was foreseen: {why}", seconds(*at)));
        }
        Verdict { broken }
    }
}

/// A time for a person.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course() -> Course {
        Course {
            ended: Ended::Completed,
            begun: Instant::now(),
            total: Duration::from_secs(9),
            stopped_at: Some(Duration::from_millis(8_800)),
            limited_from: Some(Duration::from_secs(3)),
            qemu_downtime: Some(Duration::from_millis(200)),
            beside_downtime: Duration::from_millis(50),
            lost: None,
            passes: Vec::new(),
            sent_mib: 512.0,
        }
    }

    const PROMISE: Promise = Promise {
        within: Duration::from_secs(10),
        downtime: Duration::from_millis(300),
    };

    #[test]
    fn both_halves_of_the_promise_count() {
        assert!(course().judge(PROMISE).is_kept());
        let late = Promise {
            within: Duration::from_secs(8),
            ..PROMISE
        };
        assert_eq!(course().judge(late).broken, ["it took 9.0 s instead of 8.0 s"]);
        let short = Promise {
            downtime: Duration::from_millis(249),
            ..PROMISE
        };
        assert_eq!(
            course().judge(short).broken,
            ["the guest was away for 250 ms instead of 249"],
            "what QEMU leaves out counts"
        );
        let unknown = Course {
            qemu_downtime: None,
            ..course()
        };
        assert!(!unknown.judge(PROMISE).is_kept());
    }

    #[test]
    fn what_was_foreseen_is_told_only_if_it_came() {
        let lost = Some((Duration::from_secs(5), "the link is too slow".to_owned()));
        let kept = Course { lost, ..course() };
        assert!(kept.judge(PROMISE).is_kept());
        let failed = Course {
            ended: Ended::Failed("no route".to_owned()),
            ..kept
        };
        let broken = failed.judge(PROMISE).broken;
        assert_eq!(
            broken,
            [
                "it failed: no route",
                "after 5.0 s it was foreseen: the link is too slow"
            ]
        );
    }
}
