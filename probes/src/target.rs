//! Whose vCPUs are watched.

/// Whose vCPUs are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One process: a VMM whose VM runs, or this process, which may have none yet.
    Pid(u32),
    /// Every VM on the host, those to come included.
    AllKvm,
}
