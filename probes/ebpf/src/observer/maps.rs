//! The maps, and the few ways in which programs touch them.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue, RingBuf},
};
use dirtyrig_probes_common::{
    CAUSES, ExitKey, Histogram, HistogramKey, LOST_EXITS, LOST_KINDS, Last, MAX_EXITS, MAX_PROCESSES, MAX_THREADS,
    Pushed, Ring, Thread,
};

/// A live element of a map: of an array, or of a preallocated hash, which both stay where they are.
///
/// Other CPUs may read and write it at the same time, so there is never a reference to it. Its members are reached one by
/// one, each as a whole word, by [`get`], [`set`] and [`add`].
pub struct Element<T>(*mut T);

impl<T> Clone for Element<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Element<T> {}

impl<T> Element<T> {
    /// # Safety
    /// A look-up in this run of the program found it: until that ends, the kernel keeps what is there.
    pub unsafe fn found(element: *mut T) -> Self {
        Self(element)
    }

    pub fn as_ptr(self) -> *mut T {
        self.0
    }
}

/// Reads a member of an [`Element`]: `get!(thread.ring)`.
macro_rules! get {
    ($element:ident.$member:ident $([$index:expr])?) => {{
        let element = $element.as_ptr();
        // SAFETY: a live element; volatile because others may write the word meanwhile.
        unsafe { core::ptr::read_volatile(&raw const (*element).$member $([$index])?) }
    }};
}
pub(crate) use get;

/// Writes a member of an [`Element`]: `set!(thread.ring, 0)`.
macro_rules! set {
    ($element:ident.$member:ident $([$index:expr])?, $value:expr) => {{
        let (element, value) = ($element.as_ptr(), $value);
        // SAFETY: a live element; volatile because others may read the word meanwhile.
        unsafe { core::ptr::write_volatile(&raw mut (*element).$member $([$index])?, value) }
    }};
}
pub(crate) use set;

/// Raises a member of an [`Element`] that nobody else writes meanwhile: `add!(thread.runs, 1)`.
macro_rules! add {
    ($element:ident.$member:ident $([$index:expr])?, $by:expr) => {{
        let by = $by;
        $crate::maps::set!($element.$member $([$index])?, $crate::maps::get!($element.$member $([$index])?) + by)
    }};
}
pub(crate) use add;

/// The processes to watch, if `CONFIG.filter` is set.
#[map]
pub static PROCESSES: HashMap<u32, u8> = HashMap::with_max_entries(MAX_PROCESSES, 0);
/// By thread id. Preallocated like all of these: nothing is allocated inside KVM's locks.
#[map]
pub static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(MAX_THREADS, 0);
/// By [`Thread::slot`].
#[map]
pub static PUSHED: Array<Pushed> = Array::with_max_entries(MAX_THREADS, 0);
/// The slots that no thread has. Filled by the loader.
#[map]
pub static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(MAX_THREADS, 0);
#[map]
pub static LAST: PerCpuArray<Last> = PerCpuArray::with_max_entries(1, 0);
/// By [`Thread::ring`].
#[map]
pub static RINGS: HashMap<u64, Ring> = HashMap::with_max_entries(MAX_THREADS, 0);
/// What is known of the rings as a whole: by `RINGS_*`.
#[map]
pub static RINGS_KNOWN: Array<u64> = Array::with_max_entries(2, 0);
#[map]
pub static EXITS: HashMap<ExitKey, u64> = HashMap::with_max_entries(MAX_EXITS, 0);
#[map]
pub static HISTOGRAMS: HashMap<HistogramKey, Histogram> = HashMap::with_max_entries(MAX_THREADS * CAUSES as u32, 0);
/// Finished stalls. Sized by the loader.
#[map]
pub static STALLS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
/// Pushed pages. A buffer of their own, so that a flood of pages loses no stall. Sized by the loader.
#[map]
pub static PUSHES: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_KINDS, 0);

/// Counts one thing of `kind` that could not be recorded.
#[inline(always)]
pub fn lose(kind: u32) {
    if let Some(count) = LOST.get_ptr_mut(kind) {
        // SAFETY: a live map element of this CPU; programs of these types do not migrate while they run.
        unsafe { *count += 1 }
    }
}

/// Counts one exit. Its thread alone counts under its id, so the plain addition loses nothing.
#[inline(always)]
pub fn count_exit(tid: u32, kind: u32, reason: u32) {
    let key = ExitKey { tid, kind, reason };
    if let Some(count) = EXITS.get_ptr_mut(&key) {
        // SAFETY: a live map element with one writer, this thread.
        unsafe { *count += 1 }
    } else if EXITS.insert(key, 1u64, 0).is_err() {
        lose(LOST_EXITS);
    }
}
