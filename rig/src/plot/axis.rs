//! Axes: a range, a scale, and ticks that a person would choose.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// How much of a logarithmic axis that starts from zero is kept for the zero.
const ZERO_SHARE: f64 = 0.09;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
    /// Logarithmic, with a place of its own for zero at the low end.
    LogAndZero,
}

/// A range of values with its title, scale and ticks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    /// Quantity and unit.
    pub(crate) title: String,
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
    /// Whether a line is drawn across the panel at each tick.
    pub(crate) grid: bool,
}

impl Axis {
    /// From `low` to `high` rounded out to ticks at 1, 2 or 5 times a power of ten, at most about `most` of them.
    pub(crate) fn linear(title: &str, low: f64, high: f64, most: usize) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = nice_step((high - low) / most as f64);
        let (first, last) = ((low / step).floor(), (high / step - 1e-9).ceil());
        let ticks = (0..=(last - first) as usize)
            .map(|i| (first + i as f64) * step)
            .map(|value| (value, number(value)))
            .collect();
        Self {
            title: title.to_owned(),
            scale: Scale::Linear,
            low: first * step,
            high: last * step,
            ticks,
            grid: true,
        }
    }

    /// As `linear`, but ending exactly at `low` and `high`: for time, which is not rounded out.
    pub(crate) fn span(title: &str, low: f64, high: f64, most: usize) -> Self {
        let mut axis = Self::linear(title, low, high, most);
        (axis.low, axis.high) = (low, if high > low { high } else { low + 1.0 });
        axis.ticks.retain(|(value, _)| (axis.low..=axis.high).contains(value));
        axis
    }

    /// Logarithmic with ticks at powers of two, at most about `most` of them, for values from `low` to `high`.
    pub(crate) fn powers_of_two(title: &str, low: f64, high: f64, most: usize) -> Self {
        let (low, high) = positive(low, high);
        let (first, mut last) = ((low.log2() + 1e-9).floor() as i32, (high.log2() - 1e-9).ceil() as i32);
        if last <= first {
            last = first + 1;
        }
        let step = ((last - first) as usize).div_ceil(most.max(1)).max(1) as i32;
        // Ticks stand at multiples of the step, so that figures with different ranges agree on them.
        let ticks = (first..=last)
            .filter(|exponent| exponent.rem_euclid(step) == 0)
            .map(|exponent| f64::from(exponent).exp2())
            .map(|value| (value, number(value)))
            .collect();
        Self::log(title, f64::from(first).exp2(), f64::from(last).exp2(), ticks)
    }

    /// Logarithmic with ticks at 1, 2 and 5 times powers of ten, or only at the powers where there are more than `most`.
    pub(crate) fn decades(title: &str, low: f64, high: f64, most: usize) -> Self {
        let (low, high) = positive(low, high);
        let ladder: Vec<f64> = (-9..=12)
            .flat_map(|exponent| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(exponent)))
            .collect();
        let bottom = ladder.iter().rposition(|v| *v <= low * (1.0 + 1e-9)).unwrap_or(0);
        let top = ladder
            .iter()
            .position(|v| *v >= high * (1.0 - 1e-9))
            .unwrap_or(ladder.len() - 1)
            .max(bottom + 1)
            .min(ladder.len() - 1);
        let inside = &ladder[bottom..=top];
        let sparse = inside.len() > most;
        let ticks = (bottom..=top)
            .filter(|rung| !sparse || rung % 3 == 0)
            .map(|rung| (ladder[rung], number(ladder[rung])))
            .collect();
        Self::log(title, inside[0], inside[inside.len() - 1], ticks)
    }

    /// Logarithmic from `low` to `high` with the ticks given.
    pub(crate) fn log(title: &str, low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        Self {
            title: title.to_owned(),
            scale: Scale::Log,
            low,
            high,
            ticks,
            grid: true,
        }
    }

    /// One band a label, the first at the low end; the middle of band `i` is at `i + 0.5`.
    pub(crate) fn bands(title: &str, labels: impl IntoIterator<Item = String>) -> Self {
        let ticks: Vec<_> = labels
            .into_iter()
            .enumerate()
            .map(|(i, label)| (i as f64 + 0.5, label))
            .collect();
        Self {
            title: title.to_owned(),
            scale: Scale::Linear,
            low: 0.0,
            high: ticks.len() as f64,
            ticks,
            grid: false,
        }
    }

    /// Keeps a place for zero at the low end of a logarithmic axis.
    pub(crate) fn and_zero(mut self) -> Self {
        self.scale = Scale::LogAndZero;
        self.ticks.insert(0, (0.0, "0".to_owned()));
        self
    }

    /// Leaves out ticks whose labels would touch on an axis `length` long: every second, every third, until it fits.
    /// A kept zero stays, whatever has to go for it.
    pub(crate) fn thin(&mut self, length: f64, size: impl Fn(&str) -> f64) {
        let fits = |ticks: &[(f64, String)]| {
            ticks.windows(2).all(|pair| {
                let apart = (self.share(pair[1].0) - self.share(pair[0].0)) * length;
                apart >= f64::midpoint(size(&pair[0].1), size(&pair[1].1))
            })
        };
        let zeros = usize::from(self.keeps_zero());
        let (zero, others) = self.ticks.split_at(zeros.min(self.ticks.len()));
        let every = |step: usize| -> Vec<(f64, String)> { others.iter().step_by(step).cloned().collect() };
        let mut kept = (1..=others.len())
            .map(every)
            .find(|ticks| fits(ticks))
            .unwrap_or_default();
        if let (Some(zero), false) = (zero.first(), kept.is_empty()) {
            if !fits(&[zero.clone(), kept[0].clone()]) {
                kept.remove(0);
            }
            kept.insert(0, zero.clone());
        }
        self.ticks = kept;
    }

    /// Whether zero has a place of its own.
    pub(crate) fn keeps_zero(&self) -> bool {
        self.scale == Scale::LogAndZero
    }

    /// The value at the low end that is not a kept zero.
    pub(crate) fn low(&self) -> f64 {
        self.low
    }

    /// The value at the high end.
    pub(crate) fn high(&self) -> f64 {
        self.high
    }

    /// The place of `value` along the axis, from 0 to 1; what is off the axis stands at its end.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let log = || (value / self.low).ln() / (self.high / self.low).ln();
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log if value > 0.0 => log(),
            Scale::LogAndZero if value > 0.0 => ZERO_SHARE + (1.0 - ZERO_SHARE) * log().max(0.0),
            Scale::Log | Scale::LogAndZero => 0.0,
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Which end `value` lies beyond, if any.
    pub(crate) fn beyond(&self, value: f64) -> Option<End> {
        // Rounding in the data must not push a point that stands at the very end over it.
        let slack = 1e-9 * self.high.abs();
        if value > self.high + slack {
            Some(End::High)
        } else if value < self.low - slack && !(self.scale == Scale::LogAndZero && value <= 0.0) {
            Some(End::Low)
        } else {
            None
        }
    }

    /// The label of the tick at `value`.
    pub(crate) fn label(&self, value: f64) -> String {
        self.ticks
            .iter()
            .find(|(tick, _)| tick.total_cmp(&value).is_eq())
            .map(|(_, label)| label.clone())
            .unwrap_or_default()
    }

    /// The labels of all ticks.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.ticks.iter().map(|(_, label)| label.as_str())
    }
}

/// An end of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Low,
    High,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.label(*value)
    }
}

/// A number as a person writes it: no exponent, no needless zeros, thousands set apart.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let places = if size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else if size >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{size:.places$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let mut out = String::new();
    if value < 0.0 && text != "0" {
        out.push('\u{2212}');
    }
    for (i, digit) in whole.chars().enumerate() {
        // Four digits are read at a glance; 65,536 is not.
        if i > 0 && whole.len() > 4 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `least`.
fn nice_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|digit| digit * decade)
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * decade)
}

/// A range a logarithm can take.
fn positive(low: f64, high: f64) -> (f64, f64) {
    let high = if high > 0.0 { high } else { 1.0 };
    let low = if low > 0.0 { low.min(high) } else { high / 2.0 };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.labels().collect()
    }

    #[test]
    fn ticks_are_what_a_person_would_choose() {
        assert_eq!(
            labels(&Axis::powers_of_two("", 20.0, 300.0, 9)),
            ["16", "32", "64", "128", "256", "512"]
        );
        assert_eq!(labels(&Axis::powers_of_two("", 0.3, 0.9, 9)), ["0.25", "0.5", "1"]);
        assert_eq!(
            labels(&Axis::linear("", 0.0, 93.0, 5)),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            labels(&Axis::decades("", 1.5, 40.0, 9)),
            ["1", "2", "5", "10", "20", "50"]
        );
        assert_eq!(labels(&Axis::span("", -3.0, 12.0, 4)), ["0", "5", "10"]);
    }

    #[test]
    fn an_axis_without_extent_still_has_one() {
        for axis in [
            Axis::linear("", 5.0, 5.0, 5),
            Axis::powers_of_two("", 4.0, 4.0, 5),
            Axis::powers_of_two("", 0.0, 0.0, 5),
            Axis::decades("", 10.0, 10.0, 5),
        ] {
            assert!(axis.high() > axis.low() && axis.labels().count() > 0, "{axis:?}");
        }
    }

    #[test]
    fn values_stand_between_the_ends() {
        let axis = Axis::powers_of_two("", 1.0, 1024.0, 12);
        assert!((axis.share(32.0) - 0.5).abs() < 1e-9);
        assert!([0.0, -5.0, f64::NAN].iter().all(|value| axis.share(*value) <= 0.0));
        assert!(axis.share(1e12) >= 1.0 && axis.beyond(1e12) == Some(End::High));
        assert_eq!(axis.beyond(0.0), Some(End::Low));
        let axis = axis.and_zero();
        assert!(axis.beyond(0.0).is_none() && axis.share(1.0) > axis.share(0.0));
    }

    #[test]
    fn ticks_that_would_touch_are_thinned() {
        let mut axis = Axis::powers_of_two("", 1.0, 1024.0, 12).and_zero();
        axis.thin(60.0, |_| 14.0);
        assert_eq!(labels(&axis)[0], "0");
        assert!(axis.labels().count() <= 5, "{:?}", labels(&axis));
    }

    #[test]
    fn numbers_read_as_a_person_writes_them() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (25.0, "25"),
            (1024.0, "1024"),
            (65536.0, "65,536"),
            (-3.5, "\u{2212}3.5"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
