//! What the eBPF programs and their reader share: plain `repr(C)` records, no behaviour beyond the bucket of a
//! histogram. Both sides are compiled from this one file; the layouts are asserted, so that neither compiler can
//! change them unnoticed.

// Of a library, unlike the workspace: whoever calls it asks first what can go wrong.
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]
#![no_std]
#![forbid(unsafe_code)]

use core::mem::{offset_of, size_of};

/// Run-time constants of the observer, written into its read-only data before it is loaded.
///
/// The `*_at` members are offsets of fields in an event's record, from the event's `format` file; only the programs
/// for classic tracepoints read them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// 1: only the processes in the map `PROCESSES`; 0: every process.
    pub filter: u32,
    /// 1: a record for every pushed page.
    pub trace_pushes: u32,
    /// 1: `push_raw` counts the pages of a ring whose index can't be read at any time.
    pub count_pushes: u32,
    /// 1: the registers with which a thread made its system call can be read (the kernel has BTF of itself).
    pub task_regs: u32,
    /// `struct kvm_memory_slot`: u64 `dirty_bitmap`, a pointer.
    pub slot_bitmap_at: u32,
    /// `struct kvm_memory_slot`: u64 `base_gfn`.
    pub slot_base_at: u32,
    /// `struct kvm_memory_slot`: u16 `id`.
    pub slot_id_at: u32,
    /// `struct kvm_memory_slot`: u16 `as_id`.
    pub slot_space_at: u32,
    /// `kvm_userspace_exit`: u32 `reason`.
    pub userspace_exit_reason_at: u32,
    /// `kvm_userspace_exit`: i32 `errno`.
    pub userspace_exit_errno_at: u32,
    /// `kvm_dirty_ring_push`: i32 `index`.
    pub push_index_at: u32,
    /// `kvm_dirty_ring_push`: u32 `dirty_index`.
    pub push_dirty_index_at: u32,
    /// `kvm_dirty_ring_push`: u32 `reset_index`.
    pub push_reset_index_at: u32,
    /// `kvm_dirty_ring_push`: u32 `slot`.
    pub push_slot_at: u32,
    /// `kvm_dirty_ring_push`: u64 `offset`.
    pub push_offset_at: u32,
    /// `kvm_dirty_ring_reset`: i32 `index`.
    pub reset_index_at: u32,
    /// `kvm_dirty_ring_reset`: u32 `dirty_index`.
    pub reset_dirty_index_at: u32,
    /// `kvm_dirty_ring_reset`: u32 `reset_index`.
    pub reset_reset_index_at: u32,
    /// `kvm_dirty_ring_exit`: i32 `vcpu_id`.
    pub ring_exit_vcpu_id_at: u32,
    /// `kvm_exit`: u32 `exit_reason`.
    pub exit_reason_at: u32,
    /// `kvm_exit`: u32 `isa`.
    pub exit_isa_at: u32,
    /// `kvm_exit`: u32 `vcpu_id`.
    pub exit_vcpu_id_at: u32,
    /// `sys_enter_ioctl`: u64 `fd`.
    pub ioctl_fd_at: u32,
    /// `sys_enter_ioctl`: u64 `cmd`.
    pub ioctl_cmd_at: u32,
}

/// Offset that stands for a field which this kernel's event lacks.
pub const NO_FIELD: u32 = u32::MAX;

/// Threads that can be followed at once, and entries of the map `THREADS`.
pub const MAX_THREADS: u32 = 2048;
/// Entries of the map `EXITS`: a reason that a thread met, each.
pub const MAX_EXITS: u32 = 16 * 1024;
/// Processes that the filter can hold.
pub const MAX_PROCESSES: u32 = 1024;

/// What one vCPU thread has done: the value of the map `THREADS`, whose key is the thread's id.
///
/// Each member says who writes it; where it doesn't, it is the thread itself, which runs on one CPU at a time: plain
/// additions lose nothing, and no per-CPU copies have to be added up. The reader copies an entry while it is written, word by
/// word: every member is whole, but one may be newer than another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// The process.
    pub tgid: u32,
    /// The vCPU's number, once an event named it (see `vcpu_id_from`).
    pub vcpu_id: u32,
    /// One of the `VCPU_ID_FROM_*`.
    pub vcpu_id_from: u32,
    /// The descriptor of its latest `KVM_RUN`, plus one; 0 before the first.
    pub run_fd_plus_one: u32,
    /// What identifies its dirty ring: address or process and index. 0 before the first push, and after another thread that
    /// goes on with its vCPU took the ring over, which writes that.
    pub ring: u64,
    /// Where its pages are counted if they are counted one by one: index into `PUSHED`.
    pub slot: u64,
    /// What is to be added to `dirty_index`, wrapping, for its pages of all rings it had. Written where a ring is met.
    pub pages_beyond_index: u64,
    /// How far its ring was when the thread last entered or left `KVM_RUN`: the low half is the ring's own dirty index. One
    /// word, so that whoever reads it never counts a page twice.
    pub dirty_index: u64,
    /// Returns of `KVM_RUN`, whatever the reason.
    pub userspace_exits: u64,
    /// Those for a full ring (reason 31, no error).
    pub ring_full_exits: u64,
    /// `kvm_dirty_ring_exit` events.
    pub ring_exit_events: u64,
    /// `KVM_RUN` system calls.
    pub runs: u64,
    /// `kvm_entry` events.
    pub entries: u64,
    /// `kvm_exit` events.
    pub exits: u64,
    /// Begin of the `KVM_RUN` it is in, or of everything if it was in it before; 0 outside.
    pub run_since_ns: u64,
    /// Time spent in finished `KVM_RUN` calls.
    pub run_ns: u64,
    /// Begin of the stall it is in; 0 for none.
    pub stalled_since_ns: u64,
    /// The cause of that stall, a `CAUSE_*`.
    pub stall_cause: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// Finished stalls by cause.
    pub stalls: [u64; CAUSES],
    /// Their length in all.
    pub stall_ns: [u64; CAUSES],
    /// Entries of its ring that were reset. Written atomically, by whichever thread resets or meets a ring.
    pub reset_entries: u64,
    /// Resets that visited its ring; written likewise.
    pub resets: u64,
}

/// What [`Thread::ring`] says while its pages and its index don't belong together: no ring is there.
pub const RING_CHANGES: u64 = 1;

/// Pages of one thread, counted one by one: an element of the array `PUSHED`, a cache line of its own. Apart from
/// [`Thread`], because this is the one count that grows with every page: an array is reached in fewer steps than a hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Pushed to its ring.
    pub pages: u64,
    /// Set in the dirty bitmap of a VM without rings.
    pub marked: u64,
    /// Fills the line.
    pub reserved: [u64; 6],
}

/// Who pushed last on a CPU, and where that is counted: the one element of the per-CPU array `LAST`. As long as the same
/// thread goes on pushing to the same ring, nothing has to be looked up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// Process (high half) and thread (low half).
    pub id: u64,
    /// The address of the ring; 0 before the first push.
    pub ring: u64,
    /// Its [`Thread::slot`].
    pub slot: u64,
    /// What [`RINGS_CHANGED`] said.
    pub changes: u64,
}

/// No event has named the vCPU.
pub const VCPU_ID_FROM_NOTHING: u32 = 0;
/// `kvm_dirty_ring_exit` named it.
pub const VCPU_ID_FROM_RING_EXIT: u32 = 1;
/// `kvm_exit` named it.
pub const VCPU_ID_FROM_EXIT: u32 = 2;

/// The ring was full.
pub const CAUSE_RING_FULL: u32 = 0;
/// `KVM_RUN` was interrupted (`EINTR`): a kick, a timer, a spent budget.
pub const CAUSE_INTERRUPTED: u32 = 1;
/// How many causes there are.
pub const CAUSES: usize = 2;

/// The stall ended with the `KVM_RUN` system call.
pub const END_RUN: u32 = 0;
/// It ended with `kvm_entry`, the entry into the guest itself.
pub const END_ENTRY: u32 = 1;

/// One finished stall: a record of the ring buffer `STALLS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallRecord {
    /// When `KVM_RUN` returned, `CLOCK_MONOTONIC`.
    pub exit_ns: u64,
    /// When the thread was back.
    pub end_ns: u64,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// A `CAUSE_*`.
    pub cause: u32,
    /// An `END_*`.
    pub end: u32,
}

/// One pushed page: a record of the ring buffer `PUSHES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushRecord {
    /// When, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Page in its slot.
    pub offset: u64,
    /// The thread.
    pub tid: u32,
    /// Address space (high half) and memory slot (low half).
    pub slot: u32,
}

/// Key of the map `EXITS`, whose value is a count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExitKey {
    /// The thread.
    pub tid: u32,
    /// An `EXIT_KIND_*`.
    pub kind: u32,
    /// The reason, in the numbers of its kind.
    pub reason: u32,
}

/// `KVM_RUN` returned: a `KVM_EXIT_*`.
pub const EXIT_KIND_USERSPACE: u32 = 0;
/// `KVM_RUN` failed: an errno.
pub const EXIT_KIND_ERRNO: u32 = 1;
/// The guest left guest mode: this plus the event's `isa` (1 VMX, 2 SVM).
pub const EXIT_KIND_ISA: u32 = 16;

/// What is known of one dirty ring: the value of the map `RINGS`, whose key is [`Thread::ring`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// The vCPU thread that pushes to it.
    pub tid: u32,
    /// The ring's reset index when it was last seen. Written by whichever thread resets, of which KVM lets one in at a time.
    pub reset_index: u32,
    /// The ring's dirty index when it was last seen: by whoever resets where pages are counted one by one, else by the
    /// thread that goes away from it.
    pub dirty_index: u32,
    /// The low half of the pages that were counted of its thread at that time, if they are counted one by one.
    pub pushes: u32,
}

/// Indices of the map `RINGS_KNOWN`.
///
/// How often a vCPU was created by a process that is watched, or a ring turned out to be gone.
pub const RINGS_CHANGED: u32 = 0;
/// Not 0 once every ring of every watched VM was known: one that is met later was made after that, and began at 0.
pub const RINGS_ALL_KNOWN: u32 = 1;

/// Entries that a ring can have at most: no single reset can give back more.
pub const MAX_RING_ENTRIES: u32 = 65_536;

/// Indices of the map `LOST`: what could not be recorded.
pub const LOST_STALLS: u32 = 0;
/// Push records.
pub const LOST_PUSHES: u32 = 1;
/// Events of threads for which `THREADS` had no room.
pub const LOST_THREADS: u32 = 2;
/// Exits for whose reason `EXITS` had no room.
pub const LOST_EXITS: u32 = 3;
/// Stalls for whose histogram there was no room.
pub const LOST_HISTOGRAMS: u32 = 4;
/// Rings for which `RINGS` had no room.
pub const LOST_RINGS: u32 = 5;
/// How many such counts there are.
pub const LOST_KINDS: u32 = 6;

/// Key of the map `HISTOGRAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HistogramKey {
    /// The thread.
    pub tid: u32,
    /// A `CAUSE_*`.
    pub cause: u32,
}

/// Buckets to an octave (a doubling): a value is known to within 1/8 of itself.
pub const BUCKETS_PER_OCTAVE: u64 = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 3;
/// Buckets of a histogram: up to 2^37 ns, more than two minutes; what is longer falls in the last.
pub const BUCKETS: usize = bucket_of((1 << 37) - 1) as usize + 1;

/// Lengths of stalls in nanoseconds, counted by [`bucket_of`]: the value of the map `HISTOGRAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How many fell in each bucket.
    pub counts: [u32; BUCKETS],
}

/// The bucket of `value`: exact below 8, then eight to an octave. Not clamped to [`BUCKETS`].
// On the eBPF side everything is inlined: a function of its own would leave a symbol that depends on the build.
#[allow(clippy::inline_always)]
#[inline(always)]
#[must_use]
pub const fn bucket_of(value: u64) -> u32 {
    if value < BUCKETS_PER_OCTAVE {
        return value as u32;
    }
    let octave = value.ilog2();
    let within = (value >> (octave - BUCKET_BITS)) as u32 & (BUCKETS_PER_OCTAVE as u32 - 1);
    ((octave - BUCKET_BITS + 1) << BUCKET_BITS) + within
}

/// The least value of `bucket`, the inverse of [`bucket_of`].
#[must_use]
pub const fn bucket_floor(bucket: u32) -> u64 {
    if (bucket as u64) < BUCKETS_PER_OCTAVE {
        return bucket as u64;
    }
    let shift = (bucket >> BUCKET_BITS) - 1;
    let within = bucket as u64 & (BUCKETS_PER_OCTAVE - 1);
    (BUCKETS_PER_OCTAVE + within) << shift
}

/// Run-time constants of the quota: where `struct kvm_memory_slot` has its members.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaConfig {
    /// u64 `dirty_bitmap`, a pointer.
    pub slot_bitmap_at: u32,
    /// u64 `base_gfn`.
    pub slot_base_at: u32,
}

/// Which budget a vCPU thread draws on: the value of the map `LIMITED`, whose key is the thread's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// Its process: a thread id that another process inherits must not be signalled.
    pub tgid: u32,
    /// Index into `BUDGETS`.
    pub slot: u32,
    /// The signal sent on the page that spends the budget.
    pub signal: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// Whose page was the last on a CPU, and which budget it drew on: the one element of the per-CPU array `DRAWERS`. As long
/// as the same vCPU goes on and nobody's limit changes, nothing has to be looked up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawer {
    /// The address of its ring, or (classic tracepoints) process and thread; 0 before the first page.
    pub vcpu: u64,
    /// What `GENERATION` said when it was looked up.
    pub generation: u64,
    /// Its [`Limited::slot`], or [`NO_SLOT`].
    pub slot: u64,
}

/// The slot of who is not limited: beyond the end of `BUDGETS`.
pub const NO_SLOT: u64 = u32::MAX as u64;

/// One budget: an element of the memory-mapped array `BUDGETS`, a cache line of its own.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Pages drawn from it since it was attached. The program alone writes it, one more a page.
    pub drawn: i64,
    /// The number of drawn pages at which it is spent: the program signals on that page and on every one after it. The
    /// limiter alone writes it.
    pub end: i64,
    /// Signals sent.
    pub signals: u64,
    /// Signals that the kernel refused to send.
    pub refused: u64,
}

// The eBPF target and the host agree on these by construction; a change of either must be noticed.
const _: () = {
    assert!(size_of::<Config>() == 24 * 4);
    assert!(size_of::<Thread>() == 16 + 13 * 8 + 8 + 32 + 16);
    assert!(offset_of!(Thread, slot) == 24);
    assert!(size_of::<Pushed>() == 64);
    assert!(size_of::<Last>() == 32);
    assert!(offset_of!(Thread, stalled_since_ns) == 112);
    assert!(offset_of!(Thread, stalls) == 128);
    assert!(size_of::<StallRecord>() == 32);
    assert!(offset_of!(StallRecord, tgid) == 16);
    assert!(size_of::<PushRecord>() == 24);
    assert!(offset_of!(PushRecord, tid) == 16);
    assert!(size_of::<ExitKey>() == 12);
    assert!(size_of::<Ring>() == 16);
    assert!(size_of::<HistogramKey>() == 8);
    assert!(BUCKETS == 280);
    assert!(size_of::<Histogram>() == BUCKETS * 4);
    assert!(size_of::<QuotaConfig>() == 8);
    assert!(size_of::<Limited>() == 16);
    assert!(size_of::<Drawer>() == 24);
    assert!(size_of::<Budget>() == 64);
    assert!(offset_of!(Budget, refused) == 24);
};

#[cfg(test)]
mod tests {
    use super::{BUCKETS, bucket_floor, bucket_of};

    #[test]
    fn buckets_follow_one_another_without_gap() {
        for bucket in 0..BUCKETS as u32 {
            let floor = bucket_floor(bucket);
            assert_eq!(bucket_of(floor), bucket);
            assert_eq!(
                bucket_of(bucket_floor(bucket + 1) - 1),
                bucket,
                "the last value of bucket {bucket}"
            );
        }
    }

    #[test]
    fn a_bucket_is_an_eighth_of_its_values_wide() {
        for bucket in 8..BUCKETS as u32 {
            let (floor, next) = (bucket_floor(bucket), bucket_floor(bucket + 1));
            assert!((next - floor) * 8 <= floor, "bucket {bucket}: {floor} to {next}");
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(7), 7);
        assert_eq!(bucket_of(8), 8);
        assert_eq!(bucket_of(15), 15);
        assert_eq!(bucket_of(16), 16);
        assert_eq!(bucket_of(17), 16);
        assert_eq!(bucket_of(18), 17);
        assert_eq!(bucket_of(u64::MAX), 61 * 8 + 7);
    }
}
