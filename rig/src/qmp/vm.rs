//! What a VM must offer to be controlled through a monitor, wherever it runs.

use std::time::Duration;

use dirtyrig_limiter::{
    limit::{LimitInfo, Which},
    units::{Pages, Quota},
};

/// A vCPU, as a client is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuInfo {
    /// Its index.
    pub index: usize,
    /// The thread that runs it, as the kernel numbers threads.
    pub thread: i32,
}

/// A VM whose vCPUs can be limited. Called from several threads at once; what it refuses goes to the client as it is
/// worded.
pub trait LimitedVm: Send + Sync {
    /// Its vCPUs, in the order of their indices.
    fn vcpus(&self) -> Vec<VcpuInfo>;

    /// Whether the guest runs, rather than being paused.
    fn is_running(&self) -> bool;

    /// Limits vCPUs.
    fn set_limit(&self, which: Which, quota: Quota) -> anyhow::Result<()>;

    /// Lets vCPUs run unlimited again; no error where they are already.
    fn cancel_limit(&self, which: Which) -> anyhow::Result<()>;

    /// Changes the time's worth of quota that a guest may save up.
    fn set_burst(&self, burst: Duration) -> anyhow::Result<()>;

    /// The vCPUs that have a limit.
    fn query_limits(&self) -> anyhow::Result<Vec<LimitInfo>>;

    /// Pages that each vCPU has dirtied so far, one count for each of [`vcpus`](Self::vcpus). A page that is dirtied again
    /// after a reset of the ring counts again. May take as long as the longest sleep of a vCPU.
    fn dirtied(&self) -> anyhow::Result<Vec<Pages>>;

    /// A client wants the end: begins it and returns at once.
    fn quit(&self);
}
