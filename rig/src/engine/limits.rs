//! The limits of a VM: set, cancelled, asked for. One face of every limiter: that of the rig's own VM, QEMU's own, and the one that
//! holds a VM from outside.

use std::time::Duration;

use dirtyrig_limiter::{
    dirty_limit::DirtyLimit,
    limit::{LimitInfo, Which},
    units::Quota,
};

/// Who is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// One vCPU, or each.
    Vcpus(Which),
    /// All vCPUs together, beside the limits that each has.
    Vm,
}

/// The limits in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InForce {
    /// The vCPUs that have one of their own, with what the limiter last read of them.
    pub vcpus: Vec<LimitInfo>,
    /// That of all together.
    pub vm: Option<Quota>,
}

/// What limits a VM.
pub trait Limits {
    /// Limits, from the next thing that a vCPU does on. On an error nothing has changed.
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()>;
    /// Takes a limit away; no error where there is none.
    fn cancel(&self, whom: Whom) -> anyhow::Result<()>;
    /// Changes the time's worth of quota that a guest may save up.
    fn set_burst(&self, burst: Duration) -> anyhow::Result<()>;
    /// The limits in force.
    fn query(&self) -> anyhow::Result<InForce>;
}

impl<T: Limits + ?Sized> Limits for &T {
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()> {
        (**self).set(whom, quota)
    }

    fn cancel(&self, whom: Whom) -> anyhow::Result<()> {
        (**self).cancel(whom)
    }

    fn set_burst(&self, burst: Duration) -> anyhow::Result<()> {
        (**self).set_burst(burst)
    }

    fn query(&self) -> anyhow::Result<InForce> {
        (**self).query()
    }
}

/// Of the rig's own VM.
impl Limits for DirtyLimit {
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()> {
        match whom {
            Whom::Vcpus(which) => DirtyLimit::set(self, which, quota)?,
            Whom::Vm => self.set_vm(quota)?,
        }
        Ok(())
    }

    fn cancel(&self, whom: Whom) -> anyhow::Result<()> {
        match whom {
            Whom::Vcpus(which) => DirtyLimit::cancel(self, which)?,
            Whom::Vm => self.cancel_vm(),
        }
        Ok(())
    }

    fn set_burst(&self, burst: Duration) -> anyhow::Result<()> {
        Ok(DirtyLimit::set_burst(self, burst)?)
    }

    fn query(&self) -> anyhow::Result<InForce> {
        Ok(InForce {
            vcpus: DirtyLimit::query(self),
            vm: self.vm_quota(),
        })
    }
}
