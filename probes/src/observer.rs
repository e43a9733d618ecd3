//! The probes: attached, drained, read.

use std::{collections::HashMap, io, os::fd::OwnedFd, path::Path, time::Duration};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap as BpfHashMap, MapData, PerCpuArray, PerCpuValues, Queue, RingBuf},
    util::nr_cpus,
};
use dirtyrig_probes_common::{
    CAUSE_INTERRUPTED, CAUSE_RING_FULL, Config, ExitKey, Histogram, HistogramKey, LOST_EXITS, LOST_HISTOGRAMS,
    LOST_PUSHES, LOST_RINGS, LOST_STALLS, LOST_THREADS, Last, MAX_THREADS, PushRecord, Pushed, Ring, StallRecord,
    Thread, VCPU_ID_FROM_EXIT, VCPU_ID_FROM_RING_EXIT,
};

use crate::{
    AttachKind, Error, Event, EventStatus, ExitCount, ExitReason, KvmEvent, Lost, Options, Push, Stall, StallCounters,
    Status, Target, VcpuCounters,
    attach::{Formats, attach, explain},
    exits::ExitNames,
    identity::{Evidence, Identities, KvmId, Number, NumberKind, Seen, VcpuId},
    map::{self, Raw},
    marking::SlotLayout,
    moment::{self, Moment},
    monotonic_now, object,
    pages::{BitmapMarks, Counted, PageSource, RingIndex, RingPushes, Threads, Wanted},
    process,
};

/// What the kernel says of its own types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// The pages that are counted one by one.
const PUSHED: &str = "PUSHED";
/// The programs' global variable, by which they learn that all are attached.
const BEGUN: &str = ".data";

type BpfMap<K, V> = BpfHashMap<MapData, K, V>;

/// Attached probes. Dropping them detaches everything.
pub struct Probes {
    /// Owns the programs, and the links of those at raw tracepoints.
    ebpf: Ebpf,
    /// Keeps the programs at classic tracepoints attached.
    _held: Vec<OwnedFd>,
    /// Where pages are told from.
    sources: Vec<Box<dyn PageSource + Send + Sync>>,
    /// Those that were counted one by one.
    pushed: Array<MapData, Raw<Pushed>>,
    /// Open as long as programs may yet be loaded that read it.
    _begun: Array<MapData, u64>,
    target: Target,
    attached: Vec<(KvmEvent, Result<AttachKind, String>)>,
    exit_names: ExitNames,
    stalls: RingBuf<MapData>,
    pushes: RingBuf<MapData>,
    threads: BpfMap<u32, Raw<Thread>>,
    rings: BpfMap<u64, Raw<Ring>>,
    free_slots: Queue<MapData, u32>,
    last: PerCpuArray<MapData, Raw<Last>>,
    exits: BpfMap<Raw<ExitKey>, u64>,
    histograms: BpfMap<Raw<HistogramKey>, Raw<Histogram>>,
    lost: PerCpuArray<MapData, u64>,
    identities: Identities,
}

impl Probes {
    /// Attaches the probes. What can't be attached is left out and told by [`status`](Self::status); an error is what
    /// leaves nothing to observe.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`] and the like for a target that has no VM, [`Error::Privilege`] or [`Error::Load`] if the kernel
    /// refuses the programs, [`Error::NothingAttached`] if it has none of the events.
    #[expect(clippy::missing_panics_doc, reason = "it would be a fault in here")]
    pub fn attach(options: &Options) -> Result<Self, Error> {
        let by_index = options.attach.first() == Some(&AttachKind::RawTracepoint);
        if by_index && let Some(probes) = Self::attach_counting(options, false)? {
            return Ok(probes);
        }
        Self::attach_counting(options, true).map(|probes| probes.expect("pages can always be counted"))
    }

    /// Attaches the probes so that pages are counted one by one, or told by the index of their ring: `None` if that takes
    /// what can't be attached.
    fn attach_counting(options: &Options, count_pushes: bool) -> Result<Option<Self>, Error> {
        process::check_pid_namespace()?;
        if let Target::Pid(pid) = options.target {
            process::check_target(pid)?;
        }
        check_ring_bytes(options.ring_bytes)?;

        let mut config = Config {
            filter: u32::from(matches!(options.target, Target::Pid(_))),
            trace_pushes: u32::from(options.trace_pushes),
            count_pushes: u32::from(count_pushes),
            task_regs: u32::from(Path::new(KERNEL_BTF).exists()),
            ..Config::default()
        };
        let formats = Formats::read(&mut config);
        let bitmap = SlotLayout::find().map(|slot| {
            config.slot_bitmap_at = slot.bitmap;
            config.slot_base_at = slot.base;
            config.slot_id_at = slot.id;
            config.slot_space_at = slot.space;
        });
        // The buffer that stays empty is as small as can be.
        let push_bytes = if options.trace_pushes { options.ring_bytes } else { PAGE };
        let mut ebpf = EbpfLoader::new()
            // No program of ours has relocations against the kernel's types, and reading them all takes 20 ms.
            .btf(None)
            .override_global("CONFIG", &Raw(config), true)
            .map_max_entries("STALLS", options.ring_bytes)
            .map_max_entries("PUSHES", push_bytes)
            .load(object::observer())
            .map_err(load_error)?;
        if let Target::Pid(pid) = options.target {
            watch(&mut ebpf, pid)?;
        }

        let mut free_slots: Queue<MapData, u32> = map::take(&mut ebpf, "FREE_SLOTS")?;
        for slot in 0..MAX_THREADS {
            free_slots.push(slot, 0).map_err(map::failed("FREE_SLOTS", "write"))?;
        }

        let wanted = |event: &KvmEvent| options.hardware_exits || !matches!(event, KvmEvent::Entry | KvmEvent::Exit);
        let wanted_pages = Wanted {
            target: options.target,
            traced: options.trace_pushes,
        };
        let mut ring_index = None;
        let mut held = Vec::new();
        let mut attach_one = |event: KvmEvent| {
            if event == KvmEvent::RingPush && !count_pushes {
                ring_index = Some(RingIndex::attach(&mut ebpf, wanted_pages)?);
                return Ok(AttachKind::RawTracepoint);
            }
            attach(&mut ebpf, &formats, event, &options.attach, &mut held)
        };
        let attached: Vec<_> = KvmEvent::ALL
            .into_iter()
            .filter(wanted)
            .map(|event| (event, attach_one(event)))
            .collect();
        // Without these three nobody reads the indices of a ring when its vCPU enters and leaves KVM_RUN.
        let needed = |event: &KvmEvent| matches!(event, KvmEvent::UserspaceExit | KvmEvent::RingPush | KvmEvent::Run);
        if !count_pushes && attached.iter().any(|(event, result)| needed(event) && result.is_err()) {
            return Ok(None);
        }
        // The others tell nothing without one of these two.
        let essential = |event: &KvmEvent| matches!(event, KvmEvent::UserspaceExit | KvmEvent::RingPush);
        if attached
            .iter()
            .filter(|(event, _)| essential(event))
            .all(|(_, result)| result.is_err())
        {
            return Err(nothing_attached(&attached));
        }
        let of_ring: Box<dyn PageSource + Send + Sync> = match ring_index {
            Some(ring_index) => Box::new(ring_index),
            None => Box::new(RingPushes),
        };
        // From here on the programs see all that happens: none of them has seen anything before the last was attached.
        let mut begun: Array<MapData, u64> = map::take(&mut ebpf, BEGUN)?;
        let now = monotonic_now().as_nanos() as u64;
        begun.set(0, now, 0).map_err(map::failed(BEGUN, "write"))?;
        Ok(Some(Self {
            target: options.target,
            sources: vec![of_ring, Box::new(BitmapMarks::of(options.target, bitmap))],
            pushed: map::take(&mut ebpf, PUSHED)?,
            _begun: begun,
            attached,
            exit_names: formats.exit_names,
            stalls: map::take(&mut ebpf, "STALLS")?,
            pushes: map::take(&mut ebpf, "PUSHES")?,
            threads: map::take(&mut ebpf, "THREADS")?,
            rings: map::take(&mut ebpf, "RINGS")?,
            free_slots,
            last: map::take(&mut ebpf, "LAST")?,
            exits: map::take(&mut ebpf, "EXITS")?,
            histograms: map::take(&mut ebpf, "HISTOGRAMS")?,
            lost: map::take(&mut ebpf, "LOST")?,
            identities: Identities::default(),
            ebpf,
            _held: held,
        }))
    }

    /// Hands every event since the last call to `sink`, stalls first, each kind in the order of its records; returns
    /// how many there were. Call it on a timer: what exceeds a buffer in between is lost, and counted.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel can't be read.
    #[expect(clippy::missing_panics_doc, reason = "it would be a fault in here")]
    pub fn drain(&mut self, mut sink: impl FnMut(Event)) -> Result<usize, Error> {
        self.tend_pages()?;
        let mut drained = 0;
        while let Some(record) = self.stalls.next().map(|item| Raw::<StallRecord>::from_bytes(&item)) {
            let record = record.expect("every record in STALLS is a StallRecord");
            sink(Event::Stall(Stall::new(&record, self.vcpu_of(record.tid)?)));
            drained += 1;
        }
        // Pages come in runs of one thread.
        let mut last = None;
        while let Some(record) = self.pushes.next().map(|item| Raw::<PushRecord>::from_bytes(&item)) {
            let record = record.expect("every record in PUSHES is a PushRecord");
            let vcpu = match last {
                Some((tid, vcpu)) if tid == record.tid => vcpu,
                _ => self.vcpu_of(record.tid)?,
            };
            last = Some((record.tid, vcpu));
            sink(Event::Push(Push::new(&record, vcpu)));
            drained += 1;
        }
        Ok(drained)
    }

    /// What each vCPU thread has done, by process and thread. Threads that have ended stay, marked as gone, until
    /// their room is needed.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel can't be read.
    pub fn vcpus(&mut self) -> Result<Vec<VcpuCounters>, Error> {
        self.tend_pages()?;
        let threads = map::entries(&self.threads, "THREADS")?;
        let mut reasons: HashMap<u32, Vec<ExitCount>> = HashMap::new();
        for (Raw(key), count) in map::entries(&self.exits, "EXITS")? {
            let reason = ExitReason::new(key.kind, key.reason);
            let name = self.exit_names.name(reason);
            reasons
                .entry(key.tid)
                .or_default()
                .push(ExitCount { reason, name, count });
        }
        self.identities.refresh();
        let mut counters = Vec::with_capacity(threads.len());
        for (tid, Raw(thread)) in threads {
            let mut exit_reasons = reasons.remove(&tid).unwrap_or_default();
            exit_reasons.sort_unstable_by_key(|exit| (std::cmp::Reverse(exit.count), exit.reason));
            let gone = !process::thread_lives(thread.tgid, tid);
            let Some(Moment { at, thread, pages }) = self.moment(tid, !gone)? else {
                continue;
            };
            let open = |since: u64| (since != 0 && !gone).then(|| nanos(since));
            let running = open(thread.run_since_ns).map_or(Duration::ZERO, |since| at.saturating_sub(since));
            counters.push(VcpuCounters {
                at,
                process: thread.tgid,
                thread: tid,
                vcpu: self.identify(tid, &thread),
                number: None,
                gone,
                pushed_pages: pages,
                sees_pages: !self.sources.iter().any(|source| source.is_blind_to(thread.tgid)),
                reset_entries: thread.reset_entries,
                resets: thread.resets,
                userspace_exits: thread.userspace_exits,
                ring_full_exits: thread.ring_full_exits,
                runs: thread.runs,
                entries: thread.entries,
                exits: thread.exits,
                in_run: nanos(thread.run_ns) + running,
                stalled_since: open(thread.stalled_since_ns),
                ring_full: self.stall_counters(tid, &thread, CAUSE_RING_FULL)?,
                interrupted: self.stall_counters(tid, &thread, CAUSE_INTERRUPTED)?,
                exit_reasons,
            });
        }
        self.make_room(&counters)?;
        number(&mut counters);
        counters.sort_unstable_by_key(|vcpu| (vcpu.process, vcpu.number, vcpu.thread));
        Ok(counters)
    }

    /// Whether a program runs for each page that is dirtied: while it is not known of every vCPU which ring it has, and all
    /// the time where pages are traced or can only be counted.
    pub fn runs_for_each_page(&self) -> bool {
        self.sources.iter().any(|source| source.runs_for_each_page())
    }

    fn tend_pages(&mut self) -> Result<(), Error> {
        let threads = &self.threads;
        let mut sources = self.sources.iter_mut();
        sources.try_for_each(|source| source.tend(&mut self.ebpf, &|| all(threads)))
    }

    /// What a thread says of itself, and the pages that it has dirtied, at one moment; `None` if it was forgotten.
    fn moment(&self, tid: u32, alive: bool) -> Result<Option<Moment>, Error> {
        let thread = || Ok(map::get(&self.threads, &tid, "THREADS")?.map(|Raw(thread)| thread));
        let pages = |thread: &Thread, look| {
            let pushed = self.pushed.get(&(thread.slot as u32), 0);
            let counted = Counted {
                thread: *thread,
                pushed: pushed.map_err(map::failed(PUSHED, "read"))?.0,
            };
            let mut sources = self.sources.iter();
            sources.try_fold(0, |sum, source| {
                Ok(sum + source.pages(&self.ebpf, &counted, alive && look)?)
            })
        };
        moment::read(thread, pages)
    }

    /// What the probes can and cannot see here, and what was lost.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel can't be read.
    pub fn status(&self) -> Result<Status, Error> {
        let mut threads = Vec::new();
        let mut pushed = 0;
        for (tid, thread) in all(&self.threads)? {
            if let Some(moment) = self.moment(tid, process::thread_lives(thread.tgid, tid))? {
                pushed += moment.pages;
                threads.push(moment.thread);
            }
        }
        let total = |of: fn(&Thread) -> u64| threads.iter().map(of).sum();
        let events = self.attached.iter().map(|(event, attached)| EventStatus {
            event: *event,
            attached: attached.clone(),
            fired: match event {
                KvmEvent::RingPush => pushed,
                KvmEvent::RingReset => total(|thread| thread.resets),
                KvmEvent::RingExit => total(|thread| thread.ring_exit_events),
                KvmEvent::UserspaceExit => total(|thread| thread.userspace_exits),
                KvmEvent::Run => total(|thread| thread.runs),
                KvmEvent::Entry => total(|thread| thread.entries),
                KvmEvent::Exit => total(|thread| thread.exits),
            },
        });
        let blind = self.sources.iter().filter_map(|source| source.blind());
        Ok(Status::new(events.collect(), self.lost()?, blind.collect()))
    }

    /// What could not be recorded.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel can't be read.
    pub fn lost(&self) -> Result<Lost, Error> {
        let count = |kind: u32| -> Result<u64, Error> {
            let counts = self.lost.get(&kind, 0);
            let counts = counts.map_err(|source| Error::Map {
                name: "LOST",
                operation: "read",
                source: source.into(),
            })?;
            Ok(counts.iter().sum())
        };
        Ok(Lost {
            stalls: count(LOST_STALLS)?,
            pushes: count(LOST_PUSHES)?,
            threads: count(LOST_THREADS)?,
            exits: count(LOST_EXITS)?,
            histograms: count(LOST_HISTOGRAMS)?,
            rings: count(LOST_RINGS)?,
            vcpus: self.vcpus_not_met()?,
        })
    }

    /// The vCPUs whose pages were missed.
    fn vcpus_not_met(&self) -> Result<u64, Error> {
        let threads = all(&self.threads)?;
        let is_missing = |(tid, thread): &&(u32, Thread)| {
            let is_missed = self.sources.iter().any(|source| source.missed(thread));
            is_missed && !process::thread_lives(thread.tgid, *tid)
        };
        Ok(threads.iter().filter(is_missing).count() as u64)
    }

    /// Whether what is watched is still there; always, for every VM on the host.
    pub fn target_lives(&self) -> bool {
        match self.target {
            Target::Pid(pid) => process::process_lives(pid),
            Target::AllKvm => true,
        }
    }

    fn stall_counters(&self, tid: u32, thread: &Thread, cause: u32) -> Result<StallCounters, Error> {
        let lengths = map::get(&self.histograms, &Raw(HistogramKey { tid, cause }), "HISTOGRAMS")?;
        Ok(StallCounters {
            count: thread.stalls[cause as usize],
            total: nanos(thread.stall_ns[cause as usize]),
            lengths: lengths.map(|Raw(lengths)| (&lengths).into()).unwrap_or_default(),
        })
    }

    fn vcpu_of(&mut self, tid: u32) -> Result<Option<VcpuId>, Error> {
        if let Some(known) = self.identities.known(tid) {
            return Ok(Some(known));
        }
        let thread = map::get(&self.threads, &tid, "THREADS")?;
        Ok(thread.and_then(|Raw(thread)| self.identify(tid, &thread)))
    }

    /// Which vCPU a thread runs, by the best evidence there is.
    fn identify(&mut self, tid: u32, thread: &Thread) -> Option<VcpuId> {
        let evidence = match thread.vcpu_id_from {
            VCPU_ID_FROM_RING_EXIT => Some(Evidence::RingExit),
            VCPU_ID_FROM_EXIT => Some(Evidence::Exit),
            _ => None,
        };
        let id = thread.vcpu_id;
        let seen = Seen {
            process: thread.tgid,
            named: evidence.map(|evidence| KvmId { id, evidence }),
            descriptor: thread.run_fd_plus_one.checked_sub(1),
        };
        self.identities.of(tid, seen)
    }

    /// Forgets the threads that have ended, once they take up half the room.
    fn make_room(&mut self, counters: &[VcpuCounters]) -> Result<(), Error> {
        if counters.len() < MAX_THREADS as usize / 2 {
            return Ok(());
        }
        // No CPU may go on counting for a thread that is forgotten.
        let nobody = vec![Raw(Last::default()); nr_cpus().map_or(0, |cpus| cpus)];
        let nobody = PerCpuValues::try_from(nobody).map_err(|source| Error::Map {
            name: "LAST",
            operation: "write",
            source: source.into(),
        })?;
        self.last.set(0, nobody, 0).map_err(map::failed("LAST", "write"))?;
        for vcpu in counters.iter().filter(|vcpu| vcpu.gone) {
            let tid = vcpu.thread;
            let thread = map::get(&self.threads, &tid, "THREADS")?;
            map::remove(&mut self.threads, &tid, "THREADS")?;
            for cause in [CAUSE_RING_FULL, CAUSE_INTERRUPTED] {
                map::remove(&mut self.histograms, &Raw(HistogramKey { tid, cause }), "HISTOGRAMS")?;
            }
            self.identities.forget(tid);
            if let Some(Raw(thread)) = thread {
                self.pushed
                    .set(thread.slot as u32, Raw(Pushed::default()), 0)
                    .map_err(map::failed(PUSHED, "write"))?;
                self.free_slots
                    .push(thread.slot as u32, 0)
                    .map_err(map::failed("FREE_SLOTS", "write"))?;
            }
        }
        let gone = |tid: u32| counters.iter().any(|vcpu| vcpu.gone && vcpu.thread == tid);
        for (key, _) in map::entries(&self.exits, "EXITS")?
            .into_iter()
            .filter(|(key, _)| gone(key.0.tid))
        {
            map::remove(&mut self.exits, &key, "EXITS")?;
        }
        for (key, _) in map::entries(&self.rings, "RINGS")?
            .into_iter()
            .filter(|(_, ring)| gone(ring.0.tid))
        {
            map::remove(&mut self.rings, &key, "RINGS")?;
        }
        Ok(())
    }
}

/// Gives each vCPU the number by which it is shown: of one kind in each process, by the threads that are there.
fn number(counters: &mut [VcpuCounters]) {
    let mut vcpus: HashMap<u32, Vec<VcpuId>> = HashMap::new();
    for counters in counters.iter().filter(|counters| !counters.gone) {
        vcpus.entry(counters.process).or_default().extend(counters.vcpu);
    }
    let kinds: HashMap<u32, NumberKind> = vcpus
        .into_iter()
        .map(|(process, vcpus)| (process, NumberKind::of(vcpus)))
        .collect();
    for counters in counters {
        let kind = kinds.get(&counters.process).copied().unwrap_or_default();
        counters.number = counters.vcpu.and_then(|vcpu| Number::of(vcpu, kind));
    }
}

/// Lets `pid` through the filter. The map stays with the object, which needs it until its programs are loaded.
fn watch(ebpf: &mut Ebpf, pid: u32) -> Result<(), Error> {
    let name = "PROCESSES";
    let map = ebpf.map_mut(name).expect("the embedded object has a map PROCESSES");
    let mut processes: BpfHashMap<_, u32, u8> = map.try_into().map_err(map::failed(name, "open"))?;
    processes.insert(pid, 1, 0).map_err(map::failed(name, "write"))
}

fn nanos(count: u64) -> Duration {
    Duration::from_nanos(count)
}

/// Every thread that is known.
fn all(threads: &BpfMap<u32, Raw<Thread>>) -> Result<Threads, Error> {
    let threads = map::entries(threads, "THREADS")?;
    Ok(threads.into_iter().map(|(tid, Raw(thread))| (tid, thread)).collect())
}

/// The least size of a buffer: a page of the only architecture that is supported.
const PAGE: u32 = 4096;

fn check_ring_bytes(bytes: u32) -> Result<(), Error> {
    if bytes.is_power_of_two() && (PAGE..=1 << 30).contains(&bytes) {
        return Ok(());
    }
    Err(Error::RingBytes { bytes, page: PAGE })
}

/// Tells a refusal from a failure.
// By value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
pub(crate) fn load_error(error: EbpfError) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return Error::Privilege {
                source: io::Error::from(io.kind()),
            };
        }
        source = cause.source();
    }
    Error::Load {
        source: explain(&error).into(),
    }
}

fn nothing_attached(attached: &[(KvmEvent, Result<AttachKind, String>)]) -> Error {
    let reasons = attached
        .iter()
        .filter_map(|(event, result)| Some(format!("{event}: {}", result.as_ref().err()?)));
    Error::NothingAttached {
        reasons: reasons.collect::<Vec<_>>().join("; "),
    }
}
