//! The low memory of a guest, as bytes to copy in at guest-physical address 0: page tables, code, stacks, blocks.
//!
//! ```text
//! 0x000000  legacy low memory, left free
//! 0x100000  left free for what boots another VMM's guest (`boot`)
//! 0x120000  page tables: PML4, PDPT, one page directory a GiB; identity map with 2 MiB pages
//! 0x140000  code: one page a program, all of them, in the order of `Program::NAMES`
//! 0x180000  stacks: one page a vCPU
//! 0x200000  blocks: one page a vCPU
//! 0x240000  zero
//! 0x400000  end of the low memory
//! 0x1000000 the region that vCPUs dirty: REGION_BASE
//! ```
//!
//! The code of every program is there from the start, and room for every vCPU, so plugging a vCPU takes nothing but
//! [`LowMemory::entry`] and [`Program::configure`]. A block of zeros makes its program wait.

use crate::{PAGE_SIZE, block::VcpuBlock, program::Program, programs};

/// Size of the low memory, which starts at guest-physical address 0 and must not be dirty-logged.
pub const LOW_MEMORY_BYTES: u64 = 4 << 20;

/// Where the dirty-logged memory starts.
pub const REGION_BASE: u64 = 16 << 20;

/// How many vCPUs there is room for.
pub const MAX_VCPUS: usize = 64;

/// The highest end of memory that the page tables can map.
pub const MAX_MEMORY_END: u64 = 16 << 30;

pub(crate) const PAGE_TABLES: u64 = 0x12_0000;
const PDPT: u64 = PAGE_TABLES + PAGE_SIZE;
const PAGE_DIRECTORIES: u64 = PDPT + PAGE_SIZE;
const CODE: u64 = 0x14_0000;
pub(crate) const STACKS: u64 = 0x18_0000;
pub(crate) const BLOCKS: u64 = 0x20_0000;

const GIB: u64 = 1 << 30;
const LARGE_PAGE: u64 = 2 << 20;

/// Present, writable, user, accessed.
const TABLE_FLAGS: u64 = 0b10_0111;
/// The same, dirty and large. Accessed and dirty are set beforehand so that the walker never has to write them.
const LARGE_PAGE_FLAGS: u64 = TABLE_FLAGS | 1 << 6 | 1 << 7;

// The parts follow one another without overlap.
const _: () = {
    assert!(PAGE_DIRECTORIES + MAX_MEMORY_END / GIB * PAGE_SIZE <= CODE);
    assert!(CODE + Program::NAMES.len() as u64 * PAGE_SIZE <= STACKS);
    assert!(STACKS + MAX_VCPUS as u64 * PAGE_SIZE <= BLOCKS);
    assert!(BLOCKS + (MAX_VCPUS * size_of::<VcpuBlock>()) as u64 <= LOW_MEMORY_BYTES);
};

/// The registers with which a vCPU enters its program, at CPL 3 in long mode, interrupts off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First byte of the program.
    pub rip: u64,
    /// The vCPU's block.
    pub rdi: u64,
    /// Top of its stack.
    pub rsp: u64,
    /// The page tables.
    pub cr3: u64,
}

/// The low memory of a guest.
#[derive(Clone, Debug)]
pub struct LowMemory {
    /// [`LOW_MEMORY_BYTES`] bytes, to be placed at guest-physical address 0.
    pub bytes: Vec<u8>,
    /// How each vCPU starts, in the order in which the programs were given.
    pub entries: Vec<Entry>,
}

impl LowMemory {
    /// Builds the low memory of a guest whose memory ends at `memory_end` (exclusive) and whose first vCPUs run
    /// `vcpus`.
    ///
    /// # Errors
    /// [`ImageError`], if there are too many vCPUs, or the memory ends where it can't.
    pub fn build(vcpus: &[Program], memory_end: u64) -> Result<Self, ImageError> {
        if vcpus.len() > MAX_VCPUS {
            return Err(ImageError::TooManyVcpus { vcpus: vcpus.len() });
        }
        if !(LOW_MEMORY_BYTES..=MAX_MEMORY_END).contains(&memory_end) {
            return Err(ImageError::MemoryEnd { memory_end });
        }
        let mut bytes = vec![0; LOW_MEMORY_BYTES as usize];
        map_identity(&mut bytes, memory_end);
        for (index, code) in programs::CODE.iter().enumerate() {
            put(&mut bytes, code_gpa(index), code());
        }
        let entries = vcpus
            .iter()
            .enumerate()
            .map(|(vcpu, program)| Self::entry(vcpu, program))
            .collect();
        Ok(Self { bytes, entries })
    }

    /// How vCPU `vcpu`, below [`MAX_VCPUS`], enters `program`.
    pub fn entry(vcpu: usize, program: &Program) -> Entry {
        Entry {
            rip: code_gpa(program.index()),
            rdi: Self::block_gpa(vcpu),
            rsp: STACKS + (vcpu as u64 + 1) * PAGE_SIZE,
            cr3: PAGE_TABLES,
        }
    }

    /// Where the block of vCPU `vcpu`, below [`MAX_VCPUS`], lies.
    ///
    /// # Panics
    /// If `vcpu` is not below.
    pub fn block_gpa(vcpu: usize) -> u64 {
        assert!(
            vcpu < MAX_VCPUS,
            "vCPU {vcpu} has no block: there is room for {MAX_VCPUS}"
        );
        BLOCKS + vcpu as u64 * PAGE_SIZE
    }
}

fn code_gpa(index: usize) -> u64 {
    CODE + index as u64 * PAGE_SIZE
}

/// Maps every address below `memory_end`, rounded up to a large page, to itself.
fn map_identity(bytes: &mut [u8], memory_end: u64) {
    put(bytes, PAGE_TABLES, &(PDPT | TABLE_FLAGS).to_le_bytes());
    for gib in 0..memory_end.div_ceil(GIB) {
        let directory = PAGE_DIRECTORIES + gib * PAGE_SIZE;
        put(bytes, PDPT + gib * 8, &(directory | TABLE_FLAGS).to_le_bytes());
    }
    for page in 0..memory_end.div_ceil(LARGE_PAGE) {
        // The directories lie one behind the other, so their entries are one long table.
        let entry = (page * LARGE_PAGE) | LARGE_PAGE_FLAGS;
        put(bytes, PAGE_DIRECTORIES + page * 8, &entry.to_le_bytes());
    }
}

/// Puts `content` at an address of the low memory.
pub(crate) fn put(bytes: &mut [u8], gpa: u64, content: &[u8]) {
    bytes[gpa as usize..][..content.len()].copy_from_slice(content);
}

/// Why no image can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// More vCPUs than there is room for.
    #[error("{vcpus} vCPUs are too many for a guest: give at most {MAX_VCPUS}")]
    TooManyVcpus {
        /// How many were asked for.
        vcpus: usize,
    },
    /// Memory that ends before the low memory does, or beyond what the page tables map.
    #[error(
        "guest memory can't end at {memory_end:#x}: expected from {LOW_MEMORY_BYTES:#x} to {MAX_MEMORY_END:#x} (16 GiB)"
    )]
    MemoryEnd {
        /// The end that was asked for.
        memory_end: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(memory_end: u64) -> LowMemory {
        LowMemory::build(&[Program::Sequential, Program::Reader], memory_end).unwrap()
    }

    fn word(image: &LowMemory, gpa: u64) -> u64 {
        u64::from_le_bytes(image.bytes[gpa as usize..][..8].try_into().unwrap())
    }

    /// Walks the page tables as the processor would.
    fn translate(image: &LowMemory, address: u64) -> Option<u64> {
        let user_writable = 0b111;
        let mut table = image.entries[0].cr3;
        for shift in [39, 30] {
            let entry = word(image, table + (address >> shift) % 512 * 8);
            if entry & user_writable != user_writable {
                return None;
            }
            table = entry & !0xfff;
        }
        let entry = word(image, table + (address >> 21) % 512 * 8);
        (entry & 0xe7 == 0xe7).then_some((entry & !0x1f_ffff) | (address & 0x1f_ffff))
    }

    #[test]
    fn memory_is_mapped_to_itself_up_to_its_end() {
        for memory_end in [
            LOW_MEMORY_BYTES,
            REGION_BASE + PAGE_SIZE,
            GIB,
            GIB + 1,
            3 * GIB,
            MAX_MEMORY_END,
        ] {
            let image = build(memory_end);
            assert_eq!(image.bytes.len() as u64, LOW_MEMORY_BYTES);
            for address in [0, 0x1234, LOW_MEMORY_BYTES - 1, memory_end / 2, memory_end - 1] {
                assert_eq!(translate(&image, address), Some(address), "end {memory_end:#x}");
            }
            assert_eq!(
                translate(&image, memory_end.next_multiple_of(LARGE_PAGE)),
                None,
                "end {memory_end:#x}"
            );
        }
    }

    #[test]
    fn entries_lead_to_code_block_and_stack() {
        let programs = [Program::Replay, Program::Random, Program::Replay];
        let image = LowMemory::build(&programs, GIB).unwrap();
        for (vcpu, (program, entry)) in programs.iter().zip(&image.entries).enumerate() {
            let code = program.code();
            assert_eq!(&image.bytes[entry.rip as usize..][..code.len()], code);
            assert_eq!(entry.rdi, LowMemory::block_gpa(vcpu));
            assert!(entry.rdi.is_multiple_of(PAGE_SIZE));
            assert!(
                image.bytes[entry.rdi as usize..][..PAGE_SIZE as usize]
                    .iter()
                    .all(|&byte| byte == 0)
            );
            assert!(entry.rsp.is_multiple_of(16));
            // What is plugged later starts in the same way.
            assert_eq!(LowMemory::entry(vcpu, program), *entry);
        }
        let last = LowMemory::entry(MAX_VCPUS - 1, &Program::Reader);
        assert!(last.rsp <= BLOCKS && last.rdi + PAGE_SIZE <= LOW_MEMORY_BYTES);
    }

    #[test]
    fn legacy_low_memory_and_the_boot_image_stay_free() {
        let image = build(MAX_MEMORY_END);
        assert!(image.bytes[..PAGE_TABLES as usize].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_can_not_be_built_is_refused() {
        let vcpus = vec![Program::Random; MAX_VCPUS + 1];
        assert!(LowMemory::build(&vcpus[1..], GIB).is_ok());
        let error = LowMemory::build(&vcpus, GIB).unwrap_err();
        assert_eq!(error.to_string(), "65 vCPUs are too many for a guest: give at most 64");
        for memory_end in [0, LOW_MEMORY_BYTES - 1, MAX_MEMORY_END + 1, u64::MAX] {
            let error = LowMemory::build(&[], memory_end).unwrap_err();
            assert_eq!(error, ImageError::MemoryEnd { memory_end });
            assert!(error.to_string().contains(&format!("{memory_end:#x}")), "{error}");
        }
    }
}
