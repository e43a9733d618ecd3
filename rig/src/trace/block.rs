//! The frame of a block, and the body of one that holds writes.

use super::{Write, columns};

/// Writes.
pub(super) const WRITES: u8 = b'W';
/// How many were lost so far.
pub(super) const LOST: u8 = b'L';
/// The end.
pub(super) const END: u8 = b'E';

/// Kind, length and checksum.
pub(super) const FRAME_BYTES: usize = 9;
/// Writes in a block at most: large enough to pack well, small enough that a cut-off trace loses little.
pub(super) const MAX_WRITES: usize = 1 << 16;
/// No body is longer: that of the most writes, each number of the longest form.
pub(super) const MAX_BODY: usize = MAX_WRITES * 48;
/// A vCPU that nothing has named.
const UNNAMED: u32 = u32::MAX;
const FIELDS_BYTES: usize = 24;

/// The writes of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfThread {
    pub(super) thread: u32,
    pub(super) vcpu: Option<u32>,
    pub(super) writes: Vec<Write>,
}

impl OfThread {
    pub(super) fn encode(thread: u32, vcpu: Option<u32>, writes: &[Write]) -> Vec<u8> {
        let columns = columns::pack(writes);
        let mut body = Vec::with_capacity(FIELDS_BYTES + columns.len());
        for field in [thread, vcpu.unwrap_or(UNNAMED), writes.len() as u32] {
            body.extend(field.to_le_bytes());
        }
        body.extend(writes.first().map_or(0, |write| write.at_ns).to_le_bytes());
        body.extend((columns.len() as u32).to_le_bytes());
        body.extend(lz4_flex::block::compress(&columns));
        body
    }

    /// The writes of a body; an error says what is wrong with it.
    pub(super) fn decode(body: &[u8]) -> Result<Self, &'static str> {
        let short = "a block of writes is too short";
        let number = |at: usize| Some(u32::from_le_bytes(*body.get(at..)?.first_chunk()?));
        let (thread, vcpu, count) = (
            number(0).ok_or(short)?,
            number(4).ok_or(short)?,
            number(8).ok_or(short)?,
        );
        let first_ns = body.get(12..).and_then(|rest| rest.first_chunk()).ok_or(short)?;
        let columns_bytes = number(20).ok_or(short)? as usize;
        let count = count as usize;
        if count > MAX_WRITES || columns_bytes > MAX_BODY {
            return Err("a block says to hold more than it can");
        }
        let columns = lz4_flex::block::decompress(&body[FIELDS_BYTES..], columns_bytes)
            .map_err(|_| "a block can't be decompressed")?;
        let writes = columns::unpack(&columns, count, u64::from_le_bytes(*first_ns))
            .ok_or("the numbers of a block are not what it says")?;
        Ok(Self {
            thread,
            vcpu: Some(vcpu).filter(|&vcpu| vcpu != UNNAMED),
            writes,
        })
    }
}

/// A body in its frame.
pub(super) fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_le_bytes();
    let mut block = Vec::with_capacity(FRAME_BYTES + body.len());
    block.push(kind);
    block.extend(length);
    block.extend(checksum(kind, length, body).to_le_bytes());
    block.extend(body);
    block
}

/// What a frame must say of its body.
pub(super) fn checksum(kind: u8, length: [u8; 4], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&length);
    crc.update(body);
    crc.finalize()
}
