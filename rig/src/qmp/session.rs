//! One client's session: negotiation first, then commands by name.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    arguments::{Arguments, shortened},
    framing::Frame,
    hmp,
    monitor::{Monitor, version},
    request::{BadRequest, Request},
    wire::{DirtyRateMode, Error, Greeting, Hello, Reply, TimeUnit},
};

/// What a command returns.
type Returned = Result<Value, Error>;
/// Takes the arguments it knows; who calls it refuses those that are left, and only then is `Do` done.
type Command = fn(&mut Arguments) -> Result<Do, Error>;
/// A command with its arguments.
type Do = Box<dyn FnOnce(&Session) -> Returned>;

const COMMANDS: &[(&str, Command)] = &[
    ("qmp_capabilities", qmp_capabilities),
    ("query-commands", query_commands),
    ("query-version", query_version),
    ("query-status", query_status),
    ("query-cpus-fast", query_cpus_fast),
    ("set-vcpu-dirty-limit", set_vcpu_dirty_limit),
    ("cancel-vcpu-dirty-limit", cancel_vcpu_dirty_limit),
    ("query-vcpu-dirty-limit", query_vcpu_dirty_limit),
    ("x-set-dirty-limit-burst", set_dirty_limit_burst),
    ("calc-dirty-rate", calc_dirty_rate),
    ("query-dirty-rate", query_dirty_rate),
    ("human-monitor-command", human_monitor_command),
    ("quit", quit),
];

const NEGOTIATION: &str = "qmp_capabilities";
const AN_INDEX: &str = "an integer, the index of a vCPU";
const A_UNIT: &str = "\"second\" or \"millisecond\"";

/// The session of one client.
pub(super) struct Session {
    monitor: Arc<Monitor>,
    negotiated: std::cell::Cell<bool>,
    quits: std::cell::Cell<bool>,
}

impl Session {
    pub(super) fn new(monitor: Arc<Monitor>) -> Self {
        Self {
            monitor,
            negotiated: false.into(),
            quits: false.into(),
        }
    }

    /// What is said before anything is asked.
    pub(super) fn greeting() -> Greeting {
        Greeting {
            qmp: Hello {
                version: version(),
                capabilities: Vec::new(),
            },
        }
    }

    /// Does what one frame asks.
    pub(super) fn answer(&self, frame: Frame) -> Reply {
        let request = match frame {
            Frame::Value(bytes) => Request::parse(&bytes),
            Frame::Bad(error) => Err(BadRequest {
                id: None,
                error: Error::generic(error.to_string()),
            }),
        };
        match request {
            Ok(request) => Reply {
                outcome: self.run(&request.command, Arguments(request.arguments)).into(),
                id: request.id,
            },
            Err(BadRequest { id, error }) => Reply {
                outcome: Err(error).into(),
                id,
            },
        }
    }

    /// Whether the client asked for the end; told once its reply is on the way.
    pub(super) fn quits(&self) -> bool {
        self.quits.get()
    }

    pub(super) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    fn run(&self, name: &str, mut arguments: Arguments) -> Returned {
        match (self.negotiated.get(), name == NEGOTIATION) {
            (false, false) => {
                return Err(Error::not_found(format!(
                    "capabilities come first: execute {NEGOTIATION}, then other commands"
                )));
            }
            (true, true) => return Err(Error::not_found("capabilities were negotiated already")),
            _ => {}
        }
        let (_, command) = COMMANDS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let name = shortened(name);
            Error::not_found(format!(
                "there is no command {name}: query-commands lists those there are"
            ))
        })?;
        let act = command(&mut arguments)?;
        arguments.end()?;
        act(self)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what a command returns")]
fn empty() -> Returned {
    Ok(json!({}))
}

fn value(of: impl Serialize) -> Returned {
    serde_json::to_value(of).map_err(|error| Error::generic(format!("the reply can't be put into JSON: {error}")))
}

fn qmp_capabilities(arguments: &mut Arguments) -> Result<Do, Error> {
    let enable: Option<Vec<String>> = arguments.optional("enable", "a list of capabilities")?;
    if let Some(unknown) = enable.unwrap_or_default().first() {
        let unknown = shortened(unknown);
        return Err(Error::generic(format!(
            "capability '{unknown}' can't be enabled: the greeting offers none"
        )));
    }
    Ok(Box::new(|session| {
        session.negotiated.set(true);
        empty()
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "it is in a table with those that can fail")]
fn query_commands(_: &mut Arguments) -> Result<Do, Error> {
    Ok(Box::new(|_| {
        Ok(COMMANDS.iter().map(|(name, _)| json!({ "name": name })).collect())
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "it is in a table with those that can fail")]
fn query_version(_: &mut Arguments) -> Result<Do, Error> {
    Ok(Box::new(|_| value(version())))
}

#[expect(clippy::unnecessary_wraps, reason = "it is in a table with those that can fail")]
fn query_status(_: &mut Arguments) -> Result<Do, Error> {
    Ok(Box::new(|session| {
        let running = session.monitor.vm().is_running();
        let status = if running { "running" } else { "paused" };
        Ok(json!({ "running": running, "status": status }))
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "it is in a table with those that can fail")]
fn query_cpus_fast(_: &mut Arguments) -> Result<Do, Error> {
    Ok(Box::new(|session| {
        let vcpus = session.monitor.vm().vcpus();
        let row = |vcpu: &super::VcpuInfo| {
            let mut row = json!({
                "cpu-index": vcpu.index,
                "qom-path": format!("/machine/vcpu[{}]", vcpu.index),
                "target": "x86_64",
                "props": {},
            });
            // Clients pin and watch that thread, so a number that is none is worse than no number.
            if let Some(thread) = vcpu.thread {
                row["thread-id"] = thread.into();
            }
            row
        };
        Ok(vcpus.iter().map(row).collect())
    }))
}

fn set_vcpu_dirty_limit(arguments: &mut Arguments) -> Result<Do, Error> {
    let cpu = arguments.optional("cpu-index", AN_INDEX)?;
    let rate = arguments.required("dirty-rate", "a whole number of MiB/s, 0 or more")?;
    Ok(Box::new(move |session| {
        session.monitor.set(cpu, rate)?;
        empty()
    }))
}

fn cancel_vcpu_dirty_limit(arguments: &mut Arguments) -> Result<Do, Error> {
    let cpu = arguments.optional("cpu-index", AN_INDEX)?;
    Ok(Box::new(move |session| {
        session.monitor.cancel(cpu)?;
        empty()
    }))
}

fn set_dirty_limit_burst(arguments: &mut Arguments) -> Result<Do, Error> {
    let burst = arguments.required("burst", "a whole number of ms above 0")?;
    Ok(Box::new(move |session| {
        session.monitor.set_burst(burst)?;
        empty()
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "it is in a table with those that can fail")]
fn query_vcpu_dirty_limit(_: &mut Arguments) -> Result<Do, Error> {
    Ok(Box::new(|session| value(session.monitor.query()?)))
}

fn calc_dirty_rate(arguments: &mut Arguments) -> Result<Do, Error> {
    let time = arguments.required("calc-time", "an integer")?;
    let unit: Option<TimeUnit> = arguments.optional("calc-time-unit", A_UNIT)?;
    let sample_pages = arguments.optional("sample-pages", "an integer")?;
    let mode: Option<DirtyRateMode> =
        arguments.optional("mode", "\"page-sampling\", \"dirty-bitmap\" or \"dirty-ring\"")?;
    Ok(Box::new(move |session| {
        let (unit, mode) = (unit.unwrap_or_default(), mode.unwrap_or_default());
        session.monitor.calc_dirty_rate(time, unit, mode, sample_pages)?;
        empty()
    }))
}

fn query_dirty_rate(arguments: &mut Arguments) -> Result<Do, Error> {
    let unit: Option<TimeUnit> = arguments.optional("calc-time-unit", A_UNIT)?;
    Ok(Box::new(move |session| {
        value(session.monitor.query_dirty_rate(unit.unwrap_or_default())?)
    }))
}

fn human_monitor_command(arguments: &mut Arguments) -> Result<Do, Error> {
    let line: String = arguments.required("command-line", "a string")?;
    let cpu: Option<i64> = arguments.optional("cpu-index", AN_INDEX)?;
    Ok(Box::new(move |session| {
        let vcpus = session.monitor.vm().vcpus();
        if let Some(cpu) = cpu.filter(|&cpu| !vcpus.iter().any(|vcpu| i64::try_from(vcpu.index) == Ok(cpu))) {
            return Err(Error::generic(format!(
                "parameter 'cpu-index' is {cpu}, but there is no such vCPU"
            )));
        }
        let answer = hmp::run(&session.monitor, &line);
        session.quits.set(answer.quits);
        Ok(answer.text.replace('\n', "\r\n").into())
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "it is in a table with those that can fail")]
fn quit(_: &mut Arguments) -> Result<Do, Error> {
    Ok(Box::new(|session| {
        session.quits.set(true);
        empty()
    }))
}
