//! One migration, driven from its start to its end.
//!
//! ```text
//!   change settings ─▶ start ─▶ first pass ─▶ passes ─▶ STOP: limit lifted ─▶ completed ─┐
//!                       │        limited, or    each: solved                             ├─▶ settings as before
//!                       │        free until     again                                    │
//!                       └────────┴──────────────┴── failed, cancelled, interrupted ──────┘
//! ```
//!
//! The limit ends with the stop, with a failure, and with this process, however that ends: nobody but its limiter holds a
//! vCPU. A kill leaves QEMU's settings changed, and the migration going on without a limit.

use std::time::{Duration, Instant};

use dirtyrig_limiter::{
    law::migration::{Bounded, Plan, Task, again, plan},
    units::{MibPerSec, PAGE_SIZE, Pages},
};

use super::{
    course::{Course, Ended, Pass, seconds},
    error::MigrateError,
    meter::Meter,
    monitor::{Monitor, Progress},
    promise::{Circumstances, Promise},
    settings::Settings,
    strategy::Strategy,
};
use crate::{engine::interrupt::Interrupt, model::Stall, outside::Limiter, qmp::client::Event};

/// How often QEMU is asked how far it is.
const POLL: Duration = Duration::from_millis(40);

/// How often it is asked once more for what it says last.
const SETTLE: u32 = 5;

/// A quota while the promise can't be kept any more, as a part of the bandwidth: the migration is to end all the same.
const LOST_PART: f64 = 0.25;

/// A guest that is free in the first pass is limited from when less than this part of the bandwidth would do.
const LEAST_WANTED: f64 = 0.2;

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// Where to, in QEMU's words; `None` to follow a migration that somebody else has started.
    pub uri: Option<String>,
    /// How.
    pub strategy: Strategy,
    /// What was promised.
    pub promise: Promise,
    /// What the link carries.
    pub circumstances: Circumstances,
    /// What QEMU is told to send at most, in bytes per second; 0 for any rate, `None` to leave what it has.
    pub max_bandwidth: Option<u64>,
    /// After which it is cancelled.
    pub give_up: Option<Duration>,
}

/// Who is told how it goes.
pub trait Watch {
    /// A pass began.
    fn pass(&mut self, pass: &Pass) -> anyhow::Result<()>;
    /// So it stands.
    fn progress(&mut self, now: &Now) -> anyhow::Result<()>;
    /// vCPUs were paused, at times since the start of the migration.
    fn pauses(&mut self, _: &[Stall]) -> anyhow::Result<()> {
        Ok(())
    }
    /// Something that the user should know.
    fn said(&mut self, text: &str);
}

/// How it stands.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time since the start.
    pub at: Duration,
    /// The pass.
    pub pass: u64,
    /// What is left, in MiB.
    pub left_mib: f64,
    /// The rate of sending.
    pub rate: Option<MibPerSec>,
    /// The quota.
    pub quota: Option<MibPerSec>,
    /// When it will be over, as far as can be foreseen.
    pub expected_end: Option<Duration>,
}

/// The plan for an order, or why there is none.
pub fn promise(order: &Order) -> Result<Plan, MigrateError> {
    plan(&order.circumstances.task(order.promise)).map_err(|refusal| MigrateError::NotPromised {
        within: seconds(order.promise.within),
        downtime: format!("{} ms", order.promise.downtime.as_millis()),
        refusal,
    })
}

/// Drives it. `plan` and `limiter` are there for [`Strategy::Dirtyrig`]. An error leaves QEMU's settings as they were.
pub fn drive(
    monitor: &mut Monitor,
    order: &Order,
    planned: Option<(&Plan, &Limiter)>,
    watch: &mut dyn Watch,
    interrupt: &Interrupt,
) -> anyhow::Result<Course> {
    let mut settings = Settings::default();
    let mut drive = Drive::new(order, planned);
    let course = drive.run(monitor, &mut settings, watch, interrupt);
    drive.lift();
    // Of a QEMU that has gone there is nothing to restore, and the error above says so.
    let restored = settings.restore(&mut monitor.client);
    let course = course?;
    if let Err(error) = restored {
        watch.said(&format!("warning: QEMU's settings are not as they were: {error}"));
    }
    Ok(course)
}

struct Drive<'a> {
    order: &'a Order,
    task: Task,
    planned: Option<(&'a Plan, &'a Limiter)>,
    begun: Instant,
    meter: Meter,
    last: Progress,
    passes: Vec<Pass>,
    /// The limit that is in force.
    quota: Option<MibPerSec>,
    downtime_limit: Duration,
    limited_from: Option<Duration>,
    stopped_at: Option<Duration>,
    expected_end: Option<Duration>,
    lost: Option<(Duration, String)>,
    /// The last sync that is known to be over, and the last that QEMU told.
    synced: u64,
    told_pass: u64,
    /// Pages that the rings had been given when the last sync was, and at the last look.
    pushed_at_sync: u64,
    pushed: u64,
    sent_bytes: u64,
    ended_at: Duration,
    cancelled: bool,
}

impl<'a> Drive<'a> {
    fn new(order: &'a Order, planned: Option<(&'a Plan, &'a Limiter)>) -> Self {
        let downtime_limit = planned.map_or(order.promise.downtime, |(plan, _)| plan.downtime_limit);
        Self {
            order,
            task: order.circumstances.task(order.promise),
            planned,
            begun: Instant::now(),
            meter: Meter::default(),
            last: Progress::default(),
            passes: Vec::new(),
            quota: None,
            downtime_limit,
            limited_from: None,
            stopped_at: None,
            expected_end: planned.map(|(plan, _)| plan.total.expected),
            lost: None,
            synced: 0,
            told_pass: 0,
            pushed_at_sync: 0,
            pushed: 0,
            sent_bytes: 0,
            ended_at: Duration::ZERO,
            cancelled: false,
        }
    }

    fn run(
        &mut self,
        monitor: &mut Monitor,
        settings: &mut Settings,
        watch: &mut dyn Watch,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Course> {
        self.prepare(monitor, settings)?;
        self.begun = Instant::now();
        if let Some((plan, _)) = self.planned
            && plan.free_until.is_none()
        {
            self.limit(plan.quota.rate())?;
        }
        if let Some(uri) = &self.order.uri {
            monitor.start(uri)?;
        } else {
            let since = monitor.progress()?.total;
            self.begun = self.begun.checked_sub(since).unwrap_or(self.begun);
        }
        loop {
            let mut event = monitor.next_event(POLL)?;
            while let Some(told) = event {
                self.hear(&told);
                event = monitor.next_event(Duration::ZERO)?;
            }
            let progress = monitor.progress()?;
            self.ended_at = self.at();
            let is_pass = self.is_synced(&progress);
            self.look(progress, is_pass);
            if !self.last.is_under_way() {
                self.settle(monitor)?;
                break;
            }
            if is_pass || self.quota.is_none() {
                self.steer(is_pass, monitor, settings, watch)?;
            }
            if is_pass {
                let pass = self.pass();
                watch.pass(&pass)?;
                self.passes.push(pass);
            }
            watch.progress(&self.now())?;
            watch.pauses(&self.pauses())?;
            let is_over = self.order.give_up.is_some_and(|patience| self.at() > patience);
            if (interrupt.is_set() || is_over) && !self.cancelled {
                self.cancelled = true;
                self.lift();
                if self.order.uri.is_none() {
                    // It is not ours.
                    break;
                }
                // It may have ended in this very moment, which the next look tells.
                let _ = monitor.cancel();
            }
        }
        Ok(self.course())
    }

    /// QEMU says that it is over before it says how long the guest was away.
    fn settle(&mut self, monitor: &mut Monitor) -> Result<(), MigrateError> {
        let is_told = |last: &Progress| last.status != "completed" || last.downtime.is_some_and(|time| !time.is_zero());
        for _ in 0..SETTLE {
            if is_told(&self.last) {
                break;
            }
            monitor.next_event(POLL)?;
            self.last = monitor.progress()?;
        }
        Ok(())
    }

    fn prepare(&self, monitor: &mut Monitor, settings: &mut Settings) -> Result<(), MigrateError> {
        let bandwidth = self.order.circumstances.bandwidth.0 * f64::from(1 << 20);
        let mut parameters = vec![("downtime-limit", self.downtime_limit.as_millis() as u64)];
        parameters.extend(self.order.max_bandwidth.map(|rate| ("max-bandwidth", rate)));
        match self.order.strategy {
            // Else QEMU takes for the link's rate what it sent of late, which is little among pages of zeros.
            Strategy::Dirtyrig => parameters.push(("avail-switchover-bandwidth", bandwidth as u64)),
            Strategy::DirtyLimit(quota) => parameters.push(("vcpu-dirty-limit", quota)),
            Strategy::None | Strategy::AutoConverge => {}
        }
        settings.set(&mut monitor.client, &parameters)?;
        if self.order.uri.is_none() {
            // Capabilities can't be changed on the way.
            return Ok(());
        }
        let is_limit = matches!(self.order.strategy, Strategy::DirtyLimit(_));
        // Off comes first: the two exclude each other.
        settings.turn(&mut monitor.client, &[("dirty-limit", false), ("auto-converge", false)])?;
        let on = [
            ("events", true),
            ("auto-converge", self.order.strategy == Strategy::AutoConverge),
            ("dirty-limit", is_limit),
        ];
        let on: Vec<(&str, bool)> = on.into_iter().filter(|(_, on)| *on).collect();
        settings.turn(&mut monitor.client, &on)?;
        Ok(())
    }

    fn at(&self) -> Duration {
        self.begun.elapsed()
    }

    fn hear(&mut self, event: &Event) {
        if event.name == "MIGRATION_PASS" {
            self.told_pass = event.data["pass"].as_u64().unwrap_or(0);
        }
        if event.name == "STOP" {
            self.stopped_at.get_or_insert(self.begun.elapsed());
            self.lift();
        }
    }

    /// Whether a sync has ended that was not seen before. QEMU counts it when it begins, and answers before it knows what was
    /// dirtied; when it ends it tells the pass. Where it tells none, because somebody else has started the migration, the sync
    /// is over at the next look.
    fn is_synced(&mut self, progress: &Progress) -> bool {
        let is_over = self.told_pass >= progress.syncs || self.last.syncs == progress.syncs;
        let is_new = progress.syncs > self.synced && is_over;
        if is_new {
            self.synced = progress.syncs;
        }
        is_new
    }

    fn look(&mut self, progress: Progress, is_pass: bool) {
        if progress.sent_pages > self.last.sent_pages {
            self.meter.count(self.at(), progress.sent_pages);
        }
        if is_pass {
            // What was dirtied between the last look and the sync is counted twice, rather than not at all.
            self.pushed_at_sync = self.pushed;
        }
        if let Some((_, limiter)) = self.planned {
            self.pushed = limiter.books().iter().map(|(_, book)| book.pages).sum();
        }
        // A migration that is cancelled forgets what it sent.
        self.sent_bytes = self.sent_bytes.max(progress.sent_bytes);
        self.last = progress;
    }

    /// Begins the limit when it is time, and solves it again after a sync.
    fn steer(
        &mut self,
        is_pass: bool,
        monitor: &mut Monitor,
        settings: &mut Settings,
        watch: &mut dyn Watch,
    ) -> anyhow::Result<()> {
        let Some((plan, _)) = self.planned else {
            return Ok(());
        };
        if self.stopped_at.is_some() || self.cancelled || self.last.memory == Pages(0) {
            return Ok(());
        }
        let bandwidth = self.meter.at_most(self.task.bandwidth);
        let mut task = Task {
            bandwidth,
            within: self.order.promise.within.saturating_sub(self.at()),
            ..self.task.clone()
        };
        task.vmm.setup = Bounded::default();
        if self.quota.is_none() {
            // All of memory may be dirty at any moment, be it sent or not.
            task.left = Pages(self.last.left.0 + self.last.memory.0);
            let is_near = self.last.syncs > 1 || plan.free_until.is_none_or(|left| self.last.left <= self.lead(left));
            let would = again(&task).map_or(0.0, |solved| solved.quota.mib_per_sec());
            if !is_near && would > bandwidth.0 * LEAST_WANTED {
                return Ok(());
            }
        } else if !is_pass {
            return Ok(());
        }
        let dirtied = (self.pushed - self.pushed_at_sync).min(self.last.memory.0);
        task.left = Pages(self.last.left.0 + dirtied);
        match again(&task) {
            Ok(solved) => {
                self.limit(solved.quota.rate())?;
                self.expected_end = Some(self.at() + solved.total.expected);
                if solved.downtime_limit != self.downtime_limit {
                    self.downtime_limit = solved.downtime_limit;
                    let millis = self.downtime_limit.as_millis() as u64;
                    settings.set(&mut monitor.client, &[("downtime-limit", millis)])?;
                }
            }
            Err(refusal) => {
                self.limit(MibPerSec(bandwidth.0 * LOST_PART))?;
                self.expected_end = None;
                if self.lost.is_none() {
                    let why = format!(
                        "{:.0} MiB are left and the link carries {:.1} MiB/s; from there on it would take {refusal}",
                        task.left.to_mib(),
                        bandwidth.0
                    );
                    watch.said(&format!("warning: the promise is not sure to be kept any more: {why}"));
                    self.lost = Some((self.at(), why));
                }
            }
        }
        Ok(())
    }

    /// What is left when the limit begins: earlier where pages of zeros go by faster than the link carries others.
    fn lead(&self, left: Pages) -> Pages {
        let speed = self.meter.rate().map_or(0.0, MibPerSec::pages_per_sec);
        let ahead = speed * POLL.as_secs_f64() * 3.0;
        Pages(left.0 + ahead as u64)
    }

    fn limit(&mut self, rate: MibPerSec) -> anyhow::Result<()> {
        if let Some((_, limiter)) = self.planned {
            limiter.set_vm(dirtyrig_limiter::units::Quota::new(rate.0)?)?;
            self.quota = Some(rate);
            self.limited_from.get_or_insert(self.begun.elapsed());
        }
        Ok(())
    }

    /// Ends the limit.
    fn lift(&mut self) {
        if let (Some((_, limiter)), Some(_)) = (self.planned, self.quota.take()) {
            // It fails only if the limiter has ended, which frees the guest as well.
            let _ = limiter.cancel_vm();
        }
    }

    /// The pauses since the last call, from the start of the migration on.
    fn pauses(&self) -> Vec<Stall> {
        let Some((_, limiter)) = self.planned else {
            return Vec::new();
        };
        let (at, now) = (self.at(), limiter.now());
        let placed = |pause: Stall| {
            let at = at.checked_sub(now.saturating_sub(pause.at))?;
            Some(Stall { at, ..pause })
        };
        limiter.take_stalls().into_iter().filter_map(placed).collect()
    }

    fn pass(&self) -> Pass {
        Pass {
            number: self.last.syncs,
            at: self.at(),
            left_mib: self.last.left.to_mib(),
            sent_mib: mib(self.last.sent_bytes),
            rate: self.meter.rate(),
            quota: self
                .quota
                .and_then(|rate| dirtyrig_limiter::units::Quota::new(rate.0).ok()),
            dirtied_pages: self.planned.map(|_| self.pushed - self.pushed_at_sync),
            expected_end: self.expected_end,
            throttle_pct: self.last.throttle_pct,
        }
    }

    fn now(&self) -> Now {
        Now {
            at: self.at(),
            pass: self.last.syncs,
            left_mib: self.last.left.to_mib(),
            rate: self.meter.rate(),
            quota: self.quota,
            expected_end: self.expected_end,
        }
    }

    fn course(&mut self) -> Course {
        let ended = match self.last.status.as_str() {
            "completed" => Ended::Completed,
            "cancelled" => Ended::Cancelled,
            _ if self.last.is_under_way() => Ended::Left,
            status => {
                let why = self.last.error.clone();
                Ended::Failed(why.unwrap_or_else(|| format!("QEMU says `{status}` and gives no reason")))
            }
        };
        Course {
            ended,
            begun: self.begun,
            total: self.ended_at,
            stopped_at: self.stopped_at,
            limited_from: self.limited_from,
            qemu_downtime: self.last.downtime,
            beside_downtime: self.order.circumstances.beside(),
            lost: self.lost.take(),
            passes: std::mem::take(&mut self.passes),
            sent_mib: mib(self.sent_bytes),
        }
    }
}

fn mib(bytes: u64) -> f64 {
    Pages(bytes / PAGE_SIZE).to_mib()
}
