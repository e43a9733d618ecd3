//! A target without a machine, for tests: time passes when somebody waits, and the limiter does what it is told, down to
//! a floor.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use dirtyrig_limiter::{
    limit::{LimitInfo, Which},
    units::{MibPerSec, PAGES_PER_MIB, Quota},
};

use super::{
    interrupt::{Clock, Waited},
    limits::{InForce, Limits, Whom},
    target::{Target, VcpuSnapshot},
};
use crate::model::Stall;

/// A clock that jumps to whatever is waited for.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    start: Instant,
    elapsed: Rc<Cell<Duration>>,
    interrupted_at: Duration,
}

impl Default for SimulatedClock {
    /// A clock at which nothing interrupts.
    fn default() -> Self {
        Self::interrupted_at(Duration::MAX)
    }
}

impl SimulatedClock {
    /// A clock at which the interrupt comes once `at` has passed.
    pub fn interrupted_at(at: Duration) -> Self {
        Self {
            start: Instant::now(),
            elapsed: Rc::default(),
            interrupted_at: at,
        }
    }

    /// How much time has passed.
    pub fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        self.start + self.elapsed.get()
    }

    fn wait_until(&self, deadline: Instant) -> Waited {
        let until = deadline.saturating_duration_since(self.start);
        self.elapsed.set(self.elapsed.get().max(until.min(self.interrupted_at)));
        if until > self.interrupted_at {
            Waited::Interrupted
        } else {
            Waited::Reached
        }
    }
}

/// vCPUs that write at a rate, each with its own limit.
#[derive(Debug)]
pub struct SimulatedTarget {
    clock: SimulatedClock,
    updated: Cell<Duration>,
    unlimited_mib_s: f64,
    floor_mib_s: f64,
    vcpus: RefCell<Vec<SimulatedVcpu>>,
    /// Every command that it was given, with its time.
    pub commands: Rc<RefCell<Vec<(Duration, String)>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SimulatedVcpu {
    plugged: bool,
    limit: Option<Quota>,
    written_pages: f64,
    in_guest: Duration,
}

impl SimulatedTarget {
    /// `vcpus` of them, all plugged, that write at `unlimited_mib_s` and can't be held below `floor_mib_s`.
    pub fn new(clock: &SimulatedClock, vcpus: usize, unlimited_mib_s: f64, floor_mib_s: f64) -> Self {
        Self {
            clock: clock.clone(),
            updated: Cell::new(clock.elapsed()),
            unlimited_mib_s,
            floor_mib_s,
            vcpus: RefCell::new(vec![
                SimulatedVcpu {
                    plugged: true,
                    ..SimulatedVcpu::default()
                };
                vcpus
            ]),
            commands: Rc::default(),
        }
    }

    fn rate(&self, vcpu: &SimulatedVcpu) -> f64 {
        match vcpu.limit {
            _ if !vcpu.plugged => 0.0,
            None => self.unlimited_mib_s,
            Some(quota) => quota.mib_per_sec().max(self.floor_mib_s).min(self.unlimited_mib_s),
        }
    }

    fn catch_up(&self) {
        let now = self.clock.elapsed();
        let span = now.saturating_sub(self.updated.replace(now));
        for vcpu in self.vcpus.borrow_mut().iter_mut() {
            let rate = self.rate(vcpu);
            vcpu.written_pages += rate * span.as_secs_f64() * PAGES_PER_MIB as f64;
            vcpu.in_guest += span.mul_f64(rate / self.unlimited_mib_s);
        }
    }

    fn command(&self, words: String, which: Which, change: impl Fn(&mut SimulatedVcpu)) {
        self.catch_up();
        self.commands.borrow_mut().push((self.clock.elapsed(), words));
        let mut vcpus = self.vcpus.borrow_mut();
        match which {
            Which::All => vcpus.iter_mut().for_each(change),
            Which::One(vcpu) => change(&mut vcpus[vcpu]),
        }
    }
}

impl Limits for SimulatedTarget {
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()> {
        let Whom::Vcpus(which) = whom else {
            anyhow::bail!("it can't hold one quota for the whole VM")
        };
        self.command(format!("set {} {which:?}", quota.mib_per_sec()), which, |vcpu| {
            vcpu.limit = Some(quota);
        });
        Ok(())
    }

    fn cancel(&self, whom: Whom) -> anyhow::Result<()> {
        if let Whom::Vcpus(which) = whom {
            self.command(format!("cancel {which:?}"), which, |vcpu| vcpu.limit = None);
        }
        Ok(())
    }

    fn set_burst(&self, _: Duration) -> anyhow::Result<()> {
        anyhow::bail!("it saves nothing up")
    }

    fn query(&self) -> anyhow::Result<InForce> {
        let vcpus = self.vcpus.borrow();
        let limits = vcpus.iter().enumerate().filter_map(|(index, vcpu)| {
            vcpu.limit.map(|quota| LimitInfo {
                vcpu: index,
                quota,
                current: MibPerSec(self.rate(vcpu)),
            })
        });
        Ok(InForce {
            vcpus: limits.collect(),
            vm: None,
        })
    }
}

impl Target for SimulatedTarget {
    fn vmm(&self) -> &'static str {
        "simulated"
    }

    fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    fn max_vcpus(&self) -> usize {
        self.vcpus.borrow().len()
    }

    fn snapshot(&mut self) -> anyhow::Result<Vec<VcpuSnapshot>> {
        self.catch_up();
        Ok(self
            .vcpus
            .borrow()
            .iter()
            .map(|vcpu| VcpuSnapshot {
                plugged: vcpu.plugged,
                written_pages: Some(vcpu.written_pages as u64),
                harvested_pages: Some(vcpu.written_pages as u64),
                in_guest: Some(vcpu.in_guest),
                ..VcpuSnapshot::default()
            })
            .collect())
    }

    fn take_stalls(&mut self) -> Vec<Stall> {
        let now = self.clock.elapsed();
        let length = Duration::from_millis(1);
        vec![Stall {
            vcpu: 0,
            at: now,
            length,
            asked: length,
            slept: length,
        }]
    }

    fn limits(&self) -> Box<dyn Limits + '_> {
        Box::new(self)
    }

    fn plug(&mut self, vcpu: usize) -> anyhow::Result<()> {
        self.command(format!("plug {vcpu}"), Which::One(vcpu), |vcpu| vcpu.plugged = true);
        Ok(())
    }

    fn unplug(&mut self, vcpu: usize) -> anyhow::Result<()> {
        self.command(format!("unplug {vcpu}"), Which::One(vcpu), |vcpu| vcpu.plugged = false);
        Ok(())
    }

    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}
