//! Reads a trace block by block.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::{Path, PathBuf},
};

use super::{
    Head, MAGIC, Tail, TraceError, VERSION, Write,
    block::{self, FRAME_BYTES, MAX_BODY, OfThread},
};

/// Lengths of the head's first fields: magic, version, length of the rest.
const PREFIX_BYTES: usize = 14;
/// No head is longer: a VMM's name and the numbers of its vCPUs.
const MAX_HEAD: usize = 1 << 20;

/// What a trace holds, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Writes of one thread, in the order of time.
    Writes {
        /// The thread.
        thread: u32,
        /// Its vCPU, if it was known by then.
        vcpu: Option<u32>,
        /// The writes.
        writes: Vec<Write>,
    },
    /// How many writes could not be recorded until here.
    Lost(u64),
    /// The trace ended in good order; nothing follows.
    End(Tail),
}

/// A trace that is being read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
    head: Head,
    done: bool,
}

impl Reader {
    /// Opens a trace and reads its head.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|source| failed(path, source))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let not = || TraceError::NotATrace { path: path.to_owned() };
        let mut head = [0; PREFIX_BYTES].to_vec();
        if !filled(&mut file, &mut head).map_err(|source| failed(path, source))? || head[..8] != MAGIC {
            return Err(not());
        }
        let found = u16::from_le_bytes([head[8], head[9]]);
        if found != VERSION {
            return Err(TraceError::Version {
                path: path.to_owned(),
                found,
            });
        }
        let length = u32::from_le_bytes([head[10], head[11], head[12], head[13]]) as usize;
        if length > MAX_HEAD {
            return Err(not());
        }
        head.resize(PREFIX_BYTES + length, 0);
        let mut crc = [0; 4];
        let whole =
            filled(&mut file, &mut head[PREFIX_BYTES..]).and_then(|whole| Ok(whole && filled(&mut file, &mut crc)?));
        if !whole.map_err(|source| failed(path, source))? || crc32fast::hash(&head) != u32::from_le_bytes(crc) {
            return Err(damaged(path, 0, "its head is cut off or its checksum differs"));
        }
        let parsed = serde_json::from_slice(&head[PREFIX_BYTES..]);
        Ok(Self {
            path: path.to_owned(),
            file,
            at: (head.len() + crc.len()) as u64,
            head: parsed.map_err(|error| damaged(path, 0, &format!("its head can't be read: {error}")))?,
            done: false,
        })
    }

    /// What was known when it began.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next record; `None` at the end, or where the trace was cut off.
    pub fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if self.done {
            return Ok(None);
        }
        let mut frame = [0; FRAME_BYTES];
        if !self.fill(&mut frame)? {
            self.done = true;
            return Ok(None);
        }
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = frame;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_BODY {
            return Err(damaged(
                &self.path,
                self.at,
                "a block says to be longer than any can be",
            ));
        }
        let mut body = vec![0; length];
        if !self.fill(&mut body)? {
            self.done = true;
            return Ok(None);
        }
        if block::checksum(kind, [l0, l1, l2, l3], &body) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged(&self.path, self.at, "a block's checksum differs"));
        }
        let record = decode(kind, &body).map_err(|problem| damaged(&self.path, self.at, &problem))?;
        self.done = matches!(record, Record::End(_));
        self.at += (FRAME_BYTES + length) as u64;
        Ok(Some(record))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, TraceError> {
        filled(&mut self.file, bytes).map_err(|source| failed(&self.path, source))
    }
}

fn decode(kind: u8, body: &[u8]) -> Result<Record, String> {
    match kind {
        block::WRITES => OfThread::decode(body)
            .map_err(str::to_owned)
            .map(|block| Record::Writes {
                thread: block.thread,
                vcpu: block.vcpu,
                writes: block.writes,
            }),
        block::LOST => match body.first_chunk() {
            Some(count) if body.len() == count.len() => Ok(Record::Lost(u64::from_le_bytes(*count))),
            _ => Err("a count of lost writes has another length".to_owned()),
        },
        block::END => serde_json::from_slice(body)
            .map(Record::End)
            .map_err(|error| format!("its end can't be read: {error}")),
        other => Err(format!("a block is of the unknown kind {other:#x}")),
    }
}

/// Fills `bytes`; false if the file ends before.
fn filled(file: &mut BufReader<File>, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn failed(path: &Path, source: io::Error) -> TraceError {
    TraceError::Io {
        operation: "read",
        path: path.to_owned(),
        source,
    }
}

fn damaged(path: &Path, at: u64, problem: &str) -> TraceError {
    TraceError::Damaged {
        path: path.to_owned(),
        at,
        problem: problem.to_owned(),
    }
}
