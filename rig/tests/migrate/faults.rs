//! What goes wrong on the way: the source is unharmed and free, and the words are clear.

use std::{
    thread,
    time::{Duration, Instant},
};

use dirtyrig_rig::{
    engine::interrupt::Interrupt,
    migrate::{
        bandwidth::Bandwidth,
        course::{Course, Ended},
        drive::{Now, Order, Watch, drive, promise},
        error::MigrateError,
        monitor::Monitor,
        pair::Pair,
        promise::{Circumstances, Host, depth},
        strategy::Strategy,
    },
    outside::Limiter,
    qemu::binary::Binary,
};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::{LINK_MIB_S, promised};

/// Does something once the limit is in force.
struct Meanwhile<'a> {
    act: Option<Box<dyn FnOnce() + 'a>>,
    said: Vec<String>,
    acted_at: Option<Instant>,
}

impl Watch for Meanwhile<'_> {
    fn pass(&mut self, _: &dirtyrig_rig::migrate::course::Pass) -> anyhow::Result<()> {
        Ok(())
    }

    fn progress(&mut self, now: &Now) -> anyhow::Result<()> {
        if now.quota.is_some()
            && now.at > Duration::from_millis(700)
            && let Some(act) = self.act.take()
        {
            self.acted_at = Some(Instant::now());
            act();
        }
        Ok(())
    }

    fn said(&mut self, text: &str) {
        self.said.push(text.to_owned());
    }
}

/// What came of a migration during which something was done.
struct Disturbed {
    pair: Pair,
    monitor: Monitor,
    course: Course,
    said: Vec<String>,
    before: (Value, Value),
}

fn disturb(binary: &Binary, interrupt: &Interrupt, act: impl FnOnce(&mut Pair)) -> Result<Disturbed, Failed> {
    let setup = promised(1.6)?;
    let mut pair = Pair::start(binary, &setup.guest)?;
    let mut monitor = Monitor::connect(&pair.source.socket())?;
    let before = settings(&mut monitor)?;
    let order = Order {
        uri: Some(pair.connect(&mut monitor, setup.link)?),
        strategy: Strategy::Dirtyrig,
        promise: setup.promise,
        circumstances: Circumstances {
            memory: monitor.memory()?,
            in_use: monitor.memory()?,
            dirtying: None,
            vcpus: 1,
            ring_entries: setup.guest.ring_entries,
            bandwidth: setup.link.rate(),
            max_stall: setup.max_stall,
            host: Host::here(),
        },
        max_bandwidth: Some(0),
        give_up: Some(Duration::from_mins(1)),
    };
    let plan = promise(&order)?;
    let limiter = Limiter::attach(pair.source.pid(), depth(setup.max_stall))?;
    let mut watch = Meanwhile {
        act: Some(Box::new(|| act(&mut pair))),
        said: Vec::new(),
        acted_at: None,
    };
    let course = drive(&mut monitor, &order, Some((&plan, &limiter)), &mut watch, interrupt)?;
    assert!(watch.act.is_none(), "the limit was in force: {course:?}");
    let said = std::mem::take(&mut watch.said);
    drop(watch);
    drop(limiter);
    Ok(Disturbed {
        pair,
        monitor,
        course,
        said,
        before,
    })
}

fn settings(monitor: &mut Monitor) -> Result<(Value, Value), Failed> {
    Ok(monitor.settings()?)
}

impl Disturbed {
    /// The guest runs, nobody holds it, and QEMU's settings are as they were.
    fn is_unharmed(&mut self) -> Result<(), Failed> {
        let held = self.pair.source.pid();
        let tracer = |task: &str| {
            let status = std::fs::read_to_string(format!("{task}/status")).unwrap_or_default();
            status
                .lines()
                .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        };
        for task in std::fs::read_dir(format!("/proc/{held}/task"))?.flatten() {
            assert!(
                !tracer(&task.path().display().to_string()),
                "{} is traced",
                task.path().display()
            );
        }
        let written = || self.pair.source.truth(0).written;
        let before = written();
        let begun = Instant::now();
        while written() < before + 2_000 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the guest doesn't run");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(settings(&mut self.monitor)?, self.before);
        Ok(())
    }
}

pub(crate) fn the_receiver_is_killed(binary: &Binary) -> Result<(), Failed> {
    let kill = |pair: &mut Pair| pair.destination.kill().expect("killed");
    let mut disturbed = disturb(binary, &Interrupt::default(), kill)?;
    assert!(
        matches!(disturbed.course.ended, Ended::Failed(_)),
        "{:?}",
        disturbed.course
    );
    disturbed.is_unharmed()
}

pub(crate) fn the_link_is_cut(binary: &Binary) -> Result<(), Failed> {
    let cut = |pair: &mut Pair| pair.cut().expect("cut");
    let mut disturbed = disturb(binary, &Interrupt::default(), cut)?;
    assert!(
        matches!(disturbed.course.ended, Ended::Failed(_)),
        "{:?}",
        disturbed.course
    );
    disturbed.is_unharmed()
}

pub(crate) fn the_link_slows_down(binary: &Binary) -> Result<(), Failed> {
    let slow = |pair: &mut Pair| {
        let quarter = Bandwidth::of_bytes((LINK_MIB_S << 20) / 4);
        pair.pace(quarter).expect("paced");
    };
    let disturbed = disturb(binary, &Interrupt::default(), slow)?;
    // It is said while it goes on, and it ends all the same.
    assert_eq!(disturbed.course.ended, Ended::Completed);
    let (at, why) = disturbed.course.lost.as_ref().ok_or("it was foreseen")?;
    assert!(
        *at < disturbed.course.total && why.contains("the link carries"),
        "{why}"
    );
    assert!(
        disturbed.said.iter().any(|text| text.contains("not sure to be kept")),
        "{:?}",
        disturbed.said
    );
    Ok(())
}

pub(crate) fn interrupted(binary: &Binary) -> Result<(), Failed> {
    let interrupt = Interrupt::default();
    let mut disturbed = disturb(binary, &interrupt, |_| interrupt.set())?;
    assert_eq!(disturbed.course.ended, Ended::Cancelled);
    disturbed.is_unharmed()
}

pub(crate) fn paused_or_under_way(binary: &Binary) -> Result<(), Failed> {
    let setup = promised(1.6)?;
    let mut pair = Pair::start(binary, &setup.guest)?;
    let mut monitor = Monitor::connect(&pair.source.socket())?;
    monitor.check()?;
    monitor.command("stop", &Value::Null)?;
    let error = monitor.check().expect_err("it is paused");
    assert!(
        matches!(error, MigrateError::NotRunning { .. }) && error.to_string().contains("`cont`"),
        "{error}"
    );
    monitor.command("cont", &Value::Null)?;
    let uri = pair.connect(&mut monitor, setup.link)?;
    monitor.command("migrate", &json!({ "uri": uri }))?;
    let error = monitor.check().expect_err("one is under way");
    assert!(matches!(error, MigrateError::UnderWay { .. }), "{error}");
    Ok(())
}
