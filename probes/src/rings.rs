//! How many pages each vCPU has dirtied, by the index of its ring; and the one program that runs for each of them, attached
//! no longer than it takes to learn which vCPU has which ring.

use std::time::{Duration, Instant};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{
        ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _, raw_trace_point::RawTracePointLinkId,
    },
};
use dirtyrig_probes_common::{RINGS_ALL_KNOWN, RINGS_CHANGED, Thread};

use crate::{
    Error, Target,
    attach::{attach_raw, refusal},
    map, process,
};

const EVENT: &str = "kvm_dirty_ring_push";
const LEARN: &str = "push_raw";
const LOOK: &str = "look";
const KNOWN: &str = "RINGS_KNOWN";

/// How often to see whether all rings are known, while they are not.
const LEARNING: Duration = Duration::from_millis(100);
/// And at most this part of the time: many processes take long to look through.
const LOOKING: u32 = 50;
/// And while they are: a vCPU that was created without our notice.
const LEARNT: Duration = Duration::from_secs(1);

/// The rings of the vCPUs that are watched.
pub(crate) struct Rings {
    target: Target,
    /// The pages are wanted as well, so what learns is never detached.
    is_traced: bool,
    known: Array<MapData, u64>,
    /// The program that learns, while it is attached.
    link: Option<RawTracePointLinkId>,
    looked: Option<Instant>,
    looking_took: Duration,
    /// What [`RINGS_CHANGED`] said then.
    changes: u64,
}

impl Rings {
    /// Loads what looks, and attaches what learns.
    pub(crate) fn attach(ebpf: &mut Ebpf, target: Target, is_traced: bool) -> Result<Self, String> {
        program(ebpf, LOOK).load().map_err(|error| refusal(&error))?;
        let link = attach_raw(ebpf, LEARN, EVENT).map_err(|error| refusal(&error))?;
        Ok(Self {
            target,
            is_traced,
            known: map::take(ebpf, KNOWN).map_err(|error| error.to_string())?,
            link: Some(link),
            looked: None,
            looking_took: Duration::ZERO,
            changes: 0,
        })
    }

    /// Whether the program that learns is attached.
    pub(crate) fn is_learning(&self) -> bool {
        self.link.is_some()
    }

    /// Detaches what learns once every ring is known, and attaches it again when one is not.
    pub(crate) fn tend(
        &mut self,
        ebpf: &mut Ebpf,
        threads: impl FnOnce() -> Result<Threads, Error>,
    ) -> Result<(), Error> {
        if self.is_traced {
            return Ok(());
        }
        let changes = self.known.get(&RINGS_CHANGED, 0).map_err(|source| Error::Map {
            name: KNOWN,
            operation: "read",
            source,
        })?;
        let every = if self.link.is_some() { LEARNING } else { LEARNT };
        let every = every.max(self.looking_took * LOOKING);
        if changes == self.changes && self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Ok(());
        }
        let has_changed = std::mem::replace(&mut self.changes, changes) != changes;
        let begin = Instant::now();
        self.looked = Some(begin);
        // What has just changed may not show in `/proc` yet.
        let all_known = !has_changed && all_known(self.target, &threads()?);
        self.looking_took = begin.elapsed();
        match (&self.link, all_known) {
            (Some(_), true) => self.rest(ebpf),
            (None, false) => {
                let link = attach_raw(ebpf, LEARN, EVENT).map_err(|source| again("attach", &source))?;
                self.link = Some(link);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn rest(&mut self, ebpf: &mut Ebpf) -> Result<(), Error> {
        self.known.set(RINGS_ALL_KNOWN, 1, 0).map_err(|source| Error::Map {
            name: KNOWN,
            operation: "write",
            source,
        })?;
        if let Some(link) = self.link.take() {
            program(ebpf, LEARN)
                .detach(link)
                .map_err(|source| again("detach", &source))?;
        }
        Ok(())
    }
}

type Threads = Vec<(u32, Thread)>;

/// Whether each vCPU of the target runs on a thread whose ring is known; not if there is none.
fn all_known(target: Target, threads: &Threads) -> bool {
    if threads.is_empty() {
        return false;
    }
    let processes = match target {
        Target::Pid(pid) => vec![pid],
        Target::AllKvm => process::kvm_processes().into_iter().map(|(pid, _)| pid).collect(),
    };
    let is_known = |pid: u32, descriptor: u32| {
        threads.iter().any(|(tid, thread)| {
            thread.tgid == pid
                && thread.run_fd_plus_one == descriptor + 1
                && thread.ring != 0
                && process::thread_lives(pid, *tid)
        })
    };
    let mut vcpus = processes
        .into_iter()
        .flat_map(|pid| process::vcpu_descriptors(pid).into_iter().map(move |vcpu| (pid, vcpu)))
        .peekable();
    vcpus.peek().is_some() && vcpus.all(|(pid, descriptor)| is_known(pid, descriptor))
}

/// Looks that a thread may make void by going in and out of `KVM_RUN`: what it then says of itself is as new.
const MOST_LOOKS: u32 = 8;

/// The pages that `thread` has pushed by now; `again` reads it anew.
pub(crate) fn pages(
    ebpf: &Ebpf,
    mut thread: Thread,
    again: impl Fn() -> Result<Option<Thread>, Error>,
) -> Result<u64, Error> {
    for _ in 0..MOST_LOOKS {
        // A thread that never returned was met in KVM_RUN, and is there still.
        let is_running = thread.run_since_ns != 0 || thread.userspace_exits == 0;
        if thread.ring == 0 || !is_running {
            break;
        }
        let ahead = ahead(ebpf, &thread)?;
        match again()? {
            Some(now) if is_still_there(&thread, &now) => return Ok(thread.indexed_pages + ahead),
            Some(now) => thread = now,
            None => break,
        }
    }
    Ok(thread.indexed_pages)
}

/// How far the index of the ring is ahead of what `thread` says.
fn ahead(ebpf: &Ebpf, thread: &Thread) -> Result<u64, Error> {
    let program: &RawTracePoint = ebpf
        .program(LOOK)
        .and_then(|program| program.try_into().ok())
        .expect("the embedded object has this program");
    let mut options = RawTracePointRunOptions::new();
    (options.args[0], options.args[1]) = (thread.ring, u64::from(thread.dirty_index));
    let looked = program.test_run(options).map_err(|source| Error::Load {
        source: format!("{LOOK}: {}", refusal(&source)).into(),
    })?;
    // An index does not go back.
    Ok(u64::from(looked.return_value.cast_signed().max(0).unsigned_abs()))
}

/// Whether it has neither entered nor left `KVM_RUN`.
fn is_still_there(before: &Thread, now: &Thread) -> bool {
    let run = |thread: &Thread| (thread.ring, thread.runs, thread.userspace_exits, thread.dirty_index);
    run(before) == run(now)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut RawTracePoint {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .expect("the embedded object has this program")
}

fn again(what: &str, source: &ProgramError) -> Error {
    Error::Load {
        source: format!("{LEARN}: can't {what} it again: {}", refusal(source)).into(),
    }
}
