//! How often the counters of all vCPUs are read.

use std::{cell::Cell, collections::BTreeSet, rc::Rc, time::Duration};

use dirtyrig_rig::{
    engine::interrupt::Interrupt,
    observe::{
        outlet::{Outlet, Report},
        session::{Ended, Session},
        watched::{Reading, Watched, Whom},
    },
};
use libtest_mimic::Failed;

use super::support::Guest;

const INTERVAL: Duration = Duration::from_secs(2);

/// Counts what it is handed.
#[derive(Default)]
struct Counted {
    readings: Rc<Cell<u32>>,
    reports: Rc<Cell<u32>>,
}

impl Outlet for Counted {
    fn reading(&mut self, _reading: &Reading) -> anyhow::Result<()> {
        self.readings.set(self.readings.get() + 1);
        Ok(())
    }

    fn report(&mut self, _report: &Report) -> anyhow::Result<()> {
        self.reports.set(self.reports.get() + 1);
        Ok(())
    }
}

/// One at the begin, one per second, one per report: no host is so fast that there are more.
pub(crate) fn as_asked() -> Result<(), Failed> {
    let guest = Guest::start(&["--ring", "1024"])?;
    let pids = BTreeSet::from([guest.pid().parse()?]);
    let counted = Counted::default();
    let (readings, reports) = (Rc::clone(&counted.readings), Rc::clone(&counted.reports));
    let session = Session {
        watched: Watched::attach(&Whom::Pids(pids.clone()), false)?,
        pids,
        interval: INTERVAL,
        duration: Some(INTERVAL),
        view: None,
        note: |text| {
            eprintln!("{text}");
        },
        outlets: vec![Box::new(counted)],
        to_stdout: false,
    };
    assert_eq!(session.run(&Interrupt::default())?, Ended::Done);
    assert_eq!(reports.get(), 1);
    assert!((2..=4).contains(&readings.get()), "{} readings", readings.get());
    Ok(())
}
