//! One quota for a whole machine, shared by its vCPUs: max-min fair, and nothing is lost that somebody has room for.
//!
//! ```text
//!   income ──▶ one bucket a vCPU, in equal parts ──▶ all full: the reserve ──▶ full: lost
//!                      ▲                                  │
//!                      └──── a bucket with room again ◀───┘
//! ```
//!
//! Tokens come in at the rate of the machine's quota and are poured into one bucket a vCPU, in equal parts. A bucket
//! that is full takes no more and its part goes to the others, at once: so an idle vCPU costs nobody anything and yet
//! has its grant ready when it wakes. No demand is estimated, so none is estimated wrongly, and there is no interval
//! after which shares would change.
//!
//! What none of them has room for is saved up in a reserve, which is the machine's: whoever spends its bucket is served
//! from it, in equal parts where several do. So the buckets are small, a sixteenth of the burst in all, and what idle
//! vCPUs hold back from a busy one is no more than that.
//!
//! Limits of single vCPUs go on top, see [`accounts`](super::accounts): the bucket of a vCPU that its own limit keeps from
//! using its part stays full and overflows to the others, which is what max-min fairness with caps asks for.
//!
//! Buckets and reserve are together as large as the one of a [`Budget`](super::budget::Budget), so the guarantee is the
//! same: together they dirty at most `quota x window + burst` in any window. A pause is `max_stall` when all are limited,
//! and down to `max_stall / n` for a vCPU that has the quota to itself. A vCPU that joins makes the buckets of the others
//! smaller. A grant that is out is not taken back from its vCPU: it is cut when it is charged next. Until then they may
//! dirty as much more as the bucket of the one that joined holds.

use std::time::Duration;

use super::{
    depth::{Depth, resume_level},
    tokens::{FilledAt, TokenRate, Tokens},
};
use crate::units::{Pages, Quota};

/// The burst is this many times what the buckets hold: the reserve has the rest. A vCPU that writes at full speed on what
/// was saved up is charged each time it has spent its bucket.
const BUCKETS_OF_BURST: usize = 16;

/// The buckets of a machine whose vCPUs share one quota.
#[derive(Clone, Debug)]
pub struct VmBudget {
    rate: TokenRate,
    depth: Depth,
    /// By vCPU index; `None` for one that takes no part.
    levels: Vec<Option<Tokens>>,
    /// What came in while every bucket was full.
    reserve: Tokens,
    filled_at: FilledAt,
}

impl VmBudget {
    /// No vCPU takes part yet.
    pub fn new(now: Duration, quota: Quota, depth: Depth) -> Self {
        Self {
            rate: TokenRate::of(quota),
            depth,
            levels: Vec::new(),
            reserve: Tokens::ZERO,
            filled_at: FilledAt::new(now),
        }
    }

    /// Changes the machine's quota, as [`Budget::set_quota`](super::budget::Budget::set_quota) does.
    pub fn set_quota(&mut self, now: Duration, quota: Quota) {
        self.fill(now);
        let rate = TokenRate::of(quota);
        if rate != self.rate {
            for level in self.levels.iter_mut().flatten() {
                *level = level.repriced(self.rate, rate);
            }
            self.rate = rate;
        }
    }

    /// Changes how much may be saved up, and how long pauses are.
    pub fn set_depth(&mut self, now: Duration, depth: Depth) {
        self.fill(now);
        self.depth = depth;
    }

    /// `vcpu` takes part from now on, with an empty bucket. One that takes part already keeps its own, but for what that
    /// has no room for since a change.
    pub fn join(&mut self, now: Duration, vcpu: usize) {
        self.fill(now);
        if self.levels.len() <= vcpu {
            self.levels.resize(vcpu + 1, None);
        }
        self.levels[vcpu].get_or_insert_default();
        self.cut(vcpu);
    }

    /// `vcpu` takes no part any more; what its bucket holds, or owes, is lost.
    pub fn leave(&mut self, now: Duration, vcpu: usize) {
        self.fill(now);
        if let Some(level) = self.levels.get_mut(vcpu) {
            *level = None;
        }
    }

    /// Takes `pages` out of the bucket of `vcpu`; returns the pause that is due, zero for none.
    pub fn charge(&mut self, now: Duration, vcpu: usize, pages: Pages) -> Duration {
        self.fill(now);
        if let Some(level) = self.level_mut(vcpu) {
            *level = level.minus(pages.into());
        }
        self.cut(vcpu);
        self.pause(now, vcpu)
    }

    /// The pause that is due at `now`, zero for none: until the refill is there if nobody else is charged meanwhile.
    /// Ask again when it is over, because somebody may have been. No pause for a vCPU that takes no part.
    pub fn pause(&mut self, now: Duration, vcpu: usize) -> Duration {
        self.fill(now);
        let refill = self.refill_level();
        match self.level_mut(vcpu) {
            Some(&mut level) if level < resume_level(refill) => {
                // For one part to become this much, every other becomes as much, or full. The reserve is empty, because
                // this one has room.
                let missing = refill.minus(level);
                let bucket = self.bucket_level();
                self.rate.time_for(
                    self.levels
                        .iter()
                        .flatten()
                        .map(|&other| bucket.minus(other).or_zero().min(missing))
                        .sum(),
                )
            }
            _ => Duration::ZERO,
        }
    }

    /// How many pages `vcpu` may dirty before it is charged again; `None` if it takes no part.
    pub fn grant(&mut self, now: Duration, vcpu: usize) -> Option<Pages> {
        self.fill(now);
        self.level_mut(vcpu).map(|level| level.whole_pages())
    }

    /// The most pages that all of them can have been granted at one time.
    pub fn burst(&self) -> Pages {
        self.depth.burst(self.rate, self.joined()).whole_pages()
    }

    fn level_mut(&mut self, vcpu: usize) -> Option<&mut Tokens> {
        self.levels.get_mut(vcpu)?.as_mut()
    }

    fn joined(&self) -> usize {
        self.levels.iter().flatten().count()
    }

    fn fill(&mut self, now: Duration) {
        let income = self.rate.during(self.filled_at.advance(now));
        let joined = self.joined();
        if joined == 0 {
            self.reserve = Tokens::ZERO;
            return;
        }
        let bucket = self.bucket_level();
        let rooms: Vec<Tokens> = self.levels.iter().flatten().map(|&level| bucket.minus(level)).collect();
        let mut left = self.reserve.plus(income);
        for (level, part) in self.levels.iter_mut().flatten().zip(max_min(left, &rooms)) {
            *level = level.plus(part);
            left = left.minus(part);
        }
        self.reserve = left.min(self.depth.burst(self.rate, joined).minus(bucket.times(joined)));
    }

    /// Takes out of the bucket of `vcpu`, which has no grant that is out, what it has no room for.
    fn cut(&mut self, vcpu: usize) {
        let bucket = self.bucket_level();
        if let Some(level) = self.level_mut(vcpu) {
            *level = bucket.min(*level);
        }
    }

    /// What a pause of one vCPU waits for.
    fn refill_level(&self) -> Tokens {
        self.depth.refill(self.rate, self.joined())
    }

    /// How much the bucket of one vCPU holds.
    fn bucket_level(&self) -> Tokens {
        let joined = self.joined();
        let part = self.depth.burst(self.rate, joined).divided(joined * BUCKETS_OF_BURST).0;
        part.max(self.refill_level().times(2))
    }
}

/// Shares `total` among those who have room for `rooms`, max-min fair: nobody gets more than there is room for; who gets
/// less than that gets as much as anybody else (to the unit, the first few getting one more); and all of `total` is
/// shared as far as there is room.
fn max_min(total: Tokens, rooms: &[Tokens]) -> Vec<Tokens> {
    let mut smallest_first: Vec<usize> = (0..rooms.len()).collect();
    smallest_first.sort_by_key(|&index| rooms[index]);
    let mut parts = vec![Tokens::ZERO; rooms.len()];
    let mut left = total;
    for (served, &index) in smallest_first.iter().enumerate() {
        let (equal, rest) = left.divided(rooms.len() - served);
        let offered = if rest > Tokens::ZERO {
            equal.plus(Tokens::UNIT)
        } else {
            equal
        };
        parts[index] = offered.min(rooms[index].or_zero());
        left = left.minus(parts[index]);
    }
    parts
}

#[cfg(test)]
mod tests;
