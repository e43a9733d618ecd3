//! A QEMU as a target: one that was started with our guest, or one that was attached to.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use dirtyrig_guests::{
    PAGE_SIZE, Region,
    boot::{BootVcpu, Tables, elf},
    image::REGION_BASE,
};
use dirtyrig_limiter::law::LimiterKind;
use dirtyrig_probes::process_lives;

use super::{
    ability,
    binary::Binary,
    error::QemuError,
    held::Held,
    limits::{Logging, OwnLimiter},
    memory::Truth,
    process::{Launch, Qemu},
    running,
    version::Version,
    watch::Watch,
};
use crate::{
    engine::{
        limits::Limits,
        replay_tables::catch_up_ticks,
        target::{Target, VcpuSnapshot},
    },
    model::Stall,
    qmp::client::QmpError,
    scenario::spec::VmSpec,
    trace::{Outline, Replay},
};

/// The longest that QEMU's rate measurement runs: it keeps the pages logged until a limit does.
const OWN_LOGGING: Logging = Logging::Measuring { seconds: 60 };

const ATTACHED_LOGGING: Logging = Logging::Measuring {
    seconds: running::LOGGED_S,
};

/// A QEMU with its limiter and its counts.
pub struct QemuTarget {
    name: String,
    // The first to go: a QEMU that ends is not to be held.
    held: Option<Held>,
    // Before the limits, so that of a QEMU of ours the guest ends first and its limits need not be waited for.
    guest: Guest,
    own: OwnLimiter,
    watch: Watch,
}

enum Guest {
    /// Started by us, with counters that we can read.
    Ours(Box<Qemu>),
    /// Attached to, by its process.
    Theirs(u32),
}

impl QemuTarget {
    /// Starts a QEMU with the guest that `spec` describes, unlimited and logged. It must be called by a thread that
    /// lives as long as the target.
    pub fn start(spec: &VmSpec, binary: Option<&Path>) -> anyhow::Result<Self> {
        let binary = Binary::find(binary)?;
        let replay = spec.replay.as_deref().map(Outline::read).transpose()?;
        let tables_mib = replay.as_ref().map_or(0, Outline::tables_mib);
        ability::check(spec, binary.version, tables_mib)?;
        let tsc_hz = tsc_hz()?;
        let tables = replay
            .map(|trace| tables(&trace, spec.memory_mib, tsc_hz))
            .transpose()?;
        let pages_each = (spec.memory_mib << 20) / PAGE_SIZE / spec.vcpus as u64;
        let vcpus: Vec<BootVcpu> = (0_u64..)
            .zip(&spec.programs)
            .map(|(vcpu, program)| BootVcpu {
                program: program.clone(),
                // The vCPUs of a trace shared their memory.
                region: match &tables {
                    Some(_) => Region {
                        gpa: REGION_BASE,
                        pages: pages_each * spec.vcpus as u64,
                    },
                    None => Region {
                        gpa: REGION_BASE + vcpu * pages_each * PAGE_SIZE,
                        pages: pages_each,
                    },
                },
                seed: spec.seed.wrapping_add(vcpu),
            })
            .collect();
        let image = elf(&vcpus, tables.as_ref(), tsc_hz).context("can't lay out the guest")?;
        let qemu = Qemu::start(
            &binary,
            Launch {
                image: &image,
                vcpus: spec.vcpus,
                memory_mib: spec.memory_mib + tables_mib + (REGION_BASE >> 20),
                ring_entries: spec.ring.entries(),
            },
        )?;
        let mut client = qemu.connect()?;
        let threads = running::threads(&mut client)?;
        let (watch, _) = Watch::new(qemu.pid(), threads);
        Ok(Self {
            name: name(binary.version),
            held: Held::if_asked(spec, qemu.pid(), &watch.indices(), watch.now())?,
            guest: Guest::Ours(Box::new(qemu)),
            own: OwnLimiter::start(
                client,
                (0..spec.vcpus).collect(),
                logging(spec.limiter.kind, OWN_LOGGING),
                false,
            ),
            watch,
        })
    }

    /// Attaches to the QEMU behind `socket`, whatever its guest.
    pub fn attach(spec: &VmSpec, socket: &Path) -> anyhow::Result<Self> {
        let mut qemu = running::Running::find(socket)?;
        ability::check(spec, qemu.version, 0)?;
        qemu.check_ring()?;
        let (watch, without_probes) = Watch::new(qemu.pid, qemu.threads.clone());
        if let Some(why) = without_probes {
            return Err(QemuError::NoEyes { why }.into());
        }
        let vcpus: BTreeSet<usize> = qemu.threads.keys().copied().collect();
        Ok(Self {
            name: name(qemu.version),
            held: Held::if_asked(spec, qemu.pid, &watch.indices(), watch.now())?,
            guest: Guest::Theirs(qemu.pid),
            own: OwnLimiter::start(qemu.client, vcpus, logging(spec.limiter.kind, ATTACHED_LOGGING), true),
            watch,
        })
    }

    /// An error if QEMU has ended.
    fn check(&mut self) -> Result<(), QemuError> {
        match &mut self.guest {
            Guest::Ours(qemu) => qemu.check(),
            Guest::Theirs(pid) if process_lives(*pid) => Ok(()),
            Guest::Theirs(pid) => Err(QemuError::Gone { pid: *pid }),
        }
    }

    /// Why its monitor failed: most likely because QEMU is ending.
    fn explained(&mut self, error: QmpError) -> QemuError {
        const ENDING: Duration = Duration::from_secs(1);
        let begun = Instant::now();
        while matches!(error, QmpError::Closed { .. }) && begun.elapsed() < ENDING {
            if let Err(end) = self.check() {
                return end;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        error.into()
    }

    fn unable(what: &str, vcpu: usize) -> anyhow::Error {
        QemuError::Unable {
            what: format!("to {what} vCPU {vcpu}"),
            remedy: "its guest's vCPUs all run from the start; leave it out, or use `--vmm rig`".to_owned(),
        }
        .into()
    }
}

/// What the vCPUs follow, behind the `memory_mib` that they dirty.
fn tables(trace: &Outline, memory_mib: u64, tsc_hz: u64) -> anyhow::Result<Tables> {
    Ok(Tables {
        gpa: REGION_BASE + (memory_mib << 20),
        tables: Replay::load(trace, tsc_hz)?.tables,
        catch_up_ticks: catch_up_ticks(tsc_hz),
    })
}

fn name(version: Version) -> String {
    format!("qemu-{version}")
}

/// QEMU's own limiter keeps pages logged once a limit is set; without it they must be logged all the same.
fn logging(limiter: LimiterKind, until_limited: Logging) -> Logging {
    if limiter == LimiterKind::None || ability::is_from_outside(limiter) {
        Logging::Always
    } else {
        until_limited
    }
}

/// The frequency of a guest's time-stamp counter, by which its programs keep time, in Hz. Fails where KVM does not tell.
pub fn tsc_hz() -> anyhow::Result<u64> {
    let ask = || {
        let vm = kvm_ioctls::Kvm::new()?.create_vm()?;
        vm.create_vcpu(0)?.get_tsc_khz()
    };
    Ok(u64::from(ask().context("can't ask KVM for the frequency of the time-stamp counter")?) * 1000)
}

impl Target for QemuTarget {
    fn vmm(&self) -> &str {
        &self.name
    }

    fn now(&self) -> Duration {
        self.watch.now()
    }

    fn max_vcpus(&self) -> usize {
        self.watch
            .indices()
            .into_values()
            .max()
            .map_or(0, |highest| highest + 1)
    }

    fn runs_our_guest(&self) -> bool {
        matches!(self.guest, Guest::Ours(_))
    }

    fn sees_pauses(&self) -> bool {
        self.held.is_some() || self.watch.sees_stalls()
    }

    fn snapshot(&mut self) -> anyhow::Result<Vec<VcpuSnapshot>> {
        // The truth first, while it is now: to look at the threads can take milliseconds.
        let truth = |vcpu| match &self.guest {
            Guest::Ours(qemu) => Some(qemu.truth(vcpu)),
            Guest::Theirs(_) => None,
        };
        let truths: Vec<Option<Truth>> = (0..self.max_vcpus()).map(truth).collect();
        self.check()?;
        if let Guest::Theirs(_) = self.guest {
            self.watch.follow(&self.own.threads());
        }
        let seen = self.watch.look()?;
        let snapshot = |(vcpu, truth): (usize, Option<Truth>)| {
            let Some(seen) = seen.get(&vcpu) else {
                return VcpuSnapshot::ABSENT;
            };
            let kernel = seen.kernel;
            VcpuSnapshot {
                plugged: seen.plugged,
                written_pages: truth.map(|truth| truth.written),
                read_pages: truth.map(|truth| truth.read),
                harvested_pages: kernel.map(|kernel| kernel.pushed_pages),
                ring_full_exits: kernel.map(|kernel| kernel.ring_full_exits),
                exits: kernel.map(|kernel| kernel.exits),
                in_guest: seen.in_guest,
                // QEMU tells nobody what it asked for, what it holds back, and what that costs.
                slept: kernel.map(|kernel| kernel.stalled),
                throttle: kernel.map(|kernel| kernel.last_stall),
                ..VcpuSnapshot::default()
            }
        };
        // Of one that was plugged just now nobody of ours knows the truth.
        let truths = truths.into_iter().chain(std::iter::repeat(None));
        let mut shots: Vec<VcpuSnapshot> = truths.take(self.max_vcpus()).enumerate().map(snapshot).collect();
        if let Some(held) = &self.held {
            held.complete(&mut shots)?;
        }
        Ok(shots)
    }

    fn take_stalls(&mut self) -> Vec<Stall> {
        let seen = self.watch.take_stalls();
        self.held.as_ref().map_or(seen, Held::take_stalls)
    }

    fn limits(&self) -> Box<dyn Limits + '_> {
        match &self.held {
            Some(held) => Box::new(&held.limiter),
            None => Box::new(&self.own),
        }
    }

    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast::<QmpError>() {
            Ok(error) => self.explained(error).into(),
            Err(error) => error,
        }
    }

    fn plug(&mut self, vcpu: usize) -> anyhow::Result<()> {
        Err(Self::unable("plug", vcpu))
    }

    fn unplug(&mut self, vcpu: usize) -> anyhow::Result<()> {
        Err(Self::unable("unplug", vcpu))
    }

    fn indices(&self) -> Option<HashMap<u32, usize>> {
        Some(self.watch.indices())
    }

    fn probed_pid(&self) -> Option<u32> {
        Some(match &self.guest {
            Guest::Ours(qemu) => qemu.pid(),
            Guest::Theirs(pid) => *pid,
        })
    }

    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        let Self { guest, own, held, .. } = *self;
        drop(held);
        match guest {
            Guest::Ours(mut qemu) => {
                qemu.kill()?;
                // Its monitor is gone with it; whatever failed before came out there.
                drop(own);
                Ok(())
            }
            Guest::Theirs(pid) => match own.end() {
                Err(_) if !process_lives(pid) => Ok(()),
                ended => ended.context(
                    "the limits that were set in QEMU may still be in force: `cancel-vcpu-dirty-limit` ends them",
                ),
            },
        }
    }
}
