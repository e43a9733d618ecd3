//! A mount of tracefs that is attached to no folder: whoever holds its descriptor reads it, and it ends with that.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::null,
};

use nix::errno::Errno;

/// Of the kernel's interface (`linux/mount.h`), Linux 5.2.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// Mounts it. `ENODEV` if this kernel has no tracefs, `EPERM` without `CAP_SYS_ADMIN`.
pub(super) fn mount() -> Result<OwnedFd, Errno> {
    let name: &CStr = c"tracefs";
    // SAFETY: the name is a string that outlives the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })?;
    let (none, zero) = (null::<libc::c_char>(), 0 as libc::c_int);
    // SAFETY: this command takes no key, no value and no number.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            none,
            none,
            zero,
        )
    };
    Errno::result(created)?;
    // SAFETY: three numbers; the descriptor is open.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            0 as libc::c_uint,
        )
    })
}

/// The descriptor that a system call returned.
fn owned(returned: libc::c_long) -> Result<OwnedFd, Errno> {
    let descriptor = i32::try_from(Errno::result(returned)?).expect("descriptors are ints");
    // SAFETY: the kernel has just made it for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
