//! The columns of a block: times, slots and pages as small numbers, which LZ4 then makes fewer.

use super::Write;

/// Packs the writes of one thread, which are in the order of time.
pub(super) fn pack(writes: &[Write]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(writes.len() * 4);
    let mut last = writes.first().map_or(0, |write| write.at_ns);
    for write in writes {
        // A record's clock does not step back on one thread; if it ever did, the order is what counts.
        put(&mut packed, write.at_ns.saturating_sub(last));
        last = last.max(write.at_ns);
    }
    for run in writes.chunk_by(|a, b| a.slot == b.slot) {
        put(&mut packed, run.len() as u64);
        put(&mut packed, u64::from(run[0].slot));
    }
    let mut last = 0_u64;
    for write in writes {
        put(&mut packed, zigzag(write.page.wrapping_sub(last)));
        last = write.page;
    }
    packed
}

/// Unpacks `count` writes, of which the first came at `first_ns`; `None` if `packed` is not exactly that.
pub(super) fn unpack(mut packed: &[u8], count: usize, first_ns: u64) -> Option<Vec<Write>> {
    let mut writes = Vec::with_capacity(count);
    let mut at_ns = first_ns;
    for _ in 0..count {
        at_ns = at_ns.checked_add(take(&mut packed)?)?;
        writes.push(Write {
            at_ns,
            slot: 0,
            page: 0,
        });
    }
    let mut at = 0;
    while at < count {
        let length = usize::try_from(take(&mut packed)?).ok().filter(|&length| length > 0)?;
        let slot = u32::try_from(take(&mut packed)?).ok()?;
        let run = writes.get_mut(at..at.checked_add(length)?)?;
        for write in run {
            write.slot = slot;
        }
        at += length;
    }
    let mut page = 0_u64;
    for write in &mut writes {
        page = page.wrapping_add(unzigzag(take(&mut packed)?));
        write.page = page;
    }
    packed.is_empty().then_some(writes)
}

/// A difference as a number that is small if the difference is, whichever its sign.
fn zigzag(difference: u64) -> u64 {
    let sign = difference.cast_signed() >> 63;
    (difference << 1) ^ sign.cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

/// Appends a number in LEB128: seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes one off the front.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_read_back(number: u64) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            prop_assert!(bytes.len() <= 10);
            prop_assert_eq!(take(&mut &bytes[..]), Some(number));
            prop_assert_eq!(unzigzag(zigzag(number)), number);
        }

        #[test]
        fn any_bytes_are_writes_or_refused(bytes: Vec<u8>, count in 0_usize..100) {
            if let Some(writes) = unpack(&bytes, count, 0) {
                prop_assert_eq!(writes.len(), count);
            }
        }
    }

    #[test]
    fn what_is_near_takes_a_byte() {
        assert_eq!([0, 1, u64::MAX, 2].map(zigzag), [0, 2, 1, 4]);
        let sequential: Vec<Write> = (0..1000)
            .map(|n| Write {
                at_ns: 5_000 + n * 100,
                slot: 3,
                page: n,
            })
            .collect();
        assert_eq!(pack(&sequential).len(), 1000 + 3 + 1000);
    }

    #[test]
    fn a_number_too_long_is_refused() {
        assert_eq!(take(&mut &[0xff; 11][..]), None);
        assert_eq!(
            take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]),
            None
        );
        assert_eq!(take(&mut &[0x80][..]), None);
    }
}
