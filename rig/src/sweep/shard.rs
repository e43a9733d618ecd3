//! One share of a sweep's cells, so that several machines can run it at the same time.
//!
//! Every machine makes the same plan (the seed is given) and takes its own share of it; `dirtyrig merge` puts the
//! recordings together.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use super::{estimate::Estimate, plan::Plan};
use crate::{model::Shard, scenario::ScenarioError};

/// Why a plan can't be shared out.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There are more shares than cells.
    #[error("share {shard} of {cells} cells is empty: give at most {cells} shares")]
    Empty {
        /// Which share.
        shard: Shard,
        /// How many cells there are.
        cells: usize,
    },
    /// A cell of the plan is none.
    #[error(transparent)]
    Cell(#[from] ScenarioError),
}

impl Shard {
    /// The cells of `plan` that this share runs. All shares together are the plan, each cell once, and all take about
    /// the same time: the longest cells are given out first, each to the share that has least to do so far.
    pub fn cells(self, plan: &Plan) -> Result<BTreeSet<u32>, ShareError> {
        let mut cells = plan
            .cells
            .iter()
            .map(|cell| Ok((Reverse(Estimate::of(&cell.scenario()?).typical), cell.cell)))
            .collect::<Result<Vec<_>, ScenarioError>>()?;
        cells.sort_unstable();
        let mut loads = vec![Duration::ZERO; self.of as usize];
        let mut mine = BTreeSet::new();
        for (Reverse(typical), cell) in cells {
            let least = (0..loads.len())
                .min_by_key(|&share| loads[share])
                .expect("there is at least one share");
            loads[least] += typical;
            if least + 1 == self.index as usize {
                mine.insert(cell);
            }
        }
        if mine.is_empty() {
            let cells = plan.cells.len();
            return Err(ShareError::Empty { shard: self, cells });
        }
        Ok(mine)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::matrix(&toml::from_str(text).expect("valid settings"), 7).expect("valid cells")
    }

    /// Periods of 1 and 4 s, so that cells take very different times.
    fn uneven() -> Plan {
        plan("ring = [1024, 4096, 65536]\nperiod = ['1s', '4s']\nquota = [25, 500]\nrepetitions = 3")
    }

    proptest! {
        #[test]
        fn all_shares_together_are_the_plan(of in 1_u32..=36) {
            let plan = uneven();
            let mut seen = Vec::new();
            for index in 1..=of {
                seen.extend(Shard::new(index, of).unwrap().cells(&plan).unwrap());
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..36).collect::<Vec<_>>());
        }

        #[test]
        fn shares_differ_by_no_more_than_the_longest_cell(of in 1_u32..=12) {
            let plan = uneven();
            let typical = |cell: u32| {
                let planned = plan.cells.iter().find(|planned| planned.cell == cell).expect("a cell");
                Estimate::of(&planned.scenario().unwrap()).typical
            };
            let times: Vec<Duration> = (1..=of)
                .map(|index| Shard::new(index, of).unwrap().cells(&plan).unwrap().into_iter().map(typical).sum())
                .collect();
            let longest = (0..36).map(typical).max().unwrap();
            let (most, least) = (times.iter().max().unwrap(), times.iter().min().unwrap());
            prop_assert!(*most <= *least + longest, "{:?}", times);
        }
    }

    #[test]
    fn a_share_that_would_be_empty_is_refused() {
        let error = Shard::new(3, 3)
            .unwrap()
            .cells(&plan("ring = [1024, 4096]"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "share 3/3 of 2 cells is empty: give at most 2 shares"
        );
    }

    #[test]
    fn what_names_no_share_is_refused() {
        for (text, expected) in [
            ("3", "such as 1/4"),
            ("a/4", "such as 1/4"),
            ("1/", "such as 1/4"),
            ("0/4", "share 0 of 4 does not exist: the first is 1/4, the last 4/4"),
            ("5/4", "share 5 of 4"),
            ("1/0", "share 1 of 0"),
            ("-1/4", "such as 1/4"),
        ] {
            let error = text.parse::<Shard>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!("2/4".parse::<Shard>().unwrap().to_string(), "2/4");
    }
}
