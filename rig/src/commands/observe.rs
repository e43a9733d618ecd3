//! `dirtyrig observe`: what VMs of any VMM do, from inside the kernel.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _},
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap_complete::engine::ArgValueCandidates;
use dirtyrig_probes::{identity::find_vm, kvm_processes};

use super::results;
use crate::{
    commands::{complete, exit, output::note},
    engine::{Interrupted, interrupt::Interrupt},
    observe::{
        lines::{Form, Lines},
        metrics::Metrics,
        outlet::Outlet,
        record::Record,
        session::{Ended, Session},
        tracing::Tracing,
        view::View,
        watched::{Watched, Whom},
    },
    recording::Recording,
    scenario::values::Span,
    timeline::{Observed, Timeline},
};

/// Below it, reading the counters takes a share of the time.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// Watch running VMs from inside the kernel
///
/// Shows for each vCPU how fast it dirties memory, how often its ring is full, how long it stalls, and why it exits: of QEMU,
/// Firecracker, Cloud Hypervisor or any other process that uses KVM. On a terminal it is a live view; `--csv` and `--json`
/// print lines for pipes instead. Dirty rates need the VM's dirty ring and its dirty logging to be on. It needs root, or
/// `CAP_BPF` and `CAP_PERFMON`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig observe                                    every VM on this host, live
  dirtyrig observe --pid 4711 --csv --duration 60s > vm.csv
  dirtyrig observe --vm web01 --json --interval 5s | jq .dirty_mib_s
  dirtyrig observe --pid 4711 --record results/vm     a recording that `plot` and `report` read
  dirtyrig observe --metrics 127.0.0.1:9435           for Prometheus, until ctrl-c
  dirtyrig observe --pid 4711 --trace vm.trace --duration 10s; dirtyrig run --replay vm.trace --quota 100")]
pub struct Args {
    /// Process of a VMM; may be given several times [default: every VM, those to come included]
    #[arg(long = "pid", value_name = "PID", add = ArgValueCandidates::new(complete::pids))]
    pids: Vec<u32>,

    /// A VM by its name (QEMU's `-name`, libvirt's domain) or its UUID; may be given several times
    #[arg(long = "vm", value_name = "NAME", add = ArgValueCandidates::new(complete::names))]
    vms: Vec<String>,

    /// Print a CSV line per vCPU and interval instead of the live view
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    /// Print a JSON object per vCPU and interval, one per line
    #[arg(long)]
    json: bool,

    /// Time between readings that are shown, at least 50ms
    #[arg(long, value_name = "TIME", default_value = "1s", allow_hyphen_values = true)]
    interval: Span,

    /// How long to watch [default: until ctrl-c, or the VMs given have ended]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    duration: Option<Span>,

    /// Folder for a recording, one cell per VM, which `plot` draws; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,

    /// File for a trace of every page dirtied, which `run --replay` repeats; of one VM; must not exist
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// File for a timeline of stalls and rates, for Perfetto (ui.perfetto.dev); must not exist
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// Serve the counters to Prometheus, at `http://ADDR/metrics`
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let Span(interval) = args.interval;
    ensure!(
        interval >= LEAST_INTERVAL,
        "`--interval {}` is too short: give at least 50ms",
        args.interval
    );
    let address = args.metrics.as_deref().map(resolve).transpose()?;
    let dir = args.record.as_deref().map(free_folder).transpose()?;
    let live = !args.csv && !args.json && io::stdout().is_terminal();
    ensure!(
        live || args.csv
            || args.json
            || args.record.is_some()
            || args.trace.is_some()
            || args.timeline.is_some()
            || args.metrics.is_some(),
        "stdout is no terminal, so there is no live view: give --csv, --json, --record, --trace, --timeline or --metrics"
    );
    let named = args.vms.iter().map(|name| Ok(find_vm(name)?.pid));
    let pids: BTreeSet<u32> = args
        .pids
        .iter()
        .copied()
        .map(anyhow::Ok)
        .chain(named)
        .collect::<Result<_, _>>()?;
    let traced = args
        .trace
        .as_deref()
        .map(|path| Ok::<_, anyhow::Error>((path, traced_pid(&pids)?)))
        .transpose()?;

    let whom = match (&traced, pids.is_empty()) {
        (Some((_, pid)), _) => Whom::Pids(BTreeSet::from([*pid])),
        (None, false) => Whom::Pids(pids.clone()),
        (None, true) => Whom::All,
    };
    // It measures the machine's noise, which takes a while: before anything is watched.
    let machine = dir.as_ref().map(|_| results::machine());
    let interrupt = Interrupt::from_signals()?;
    let watched = Watched::attach(&whom, traced.is_some())?;
    let mut outlets: Vec<Box<dyn Outlet>> = Vec::new();
    if let Some(address) = address {
        let metrics = Metrics::serve(address)?;
        note(format_args!("metrics: http://{}/metrics", metrics.address()));
        outlets.push(Box::new(metrics));
    }
    if let Some((path, pid)) = traced {
        outlets.push(Box::new(Tracing::begin(path, pid)?));
    }
    if let Some(path) = &args.timeline {
        outlets.push(Box::new(Observed::on(Timeline::create(path)?)));
    }
    if let Some((dir, machine)) = dir.as_ref().zip(machine) {
        let recorded = recorded_pids(&whom)?;
        outlets.push(Box::new(Record::begin(dir.clone(), machine, recorded, interval)?));
    }
    let form = [(args.csv, Form::Csv), (args.json, Form::Json)]
        .into_iter()
        .find(|(asked, _)| *asked);
    outlets.extend(form.map(|(_, form)| Box::new(Lines::new(form)) as Box<dyn Outlet>));

    let session = Session {
        watched,
        pids: match whom {
            Whom::Pids(pids) => pids,
            Whom::All => BTreeSet::new(),
        },
        interval,
        duration: args.duration.map(|Span(duration)| duration),
        view: if live { Some(View::open()?) } else { None },
        note: |text| note(text),
        outlets,
        to_stdout: form.is_some(),
    };
    let outcome = session.run(&interrupt);
    if let Some(dir) = dir {
        match Recording::open(dir) {
            Ok(recording) => results::plots(&recording),
            Err(error) if outcome.is_ok() => return Err(error.into()),
            // What ended the session says more.
            Err(_) => {}
        }
    }
    match outcome? {
        Ended::Interrupted => Err(Interrupted.into()),
        Ended::Done | Ended::Gone => Ok(exit::OK),
    }
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let form =
        || format!("`--metrics {address}` is no address to listen on: give one such as 127.0.0.1:9435 or [::]:9435");
    address.to_socket_addrs().with_context(form)?.next().with_context(form)
}

fn free_folder(dir: &Path) -> anyhow::Result<PathBuf> {
    results::folder(Some(dir), "observe").with_context(|| format!("can't record to `--record {}`", dir.display()))
}

/// The one process that a trace is of.
fn traced_pid(pids: &BTreeSet<u32>) -> anyhow::Result<u32> {
    let mut candidates = if pids.is_empty() {
        kvm_processes()
    } else {
        pids.iter().map(|&pid| (pid, String::new())).collect()
    };
    match (candidates.pop(), candidates.len()) {
        (Some((pid, _)), 0) => Ok(pid),
        (None, _) => bail!("no process has a KVM VM that could be traced: start the VM first"),
        (Some(_), others) => bail!(
            "a trace is of one VM, and there are {}: choose it with --vm or --pid (`dirtyrig observe` shows them)",
            others + 1
        ),
    }
}

/// The processes whose recording is made: those there are.
fn recorded_pids(whom: &Whom) -> anyhow::Result<BTreeSet<u32>> {
    let pids: BTreeSet<u32> = match whom {
        Whom::Pids(pids) => pids.clone(),
        Whom::All => kvm_processes().into_iter().map(|(pid, _)| pid).collect(),
    };
    ensure!(
        !pids.is_empty(),
        "no process has a KVM VM that could be recorded: start the VM first (a recording is of the VMs that run at its begin)"
    );
    Ok(pids)
}
