//! `dirtyrig serve`: one guest whose limits others command.
//!
//! ```text
//!  main thread:   the cell, sampled until it is told to end
//!  accept, client: QMP, from the warm-up's end on        ─┐
//!  console:       the human monitor on stdin             ─┴▶ monitor ─▶ ServedGuest ─▶ the machine
//! ```
//!
//! A `quit` from any of them and a signal set one token, the interrupt: the cell takes its last sample, the vCPUs leave the
//! guest, so that no command waits for a sleeper, then every thread ends, and the recording is summed up.

mod console;
mod guest;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde_json::json;

use self::{console::Console, guest::ServedGuest};
use super::{probes, progress::Live, results, table};
use crate::{
    commands::{exit, flags::OutputFlags, output::note},
    engine::{
        Interrupted,
        cell::{Watch, run_cell},
        facts::facts,
        interrupt::Interrupt,
        own_vm::OwnVm,
        target::Target,
    },
    machine::require_kvm,
    model::Sample,
    qmp::{
        Listening, Monitor, Server,
        wire::{Event, Timestamp},
    },
    recording::{Manifest, Recorder, Recording},
    scenario::{End, Scenario, file, script, settings::Settings, vmm::Vmm},
    stdout::{data, json},
    sweep::execute::take_down,
};

/// Run one guest and let others set its limits: QMP clients on a socket, or you at a console
///
/// Existing QEMU tools then drive a limiter of the rig's: the socket speaks QMP (set-vcpu-dirty-limit,
/// query-vcpu-dirty-limit, calc-dirty-rate, human-monitor-command, ...) to many clients at once, and the console takes the
/// commands of QEMU's human monitor. It runs until a client says `quit`, ctrl-c, or --duration; what the guest did is
/// recorded as by `run`, and the summary is of the part since the last change of a limit.
#[derive(clap::Args, Clone, Debug)]
#[command(
    mut_arg("repetitions", |arg| arg.hide(true)),
    mut_arg("vmm", |arg| arg.hide(true)),
    group = clap::ArgGroup::new("remote").args(["socket", "console"]).required(true).multiple(true),
    after_help = "\
Examples:
  dirtyrig serve --socket /tmp/qmp.sock --limiter budget --vcpus 2
  dirtyrig serve --console --ring 65536
  qmp-shell /tmp/qmp.sock                      a client, from PyPI's qemu.qmp
  echo 'set_vcpu_dirty_limit 100' | dirtyrig serve --console --socket /tmp/qmp.sock"
)]
pub struct Args {
    /// TOML file of settings; flags win over it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Serve QMP on a Unix socket made here, its owner's alone
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Take commands of the human monitor from stdin, a terminal or a pipe; `help` lists them
    #[arg(long)]
    console: bool,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    output: OutputFlags,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let settings = match &args.file {
        Some(path) => args.settings.clone().or(file::read(path)?),
        None => args.settings.clone(),
    };
    let seed = settings.seed.unwrap_or_else(rand::random);
    let mut scenario = Scenario::new(&settings, seed, End::WhenTold)?;
    anyhow::ensure!(
        scenario.vm.vmm == Vmm::Rig,
        "`--vmm {}` can't be served: QEMU has a monitor of its own, so leave `--vmm` out, or use its `-qmp`",
        scenario.vm.vmm
    );
    let dir = results::folder(
        args.output.out.as_deref(),
        &format!("serve-{}", scenario.vm.limiter.kind),
    )?;

    require_kvm()?;
    let described = serde_json::to_value(scenario.settings()).context("can't describe the scenario")?;
    scenario.probes = probes::resolve(scenario.probes)?;
    let interrupt = Interrupt::from_signals()?;
    let listening = args.socket.as_deref().map(Server::listen).transpose()?;
    let machine = results::machine();
    let vm = OwnVm::build(&scenario.vm).context("can't start the guest")?;
    let guest = Arc::new(ServedGuest::new(&vm, interrupt.clone(), !args.console));
    let mut recorder = Recorder::create(dir.clone(), Manifest::new(seed, [0], machine, described))?;

    let mut target: Box<dyn Target> = Box::new(vm);
    let facts = facts(0, 0, &*target, &scenario);
    let mut serving = Serving::new(args, &scenario, listening, &guest, &interrupt);
    let result = run_cell(&mut *target, &facts, &scenario, &mut recorder, &mut serving, &interrupt);
    let outcome = serving.end().and(result);
    let outcome = take_down(target, &facts, outcome);
    let summaries = match outcome {
        Ok((_, summaries)) => summaries,
        Err(error) => {
            recorder.finish()?;
            if error.is::<Interrupted>() {
                note(format_args!(
                    "ended in the warm-up: the samples are in {}",
                    dir.display()
                ));
            }
            return Err(error);
        }
    };
    recorder.append_summaries(0, &summaries)?;
    recorder.finish()?;
    results::plots(&Recording::open(&dir)?);
    probes::tell(&summaries);
    note(format_args!("results: {}", dir.display()));
    if args.output.json {
        json(&summaries)?;
    } else {
        data(table::of_cell(&summaries))?;
    }
    let is_signal = interrupt.is_set() && !guest.was_quit();
    Ok(if is_signal { exit::INTERRUPTED } else { exit::OK })
}

/// Watches the cell, and lets others in once its warm-up is over: it is to be unlimited.
struct Serving<'a> {
    args: &'a Args,
    live: Option<Live>,
    guest: &'a Arc<ServedGuest>,
    interrupt: &'a Interrupt,
    listening: Option<Listening>,
    state: State,
}

enum State {
    WarmingUp,
    Serving {
        server: Option<Server>,
        console: Option<Console>,
    },
    Failed(anyhow::Error),
}

impl<'a> Serving<'a> {
    fn new(
        args: &'a Args,
        scenario: &Scenario,
        listening: Option<Listening>,
        guest: &'a Arc<ServedGuest>,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self {
            args,
            // A line that changes all the time leaves no room for one that is typed.
            live: (!args.console).then(|| Live::new(scenario)),
            guest,
            interrupt,
            listening,
            state: State::WarmingUp,
        }
    }

    fn start(&mut self) -> anyhow::Result<State> {
        let monitor = Arc::new(Monitor::new(self.guest.clone()));
        let has_socket = self.listening.is_some();
        let server = self
            .listening
            .take()
            .map(|listening| Server::start(listening, Arc::clone(&monitor), |text| note(text)))
            .transpose()?;
        if let Some(path) = &self.args.socket {
            note(format_args!("QMP is served on {}", path.display()));
        }
        let console = self
            .args
            .console
            .then(|| Console::start(monitor, self.interrupt.clone(), has_socket))
            .transpose()?;
        Ok(State::Serving { server, console })
    }

    /// Ends every thread that was started.
    fn end(mut self) -> anyhow::Result<()> {
        if let Some(live) = &self.live {
            live.end();
        }
        self.guest.halt();
        match std::mem::replace(&mut self.state, State::WarmingUp) {
            State::WarmingUp => Ok(()),
            State::Failed(error) => Err(error),
            State::Serving { server, console } => {
                drop(console);
                if let Some(server) = server {
                    server.end(Some(shutdown(self.guest.was_quit())));
                }
                Ok(())
            }
        }
    }
}

impl Watch for Serving<'_> {
    fn sampled(&mut self, rows: &[Sample]) {
        if let Some(live) = &mut self.live {
            live.sampled(rows);
        }
        let is_warm = rows.first().is_some_and(|row| row.t_s > 0.0);
        if is_warm && matches!(self.state, State::WarmingUp) {
            self.state = self.start().unwrap_or_else(|error| {
                self.interrupt.set();
                State::Failed(error)
            });
        }
    }

    fn changed(&mut self, event: script::Event) {
        if let Some(live) = &mut self.live {
            live.changed(event);
        }
    }
}

/// The last that clients hear, with QEMU's reasons.
fn shutdown(quit: bool) -> Event {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reason = if quit { "host-qmp-quit" } else { "host-signal" };
    Event {
        event: "SHUTDOWN".to_owned(),
        data: json!({ "guest": false, "reason": reason }),
        timestamp: Timestamp {
            seconds: now.as_secs(),
            microseconds: now.subsec_micros(),
        },
    }
}
