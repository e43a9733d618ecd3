//! A program at a classic tracepoint, by way of a perf event.
//!
//! aya does the same for a tracefs at its usual two places alone.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

/// `struct perf_event_attr` of the kernel's interface, as far as its first version goes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

/// `PERF_ATTR_SIZE_VER0`.
const SIZE: u32 = 64;
const _: () = assert!(size_of::<Attributes>() == SIZE as usize);

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

mod ioctl {
    nix::ioctl_write_int!(set_bpf, b'$', 8);
    nix::ioctl_none!(enable, b'$', 0);
}

/// Has `program`, one of the type tracepoint, run at each event whose number in tracefs is `id`, until the descriptor that
/// this returns is closed.
pub(crate) fn attach(program: BorrowedFd<'_>, id: u64) -> Result<OwnedFd, Errno> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: SIZE,
        config: id,
        ..Attributes::default()
    };
    // A program runs on every CPU, whichever one its event is opened for.
    let (any_process, cpu, no_group): (libc::pid_t, libc::c_int, libc::c_int) = (-1, 0, -1);
    // SAFETY: the attributes outlive the call and say how large they are; the rest are numbers.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            any_process,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let descriptor = i32::try_from(Errno::result(opened)?).expect("descriptors are ints");
    // SAFETY: the kernel has just made it for this call alone.
    let event = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let program = program
        .as_raw_fd()
        .try_into()
        .expect("an open descriptor is not negative");
    // SAFETY: both descriptors are open; the kernel refuses a program of another type.
    unsafe { ioctl::set_bpf(event.as_raw_fd(), program) }?;
    // SAFETY: the descriptor is open, and the request takes no argument.
    unsafe { ioctl::enable(event.as_raw_fd()) }?;
    Ok(event)
}
