//! The entry of the current thread, and the stall it may be in.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use dirtyrig_probes_common::{
    BUCKETS, CAUSE_RING_FULL, Histogram, HistogramKey, LOST_HISTOGRAMS, LOST_STALLS, LOST_THREADS, StallRecord, Thread,
    bucket_of,
};

use crate::{
    config,
    index::change,
    maps::{Element, FREE_SLOTS, HISTOGRAMS, PROCESSES, STALLS, THREADS, add, get, lose, set},
    registers,
};

/// What a histogram starts from: too large for the eBPF stack, so it stands in read-only data.
#[unsafe(no_mangle)]
static EMPTY_HISTOGRAM: Histogram = Histogram { counts: [0; BUCKETS] };

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no precondition. CLOCK_MONOTONIC.
    unsafe { bpf_ktime_get_ns() }
}

/// When everything began: once all programs are attached the loader writes here, after which they see all that happens. In
/// `.data` and not a map: no look-up.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static BEGUN_NS: u64 = 0;

/// When everything began; 0 while some programs may not be attached yet, so that the others see only a part.
#[inline(always)]
fn begun() -> u64 {
    // SAFETY: a valid static; volatile because the loader writes it.
    unsafe { core::ptr::read_volatile(&raw const BEGUN_NS) }
}

/// Where a thread is when it is first seen.
#[derive(Clone, Copy, PartialEq)]
pub enum Seen {
    /// In a `KVM_RUN` whose begin was not seen: it is older than the probes.
    InRun,
    /// Outside, or about to enter it.
    Outside,
}

/// The current thread, if it is known already.
#[inline(always)]
fn known() -> Option<(u32, Element<Thread>)> {
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: just found.
    let thread = unsafe { Element::found(THREADS.get_ptr_mut(&tid)?) };
    Some((tid, thread))
}

/// The current thread, entered now if its process is watched. Called by KVM's own events and for `KVM_RUN`: who gets here
/// runs a vCPU.
#[inline(always)]
pub fn watched(seen: Seen) -> Option<(u32, Element<Thread>)> {
    match known() {
        Some(found) => Some(found),
        None => enter(seen),
    }
}

/// Whether the current process is to be watched.
#[inline(always)]
pub fn is_watched() -> bool {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    config!(filter) == 0 || PROCESSES.get_ptr(&tgid).is_some()
}

#[inline(always)]
fn enter(seen: Seen) -> Option<(u32, Element<Thread>)> {
    let begun = begun();
    if begun == 0 || !is_watched() {
        return None;
    }
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        lose(LOST_THREADS);
        return None;
    };
    let mut fresh = Thread {
        tgid,
        slot: u64::from(slot),
        ..Thread::default()
    };
    if seen == Seen::InRun {
        fresh.run_since_ns = begun;
        fresh.run_fd_plus_one = registers::run_descriptor().map_or(0, |fd| fd.wrapping_add(1));
    }
    if THREADS.insert(&tid, &fresh, 0).is_err() {
        // There is room for it: it was just taken out.
        let _ = FREE_SLOTS.push(&slot, 0);
        lose(LOST_THREADS);
        return None;
    }
    // Its ring is to be learnt.
    change();
    known()
}

/// Begins a stall: `KVM_RUN` returned at `at` for `cause`.
#[inline(always)]
pub fn begin_stall(thread: Element<Thread>, cause: u32, at: u64) {
    set!(thread.stall_cause, cause);
    set!(thread.stalled_since_ns, at);
}

/// Ends the stall that the thread is in, if any.
#[inline(always)]
pub fn end_stall(tid: u32, thread: Element<Thread>, end: u32, at: u64) {
    let exit_ns = get!(thread.stalled_since_ns);
    if exit_ns == 0 {
        return;
    }
    set!(thread.stalled_since_ns, 0);
    let cause = get!(thread.stall_cause);
    let length = at.saturating_sub(exit_ns);
    // One comparison for two causes: an index that the verifier can bound.
    let which = usize::from(cause != CAUSE_RING_FULL);
    add!(thread.stalls[which], 1);
    add!(thread.stall_ns[which], length);
    count_length(HistogramKey { tid, cause }, length);
    match STALLS.reserve::<StallRecord>(0) {
        Some(mut entry) => {
            entry.write(StallRecord {
                exit_ns,
                end_ns: at,
                tgid: get!(thread.tgid),
                tid,
                cause,
                end,
            });
            // A wake-up costs tens of times the rest; the reader drains on a timer.
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => lose(LOST_STALLS),
    }
}

#[inline(always)]
fn count_length(key: HistogramKey, length: u64) {
    if HISTOGRAMS.get_ptr(&key).is_none() && HISTOGRAMS.insert(&key, &EMPTY_HISTOGRAM, 0).is_err() {
        lose(LOST_HISTOGRAMS);
        return;
    }
    if let Some(histogram) = HISTOGRAMS.get_ptr_mut(&key) {
        let bucket = (bucket_of(length) as usize).min(BUCKETS - 1);
        // SAFETY: a live element that this thread alone writes; the bucket is in bounds.
        unsafe { *(&raw mut (*histogram).counts).cast::<u32>().add(bucket) += 1 }
    }
}
