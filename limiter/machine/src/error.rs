//! What can go wrong with a machine.

/// An operation on a machine that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The limiter failed.
    #[error(transparent)]
    Limiter(#[from] dirtyrig_limiter::Error),
    /// The dirty rings can't be had.
    #[error(transparent)]
    Ring(#[from] dirtyrig_ring::Error),
    /// `/dev/kvm` can't be opened.
    #[error(
        "can't open /dev/kvm: load the module of your CPU (`modprobe kvm_intel` or `kvm_amd`), and give your user \
         access to the device (group `kvm`)"
    )]
    Open {
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// An ioctl on the KVM, VM or vCPU descriptor.
    #[error("{operation} failed")]
    Ioctl {
        /// The ioctl's name.
        operation: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// Guest memory can't be had.
    #[error("can't map {mib} MiB of guest memory: free some, or run with less")]
    Memory {
        /// How much was asked for.
        mib: u64,
        /// What the system answered.
        source: std::io::Error,
    },
    /// Guest memory is laid out wrongly.
    #[error("guest memory at {gpa:#x} with {bytes} bytes is outside what the guest has")]
    OutsideMemory {
        /// Guest physical address of the access.
        gpa: u64,
        /// Length of the access.
        bytes: u64,
    },
    /// The guest left in a way that its program never does.
    #[error("vCPU {vcpu} left the guest unexpectedly: {exit}")]
    UnexpectedExit {
        /// Index of the vCPU.
        vcpu: usize,
        /// The exit, by name.
        exit: String,
    },
}

impl Error {
    /// Wraps the failure of ioctl `operation`; for `map_err`.
    pub(crate) fn ioctl(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Ioctl {
            operation,
            source: std::io::Error::from_raw_os_error(error.errno()),
        }
    }
}
