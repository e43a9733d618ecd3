//! What is known of a guest's dirtying: how many distinct pages it writes in a window, by the window's length.

use std::time::Duration;

use crate::units::Pages;

/// Distinct pages by window length, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Dirtying {
    /// Seconds and pages, both ascending.
    windows: Vec<(f64, f64)>,
}

impl Dirtying {
    /// Takes what was measured, in any order; a longer window counts at least as much as a shorter one. `None` if there is
    /// no window that lasts.
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
        (!windows.is_empty()).then_some(Self { windows })
    }

    /// Distinct pages in `seconds`: in a straight line between what was measured. A window longer than the longest one that
    /// was measured is taken for several of those, which counts pages twice rather than not at all.
    pub(super) fn distinct(&self, seconds: f64) -> f64 {
        let (mut from, mut to) = ((0.0, 0.0), self.windows[0]);
        for &window in &self.windows {
            to = window;
            if seconds <= to.0 {
                return from.1 + (to.1 - from.1) * (seconds - from.0) / (to.0 - from.0).max(f64::MIN_POSITIVE);
            }
            from = to;
        }
        to.1 * seconds / to.0
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
        let known = Dirtying::new([at(4, 3_000), at(0, 9), at(1, 1_000), at(2, 900)]).expect("windows");
        let distinct = [0.0, 0.5, 1.0, 1.5, 3.0, 4.0, 8.0].map(|seconds| known.distinct(seconds).round() as u64);
        assert_eq!(
            distinct,
            [0, 500, 1_000, 1_000, 2_000, 3_000, 6_000],
            "never fewer in a longer one"
        );
        assert!((known.rate() - 1_000.0).abs() < 1e-9);
        assert_eq!(Dirtying::new([at(0, 5)]), None);
    }
}
