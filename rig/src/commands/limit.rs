//! `dirtyrig limit`: a running VM of another process, held to a quota.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use dirtyrig_limiter::law::{LimiterKind, depth::Depth};
use dirtyrig_probes::identity::{NumberKind, Vm};
use serde_json::{Value, json};

use super::{progress::Live, results, table, which_vm::WhichVm};
use crate::{
    commands::{exit, flags::OutputFlags, output::note},
    engine::{Interrupted, cell::Watch, interrupt::Interrupt},
    model::Sample,
    outside::{Limiter, OutsideTarget, Remote},
    qmp::{Monitor, Server},
    recording::{Manifest, Recorder, Recording},
    scenario::{
        End, Scenario,
        per_vcpu::{MaybeQuota, PerVcpu},
        probe_mode::ProbeMode,
        script::Event,
        settings::{Settings, VcpuCount},
        values::{Ring, Span},
    },
    stdout::{data, json},
    sweep::execute::run_on,
    timeline::{Timeline, WithTimeline},
};

/// Long enough to tell how fast the VM dirties, short enough not to be waited for.
const BEFORE: std::time::Duration = std::time::Duration::from_millis(500);
/// A VM that dirties nothing for so long has its dirty logging off, or is idle.
const SILENCE_S: f64 = 1.0;

/// Hold a running VM of any VMM to a dirty rate, from outside
///
/// The VM goes on unmodified and knows nothing of it: an eBPF program counts the pages that go to its dirty rings and
/// signals a vCPU on the very page that spends its grant. The vCPU's thread is kept stopped until the debt is paid. It needs
/// root, a VM with dirty rings, and dirty logging on: a migration, or QEMU's `calc-dirty-rate` in the mode dirty-ring.
/// The VM is free again when this ends, however it ends.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig limit --pid $(pgrep -f qemu-system) --quota 25
  dirtyrig limit --vm web01 --quota 100 --per-vm --duration 5m --out results/held
  dirtyrig limit --pid 4711 --quota 100 --vcpu 1 --at '30s set 25 1' --at '60s cancel 1'
  dirtyrig limit --pid 4711 --quota 100 --socket /tmp/limit.sock    others change it, by QMP")]
pub struct Args {
    #[command(flatten)]
    which: WhichVm,

    /// Limit of each vCPU in MiB/s
    #[arg(long, value_name = "MIB_S", allow_negative_numbers = true)]
    quota: MaybeQuota,

    /// Limit this vCPU alone: by QEMU's `cpu-index` where its threads are named so, else by KVM's id
    #[arg(long, value_name = "N", conflicts_with = "per_vm")]
    vcpu: Option<usize>,

    /// One limit for all vCPUs together, shared fairly; what one leaves goes to the others
    #[arg(long)]
    per_vm: bool,

    /// For how long [default: until ctrl-c, or the VM's end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    duration: Option<Span>,

    /// The longest pause that is asked for at once [default: 5ms]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    max_stall: Option<Span>,

    /// The time's worth of quota that may be saved up while less is dirtied [default: 1s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    burst: Option<Span>,

    /// A change in time, such as '10s set 500 all' or '30s cancel 0'; may be given several times
    #[arg(long, value_name = "CHANGE")]
    at: Vec<Event>,

    /// Let QMP clients change the limits, on a Unix socket made here
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Also write a timeline of pauses and rates, for Perfetto (ui.perfetto.dev); the file must not exist
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    timeline: Option<PathBuf>,

    #[command(flatten)]
    output: OutputFlags,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let vm = args.which.find()?;
    let dir = results::folder(args.output.out.as_deref(), &format!("limit-{}", vm.pid))?;
    let listening = args.socket.as_deref().map(Server::listen).transpose()?;
    let interrupt = Interrupt::from_signals()?;
    let depth = Depth {
        max_stall: args.max_stall.map_or(crate::scenario::MAX_STALL, |Span(span)| span),
        burst: args.burst.map_or(crate::scenario::BURST, |Span(span)| span),
    };
    let limiter = Arc::new(Limiter::attach(vm.pid, depth)?);
    let target = OutsideTarget::new(Arc::clone(&limiter), interrupt.clone(), |text| note(text));
    note(attached(&vm, &limiter));
    let scenario = scenario(args, &vm, &limiter)?;
    let described = described(&scenario, &vm, &limiter)?;
    let timeline = args.timeline.as_deref().map(Timeline::create).transpose()?;
    let mut recorder = Recorder::create(dir.clone(), Manifest::new(0, [0], results::machine(), described))?;

    let remote = Arc::new(Remote::new(Arc::clone(&limiter), interrupt.clone()));
    let server = listening
        .map(|listening| Server::start(listening, Arc::new(Monitor::new(remote.clone())), |text| note(text)))
        .transpose()?;
    let mut watching = Watching {
        live: Live::new(&scenario),
        vm: vm.clone(),
        is_told: false,
    };
    let outcome = WithTimeline::new(&mut recorder, timeline, &format!("process {}", vm.pid)).and_then(|mut sink| {
        run_on(
            Box::new(target),
            (0, 0),
            &scenario,
            &mut sink,
            &mut watching,
            &interrupt,
        )
    });
    watching.live.end();
    let is_gone = limiter.end().is_some();
    if let Some(server) = server {
        server.end(None);
    }
    // The last that holds it: from here on the VM is free.
    drop((limiter, remote));
    let summaries = match outcome {
        Ok((_, summaries)) => summaries,
        Err(error) => {
            recorder.finish()?;
            if error.is::<Interrupted>() {
                note(format_args!(
                    "ended before a limit was set: the samples are in {}",
                    dir.display()
                ));
            }
            return Err(error);
        }
    };
    if is_gone {
        note(format_args!("the VM {vm} has ended"));
    } else {
        note(format_args!("the VM {vm} runs free again"));
    }
    recorder.append_summaries(0, &summaries)?;
    recorder.finish()?;
    results::plots(&Recording::open(&dir)?);
    note(format_args!("results: {}", dir.display()));
    if args.output.json {
        json(&summaries)?;
    } else {
        data(table::of_cell(&summaries))?;
        table::reasons(&summaries).into_iter().for_each(note);
    }
    // However long it was asked to last, being told to end is the ordinary end of it.
    Ok(exit::OK)
}

/// What was asked for, as the cell that it is.
fn scenario(args: &Args, vm: &Vm, limiter: &Limiter) -> anyhow::Result<Scenario> {
    let books = limiter.books();
    // Room for the highest: numbers have gaps.
    let vcpus = books.last().map_or(0, |(vcpu, _)| vcpu + 1);
    if let Some(vcpu) = args.vcpu {
        let known: Vec<String> = books.iter().map(|(vcpu, _)| vcpu.to_string()).collect();
        anyhow::ensure!(
            books.iter().any(|(known, _)| *known == vcpu),
            "vCPU {vcpu} is unknown: the vCPUs of {vm} are, by {}, {}: give `--vcpu` one of these",
            limiter.number_kind(),
            known.join(", ")
        );
    }
    let each = |vcpu| {
        let is_limited = !args.per_vm && args.vcpu.is_none_or(|one| one == vcpu);
        if is_limited { args.quota } else { MaybeQuota(None) }
    };
    let settings = Settings {
        ring: vec![Ring::new(limiter.ring_entries()).context("the VM's dirty ring has a size that is unknown")?],
        quota: vec![PerVcpu::each((0..vcpus).map(each).collect())],
        vm_quota: args.per_vm.then_some(args.quota),
        limiter: vec![LimiterKind::BudgetEbpf],
        max_stall: args.max_stall,
        burst: args.burst,
        vcpus: vec![VcpuCount::new(vcpus as u64).context("the VM has more vCPUs than can be recorded")?],
        duration: args.duration,
        warm_up: Some(Span(BEFORE)),
        at: args.at.clone(),
        probes: Some(ProbeMode::Off),
        ..Settings::default()
    };
    Ok(Scenario::new(&settings, 0, End::WhenTold)?)
}

/// What is held, by which numbers.
fn attached(vm: &Vm, limiter: &Limiter) -> String {
    let books = limiter.books();
    let numbers: Vec<String> = books.iter().map(|(vcpu, _)| vcpu.to_string()).collect();
    let kind = limiter.number_kind();
    let ids: Option<Vec<String>> = books
        .iter()
        .map(|(_, book)| Some(book.id.kvm_id()?.to_string()))
        .collect();
    let ids = ids
        .filter(|_| kind == NumberKind::CpuIndex)
        .map(|ids| format!("; KVM's ids: {}", ids.join(" ")));
    format!(
        "limiting {vm}: vCPUs {}, by {kind}{}",
        numbers.join(" "),
        ids.unwrap_or_default()
    )
}

/// What was asked for, for the manifest, with whose VM it is and which vCPU is which: of the VM's guest nothing is known.
fn described(scenario: &Scenario, vm: &Vm, limiter: &Limiter) -> anyhow::Result<Value> {
    let known = Settings {
        guest: Vec::new(),
        memory: None,
        plugged: None,
        seed: None,
        vmm: Vec::new(),
        ..scenario.settings()
    };
    let mut described = serde_json::to_value(known).context("can't describe what was asked for")?;
    described["pid"] = Value::from(vm.pid);
    let vcpus: Vec<_> = limiter
        .books()
        .into_iter()
        .map(|(vcpu, book)| {
            json!({
                "vcpu": vcpu, "thread": book.thread, "kvm_id": book.id.kvm_id(), "cpu_index": book.id.index,
            })
        })
        .collect();
    described["limited"] = json!({
        "pid": vm.pid, "process": vm.process, "vm": vm.name, "uuid": vm.uuid,
        "vcpu_is": limiter.number_kind().name(), "vcpus": vcpus,
    });
    Ok(described)
}

/// Shows how it goes, and says so once if no page is seen.
struct Watching {
    live: Live,
    vm: Vm,
    is_told: bool,
}

impl Watch for Watching {
    fn sampled(&mut self, rows: &[Sample]) {
        self.live.sampled(rows);
        let is_silent = rows
            .iter()
            .all(|row| row.t_s >= SILENCE_S && row.harvested_pages == Some(0));
        if is_silent && !std::mem::replace(&mut self.is_told, true) {
            note(format_args!(
                "warning: the VM {} has dirtied no page that was logged: it is idle, or its dirty logging is \
                 off and nothing can be limited; a migration turns it on, and so does QEMU's `calc-dirty-rate` with \
                 \"mode\": \"dirty-ring\"",
                self.vm
            ));
        }
    }

    fn changed(&mut self, event: Event) {
        self.live.changed(event);
    }
}
