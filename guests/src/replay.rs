//! The table that the `replay` program follows: one `u64` an entry.
//!
//! ```text
//! 63            32 31             0
//! |     delay     |      page      |
//! ```
//!
//! `page` is the number of the page in the region; of an entry beyond the region only the delay counts. `delay` is the
//! time from the entry before, in units of [`TICKS_PER_UNIT`] TSC ticks: 64 are some 20 to 30 ns, well below the cost
//! of a dirty fault, and 2^32 of them are more than a minute.
//!
//! An entry is due when the delays up to it have passed since the run began. A guest that is late, because it was
//! throttled or because the trace is denser than it can write, makes up for at most `catch_up_ticks`: what is beyond
//! shifts the rest of the run, so a stall is never followed by a burst of all that it held up.

/// TSC ticks in a unit of an entry's delay.
pub const TICKS_PER_UNIT: u64 = 1 << TICKS_SHIFT;

/// The same as a shift, which is how the guest multiplies.
pub(crate) const TICKS_SHIFT: u32 = 6;

/// An entry with this page number only waits.
const NO_PAGE: u32 = u32::MAX;

/// Makes a table of `writes`, in the order of time. Each is the number of a page and the moment at which it was written,
/// in TSC ticks since the start of the run. A tick that lies before its predecessor's counts as the same moment.
///
/// Delays are rounded so that errors don't add up: each entry is due within a unit of its tick. A delay too long for
/// an entry is preceded by entries that only wait.
pub fn table(writes: impl IntoIterator<Item = (u32, u64)>) -> Vec<u64> {
    let mut table = Vec::new();
    let mut at = 0;
    for (page, tick) in writes {
        let due = (tick / TICKS_PER_UNIT).max(at);
        let mut delay = due - at;
        at = due;
        while delay > u64::from(u32::MAX) {
            table.push(entry(NO_PAGE, u32::MAX));
            delay -= u64::from(u32::MAX);
        }
        table.push(entry(page, delay as u32));
    }
    table
}

fn entry(page: u32, delay: u32) -> u64 {
    u64::from(delay) << 32 | u64::from(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(entry: u64) -> (u32, u64) {
        (entry as u32, entry >> 32)
    }

    #[test]
    fn delays_are_from_entry_to_entry() {
        let table = table([(7, 0), (3, 64), (7, 64), (0, 640)]);
        let entries: Vec<_> = table.into_iter().map(decode).collect();
        assert_eq!(entries, [(7, 0), (3, 1), (7, 0), (0, 9)]);
    }

    #[test]
    fn rounding_does_not_add_up() {
        // 1000 writes, 100 ticks apart: none may be due a unit or more off its tick.
        let table = table((0..1000).map(|n| (n, u64::from(n) * 100)));
        let mut due = 0;
        for (n, entry) in table.into_iter().enumerate() {
            due += decode(entry).1 * TICKS_PER_UNIT;
            assert!(
                (n as u64 * 100).abs_diff(due) < TICKS_PER_UNIT,
                "write {n} is due at {due}"
            );
        }
    }

    #[test]
    fn time_does_not_step_back() {
        let entries: Vec<_> = table([(1, 6400), (2, 640), (3, 6400)])
            .into_iter()
            .map(decode)
            .collect();
        assert_eq!(entries, [(1, 100), (2, 0), (3, 0)]);
    }

    #[test]
    fn a_long_delay_is_split() {
        let longest = u64::from(u32::MAX);
        let entries: Vec<_> = table([(1, (2 * longest + 5) * 64)]).into_iter().map(decode).collect();
        assert_eq!(entries, [(NO_PAGE, longest), (NO_PAGE, longest), (1, 5)]);
    }
}
