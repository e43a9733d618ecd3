//! A real QEMU that runs our guest, with a connection to its monitor, and how fast it is.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    PAGE_SIZE, Region,
    boot::{BootVcpu, elf},
    image::REGION_BASE,
};
use dirtyrig_limiter::units::{PAGES_PER_MIB, Quota};
use dirtyrig_rig::{
    qemu::{
        binary::Binary,
        process::{self, Launch},
        target::tsc_hz,
    },
    qmp::client::QmpClient,
};
use serde_json::json;

/// Generous: only there so that what never happens fails a test instead of hanging it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// A QEMU with one guest. Dropping it ends it.
pub(crate) struct Qemu {
    process: process::Qemu,
    pub(crate) qmp: QmpClient,
    /// What vCPU 0 dirties while its pages are logged and nothing limits it, in MiB/s; measured by `logging`.
    speed: Option<f64>,
}

impl Qemu {
    /// Boots a guest whose vCPUs write their pages in order; its dirty rings, if it has any, log nothing yet.
    pub(crate) fn start(ring: Option<u32>, vcpus: usize) -> anyhow::Result<Self> {
        Self::running("sequential", ring, vcpus)
    }

    /// The same with another program.
    pub(crate) fn running(program: &str, ring: Option<u32>, vcpus: usize) -> anyhow::Result<Self> {
        // Twice the ring's, so that no page is written again before its ring was reset.
        let pages = 2 * u64::from(ring.unwrap_or(4096));
        let guests: Vec<BootVcpu> = (0..vcpus as u64)
            .map(|vcpu| BootVcpu {
                program: program.parse().expect("a program"),
                region: Region {
                    gpa: REGION_BASE + vcpu * pages * PAGE_SIZE,
                    pages,
                },
                seed: vcpu,
            })
            .collect();
        let launch = Launch {
            image: &elf(&guests, None, tsc_hz()?)?,
            vcpus,
            memory_mib: (REGION_BASE + vcpus as u64 * pages * PAGE_SIZE) >> 20,
            ring_entries: ring.unwrap_or(0),
        };
        let process = process::Qemu::start(&Binary::find(None)?, launch)?;
        Ok(Self {
            qmp: process.connect()?,
            process,
            speed: None,
        })
    }

    /// The same with its dirty logging on, for a minute, and its speed known.
    pub(crate) fn logging(ring: u32, vcpus: usize) -> anyhow::Result<Self> {
        /// Warm-up, or enough for a rate.
        const PAGES_EACH: u64 = 4096;
        const AT_LEAST: Duration = Duration::from_millis(250);
        let mut qemu = Self::start(Some(ring), vcpus)?;
        qemu.log_for_a_minute()?;
        let given_up = Instant::now() + PATIENCE;
        for at_least in [Duration::ZERO, AT_LEAST] {
            let (begun, before) = (Instant::now(), qemu.written(0));
            while qemu.written(0) < before + PAGES_EACH || begun.elapsed() < at_least {
                anyhow::ensure!(Instant::now() < given_up, "the guest stands still");
                thread::sleep(Duration::from_millis(1));
            }
            let pages = (qemu.written(0) - before) as f64;
            qemu.speed = Some(pages / PAGES_PER_MIB as f64 / begun.elapsed().as_secs_f64());
        }
        Ok(qemu)
    }

    /// Turns dirty logging on through a measurement of its own, for the longest that QEMU takes.
    pub(crate) fn log_for_a_minute(&mut self) -> anyhow::Result<()> {
        self.qmp
            .execute("calc-dirty-rate", &json!({"calc-time": 60, "mode": "dirty-ring"}))?;
        Ok(())
    }

    /// What vCPU 0 did before any limit, in MiB/s.
    pub(crate) fn speed(&self) -> f64 {
        self.speed.expect("`logging` started it")
    }

    /// A quota of so many MiB/s, or a quarter of the speed where that is less: one that holds the guest back on any host.
    pub(crate) fn at_most(&self, mib_per_sec: f64) -> Quota {
        Quota::new(mib_per_sec.min(self.speed() / 4.0)).expect("a quota")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Pages that a vCPU wrote, by its own counter.
    pub(crate) fn written(&self, vcpu: usize) -> u64 {
        self.process.truth(vcpu).written
    }

    /// States of its threads, as `/proc` has them, with their tracers.
    pub(crate) fn threads(&self) -> Vec<(char, u32)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("QEMU runs");
        let thread = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
            Some((field("State:")?.chars().next()?, field("TracerPid:")?.parse().ok()?))
        };
        tasks.flatten().filter_map(thread).collect()
    }

    /// Kills it, as an out-of-memory killer would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.process.kill()?)
    }
}
