//! `dirtyrig migrate`: a live migration under a promise, of a running QEMU or between two of the rig's own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use dirtyrig_guests::Program;
use dirtyrig_limiter::{law::migration::Plan, units::MibPerSec};
use serde_json::json;

use super::results;
use crate::{
    commands::{exit, flags::OutputFlags, output::note},
    engine::{Interrupted, interrupt::Interrupt},
    machine::require_kvm,
    migrate::{
        bandwidth::Bandwidth,
        cell::{self, Setup},
        course::{Course, Ended, Verdict, seconds},
        drive::{Order, drive, promise},
        monitor::Monitor,
        pair::Guest,
        promise::{Circumstances, Host, Promise, depth},
        rows,
        sample::sample,
        strategy::Strategy,
    },
    outside::Limiter,
    qemu::binary::Binary,
    recording::{
        Manifest,
        migrations::{MigrationRecorder, MigrationRow},
    },
    scenario::{
        MAX_STALL,
        values::{Ring, Span},
        vmm::Vmm,
    },
    stdout::{data, json},
    timeline::{Migrating, Timeline},
};

mod live;
mod table;

use live::Live;

/// Migrate a running QEMU within a promised time and with a promised blackout
///
/// A plan is made first: the largest dirty rate that keeps the promise whatever the guest does, and from when on. If it can't be
/// kept, that is said at once, with what could be. Then QEMU's own migration is started and watched; the guest is held from
/// outside as `limit` does it, the quota is solved again after each pass, and lifted when the guest is stopped. QEMU's
/// parameters and capabilities are put back. It needs root and a VM with dirty rings.
///
/// With `--vmm qemu` the rig starts source and destination itself, with its own guest and a paced link between them, and the
/// guest's counters in both memories judge.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig migrate --qmp /run/vm.qmp --to tcp:host2:4444 --within 60s --downtime 300ms --bandwidth 1Gbps
  dirtyrig migrate --qmp /run/vm.qmp --follow --within 60s --downtime 300ms    then: virsh migrate --live VM ...
  dirtyrig migrate --vmm qemu --bandwidth 64MiB/s --within 10s --downtime 400ms --strategy none,auto-converge,dirtyrig

Exit codes: 0 the promise was kept, 1 it was broken, 2 an error, such as a promise that can't be made.")]
pub struct Args {
    /// Socket of the monitor of the QEMU to migrate
    #[arg(
        long,
        value_name = "SOCKET",
        requires = "to",
        required_unless_present = "vmm",
        conflicts_with = "vmm"
    )]
    qmp: Option<PathBuf>,

    /// Where to, as QEMU's `migrate` takes it: tcp:HOST:PORT, unix:PATH
    #[arg(long, value_name = "URI", requires = "qmp")]
    to: Option<String>,

    /// Keep the promise for a migration that somebody else starts, such as libvirt: wait for it, hold the guest, cancel nothing
    #[arg(long, requires = "qmp", conflicts_with = "to")]
    follow: bool,

    /// From the start until the guest runs at the destination
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    within: Span,

    /// The longest time in which the guest may run nowhere
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    downtime: Span,

    /// What the link carries, such as 1Gbps or 110MiB/s [default: QEMU's max-bandwidth; with --vmm: 64MiB/s]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    bandwidth: Option<Bandwidth>,

    /// The longest pause that is asked for at once [default: 5ms]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    max_stall: Option<Span>,

    /// Start source and destination here: qemu, or qemu:BINARY
    #[arg(long, value_name = "VMM", help_heading = "Between two QEMUs of the rig's own")]
    vmm: Option<Vmm>,

    /// Who throttles: dirtyrig, none, auto-converge, dirty-limit:MIB_S; several, separated by commas, one after the other
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        requires = "vmm",
        default_value = "dirtyrig",
        help_heading = "Between two QEMUs of the rig's own"
    )]
    strategy: Vec<Strategy>,

    /// The guest's memory in MiB, and its programs' together
    #[arg(long, value_name = "MIB", requires = "vmm", default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(16..=1_048_576), help_heading = "Between two QEMUs of the rig's own")]
    memory: u64,

    /// The guest's programs, one per vCPU, separated by commas, as in `run`
    #[arg(
        long,
        value_name = "PROGRAM",
        value_delimiter = ',',
        requires = "vmm",
        default_value = "sequential",
        help_heading = "Between two QEMUs of the rig's own"
    )]
    guest: Vec<Program>,

    /// Entries of each vCPU's dirty ring
    #[arg(
        long,
        value_name = "ENTRIES",
        requires = "vmm",
        default_value = "4096",
        help_heading = "Between two QEMUs of the rig's own"
    )]
    ring: Ring,

    /// Give a migration up after this [default: three times --within]
    #[arg(
        long,
        value_name = "TIME",
        requires = "vmm",
        help_heading = "Between two QEMUs of the rig's own"
    )]
    give_up: Option<Span>,

    /// Also write a timeline of passes, pauses and rates, for Perfetto (ui.perfetto.dev); the file must not exist
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    timeline: Option<PathBuf>,

    #[command(flatten)]
    output: OutputFlags,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let dir = results::folder(args.output.out.as_deref(), "migrate")?;
    let interrupt = Interrupt::from_signals()?;
    let timeline = args.timeline.as_deref().map(Timeline::create).transpose()?;
    let rows = match (&args.vmm, &args.qmp) {
        (Some(vmm), _) => between_ours(args, vmm, dir.clone(), timeline, &interrupt)?,
        (None, Some(socket)) if args.to.is_some() || args.follow => {
            vec![theirs(args, socket, dir.clone(), timeline, &interrupt)?]
        }
        _ => anyhow::bail!("give `--to URI`, or `--follow` for a migration that somebody else starts"),
    };
    note(format_args!("results: {}", dir.display()));
    if args.output.json {
        json(&rows)?;
    } else {
        data(table::of(&rows))?;
    }
    if interrupt.is_set() {
        return Ok(exit::INTERRUPTED);
    }
    Ok(if rows.iter().all(|row| row.kept) {
        exit::OK
    } else {
        exit::CHECK_FAILED
    })
}

impl Args {
    fn promise(&self) -> Promise {
        Promise {
            within: self.within.0,
            downtime: self.downtime.0,
        }
    }

    fn max_stall(&self) -> Duration {
        self.max_stall.map_or(MAX_STALL, |Span(span)| span)
    }
}

/// Migrates a QEMU that runs already, or follows its migration.
fn theirs(
    args: &Args,
    socket: &Path,
    dir: PathBuf,
    mut timeline: Option<Timeline>,
    interrupt: &Interrupt,
) -> anyhow::Result<MigrationRow> {
    let mut monitor = Monitor::connect(socket)?;
    // Before anything is waited for or promised.
    let limiter = Limiter::attach(monitor.pid(), depth(args.max_stall()))?;
    let sample = sample(monitor.pid(), &|| {}).context("can't look at the memory of the VM, to see what it writes")?;
    if args.follow {
        note("waiting for a migration to start");
        if !monitor.wait_for_migration(|| interrupt.is_set())? {
            return Err(Interrupted.into());
        }
    } else {
        monitor.check()?;
    }
    let bandwidth = match args.bandwidth {
        Some(bandwidth) => bandwidth,
        None => monitor.max_bandwidth()?.map(Bandwidth::of_bytes).context(
            "QEMU may send at any rate (its max-bandwidth is 0), so nothing can be promised: say what the link carries \
             (`--bandwidth 1Gbps`)",
        )?,
    };
    let memory = monitor.memory()?;
    let order = Order {
        uri: args.to.clone(),
        strategy: Strategy::Dirtyrig,
        promise: args.promise(),
        circumstances: Circumstances {
            memory,
            in_use: sample.in_use,
            dirtying: Some(sample.dirtying),
            vcpus: monitor.vcpus(),
            ring_entries: limiter.ring_entries(),
            bandwidth: bandwidth.rate(),
            max_stall: args.max_stall(),
            host: Host::here(),
        },
        max_bandwidth: args.bandwidth.filter(|_| !args.follow).map(Bandwidth::bytes_per_sec),
        give_up: None,
    };
    let plan = promise(&order)?;
    tell(&plan, bandwidth.rate());
    let described = json!({
        "qmp": socket, "to": args.to, "bandwidth_mib_s": bandwidth.rate().0, "within_s": args.within.0.as_secs_f64(),
        "downtime_ms": args.downtime.0.as_secs_f64() * 1e3, "max_stall_ms": args.max_stall().as_secs_f64() * 1e3,
    });
    let mut recorder = MigrationRecorder::create(dir, Manifest::new(0, [0], results::machine(), described))?;
    let mut live = Live::new(&mut recorder, 0, order.promise);
    let title = format!("migration of process {}", monitor.pid());
    let mut shown = Migrating::new(&mut live, timeline.as_mut(), 1, &title)?;
    let course = drive(&mut monitor, &order, Some((&plan, &limiter)), &mut shown, interrupt);
    let shown = course.as_ref().map(|course| shown.end(course));
    live.end();
    // From here on the VM is free.
    drop(limiter);
    shown.unwrap_or(Ok(()))?;
    let course = course?;
    let verdict = course.judge(order.promise);
    ended(&course, &verdict);
    let row = MigrationRow {
        vmm: format!("QEMU {}", monitor.version()),
        guest: "unknown".to_owned(),
        ..rows::of_course(0, &order, Some(&plan), &course, &verdict)
    };
    recorder.append_migration(&row)?;
    recorder.finish()?;
    Ok(row)
}

/// Migrates our own guest, once with each strategy.
fn between_ours(
    args: &Args,
    vmm: &Vmm,
    dir: PathBuf,
    mut timeline: Option<Timeline>,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<MigrationRow>> {
    let Vmm::Qemu { binary } = vmm else {
        anyhow::bail!("`{vmm}` can't be migrated here: give `--vmm qemu` or `--vmm qemu:BINARY`");
    };
    require_kvm()?;
    let binary = Binary::find(binary.as_deref())?;
    let setups: Vec<Setup> = args.strategy.iter().map(|&strategy| setup(args, strategy)).collect();
    for setup in setups.iter().filter(|setup| setup.strategy == Strategy::Dirtyrig) {
        tell(&cell::plan(setup)?, setup.link.rate());
    }
    let described = json!({
        "vmm": vmm.to_string(), "version": binary.version.to_string(), "guest": rows::guest(&args.guest),
        "memory_mib": args.memory, "ring_entries": args.ring.0.entries(), "bandwidth_mib_s": link(args).rate().0,
        "within_s": args.within.0.as_secs_f64(), "downtime_ms": args.downtime.0.as_secs_f64() * 1e3,
        "strategies": args.strategy.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let cells = 0..setups.len() as u32;
    let mut recorder = MigrationRecorder::create(dir, Manifest::new(1, cells.clone(), results::machine(), described))?;
    let mut rows = Vec::new();
    for (number, setup) in cells.zip(&setups) {
        if interrupt.is_set() {
            break;
        }
        note(format_args!("{}:", setup.strategy));
        let mut live = Live::new(&mut recorder, number, setup.promise);
        let title = setup.strategy.to_string();
        let mut shown = Migrating::new(&mut live, timeline.as_mut(), number + 1, &title)?;
        let outcome = cell::run(&binary, setup, &mut shown, interrupt);
        let shown = outcome.as_ref().map(|outcome| shown.end(&outcome.course));
        live.end();
        shown.unwrap_or(Ok(()))?;
        let outcome = outcome?;
        ended(&outcome.course, &outcome.verdict);
        let row = rows::of_outcome(number, &binary, setup, &outcome);
        recorder.append_migration(&row)?;
        rows.push(row);
    }
    recorder.finish()?;
    Ok(rows)
}

fn link(args: &Args) -> Bandwidth {
    args.bandwidth.unwrap_or(Bandwidth::of_bytes(64 << 20))
}

fn setup(args: &Args, strategy: Strategy) -> Setup {
    Setup {
        guest: Guest {
            programs: args.guest.clone(),
            memory_mib: args.memory,
            ring_entries: args.ring.0.entries(),
            seed: 1,
        },
        link: link(args),
        strategy,
        promise: args.promise(),
        max_stall: args.max_stall(),
        give_up: args.give_up.map_or(args.within.0 * 3, |Span(span)| span),
    }
}

/// What is promised.
fn tell(plan: &Plan, bandwidth: MibPerSec) {
    let begin = if plan.free_until.is_some() {
        format!("from {} on", seconds(plan.begin))
    } else {
        "from the start".to_owned()
    };
    note(format_args!(
        "plan: all vCPUs together {:.1} MiB/s {begin}, over {:.1} MiB/s; expected {} passes, {}, a blackout of {} ms; at most {}, \
         {} ms",
        plan.quota.mib_per_sec(),
        bandwidth.0,
        plan.passes.expected,
        seconds(plan.total.expected),
        plan.blackout.expected.as_millis(),
        seconds(plan.total.bound),
        plan.blackout.bound.as_millis(),
    ));
}

fn ended(course: &Course, verdict: &Verdict) {
    if verdict.is_kept() {
        note(format_args!("the promise was kept: {}", seconds(course.total)));
    } else {
        let stays = match course.ended {
            Ended::Completed | Ended::Left => "",
            Ended::Failed(_) | Ended::Cancelled => "; the guest is where it was, and free",
        };
        note(format_args!(
            "the promise was broken: {}{stays}",
            verdict.broken.join("; ")
        ));
    }
}
