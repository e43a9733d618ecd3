//! Pages counted one by one as they are pushed to a ring, where nobody would tell when a vCPU enters `KVM_RUN` or where its
//! ring is.

use aya::Ebpf;

use super::{Counted, PageSource};
use crate::Error;

/// The program on the push counts.
pub(crate) struct RingPushes;

impl PageSource for RingPushes {
    fn pages(&self, _ebpf: &Ebpf, counted: &Counted, _look: bool) -> Result<u64, Error> {
        Ok(counted.pushed.pages)
    }

    fn runs_for_each_page(&self) -> bool {
        true
    }
}
