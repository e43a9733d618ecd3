//! What is known of a guest's dirtying: how many distinct pages it writes in a window, by the window's length.

use std::time::Duration;

use crate::units::Pages;

/// Halvings of a time until it is exact to one part in a million.
const HALVINGS: u32 = 20;

/// Distinct pages by window length, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Dirtying {
    /// Seconds and pages, both ascending.
    windows: Vec<(f64, f64)>,
    /// The share of its time in which it writes nothing, whatever it is allowed to.
    idle: f64,
}

impl Dirtying {
    /// Takes what was measured, in any order. A longer window counts at least as much as a shorter one, and a shorter one at
    /// least its part of a longer one. What is seen of a guest that writes in bursts depends on the moment. `None` if there
    /// is no window that lasts.
    pub fn new(windows: impl IntoIterator<Item = (Duration, Pages)>) -> Option<Self> {
        let mut windows: Vec<(f64, f64)> = windows
            .into_iter()
            .filter(|(window, _)| !window.is_zero())
            .map(|(window, pages)| (window.as_secs_f64(), pages.0 as f64))
            .collect();
        windows.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut most: f64 = 0.0;
        for (_, pages) in &mut windows {
            most = most.max(*pages);
            *pages = most;
        }
        for index in (1..windows.len()).rev() {
            let part = windows[index].1 * windows[index - 1].0 / windows[index].0;
            windows[index - 1].1 = windows[index - 1].1.max(part);
        }
        (!windows.is_empty()).then_some(Self { windows, idle: 0.0 })
    }

    /// The same of a guest that writes nothing for this share of its time, between 0 and 1: it waits for something that a limit
    /// doesn't slow down.
    #[must_use]
    pub fn with_idle(self, share: f64) -> Self {
        let idle = share.clamp(0.0, 1.0);
        Self { idle, ..self }
    }

    /// Distinct pages in a window.
    pub fn pages_in(&self, window: Duration) -> Pages {
        Pages(self.distinct(window.as_secs_f64()).round() as u64)
    }

    /// Distinct pages in `seconds`: in a straight line between what was measured, and on along the last one beyond it.
    pub(super) fn distinct(&self, seconds: f64) -> f64 {
        let (from, to) = self.line(|(window, _)| seconds <= window);
        from.1 + (to.1 - from.1) * (seconds - from.0) / (to.0 - from.0).max(f64::MIN_POSITIVE)
    }

    /// Seconds until `pages` distinct ones are written; infinite if that never happens.
    pub(super) fn takes(&self, pages: f64) -> f64 {
        let (from, to) = self.line(|(_, distinct)| pages <= distinct);
        let per_second = (to.1 - from.1) / (to.0 - from.0).max(f64::MIN_POSITIVE);
        if pages <= from.1 {
            from.0
        } else if per_second > 0.0 {
            from.0 + (pages - from.1) / per_second
        } else {
            f64::INFINITY
        }
    }

    /// How long the guest, free, would take for what it does in `seconds` if it is charged for each distinct page once, at `quota`
    /// pages per second.
    pub(super) fn unslowed(&self, quota: f64, seconds: f64) -> f64 {
        let takes = |free: f64| (self.distinct(free) / quota).max(free * (1.0 - self.idle)) + free * self.idle;
        let (mut least, mut most) = (0.0, seconds);
        if takes(most) <= seconds {
            return most;
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(least, most);
            *(if takes(middle) <= seconds {
                &mut least
            } else {
                &mut most
            }) = middle;
        }
        least
    }

    /// The first line between two windows that ends beyond what is looked for; else the last one.
    fn line(&self, is_beyond: impl Fn((f64, f64)) -> bool) -> ((f64, f64), (f64, f64)) {
        let last = self.windows.len() - 1;
        let index = self
            .windows
            .iter()
            .position(|&window| is_beyond(window))
            .unwrap_or(last);
        let from = index.checked_sub(1).map_or((0.0, 0.0), |before| self.windows[before]);
        (from, self.windows[index])
    }

    /// The highest rate that was seen, in pages per second.
    pub(super) fn rate(&self) -> f64 {
        self.windows
            .iter()
            .map(|(seconds, pages)| pages / seconds)
            .fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lies_between_its_neighbours() {
        let at = |seconds, pages| (Duration::from_secs(seconds), Pages(pages));
        let known = Dirtying::new([at(4, 1_500), at(0, 9), at(1, 1_000), at(2, 900)]).expect("windows");
        let distinct = [0.0, 0.5, 1.0, 1.5, 3.0, 4.0, 8.0].map(|seconds| known.distinct(seconds).round() as u64);
        assert_eq!(
            distinct,
            [0, 500, 1_000, 1_000, 1_250, 1_500, 2_500],
            "never fewer in a longer one"
        );
        assert!((known.rate() - 1_000.0).abs() < 1e-9);
        let millis = [0.0, 500.0, 1_000.0, 1_250.0, 2_500.0].map(|pages| (known.takes(pages) * 1e3).round() as u64);
        assert_eq!(millis, [0, 500, 1_000, 3_000, 8_000]);
        let burst = Dirtying::new([at(1, 0), at(2, 0), at(4, 4_000)]).expect("windows");
        assert!(
            (burst.distinct(1.0) - 1_000.0).abs() < 1e-9,
            "it was looked at between bursts"
        );
        let settled = Dirtying::new([at(1, 10), at(2, 10)]).expect("windows");
        assert!((settled.takes(10.0) - 1.0).abs() < 1e-9 && settled.takes(10.5).is_infinite());
        assert_eq!(Dirtying::new([at(0, 5)]), None);
    }
}
