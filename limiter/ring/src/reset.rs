//! The reset: the kernel takes released entries back and write-protects their pages.

use std::os::fd::AsRawFd;

use kvm_ioctls::VmFd;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::Error;

nix::ioctl_none!(
    /// `KVM_RESET_DIRTY_RINGS`: takes back every entry marked RESET, of all rings of the VM; returns their number.
    kvm_reset_dirty_rings,
    0xAE,
    0xC7
);

/// Takes back the `released` entries of all rings of `vm` that were released since the last reset.
///
/// All signals are blocked meanwhile. Since Linux 6.16 a pending signal ends the reset early, and then, it seems, the
/// kernel has taken back entries of a batch whose pages it has not write-protected yet: the guest's next write to such a
/// page is never logged. Seen on 6.18, about once in 100,000 pages where vCPU threads that are being kicked reset their
/// own ring, and within a second with the example `signal_in_reset`.
///
/// # Errors
/// [`Error::Reset`] if the kernel refuses; [`Error::ResetMismatch`] if it took back another number of entries: somebody
/// else released entries of this VM meanwhile, or mapped one of its rings a second time.
pub fn reset(vm: &VmFd, released: u64) -> Result<(), Error> {
    let failed = |errno: nix::Error| Error::Reset { source: errno.into() };
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
    // SAFETY: the descriptor is a VM's, and the ioctl takes no argument and writes no memory of ours but the flags of ring
    // entries, which are atomics on both sides.
    let result = unsafe { kvm_reset_dirty_rings(vm.as_raw_fd()) };
    before.thread_set_mask().map_err(failed)?;
    let reset = u64::from(result.map_err(failed)?.unsigned_abs());
    if reset == released {
        Ok(())
    } else {
        Err(Error::ResetMismatch { released, reset })
    }
}
