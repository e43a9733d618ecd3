//! A guest that another VMM can boot: an ELF image with a PVH entry, such as QEMU takes with `-kernel`.
//!
//! It is the low memory of [`crate::image`] with a way in (see `entry`): same programs, same blocks at the same places.
//! The image is complete: each vCPU's block is filled in, so the guest runs as soon as it is booted. A host that maps
//! the guest's memory steers and reads it through the blocks as it would its own.
//!
//! A vCPU's number is its local APIC's ID, so choose a topology that numbers them without gaps (QEMU:
//! `-smp N,sockets=1,cores=N,threads=1` up to 64, on any machine with xAPICs). vCPUs that the image doesn't know halt;
//! one that is plugged later is never started.
//!
//! Mind two things of a VMM that logs all memory: the page of a running vCPU's block counts as dirty too, once between
//! two resets; and the memory must reach to the end of every region, with no hole in it (q35 has one below 4 GiB).

mod entry;

use std::sync::atomic::Ordering;

use crate::{
    PAGE_SIZE,
    block::{REPLAY_FOREVER, Region, VcpuBlock},
    image::{ImageError, LowMemory, MAX_MEMORY_END, MAX_VCPUS, PAGE_TABLES, put},
    program::Program,
};

/// What one vCPU of a booted guest does; the same that [`Program::configure`] takes.
#[derive(Clone, Debug, PartialEq)]
pub struct BootVcpu {
    /// Its program. `replay` follows its table of [`Tables`], and waits without one.
    pub program: Program,
    /// The pages that the program works on; none, and it waits.
    pub region: Region,
    /// Where its random sequence starts.
    pub seed: u64,
}

const ELF_HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const NOTE: u64 = ELF_HEADER_BYTES + 3 * PROGRAM_HEADER_BYTES;
/// Of an entry of a table.
const ENTRY_BYTES: u64 = 8;
const NOTE_BYTES: u64 = 24;
/// What is loaded starts in the file on a page of its own, as it does in memory.
const LOAD: u64 = PAGE_SIZE;

const _: () = assert!(entry::TABLE + 8 * (1 + MAX_VCPUS as u64) <= PAGE_TABLES);

/// What the vCPUs of a guest that replays follow, see [`crate::replay`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Where the first one lies, at the start of a page behind every region; the others follow it.
    pub gpa: u64,
    /// A table for each vCPU.
    pub tables: Vec<Vec<u64>>,
    /// How many TSC ticks behind its table a vCPU may be and still catch up.
    pub catch_up_ticks: u64,
}

/// Builds the ELF image of a guest whose vCPUs' TSC runs at `tsc_hz`, and of the tables that its vCPUs follow, if they do.
///
/// The file holds an ELF header, three program headers (the note with the entry; all of memory from 1 MiB to the end of
/// the low memory; the tables) and nothing else: no sections, no symbols.
///
/// # Errors
/// [`ImageError`], if there are more vCPUs than there is room for.
pub fn elf(vcpus: &[BootVcpu], tables: Option<&Tables>, tsc_hz: u64) -> Result<Vec<u8>, ImageError> {
    let programs: Vec<Program> = vcpus.iter().map(|vcpu| vcpu.program.clone()).collect();
    // The page tables reach as far as they can: the local APIC, which the entry needs, lies just below 4 GiB.
    let LowMemory { mut bytes, entries } = LowMemory::build(&programs, MAX_MEMORY_END)?;
    put(&mut bytes, entry::BASE, entry::code());
    put_word(&mut bytes, entry::TABLE, vcpus.len() as u64);
    let mut table_gpa = tables.map_or(0, |tables| tables.gpa);
    for (index, (vcpu, entry)) in vcpus.iter().zip(&entries).enumerate() {
        put_word(&mut bytes, entry::TABLE + 8 + 8 * index as u64, entry.rip);
        let block = VcpuBlock::default();
        vcpu.program.configure(&block, vcpu.region, vcpu.seed, tsc_hz);
        if let Some(tables) = tables {
            let entries = tables.tables.get(index).map_or(0, Vec::len) as u64;
            block.set_replay(table_gpa, entries, REPLAY_FOREVER);
            block.catch_up_ticks.store(tables.catch_up_ticks, Ordering::Relaxed);
            table_gpa += entries * ENTRY_BYTES;
        }
        for (offset, value) in block.parameters() {
            put_word(&mut bytes, entry.rdi + offset as u64, value);
        }
    }
    let low_bytes = bytes.len() as u64 - entry::BASE;
    let mut file = headers(
        low_bytes,
        tables.map_or((0, 0), |tables| (tables.gpa, table_gpa - tables.gpa)),
    );
    file.resize(LOAD as usize, 0);
    file.extend_from_slice(&bytes[entry::BASE as usize..]);
    let entries = tables.iter().flat_map(|tables| tables.tables.iter().flatten());
    file.extend(entries.flat_map(|entry| entry.to_le_bytes()));
    Ok(file)
}

/// The ELF header, the program headers and the note, as in the System V ABI, and in Xen's PVH boot protocol the note.
fn headers(low_bytes: u64, (tables_gpa, tables_bytes): (u64, u64)) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    const X86_64: u16 = 62;
    const PT_NULL: u32 = 0;
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    const READ_WRITE_EXECUTE: u32 = 7;
    const READ: u32 = 4;
    const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

    let mut out = Vec::new();
    // 64 bits, little endian, version 1.
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend(EXECUTABLE.to_le_bytes());
    out.extend(X86_64.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    // Entry, program headers, no section headers, no flags.
    for word in [entry::BASE, ELF_HEADER_BYTES, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0_u32.to_le_bytes());
    for half in [ELF_HEADER_BYTES as u16, PROGRAM_HEADER_BYTES as u16, 3, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, flags: u32, offset: u64, address: u64, bytes: u64, align: u64| {
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        for word in [offset, address, address, bytes, bytes, align] {
            out.extend(word.to_le_bytes());
        }
    };
    segment(PT_NOTE, READ, NOTE, 0, NOTE_BYTES, 4);
    segment(PT_LOAD, READ_WRITE_EXECUTE, LOAD, entry::BASE, low_bytes, PAGE_SIZE);
    // Without tables it is none.
    let kind = if tables_bytes == 0 { PT_NULL } else { PT_LOAD };
    segment(kind, READ, LOAD + low_bytes, tables_gpa, tables_bytes, PAGE_SIZE);
    // Sizes of name and content (a pointer of the file's class), type, name, content.
    for word in [4, 8, XEN_ELFNOTE_PHYS32_ENTRY] {
        out.extend(word.to_le_bytes());
    }
    out.extend_from_slice(b"Xen\0");
    out.extend(entry::BASE.to_le_bytes());
    out
}

fn put_word(bytes: &mut [u8], gpa: u64, word: u64) {
    put(bytes, gpa, &word.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::image::LOW_MEMORY_BYTES;

    const VCPU: BootVcpu = BootVcpu {
        program: Program::Random,
        region: Region {
            gpa: 0x100_0000,
            pages: 77,
        },
        seed: 5,
    };

    fn word(file: &[u8], gpa: u64) -> u64 {
        let offset = gpa - entry::BASE + LOAD;
        u64::from_le_bytes(file[offset as usize..][..8].try_into().unwrap())
    }

    #[test]
    fn the_code_fits_below_the_table() {
        assert!((entry::BASE + entry::code().len() as u64) <= entry::TABLE);
    }

    #[test]
    fn headers_and_note_have_the_sizes_that_they_state() {
        let headers = headers(0, (0, 0));
        assert_eq!(headers.len() as u64, NOTE + NOTE_BYTES);
        assert!(headers.len() as u64 <= LOAD);
        let file = elf(&[VCPU], None, 1).unwrap();
        assert_eq!(file.len() as u64, LOAD + LOW_MEMORY_BYTES - entry::BASE);
    }

    #[test]
    fn every_vcpu_has_its_program_and_its_parameters() {
        let file = elf(&[VCPU, BootVcpu { seed: 6, ..VCPU }], None, 1_000_000).unwrap();
        assert_eq!(word(&file, entry::TABLE), 2);
        for (vcpu, seed) in [(0, 5), (1, 6)] {
            let expected = VcpuBlock::default();
            VCPU.program.configure(&expected, VCPU.region, seed, 1_000_000);
            let block = LowMemory::block_gpa(vcpu);
            assert_eq!(
                word(&file, entry::TABLE + 8 + 8 * vcpu as u64),
                LowMemory::entry(vcpu, &VCPU.program).rip
            );
            assert_eq!(word(&file, block + offset_of!(VcpuBlock, region_pages) as u64), 77);
            for (offset, value) in expected.parameters() {
                assert_eq!(word(&file, block + offset as u64), value, "offset {offset}");
            }
        }
    }

    #[test]
    fn every_vcpu_has_its_table_behind_the_low_memory() {
        let tables = Tables {
            gpa: 0x200_0000,
            tables: vec![vec![1, 2, 3], vec![4]],
            catch_up_ticks: 9,
        };
        let file = elf(&[VCPU, VCPU], Some(&tables), 1_000_000).unwrap();
        let header = (ELF_HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES) as usize;
        let field = |offset: usize| u64::from_le_bytes(file[header + offset..][..8].try_into().unwrap());
        let (offset, gpa, bytes) = (field(8), field(24), field(32));
        assert_eq!((gpa, bytes), (tables.gpa, 32));
        let words = file[offset as usize..]
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        assert_eq!(words.collect::<Vec<_>>(), [1, 2, 3, 4]);
        for (vcpu, gpa, entries) in [(0, tables.gpa, 3), (1, tables.gpa + 24, 1)] {
            let block = LowMemory::block_gpa(vcpu);
            let is = |field: usize| word(&file, block + field as u64);
            assert_eq!(is(offset_of!(VcpuBlock, replay_gpa)), gpa);
            assert_eq!(is(offset_of!(VcpuBlock, replay_entries)), entries);
            assert_eq!(is(offset_of!(VcpuBlock, catch_up_ticks)), 9);
        }
    }

    #[test]
    fn parameters_are_at_their_offsets() {
        let block = VcpuBlock::default();
        block.set_replay(1, 2, 3);
        let parameters = block.parameters();
        for (offset, value) in [
            (offset_of!(VcpuBlock, replay_gpa), 1),
            (offset_of!(VcpuBlock, replay_entries), 2),
            (offset_of!(VcpuBlock, replay_runs), 3),
            (offset_of!(VcpuBlock, region_pages), 0),
        ] {
            assert!(parameters.contains(&(offset, value)), "{parameters:?}");
        }
    }

    #[test]
    fn too_many_vcpus_are_refused() {
        assert_eq!(
            elf(&[VCPU; MAX_VCPUS + 1], None, 1).unwrap_err(),
            ImageError::TooManyVcpus { vcpus: MAX_VCPUS + 1 }
        );
    }
}
