//! KVM's dirty ring, and nothing else: enable it, map it, harvest it, hold entries back, release them, reset them.
//!
//! ```no_run
//! use dirtyrig_ring::{DirtyRing, RingSize, enable, reset};
//! use kvm_ioctls::Kvm;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kvm = Kvm::new()?;
//! let vm = kvm.create_vm()?;
//! let size = RingSize::new(4096)?;
//! enable(&kvm, &vm, size)?; // before the first vCPU; memory slots carry KVM_MEM_LOG_DIRTY_PAGES
//! let vcpu = vm.create_vcpu(0)?;
//! let mut ring = DirtyRing::map(&vcpu, size)?;
//! // Run the guest. At KVM_EXIT_DIRTY_RING_FULL, or whenever its pages are wanted:
//! ring.harvest();
//! let released = ring.release(0, |page| println!("slot {}, page {}", page.slot, page.offset));
//! reset(&vm, released)?;
//! // Now the contents of these pages may be read: later writes to them are logged again.
//! # Ok(())
//! # }
//! ```
//!
//! # Rules
//! - The capability is enabled once per VM, before its first vCPU. From then on the bitmap ioctls fail.
//! - A vCPU whose ring is full cannot enter the guest until entries have been harvested *and* reset.
//! - One reset serves all rings of a VM. Nobody may release entries of any of them while it runs, or the number that it
//!   returns is not the number that was released, which [`reset`] reports.
//! - Page contents are read after the reset. A page read before it could be written once more without being logged.
//! - With Intel's page-modification logging a vCPU's last 512 pages reach its ring at its next exit: make it leave the
//!   guest before you count.
//!
//! # Architectures
//! Built and tested on x86-64. Nothing in here is x86-64's own: arm64 kernels (6.1 and later) offer the same ring by the
//! capability with acquire and release semantics, mapped at the same page of the vCPU's descriptor.

// Of a library, unlike the workspace: whoever calls it asks first what can go wrong.
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod error;
mod reset;
mod ring;
mod size;

pub use error::Error;
pub use reset::reset;
pub use ring::{DirtyPage, DirtyRing};
pub use size::{MAX_RING_ENTRIES, MIN_RING_ENTRIES, RingCapability, RingSize, enable};
