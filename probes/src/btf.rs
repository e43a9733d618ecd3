//! The kernel's own types (BTF): where a member of a structure is, and how many parameters a function has, those of its modules
//! included. Only what the probes ask, from the kernel's documentation of the format.

use std::fs;

const DIRECTORY: &str = "/sys/kernel/btf";
const MAGIC: u16 = 0xEB9F;
const HEADER: usize = 24;

const STRUCT: u32 = 4;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;

/// The types of the kernel, and of one module.
pub(crate) struct Btf {
    /// Of the kernel first: names that it has are not repeated.
    parts: Vec<Part>,
}

impl Btf {
    /// Those of the kernel and, where it is one, of the module `module`. An error says what to do.
    pub(crate) fn of(module: &str) -> Result<Self, String> {
        let read = |name: &str| {
            let path = format!("{DIRECTORY}/{name}");
            let bytes = fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
            Part::parse(bytes).ok_or_else(|| format!("{path} is not understood"))
        };
        let kernel = read("vmlinux").map_err(|why| {
            format!("the kernel doesn't say where its structures have their members (CONFIG_DEBUG_INFO_BTF): {why}")
        })?;
        // Built in, it has no file of its own.
        let module = fs::exists(format!("{DIRECTORY}/{module}"))
            .unwrap_or(false)
            .then(|| read(module));
        Ok(Self {
            parts: [Some(kernel), module.transpose()?].into_iter().flatten().collect(),
        })
    }

    /// Where members of a structure are, in bytes.
    pub(crate) fn offsets<const N: usize>(&self, structure: &str, members: [&str; N]) -> Result<[u32; N], String> {
        let (part, found) = self
            .find(STRUCT, structure)
            .ok_or_else(|| format!("this kernel has no structure {structure}"))?;
        let mut offsets = [0; N];
        for (offset, wanted) in offsets.iter_mut().zip(members) {
            let mut own = (0..part.count(found)).map(|index| part.words(found, 3 + 3 * index));
            let at = own.find_map(|[name, _, at]| (self.name(name) == Some(wanted.as_bytes())).then_some(at));
            // The upper byte is the width of a bit field.
            let bits = at.ok_or_else(|| format!("this kernel's {structure} has no member {wanted}"))? & 0x00ff_ffff;
            *offset = bits / 8;
        }
        Ok(offsets)
    }

    /// How many parameters a function has; `None` if the kernel has none of that name.
    pub(crate) fn parameters(&self, function: &str) -> Option<usize> {
        let (part, found) = self.find(FUNC, function)?;
        let [_, _, prototype] = part.words(found, 0);
        let kernel = self.parts.first()?.types.len();
        let index = (prototype as usize).checked_sub(1)?;
        let (part, &at) = match self.parts.first()?.types.get(index) {
            Some(at) => (self.parts.first()?, at),
            None => (self.parts.get(1)?, self.parts.get(1)?.types.get(index - kernel)?),
        };
        (part.kind(at) == FUNC_PROTO).then(|| part.count(at))
    }

    /// Whether a function is the module's.
    pub(crate) fn is_module(&self, function: &str) -> bool {
        let found = self.find(FUNC, function);
        found.is_some_and(|(part, _)| self.parts.first().is_none_or(|kernel| !std::ptr::eq(kernel, part)))
    }

    fn find(&self, kind: u32, name: &str) -> Option<(&Part, usize)> {
        self.parts.iter().find_map(|part| {
            let is_it = |at: usize| part.kind(at) == kind && self.name(part.words(at, 0)[0]) == Some(name.as_bytes());
            part.types.iter().copied().find(|&at| is_it(at)).map(|at| (part, at))
        })
    }

    /// The names of a module go on where those of the kernel end.
    fn name(&self, at: u32) -> Option<&[u8]> {
        let mut at = at as usize;
        for part in &self.parts {
            let names = part.bytes.get(part.names.clone())?;
            if at < names.len() {
                return names[at..].split(|&byte| byte == 0).next();
            }
            at -= names.len();
        }
        None
    }
}

/// One file.
struct Part {
    bytes: Vec<u8>,
    names: std::ops::Range<usize>,
    /// Where each type begins.
    types: Vec<usize>,
}

impl Part {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC || bytes.len() < HEADER {
            return None;
        }
        let header = word(4)? as usize;
        let section = |at: usize| Some((header + word(at)? as usize, word(at + 4)? as usize));
        let ((first, length), (names, names_length)) = (section(8)?, section(16)?);
        let mut types = Vec::new();
        let mut at = first;
        while at < first + length {
            types.push(at);
            let info = word(at + 4)?;
            let count = (info & 0xffff) as usize;
            at += 12
                + match info >> 24 & 0x1f {
                    // INT, VAR, DECL_TAG
                    1 | 14 | 17 => 4,
                    // ARRAY
                    3 => 12,
                    // STRUCT, UNION, DATASEC, ENUM64
                    4 | 5 | 15 | 19 => 12 * count,
                    // ENUM, FUNC_PROTO
                    6 | 13 => 8 * count,
                    2 | 7..=12 | 16 | 18 => 0,
                    _ => return None,
                };
        }
        let names = names..names + names_length;
        bytes.get(names.clone())?;
        (at <= bytes.len()).then_some(Self { bytes, names, types })
    }

    fn kind(&self, at: usize) -> u32 {
        self.words(at, 0)[1] >> 24 & 0x1f
    }

    fn count(&self, at: usize) -> usize {
        (self.words(at, 0)[1] & 0xffff) as usize
    }

    /// Three words of the type at `at`, from its word `from` on.
    fn words(&self, at: usize, from: usize) -> [u32; 3] {
        // `parse` went through all of them.
        [0, 1, 2].map(|word| {
            let at = at + 4 * (from + word);
            let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(types: &[u32], names: &str) -> Part {
        let (types_length, names_length) = (types.len() as u32 * 4, names.len() as u32);
        let header = [HEADER as u32, 0, types_length, types_length, names_length];
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(header.iter().chain(types).flat_map(|word| word.to_le_bytes()));
        bytes.extend(names.as_bytes());
        Part::parse(bytes).expect("it is well formed")
    }

    #[test]
    fn a_module_goes_on_where_the_kernel_ends() {
        // 1: int; names: "", "int", "gfn"
        let kernel = part(&[1, 1 << 24, 4, 32], "\0int\0gfn\0");
        // 2: struct slot { int gfn; int bits: 3 at 64 } 3: prototype of two 4: function of it
        let module = part(
            &[
                9,
                0x8400_0002,
                8,
                5,
                1,
                0,
                14,
                1,
                3 << 24 | 64, //
                0,
                13 << 24 | 2,
                0,
                5,
                1,
                14,
                1, //
                19,
                12 << 24,
                3,
            ],
            "slot\0bits\0mark\0",
        );
        let btf = Btf {
            parts: vec![kernel, module],
        };
        assert_eq!(btf.offsets("slot", ["gfn", "bits"]), Ok([0, 8]));
        assert!(
            btf.offsets("slot", ["none"])
                .is_err_and(|why| why.contains("no member none"))
        );
        assert!(btf.offsets("other", ["gfn"]).is_err());
        assert_eq!((btf.parameters("mark"), btf.parameters("other")), (Some(2), None));
        assert!(btf.is_module("mark") && !btf.is_module("other"));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = part(&[1, 1 << 24, 4, 32], "\0int\0").bytes;
        for length in 0..whole.len() {
            assert!(Part::parse(whole[..length].to_vec()).is_none(), "{length} bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_types_or_none(types in proptest::collection::vec(0u32..0x2000_0000, 0..40), lie in 0u32..400,
                                       tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            for length in [types.len() as u32 * 4, lie] {
                let header = [HEADER as u32, 0, length, length, tail.len() as u32];
                let mut bytes = vec![0x9f, 0xeb, 1, 0];
                bytes.extend(header.iter().chain(&types).flat_map(|word| word.to_le_bytes()));
                bytes.extend(&tail);
                let Some(part) = Part::parse(bytes) else { continue };
                let names: Vec<String> = tail.split(|&byte| byte == 0).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
                let btf = Btf { parts: vec![part] };
                for name in &names {
                    let _ = (btf.offsets(name, ["", name]), btf.parameters(name), btf.is_module(name));
                }
            }
        }
    }
}
