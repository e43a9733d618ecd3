//! What a VM must offer to be controlled through a monitor, wherever it runs.

use dirtyrig_limiter::units::Pages;

use crate::engine::limits::Limits;

/// A vCPU, as a client is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuInfo {
    /// Its index.
    pub index: usize,
    /// The thread that runs it, as the kernel numbers threads; `None` while it has none, or none that is known.
    pub thread: Option<i32>,
}

/// A VM whose vCPUs can be limited. Called from several threads at once; what it refuses goes to the client as it is
/// worded.
pub trait LimitedVm: Send + Sync {
    /// Its vCPUs, in the order of their indices.
    fn vcpus(&self) -> Vec<VcpuInfo>;

    /// Whether the guest runs, rather than being paused.
    fn is_running(&self) -> bool;

    /// What limits it; an error once it has ended.
    fn limits(&self) -> anyhow::Result<Box<dyn Limits + '_>>;

    /// Pages that each vCPU has dirtied so far, one count for each of [`vcpus`](Self::vcpus). A page that is dirtied again
    /// after a reset of the ring counts again. May take as long as the longest sleep of a vCPU.
    fn dirtied(&self) -> anyhow::Result<Vec<Pages>>;

    /// A client wants the end: begins it and returns at once.
    fn quit(&self);
}
