//! Which page of a replay's region stands for which page of the traced guest.

use std::collections::{BTreeMap, HashMap};

/// Pages that a word of bits holds.
const WORD: u64 = u64::BITS as u64;

/// A set of pages of slots.
#[derive(Clone, Debug, Default)]
pub(super) struct PageSet {
    words: BTreeMap<(u32, u64), u64>,
}

impl PageSet {
    /// Adds the pages of one run of writes, which mostly lie near each other.
    pub(super) fn extend(&mut self, pages: impl IntoIterator<Item = (u32, u64)>) {
        let mut open: Option<((u32, u64), u64)> = None;
        for (slot, page) in pages {
            let (key, bit) = place(slot, page);
            match &mut open {
                Some((of, bits)) if *of == key => *bits |= bit,
                _ => {
                    self.close(open);
                    open = Some((key, bit));
                }
            }
        }
        self.close(open);
    }

    fn close(&mut self, open: Option<((u32, u64), u64)>) {
        if let Some((key, bits)) = open {
            *self.words.entry(key).or_default() |= bits;
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.words.values().map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// The numbers 0 to `len` - 1 for its pages, in the order of slot and page: neighbours stay neighbours.
    pub(super) fn numbered(&self) -> Numbers {
        let mut next = 0;
        let words = self.words.iter().map(|(&key, &bits)| {
            let first = next;
            next += u64::from(bits.count_ones());
            (key, (bits, first))
        });
        Numbers { words: words.collect() }
    }
}

/// Each page's number.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    words: HashMap<(u32, u64), (u64, u64)>,
}

impl Numbers {
    /// The number of a page that is in the set.
    pub(super) fn of(&self, slot: u32, page: u64) -> Option<u64> {
        let (key, bit) = place(slot, page);
        let (bits, first) = self.words.get(&key).copied()?;
        (bits & bit != 0).then(|| first + u64::from((bits & (bit - 1)).count_ones()))
    }
}

fn place(slot: u32, page: u64) -> ((u32, u64), u64) {
    ((slot, page / WORD), 1 << (page % WORD))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_ranks(pages: Vec<(u8, u16)>) {
            let pages: Vec<(u32, u64)> = pages.into_iter().map(|(slot, page)| (u32::from(slot % 3), u64::from(page))).collect();
            let mut set = PageSet::default();
            set.extend(pages.iter().copied());
            let sorted: BTreeSet<_> = pages.iter().copied().collect();
            prop_assert_eq!(set.len(), sorted.len() as u64);
            let numbers = set.numbered();
            for (rank, (slot, page)) in sorted.into_iter().enumerate() {
                prop_assert_eq!(numbers.of(slot, page), Some(rank as u64));
            }
            prop_assert_eq!(numbers.of(3, 0), None);
        }
    }
}
