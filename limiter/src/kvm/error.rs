//! What can go wrong between here and `/dev/kvm`.

/// An operation on KVM that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `/dev/kvm` can't be opened.
    #[error(
        "can't open /dev/kvm: load the module of your CPU (`modprobe kvm_intel` or `kvm_amd`), and give your user \
         access to the device (group `kvm`)"
    )]
    Open {
        /// What the kernel answered.
        source: kvm_ioctls::Error,
    },
    /// An ioctl on the KVM, VM or vCPU descriptor.
    #[error("{operation} failed")]
    Ioctl {
        /// The ioctl's name.
        operation: &'static str,
        /// What the kernel answered.
        source: kvm_ioctls::Error,
    },
    /// The host's KVM has no dirty ring.
    #[error("this kernel's KVM has no dirty ring (KVM_CAP_DIRTY_LOG_RING): Linux 5.11 or newer on x86-64 has one")]
    NoDirtyRing,
    /// A ring of this size isn't possible.
    #[error("a dirty ring of {entries} entries is not possible here: give a power of two from {min} to {max} entries")]
    RingSize {
        /// The number of entries that was asked for.
        entries: u32,
        /// The smallest size possible.
        min: u32,
        /// The largest size possible.
        max: u32,
    },
    /// Guest memory can't be had.
    #[error("can't map {mib} MiB of guest memory: free some, or run with less (`--memory`)")]
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
    /// The ring of a vCPU can't be mapped.
    #[error("can't map the dirty ring of a vCPU")]
    MapRing {
        /// What the system answered.
        source: std::io::Error,
    },
    /// The kernel reset another number of entries than were given back.
    #[error(
        "{released} ring entries were given back, but the kernel reset {reset}: someone else harvests this VM's rings"
    )]
    ResetMismatch {
        /// Entries marked for reset.
        released: u64,
        /// Entries that the kernel reset.
        reset: u64,
    },
    /// A ring reports full although nothing in it can be harvested.
    #[error(
        "the dirty ring of vCPU {vcpu} reports full but holds nothing to harvest: the kernel pushed past its end \
         (a guest at CPL 0 is emulated under kvm-pvm and can do that); this VM can't go on"
    )]
    RingStuck {
        /// Index of the vCPU.
        vcpu: usize,
    },
    /// The guest left in a way that its program never does.
    #[error("vCPU {vcpu} left the guest unexpectedly: {exit}")]
    UnexpectedExit {
        /// Index of the vCPU.
        vcpu: usize,
        /// The exit, by name.
        exit: String,
    },
    /// A limiter that stops a vCPU on the exact page has nothing that counts them.
    #[error("limiter `{limiter}` needs a page counter in the kernel: load the eBPF program, or choose `budget`")]
    NoPageCounter {
        /// The limiter.
        limiter: crate::law::LimiterKind,
    },
    /// The page counter can't be bound to the vCPU's thread.
    #[error("can't count the pages of a vCPU in the kernel")]
    PageCounter {
        /// What the counter says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A vCPU's timer can't be had.
    #[error("can't create or set the timer of a vCPU thread")]
    Timer {
        /// What the system answered.
        source: nix::Error,
    },
    /// The signal that kicks a vCPU can't be set up.
    #[error("can't install the handler of the signal that kicks a vCPU")]
    Signal {
        /// What the system answered.
        source: nix::Error,
    },
}

impl Error {
    /// Wraps the failure of ioctl `operation`; for `map_err`.
    pub(crate) fn ioctl(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Ioctl { operation, source }
    }
}
