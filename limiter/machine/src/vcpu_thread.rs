//! The thread of one vCPU: run the guest under the limiter, again and again.
//!
//! It owns its [`LimitedVcpu`]. The limiter may kick it and keeps it out of the guest while it is unplugged; it ends when
//! the limiter is stopped, or on an error, which it returns.

use dirtyrig_limiter::{
    PageCounter,
    attach::{LimitedVcpu, Ran, VmLimiter},
};
use kvm_ioctls::VcpuFd;

use crate::Error;

/// Runs vCPU `index` until the limiter is stopped.
pub(crate) fn run(
    limiter: &VmLimiter,
    index: usize,
    fd: VcpuFd,
    counter: Option<Box<dyn PageCounter>>,
) -> Result<(), Error> {
    let mut vcpu: LimitedVcpu = limiter.vcpu(index, fd, counter)?;
    loop {
        match vcpu.run()? {
            Ran::Again => {}
            Ran::Stopped => return Ok(()),
            Ran::Exit(exit) => {
                return Err(Error::UnexpectedExit {
                    vcpu: index,
                    exit: format!("{exit:?}"),
                });
            }
        }
    }
}
