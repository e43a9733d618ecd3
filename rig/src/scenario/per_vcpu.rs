//! Values that each vCPU has its own of: `25`, `500+none`, `sequential+reader`.

use std::{fmt, str::FromStr};

use dirtyrig_limiter::units::{Quota, QuotaError};

/// One value per vCPU, written with `+` between them; vCPUs beyond the last value get the last one again.
#[derive(Clone, Debug, PartialEq)]
pub struct PerVcpu<T>(Vec<T>);

impl<T> PerVcpu<T> {
    /// The same value for every vCPU.
    pub fn all(value: T) -> Self {
        Self(vec![value])
    }

    /// One value for each vCPU, of which there is at least one.
    pub fn each(mut values: Vec<T>) -> Self
    where
        T: PartialEq,
    {
        // What the last one says for the rest needs not be said again.
        while values.len() > 1 && values[values.len() - 1] == values[values.len() - 2] {
            values.pop();
        }
        Self(values)
    }

    /// How many values were written down.
    pub fn given(&self) -> usize {
        self.0.len()
    }
}

impl<T: Clone> PerVcpu<T> {
    /// One value for each of `vcpus`.
    pub fn spread(&self, vcpus: usize) -> Vec<T> {
        let last = self.0.last().expect("parsing and `all` leave at least one value");
        (0..vcpus)
            .map(|vcpu| self.0.get(vcpu).unwrap_or(last).clone())
            .collect()
    }
}

impl<T: FromStr> FromStr for PerVcpu<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.split('+')
            .map(|value| value.trim().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl<T: fmt::Display> fmt::Display for PerVcpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("+")?;
            }
            fmt::Display::fmt(value, f)?;
        }
        Ok(())
    }
}

/// A quota, or none: the vCPU runs unlimited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaybeQuota(pub Option<Quota>);

impl FromStr for MaybeQuota {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<Self, QuotaError> {
        if text == "none" {
            Ok(Self(None))
        } else {
            text.parse().map(|quota| Self(Some(quota)))
        }
    }
}

impl fmt::Display for MaybeQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(quota) => fmt::Display::fmt(&quota.mib_per_sec(), f),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_goes_to_the_remaining_vcpus() {
        let quotas: PerVcpu<MaybeQuota> = "500+none".parse().expect("two values");
        let spread: Vec<_> = quotas.spread(3).iter().map(ToString::to_string).collect();
        assert_eq!(spread, ["500", "none", "none"]);
        assert_eq!(quotas.to_string(), "500+none");
    }

    #[test]
    fn an_empty_value_is_an_error() {
        assert!("25+".parse::<PerVcpu<MaybeQuota>>().is_err());
        assert!("".parse::<PerVcpu<MaybeQuota>>().is_err());
    }

    #[test]
    fn quotas_that_are_no_rates_are_errors() {
        for text in ["-1", "0", "NaN", "inf", "fast"] {
            assert!(text.parse::<MaybeQuota>().is_err(), "{text}");
        }
    }
}
