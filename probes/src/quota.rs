//! A budget of pages for each vCPU, counted down in the kernel, exact to the page.

use std::{
    collections::BTreeMap,
    fmt, io,
    mem::offset_of,
    num::NonZeroUsize,
    os::fd::{AsFd as _, OwnedFd},
    ptr::NonNull,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData},
};
use dirtyrig_probes_common::{Budget, Limited, MAX_THREADS, QuotaConfig};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::{
    AttachKind, Error,
    attach::{attach_classic, attach_raw, refusal},
    map::{self, Raw},
    marking::{Link, Programs, SlotLayout},
    object,
    observer::load_error,
    process,
    tracefs::Tracefs,
};

/// Budgets of pages, drawn on by the vCPU threads that are assigned to them; of this process or of any other.
///
/// Each dirtied page takes one from the budget in its thread's slot, in the kernel, as it is pushed to the dirty ring.
/// The page that takes the last one, and every page after it, sends the thread its signal, whereupon `KVM_RUN`
/// returns `EINTR` (or a tracer sees the thread stop). Whoever limits then lets the debt be slept off and sets the next
/// budget:
///
/// ```no_run
/// # let (vcpu_thread, signal, burst) = (1, 12, 32);
/// let quota = dirtyrig_probes::Quota::attach(1)?;
/// quota.refill(0, burst);
/// quota.limit(std::process::id(), vcpu_thread, 0, signal)?;
/// // In the vCPU thread, after KVM_RUN returned EINTR: what is left is at most 0 and says by how many it overdrew.
/// let owed = burst - quota.left(0);
/// // ... sleep for owed / rate ...
/// quota.refill(0, burst);
/// # Ok::<(), dirtyrig_probes::Error>(())
/// ```
///
/// Each slot has one thread, whose pages it counts without an atomic instruction. Share a `Quota` between threads in an
/// `Arc`; dropping it frees every vCPU.
///
/// One thread is to run one vCPU, as in every VMM that we know, and be released when it ends: the program tells vCPUs apart
/// by the address of their ring, which a later VM may be given again.
pub struct Quota {
    threads: Mutex<Threads>,
    budgets: Budgets,
    kind: AttachKind,
    /// Owns the program, and its link at a raw tracepoint.
    _ebpf: Ebpf,
    /// Keeps it attached at a classic one.
    _held: Option<OwnedFd>,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota")
            .field("slots", &self.budgets.slots)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The programs on the function that marks pages in a bitmap.
const MARKS: Programs = Programs {
    fentry: "quota_mark_fentry",
    kprobe: "quota_mark_kprobe",
};

/// What a VM logs its dirty pages in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// A ring for each vCPU.
    Rings,
    /// A bitmap for each memory slot.
    Bitmap,
}

impl Quota {
    /// Attaches the program to VMs with rings, with `slots` budgets, each without end, and no vCPU limited yet.
    ///
    /// # Errors
    /// As [`attach_to`](Self::attach_to).
    pub fn attach(slots: u32) -> Result<Self, Error> {
        Self::attach_to(Log::Rings, slots)
    }

    /// The same for VMs that log in `log`. With a bitmap a page counts once in each pass, between two readings of the bitmap.
    ///
    /// # Errors
    /// [`Error::Slots`] for a number out of range, [`Error::PidNamespace`] in a container, [`Error::Privilege`],
    /// [`Error::Load`] or [`Error::NothingAttached`] if the kernel refuses the program, [`Error::NoBitmap`] if it can't tell of
    /// bitmaps.
    pub fn attach_to(log: Log, slots: u32) -> Result<Self, Error> {
        process::check_pid_namespace()?;
        if !(1..=MAX_THREADS).contains(&slots) {
            return Err(Error::Slots {
                slots,
                max: MAX_THREADS,
            });
        }
        let slot = match log {
            Log::Rings => QuotaConfig::default(),
            Log::Bitmap => {
                let slot = SlotLayout::find().map_err(|reasons| Error::NoBitmap { reasons })?;
                QuotaConfig {
                    slot_bitmap_at: slot.bitmap,
                    slot_base_at: slot.base,
                }
            }
        };
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("CONFIG", &Raw(slot), true)
            .map_max_entries("BUDGETS", slots)
            .load(object::quota())
            .map_err(load_error)?;
        let budgets = match ebpf.map("BUDGETS") {
            Some(Map::Array(map)) => Budgets::map(map, slots)?,
            _ => unreachable!("the embedded object has an array BUDGETS"),
        };
        for slot in 0..slots {
            // Relaxed: the program is not attached yet, and nobody else has the mapping.
            budgets.at(slot).end.store(i64::MAX, Ordering::Relaxed);
        }
        let threads = Mutex::new(Threads {
            limited: map::take(&mut ebpf, "LIMITED")?,
            generation: map::take(&mut ebpf, DATA)?,
            of_slot: BTreeMap::new(),
            changes: 0,
        });
        let (kind, held) = match log {
            Log::Rings => attach_to_push(&mut ebpf)?,
            Log::Bitmap => match MARKS.attach(&mut ebpf).map_err(|reasons| Error::NoBitmap { reasons })? {
                Link::Fentry(_) => (AttachKind::Fentry, None),
                Link::Kprobe(_) => (AttachKind::Kprobe, None),
            },
        };
        Ok(Self {
            threads,
            budgets,
            kind,
            _ebpf: ebpf,
            _held: held,
        })
    }

    /// How the program is attached.
    pub fn kind(&self) -> AttachKind {
        self.kind
    }

    /// How many budgets there are.
    pub fn slots(&self) -> u32 {
        self.budgets.slots
    }

    /// Lets a thread draw on the budget in `slot` from its next page on, and be sent `signal` when that is spent.
    /// Set the budget first. A thread that is limited already changes to this slot, which no other thread may have.
    ///
    /// # Errors
    /// [`Error::NoSuchSlot`], [`Error::SlotTaken`] or [`Error::NoSuchSignal`] for what can't be, [`Error::Map`] if the kernel
    /// can't be told.
    pub fn limit(&self, process: u32, thread: u32, slot: u32, signal: i32) -> Result<(), Error> {
        if slot >= self.slots() {
            return Err(Error::NoSuchSlot {
                slot,
                slots: self.slots(),
            });
        }
        // 64 is the last of the real-time signals.
        let number = u32::try_from(signal).ok().filter(|number| (1..=64).contains(number));
        let signal = number.ok_or(Error::NoSuchSignal { signal })?;
        let limited = Limited {
            tgid: process,
            slot,
            signal,
            reserved: 0,
        };
        self.change(|threads| {
            if let Some(&other) = threads.of_slot.get(&slot)
                && other != thread
            {
                return Err(Error::SlotTaken { slot, thread: other });
            }
            threads.of_slot.retain(|_, of| *of != thread);
            threads.of_slot.insert(slot, thread);
            threads
                .limited
                .insert(thread, Raw(limited), 0)
                .map_err(|source| Error::Map {
                    name: "LIMITED",
                    operation: "write",
                    source: source.into(),
                })
        })
    }

    /// Lets a thread dirty what it wants again; without effect on one that is not limited.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel can't be told.
    pub fn release(&self, thread: u32) -> Result<(), Error> {
        self.change(|threads| {
            threads.of_slot.retain(|_, of| *of != thread);
            map::remove(&mut threads.limited, &thread, "LIMITED")
        })
    }

    fn change(&self, change: impl FnOnce(&mut Threads) -> Result<(), Error>) -> Result<(), Error> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut threads)?;
        threads.changes += 1;
        let changes = threads.changes;
        threads.generation.set(0, changes, 0).map_err(|source| Error::Map {
            name: DATA,
            operation: "write",
            source: source.into(),
        })
    }

    /// Lets the threads of `slot` dirty `pages` from now on, whatever was left: the signal comes on the last of them, and
    /// on every page after it. `i64::MAX` is without end. Pages that are dirtied during the call count or not.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn refill(&self, slot: u32, pages: i64) {
        let budget = self.budgets.at(slot);
        // Relaxed, here and below: each count stands for itself, and nothing else is published through it.
        let drawn = budget.drawn.load(Ordering::Relaxed);
        budget.end.store(drawn.saturating_add(pages), Ordering::Relaxed);
    }

    /// The pages left in `slot`: at most 0 once it is spent, and below by how many it was overdrawn.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn left(&self, slot: u32) -> i64 {
        let budget = self.budgets.at(slot);
        match budget.end.load(Ordering::Relaxed) {
            i64::MAX => i64::MAX,
            end => end - budget.drawn.load(Ordering::Relaxed),
        }
    }

    /// Pages drawn from `slot` since it was attached.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn drawn(&self, slot: u32) -> u64 {
        self.budgets.at(slot).drawn.load(Ordering::Relaxed).unsigned_abs()
    }

    /// Signals sent for `slot`.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn signals(&self, slot: u32) -> u64 {
        self.budgets.at(slot).signals.load(Ordering::Relaxed)
    }

    /// Signals for `slot` that the kernel refused to send: pages went by unchecked.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn refused(&self, slot: u32) -> u64 {
        self.budgets.at(slot).refused.load(Ordering::Relaxed)
    }
}

/// Attaches the program for rings, the better way that this kernel takes, and returns what holds it there.
fn attach_to_push(ebpf: &mut Ebpf) -> Result<(AttachKind, Option<OwnedFd>), Error> {
    let event = "kvm_dirty_ring_push";
    let Err(raw) = attach_raw(ebpf, "quota_raw", event) else {
        return Ok((AttachKind::RawTracepoint, None));
    };
    let tracefs = Tracefs::open().map_err(|none| none.to_string());
    match tracefs.and_then(|tracefs| attach_classic(ebpf, &tracefs, "quota_tp", "kvm", event)) {
        Ok(held) => Ok((AttachKind::Tracepoint, Some(held))),
        Err(classic) => {
            let reasons = format!("{event}: raw tracepoint: {}; tracepoint: {classic}", refusal(&raw));
            Err(Error::NothingAttached { reasons })
        }
    }
}

/// The program's global variables.
const DATA: &str = ".data";

/// Who is limited.
struct Threads {
    limited: HashMap<MapData, u32, Raw<Limited>>,
    /// The thread that has a slot.
    of_slot: BTreeMap<u32, u32>,
    /// Tells the program that `limited` has changed.
    generation: Array<MapData, u64>,
    /// What it says.
    changes: u64,
}

/// A [`Budget`] as the kernel and this process share it: all is the kernel's to write but `end`, which is ours.
#[repr(C, align(64))]
struct Shared {
    drawn: AtomicI64,
    end: AtomicI64,
    signals: AtomicU64,
    refused: AtomicU64,
}

const _: () = {
    assert!(size_of::<Shared>() == size_of::<Budget>());
    assert!(offset_of!(Shared, drawn) == offset_of!(Budget, drawn));
    assert!(offset_of!(Shared, end) == offset_of!(Budget, end));
    assert!(offset_of!(Shared, signals) == offset_of!(Budget, signals));
    assert!(offset_of!(Shared, refused) == offset_of!(Budget, refused));
};

/// The array of budgets, mapped.
struct Budgets {
    first: NonNull<Shared>,
    bytes: NonZeroUsize,
    slots: u32,
}

// SAFETY: the mapping belongs to no thread, and is reached through atomics alone.
unsafe impl Send for Budgets {}
// SAFETY: as above.
unsafe impl Sync for Budgets {}

impl Budgets {
    fn map(map: &MapData, slots: u32) -> Result<Self, Error> {
        let bytes = (slots as usize * size_of::<Budget>()).next_multiple_of(4096);
        let bytes = NonZeroUsize::new(bytes).expect("at least one slot");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it aliases nothing.
        let mapped = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) };
        let mapped = mapped.map_err(|errno| Error::MapBudgets {
            slots,
            source: io::Error::from(errno),
        })?;
        Ok(Self {
            first: mapped.cast(),
            bytes,
            slots,
        })
    }

    fn at(&self, slot: u32) -> &Shared {
        assert!(slot < self.slots, "slot {slot} of a quota that has {}", self.slots);
        // SAFETY: in bounds of the mapping, as just checked.
        let budget = unsafe { self.first.add(slot as usize) };
        // SAFETY: aligned (a page is a multiple of a budget), live as long as `self`, and only ever used atomically.
        unsafe { budget.as_ref() }
    }
}

impl Drop for Budgets {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.first.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "unmapping a live mapping: {unmapped:?}");
    }
}
