//! Pages by the index of each vCPU's ring; and the one program that runs for each of them, attached no longer than it takes
//! to learn which vCPU has which ring.

use std::time::{Duration, Instant};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{
        ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _, raw_trace_point::RawTracePointLinkId,
    },
};
use dirtyrig_probes_common::{RING_CHANGES, RINGS_ALL_KNOWN, RINGS_CHANGED, Thread};

use super::{Counted, PageSource, Threads, Wanted};
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
pub(crate) struct RingIndex {
    wanted: Wanted,
    known: Array<MapData, u64>,
    /// The program that learns, while it is attached.
    link: Option<RawTracePointLinkId>,
    looked: Option<Instant>,
    looking_took: Duration,
    /// What [`RINGS_CHANGED`] said then.
    changes: u64,
}

impl RingIndex {
    /// Loads what looks, and attaches what learns.
    pub(crate) fn attach(ebpf: &mut Ebpf, wanted: Wanted) -> Result<Self, String> {
        program(ebpf, LOOK).load().map_err(|error| refusal(&error))?;
        let link = attach_raw(ebpf, LEARN, EVENT).map_err(|error| refusal(&error))?;
        Ok(Self {
            wanted,
            known: map::take(ebpf, KNOWN).map_err(|error| error.to_string())?,
            link: Some(link),
            looked: None,
            looking_took: Duration::ZERO,
            changes: 0,
        })
    }

    fn rest(&mut self, ebpf: &mut Ebpf) -> Result<(), Error> {
        self.known
            .set(RINGS_ALL_KNOWN, 1, 0)
            .map_err(map::failed(KNOWN, "write"))?;
        if let Some(link) = self.link.take() {
            program(ebpf, LEARN)
                .detach(link)
                .map_err(|source| again("detach", &source))?;
        }
        Ok(())
    }
}

impl PageSource for RingIndex {
    fn pages(&self, ebpf: &Ebpf, Counted { thread, .. }: &Counted, look: bool) -> Result<u64, Error> {
        let counted = thread.pages_beyond_index.wrapping_add(thread.dirty_index);
        // Outside KVM_RUN nothing is pushed, and the ring may be gone.
        if !look || thread.run_since_ns == 0 || !has_ring(thread) {
            return Ok(counted);
        }
        Ok(counted + ahead(ebpf, thread)?)
    }

    /// Detaches what learns once every ring is known, and attaches it again when one is not.
    fn tend(&mut self, ebpf: &mut Ebpf, threads: &dyn Fn() -> Result<Threads, Error>) -> Result<(), Error> {
        if self.wanted.traced {
            return Ok(());
        }
        let changes = self.known.get(&RINGS_CHANGED, 0).map_err(map::failed(KNOWN, "read"))?;
        let every = if self.link.is_some() { LEARNING } else { LEARNT };
        let every = every.max(self.looking_took * LOOKING);
        if changes == self.changes && self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Ok(());
        }
        let has_changed = std::mem::replace(&mut self.changes, changes) != changes;
        let begin = Instant::now();
        self.looked = Some(begin);
        // What has just changed may not show in `/proc` yet.
        let all_known = !has_changed && all_known(self.wanted.target, &threads()?);
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

    fn runs_for_each_page(&self) -> bool {
        self.link.is_some()
    }

    /// It filled a ring which never became known: it was gone before what learns was attached again.
    fn missed(&self, thread: &Thread) -> bool {
        let pages = thread.pages_beyond_index.wrapping_add(thread.dirty_index);
        thread.ring_full_exits > 0 && pages == 0
    }
}

fn has_ring(thread: &Thread) -> bool {
    thread.ring != 0 && thread.ring != RING_CHANGES
}

/// Whether each vCPU of the target that has a ring runs on a thread whose ring is known; not if there is none.
fn all_known(target: Target, threads: &Threads) -> bool {
    if threads.is_empty() {
        return false;
    }
    let is_known = |pid: u32, descriptor: u32| {
        threads.iter().any(|(tid, thread)| {
            thread.tgid == pid
                && thread.run_fd_plus_one == descriptor + 1
                && has_ring(thread)
                && process::thread_lives(pid, *tid)
        })
    };
    let mut vcpus = process::watched(target)
        .into_iter()
        .filter(|&pid| process::has_ring(pid) != Some(false))
        .flat_map(|pid| process::vcpu_descriptors(pid).into_iter().map(move |vcpu| (pid, vcpu)))
        .peekable();
    vcpus.peek().is_some() && vcpus.all(|(pid, descriptor)| is_known(pid, descriptor))
}

/// How far the index of the ring is ahead of what `thread` says.
fn ahead(ebpf: &Ebpf, thread: &Thread) -> Result<u64, Error> {
    let program: &RawTracePoint = ebpf
        .program(LOOK)
        .and_then(|program| program.try_into().ok())
        .expect("the embedded object has this program");
    let mut options = RawTracePointRunOptions::new();
    (options.args[0], options.args[1]) = (thread.ring, thread.dirty_index);
    let looked = program.test_run(options).map_err(|source| Error::Load {
        source: format!("{LOOK}: {}", refusal(&source)).into(),
    })?;
    // An index does not go back.
    Ok(u64::from(looked.return_value.cast_signed().max(0).unsigned_abs()))
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
