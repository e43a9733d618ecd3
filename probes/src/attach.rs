//! Which program goes to which event, the best way that this kernel takes.

use std::{
    fmt,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint, TracePoint, raw_trace_point::RawTracePointLinkId},
};
use dirtyrig_probes_common::{Config, NO_FIELD};

use crate::{
    exits::ExitNames,
    kvm_event::{KvmEvent, Plan},
    perf,
    tracefs::{NoTracefs, Tracefs},
};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachKind {
    /// At the event's own arguments: cheapest.
    RawTracepoint,
    /// At the event's record in the trace, by offsets from its `format` file.
    Tracepoint,
    /// At the entry of a function of the kernel's, by a call that the kernel has room for there.
    Fentry,
    /// The same by a kprobe.
    Kprobe,
}

impl fmt::Display for AttachKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RawTracepoint => "raw tracepoint",
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        })
    }
}

/// What tracefs says: offsets, names, and for which events it says them.
pub(crate) struct Formats {
    tracefs: Result<Tracefs, NoTracefs>,
    pub(crate) exit_names: ExitNames,
    /// For each event whether its classic program has the offsets it needs; an error says what to do.
    readable: Vec<(KvmEvent, Result<(), String>)>,
}

impl Formats {
    /// Reads them all, and writes the offsets into `config`.
    pub(crate) fn read(config: &mut Config) -> Self {
        let tracefs = Tracefs::open();
        let mut exit_names = ExitNames::default();
        let readable = KvmEvent::ALL.map(|event| {
            let read = || {
                let Plan {
                    category, event: name, ..
                } = event.plan();
                let format = opened(&tracefs)?.format(category, name)?;
                let at = |field: &str, size| {
                    format
                        .offset(field, size)
                        .map_err(|why| format!("{category}:{name}: {why}"))
                };
                match event {
                    KvmEvent::RingPush => {
                        config.push_index_at = at("index", 4)?;
                        config.push_dirty_index_at = at("dirty_index", 4)?;
                        config.push_reset_index_at = at("reset_index", 4)?;
                        config.push_slot_at = at("slot", 4)?;
                        config.push_offset_at = at("offset", 8)?;
                    }
                    KvmEvent::RingReset => {
                        config.reset_index_at = at("index", 4)?;
                        config.reset_dirty_index_at = at("dirty_index", 4)?;
                        config.reset_reset_index_at = at("reset_index", 4)?;
                    }
                    KvmEvent::RingExit => config.ring_exit_vcpu_id_at = at("vcpu_id", 4)?,
                    KvmEvent::UserspaceExit => {
                        config.userspace_exit_reason_at = at("reason", 4)?;
                        config.userspace_exit_errno_at = at("errno", 4)?;
                    }
                    KvmEvent::Run => {
                        config.ioctl_fd_at = at("fd", 8)?;
                        config.ioctl_cmd_at = at("cmd", 8)?;
                    }
                    KvmEvent::Entry => {}
                    KvmEvent::Exit => {
                        config.exit_reason_at = at("exit_reason", 4)?;
                        // Kernels that lack these two still give the reason.
                        config.exit_isa_at = at("isa", 4).unwrap_or(NO_FIELD);
                        config.exit_vcpu_id_at = at("vcpu_id", 4).unwrap_or(NO_FIELD);
                        exit_names = ExitNames::parse(format.print());
                    }
                }
                Ok(())
            };
            let mut read = read;
            (event, read())
        });
        Self {
            tracefs,
            exit_names,
            readable: readable.into(),
        }
    }

    pub(crate) fn readable(&self, event: KvmEvent) -> Result<(), String> {
        let (_, readable) = self
            .readable
            .iter()
            .find(|(of, _)| *of == event)
            .expect("every event was read");
        readable.clone()
    }
}

fn opened(tracefs: &Result<Tracefs, NoTracefs>) -> Result<&Tracefs, String> {
    tracefs.as_ref().map_err(ToString::to_string)
}

/// Attaches the program for `event`: of the ways that `allowed` lists, the first that the kernel takes. What keeps the
/// classic ones attached goes into `held`.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    formats: &Formats,
    event: KvmEvent,
    allowed: &[AttachKind],
    held: &mut Vec<OwnedFd>,
) -> Result<AttachKind, String> {
    let plan = event.plan();
    let mut failures = Vec::new();
    for &kind in allowed {
        let attached = match (kind, plan.raw) {
            (AttachKind::RawTracepoint, Some(program)) => attach_raw(ebpf, program, plan.event)
                .map(drop)
                .map_err(|error| refusal(&error)),
            (AttachKind::RawTracepoint, None) | (AttachKind::Fentry | AttachKind::Kprobe, _) => continue,
            (AttachKind::Tracepoint, _) => formats
                .readable(event)
                .and_then(|()| opened(&formats.tracefs))
                .and_then(|tracefs| attach_classic(ebpf, tracefs, plan.classic, plan.category, plan.event))
                .map(|event| held.push(event)),
        };
        match attached {
            Ok(()) => return Ok(kind),
            Err(why) => failures.push(format!("{kind}: {why}")),
        }
    }
    Err(failures.join("; "))
}

/// Attaches, and loads first what is not loaded yet.
pub(crate) fn attach_raw(ebpf: &mut Ebpf, program: &str, event: &str) -> Result<RawTracePointLinkId, ProgramError> {
    let program: &mut RawTracePoint = program_of(ebpf, program).try_into()?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => program.attach(event),
        Err(error) => Err(error),
    }
}

/// Loads a program and attaches it to the classic tracepoint, for as long as the descriptor is open.
pub(crate) fn attach_classic(
    ebpf: &mut Ebpf,
    tracefs: &Tracefs,
    program: &str,
    category: &str,
    event: &str,
) -> Result<OwnedFd, String> {
    let id = tracefs.id(category, event)?;
    let program = loaded(ebpf, program).map_err(|error| refusal(&error))?;
    let program = program.fd().map_err(|error| refusal(&error))?;
    perf::attach(program.as_fd(), id).map_err(|errno| format!("not attached ({errno})"))
}

fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a TracePoint, ProgramError> {
    let program: &mut TracePoint = program_of(ebpf, name).try_into()?;
    program.load()?;
    Ok(program)
}

fn program_of<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut aya::programs::Program {
    ebpf.program_mut(name)
        .expect("the embedded object has every program that is named here")
}

/// Why the kernel did not take a program, in one line: of the verifier's log its last words.
pub(crate) fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return explain(error);
    };
    let log = verifier_log.to_string();
    let statistics = ["processed ", "verification time", "stack depth"];
    let said = log
        .lines()
        .rev()
        .find(|line| !line.is_empty() && !statistics.iter().any(|word| line.starts_with(word)));
    match said {
        Some(said) => format!("not loaded ({io_error}): {said}"),
        None => format!("not loaded ({io_error})"),
    }
}

/// The whole chain of an error in one line.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.trim_end().to_owned()
}
