//! The memory of a guest in QEMU, shared with us: an anonymous file of ours that QEMU maps as the guest's RAM.
//!
//! QEMU opens it by its name under `/proc`, so that nothing of it is ever left in a folder; being in memory alone, it is
//! never written back, which would protect its pages anew and disturb what is measured.

use std::{fs::File, io, mem::offset_of, path::PathBuf, process, sync::atomic::Ordering};

use dirtyrig_guests::{
    PAGE_SIZE, VcpuBlock,
    image::{LOW_MEMORY_BYTES, LowMemory},
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

use super::error::QemuError;

/// The memory of one guest.
#[derive(Debug)]
pub struct SharedMemory {
    path: PathBuf,
    /// The low memory alone, where the blocks are.
    low: GuestMemoryMmap<()>,
}

/// What a vCPU has done, by its own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Pages written.
    pub written: u64,
    /// Pages read.
    pub read: u64,
}

impl SharedMemory {
    /// A file of `bytes`, all of it allocated.
    ///
    /// Were that left to QEMU (`prealloc=on`), it would do it between the start of its reaper thread and that of its first vCPU,
    /// holding its big lock. Where it takes longer than a second the reaper waits for the lock by then, gets it before the vCPU
    /// has a ring, and QEMU aborts. Even to map what is allocated takes as long on a slow host.
    pub fn new(bytes: u64) -> Result<Self, QemuError> {
        Self::make(bytes).map_err(|source| QemuError::Io {
            operation: "share memory",
            source,
        })
    }

    fn make(bytes: u64) -> io::Result<Self> {
        let file = File::from(memfd_create("dirtyrig-guest", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(bytes)?;
        allocate(&file, bytes)?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", process::id(), raw(&file)));
        let range = (
            GuestAddress(0),
            LOW_MEMORY_BYTES as usize,
            // The mapping keeps the file, and so its name, for as long as it lives.
            Some(FileOffset::new(file, 0)),
        );
        let low = GuestMemoryMmap::from_ranges_with_files([range]).map_err(io::Error::other)?;
        Ok(Self { path, low })
    }

    /// The name by which QEMU opens it.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// What vCPU `vcpu` has done since it was started.
    pub fn truth(&self, vcpu: usize) -> Truth {
        Truth {
            written: self.word(vcpu, offset_of!(VcpuBlock, pages_written)),
            read: self.word(vcpu, offset_of!(VcpuBlock, pages_read)),
        }
    }

    /// Whether vCPU `vcpu` runs its program.
    pub fn has_begun(&self, vcpu: usize) -> bool {
        // One that begins with an idle phase may write and read nothing for an hour.
        self.truth(vcpu) != Truth::default() || self.word(vcpu, offset_of!(VcpuBlock, phases_begun)) > 0
    }

    /// The value that the next writes of vCPU `vcpu` leave in their pages.
    pub fn iteration(&self, vcpu: usize) -> u64 {
        self.word(vcpu, offset_of!(VcpuBlock, iteration))
    }

    /// Changes that value. The guest reads it before every write.
    pub fn set_iteration(&self, vcpu: usize, value: u64) {
        let at = LowMemory::block_gpa(vcpu) + offset_of!(VcpuBlock, iteration) as u64;
        // Relaxed: nothing else is to be seen with it.
        let stored = self.low.store(value, GuestAddress(at), Ordering::Relaxed);
        stored.expect("blocks lie in the low memory, on pages of their own");
    }

    fn word(&self, vcpu: usize, offset: usize) -> u64 {
        let at = LowMemory::block_gpa(vcpu) + offset as u64;
        // Relaxed: the word alone is looked at, not the pages behind a count.
        let word = self.low.load(GuestAddress(at), Ordering::Relaxed);
        word.expect("blocks lie in the low memory, on pages of their own")
    }
}

/// Writes to every page of the file, through a mapping: what it takes is this process's, and so is the blame where memory runs out.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let range = (
        GuestAddress(0),
        usize::try_from(bytes).map_err(io::Error::other)?,
        Some(FileOffset::new(file.try_clone()?, 0)),
    );
    let whole = GuestMemoryMmap::<()>::from_ranges_with_files([range]).map_err(io::Error::other)?;
    for page in (0..bytes).step_by(PAGE_SIZE as usize) {
        whole.write_obj(0_u8, GuestAddress(page)).map_err(io::Error::other)?;
    }
    Ok(())
}

fn raw(file: &File) -> i32 {
    use std::os::fd::AsRawFd as _;
    file.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::OpenOptions,
        io::Write as _,
        os::unix::fs::{FileExt as _, MetadataExt as _},
    };

    use super::*;

    #[test]
    fn what_another_process_would_write_by_its_name_is_read_here() {
        let memory = SharedMemory::new(8 << 20).expect("memory");
        let mut file = OpenOptions::new()
            .write(true)
            .open(memory.path())
            .expect("it opens by its name");
        assert_eq!(file.metadata().expect("facts").len(), 8 << 20);
        assert_eq!(memory.truth(1), Truth::default());
        let allocated = file.metadata().expect("facts").blocks() * 512;
        assert_eq!(allocated, 8 << 20, "nothing is left for QEMU to allocate");
        file.write_all_at(&7_u64.to_le_bytes(), LowMemory::block_gpa(1))
            .expect("written");
        file.write_all_at(&9_u64.to_le_bytes(), LowMemory::block_gpa(1) + 8)
            .expect("written");
        file.flush().expect("flushed");
        assert_eq!(memory.truth(1), Truth { written: 7, read: 9 });
        assert_eq!(memory.truth(0), Truth::default());
    }
}
