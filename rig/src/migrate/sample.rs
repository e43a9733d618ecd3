//! What a guest writes, before any page of it is logged: the content of some of its pages, looked at again and again.
//!
//! It costs the guest nothing but the bandwidth of the reads, needs neither rings nor a bitmap, and knows any VMM. A page that
//! is written with what it holds already is not seen to be written; but a migration would send it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, IoSliceMut},
    os::unix::fs::FileExt as _,
    thread,
    time::{Duration, Instant},
};

use dirtyrig_limiter::{
    law::migration::Dirtying,
    units::{PAGE_SIZE, Pages},
};
use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    time::ClockId,
    unistd::Pid,
};

/// Pages that are looked at over long windows: a share of them is known to one percent.
const LOOKED_AT: usize = 2_048;

/// Short windows in microseconds, and how often each is looked at, at different moments: a guest may write in bursts. So few
/// pages are looked at, others each time, that a look takes a fraction of the window.
const SHORT_US: [(u64, usize); 8] = [
    (100, 32),
    (250, 32),
    (500, 32),
    (1_000, 16),
    (2_000, 16),
    (4_000, 32),
    (8_000, 8),
    (16_000, 8),
];
const SHORT_PAGES: usize = 64;
const SHORT_SETS: usize = 8;

/// Long windows, from one moment on.
const LONG_MS: [u64; 6] = [32, 64, 128, 256, 512, 1_024];

/// The short window that tells whether the guest writes all the time.
const IDLE_US: u64 = 4_000;
/// Of a guest that changes fewer of the pages while it writes, that can't be told.
const TELLING: f64 = 8.0;

/// A smaller mapping of a VMM is none of guest memory.
const LEAST_MAPPING: u64 = 4 << 20;

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Memory that isn't zeros.
    pub in_use: Pages,
    /// Distinct pages by window.
    pub dirtying: Dirtying,
}

/// Looks at the memory of a VMM's process for 1.5 s. `mark` is called when a window begins: a guest that writes what it is told
/// is told something new.
pub fn sample(process: u32, mark: &dyn Fn()) -> io::Result<Sample> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.cast_signed()))?;
    let mappings = guest_mappings(&fs::read_to_string(format!("/proc/{process}/maps"))?);
    let pages: u64 = mappings.iter().map(|(from, to)| (to - from) / PAGE_SIZE).sum();
    let spread = |count: usize| chosen(&mappings, (pages as f64 / count as f64).max(1.0));
    let (begun, cpu) = (Instant::now(), Duration::from(clock.now()?));
    let (mut windows, rates) = short_windows(process, &spread(SHORT_PAGES * SHORT_SETS), mark)?;

    let mut looker = Looker::new(process, spread(LOOKED_AT))?;
    looker.begin()?;
    mark();
    let from = Instant::now();
    for millis in LONG_MS {
        thread::sleep((from + Duration::from_millis(millis)).saturating_duration_since(Instant::now()));
        windows.push(looker.window(Duration::from_millis(millis), from)?);
    }
    let used = Duration::from(clock.now()?).saturating_sub(cpu);
    let idle = idle(&windows, used.as_secs_f64() / begun.elapsed().as_secs_f64());
    let seen = averages(&windows)
        .into_iter()
        .map(|(span, share)| (span, share.max(rates.share(span))));
    let unseen = UNSEEN_US
        .map(|micros| micros as f64 * 1e-6)
        .map(|span| (span, rates.share(span)));
    let dirtying = Dirtying::new(
        unseen
            .into_iter()
            .chain(seen)
            .map(|(span, share)| (Duration::from_secs_f64(span), part(pages, share))),
    );
    Ok(Sample {
        in_use: part(pages, looker.in_use() as f64 / looker.addresses.len().max(1) as f64),
        dirtying: dirtying
            .ok_or_else(|| io::Error::other("no time has passed between two looks"))?
            .with_idle(idle),
    })
}

fn part(pages: u64, share: f64) -> Pages {
    Pages((pages as f64 * share).round() as u64)
}

/// What came of a window.
#[derive(Clone, Copy, Debug)]
struct Window {
    wanted: Duration,
    /// From its beginning to the middle of the look at its end.
    span: Duration,
    changed: usize,
    looked_at: usize,
}

fn short_windows(process: u32, addresses: &[u64], mark: &dyn Fn()) -> io::Result<(Vec<Window>, Rates)> {
    let mut sets: Vec<Looker> = (0..SHORT_SETS)
        .map(|set| {
            Looker::new(
                process,
                addresses.iter().copied().skip(set).step_by(SHORT_SETS).collect(),
            )
        })
        .collect::<io::Result<_>>()?;
    let mut windows = Vec::new();
    // Of each set, what its pages did in each window.
    let mut histories: Vec<Vec<(f64, Vec<bool>)>> = vec![Vec::new(); SHORT_SETS];
    for (micros, times) in SHORT_US {
        let wanted = Duration::from_micros(micros);
        for time in 0..times {
            let looker = &mut sets[time % SHORT_SETS];
            looker.begin()?;
            mark();
            let from = Instant::now();
            thread::sleep(wanted);
            let window = looker.window(wanted, from)?;
            if window.span > wanted * 2 + SLACK {
                // The machine did something else meanwhile.
                continue;
            }
            histories[time % SHORT_SETS].push((window.span.as_secs_f64(), looker.is_changed.clone()));
            windows.push(window);
        }
    }
    Ok((windows, Rates::of(&histories)))
}

/// How often each page is written, in times per second. A guest that writes some pages often is known by that for
/// windows too short to be seen; it is taken to write each at random.
struct Rates(Vec<f64>);

/// The lowest and the highest rate that are told apart, and the ratio between two.
const SLOWEST: f64 = 0.25;
const FASTEST: f64 = 1e5;
const RATIO: f64 = 1.5;

impl Rates {
    fn of(histories: &[Vec<(f64, Vec<bool>)>]) -> Self {
        let rates: Vec<f64> = std::iter::successors(Some(SLOWEST), |rate| Some(rate * RATIO))
            .take_while(|rate| *rate < FASTEST)
            .collect();
        let likeliest = |looks: Vec<(f64, bool)>| {
            let likelihood = |rate: f64| -> f64 {
                looks
                    .iter()
                    .map(|&(span, changed)| {
                        if changed {
                            (-(-rate * span).exp_m1()).ln()
                        } else {
                            -rate * span
                        }
                    })
                    .sum()
            };
            let best = rates
                .iter()
                .map(|&rate| (likelihood(rate), rate))
                .max_by(|one, other| one.0.total_cmp(&other.0));
            // One that was never seen to change may be written, but nobody knows how often.
            best.filter(|_| looks.iter().any(|&(_, changed)| changed))
                .map_or(0.0, |(_, rate)| rate)
        };
        let mut found = Vec::new();
        for history in histories {
            let count = history.first().map_or(0, |(_, changed)| changed.len());
            for page in 0..count {
                let looks = history.iter().map(|(span, changed)| (*span, changed[page]));
                found.push(likeliest(looks.collect()));
            }
        }
        Self(found)
    }

    /// The share of pages that is written in so many seconds.
    fn share(&self, seconds: f64) -> f64 {
        let written: f64 = self.0.iter().map(|rate| -(-rate * seconds).exp_m1()).sum();
        written / self.0.len().max(1) as f64
    }
}

/// Windows too short to be seen, in microseconds.
const UNSEEN_US: [u64; 5] = [5, 10, 20, 40, 80];

/// The share of time in which a guest that has a processor writes nothing. `used` processor seconds a second say how often it has
/// one.
fn idle(windows: &[Window], used: f64) -> f64 {
    let (mut all, mut busy, mut changed) = (0.0, 0.0, 0.0);
    for window in windows
        .iter()
        .filter(|window| window.wanted.as_micros() == u128::from(IDLE_US))
    {
        all += 1.0;
        busy += f64::from(u8::from(window.changed > 0));
        changed += window.changed as f64;
    }
    if busy == 0.0 || changed / busy < TELLING {
        return 0.0;
    }
    (1.0 - busy / all - (1.0 - used).max(0.0)).max(0.0)
}

/// The seconds that each took on average, and the share of pages that changed. Windows go together that are alike, within a
/// factor of two.
fn averages(windows: &[Window]) -> Vec<(f64, f64)> {
    let mut alike: BTreeMap<i32, Vec<&Window>> = BTreeMap::new();
    for window in windows {
        let order = window.span.as_secs_f64().log2().floor() as i32;
        alike.entry(order).or_default().push(window);
    }
    let average = |windows: Vec<&Window>| {
        let count = windows.len() as f64;
        let seconds: f64 = windows.iter().map(|window| window.span.as_secs_f64()).sum();
        let share = |window: &&Window| window.changed as f64 / window.looked_at as f64;
        (seconds / count, windows.iter().map(share).sum::<f64>() / count)
    };
    alike.into_values().map(average).collect()
}

/// What a sleep and a look take beyond the window.
const SLACK: Duration = Duration::from_micros(400);

/// Pages of a process, and what they held.
struct Looker {
    process: Pid,
    pagemap: File,
    addresses: Vec<u64>,
    /// A page that was never touched is zeros, and left so: a read would make the kernel allocate it.
    is_touched: Vec<bool>,
    is_changed: Vec<bool>,
    first: Vec<u8>,
    now: Vec<u8>,
}

const PAGE: usize = PAGE_SIZE as usize;
/// The kernel takes so many parts at once.
const AT_ONCE: usize = 1_024;

impl Looker {
    fn new(process: u32, addresses: Vec<u64>) -> io::Result<Self> {
        let count = addresses.len();
        let mut looker = Self {
            process: Pid::from_raw(process.cast_signed()),
            pagemap: File::open(format!("/proc/{process}/pagemap"))?,
            addresses,
            is_touched: vec![false; count],
            is_changed: vec![false; count],
            first: vec![0; count * PAGE],
            now: vec![0; count * PAGE],
        };
        // Its own buffers are allocated by the first looks.
        looker.begin()?;
        looker.look()?;
        Ok(looker)
    }

    /// Takes what they hold for the first.
    fn begin(&mut self) -> io::Result<()> {
        self.look()?;
        std::mem::swap(&mut self.first, &mut self.now);
        self.is_changed.fill(false);
        Ok(())
    }

    /// How many have changed since the window began, be it for a time.
    fn window(&mut self, wanted: Duration, from: Instant) -> io::Result<Window> {
        let before = from.elapsed();
        self.look()?;
        let pages = self.first.chunks(PAGE).zip(self.now.chunks(PAGE));
        let span = (before + from.elapsed()) / 2;
        for (is_changed, (first, now)) in self.is_changed.iter_mut().zip(pages) {
            *is_changed |= first != now;
        }
        Ok(Window {
            wanted,
            span,
            changed: self.is_changed.iter().filter(|changed| **changed).count(),
            looked_at: self.addresses.len().max(1),
        })
    }

    /// How many held something else than zeros at the last look.
    fn in_use(&self) -> usize {
        let pages = self.now.chunks(PAGE);
        pages.filter(|page| page.iter().any(|&byte| byte != 0)).count()
    }

    fn look(&mut self) -> io::Result<()> {
        for (is_touched, address) in self.is_touched.iter_mut().zip(&self.addresses) {
            if !*is_touched {
                let mut entry = [0; 8];
                self.pagemap.read_exact_at(&mut entry, address / PAGE_SIZE * 8)?;
                // Bits 62 and 63: swapped, present.
                *is_touched = u64::from_le_bytes(entry) >> 62 != 0;
            }
        }
        let mut wanted: Vec<(usize, IoSliceMut)> = (self.addresses.iter().zip(&self.is_touched))
            .zip(self.now.chunks_mut(PAGE))
            .filter(|((_, is_touched), _)| **is_touched)
            .map(|((address, _), page)| (*address as usize, IoSliceMut::new(page)))
            .collect();
        let mut from = 0;
        while from < wanted.len() {
            let to = (from + AT_ONCE).min(wanted.len());
            let part = |&(base, _): &(usize, _)| RemoteIoVec { base, len: PAGE };
            let remote: Vec<RemoteIoVec> = wanted[from..to].iter().map(part).collect();
            let mut local: Vec<IoSliceMut> = (wanted[from..to].iter_mut())
                .map(|(_, page)| IoSliceMut::new(page))
                .collect();
            let read = match process_vm_readv(self.process, &mut local, &remote) {
                Ok(bytes) => bytes / PAGE,
                Err(Errno::EFAULT) => 0,
                Err(error) => return Err(error.into()),
            };
            from += read;
            if from < to {
                // What can't be read is no memory.
                wanted[from].1.fill(0);
                from += 1;
            }
        }
        Ok(())
    }
}

/// Where guest memory may be in a process, from its `maps`: what is mapped from devices is not looked at, nor what a VMM has
/// for itself.
fn guest_mappings(maps: &str) -> Vec<(u64, u64)> {
    let mapping = |line: &str| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let may = words.next()?;
        let name = words.nth(3).unwrap_or_default();
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (from, to) = (hex(from)?, hex(to)?);
        let is_of_a_device = name.starts_with("anon_inode:")
            || name.starts_with("/dev/") && !name.starts_with("/dev/shm/") && !name.starts_with("/dev/hugepages/");
        let is_own = matches!(name, "[heap]" | "[stack]");
        (may.starts_with("rw") && to - from >= LEAST_MAPPING && !is_of_a_device && !is_own).then_some((from, to))
    };
    maps.lines().filter_map(mapping).collect()
}

/// A page in every `each`, somewhere in it.
fn chosen(mappings: &[(u64, u64)], each: f64) -> Vec<u64> {
    let mut addresses = Vec::new();
    let mut before = 0.0;
    let mut next = 0.0;
    for &(from, to) in mappings {
        let pages = ((to - from) / PAGE_SIZE) as f64;
        while next < before + pages {
            // The golden ratio spreads them evenly, whatever period the guest's memory has.
            let within = (addresses.len() as f64 * 0.618_033_988_749_895).fract() * each;
            let page = (next + within).min(before + pages - 1.0) - before;
            addresses.push(from + page as u64 * PAGE_SIZE);
            next += each;
        }
        before += pages;
    }
    addresses
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[test]
    fn only_what_may_be_guest_memory_is_looked_at() {
        let maps = "55d0c8000000-55d0c9000000 rw-p 00000000 00:00 0                          [heap]\n\
                    7f0000000000-7f0010000000 rw-s 00000000 00:01 1026                       /memfd:ram (deleted)\n\
                    7f0010000000-7f0010001000 rw-p 00000000 00:00 0 \n\
                    7f0020000000-7f0020800000 rw-p 00000000 00:00 0 \n\
                    7f0030000000-7f0030800000 r--p 00000000 08:01 7                          /usr/lib/libc.so.6\n\
                    7f0040000000-7f0040800000 rw-s 00000000 00:0e 9                          anon_inode:[vfio-device]\n\
                    7f0050000000-7f0050800000 rw-s 00000000 00:05 3                          /dev/shm/guest\n";
        let found = guest_mappings(maps);
        assert_eq!(
            found.iter().map(|(from, _)| *from).collect::<Vec<_>>(),
            [0x7f00_0000_0000, 0x7f00_2000_0000, 0x7f00_5000_0000]
        );
        let each = 3.5;
        let chosen = chosen(&[(0, 7 * PAGE_SIZE), (1 << 40, (1 << 40) + 7 * PAGE_SIZE)], each);
        assert_eq!(chosen.len(), 4);
        assert!(
            chosen.is_sorted() && chosen[1] < 7 * PAGE_SIZE && chosen[2] >= 1 << 40,
            "{chosen:?}"
        );
    }

    /// Of a process that writes a quarter of its memory, and has another quarter at zero.
    #[test]
    fn a_process_is_seen_to_write_what_it_writes() {
        const PAGES: usize = 16_384;
        const WORDS: usize = PAGE_SIZE as usize / 8;
        let memory: Vec<AtomicU64> = (0..PAGES * WORDS).map(|_| AtomicU64::new(0)).collect();
        (PAGES / 4..PAGES).for_each(|page| memory[page * WORDS].store(1, Ordering::Relaxed));
        let stop = AtomicBool::new(false);
        let sample = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for page in PAGES / 4..PAGES / 2 {
                        memory[page * WORDS].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let sample = sample(std::process::id(), &|| {});
            stop.store(true, Ordering::Relaxed);
            sample
        });
        let sample = sample.expect("a process can look at itself");
        let share = |pages: u64| pages as f64 / PAGES as f64;
        // Other tests of this process have memory as well.
        assert!(share(sample.in_use.0) > 0.7, "{sample:?}");
        let written = share(sample.dirtying.pages_in(Duration::from_secs(1)).0);
        assert!((0.2..2.0).contains(&written), "{sample:?}");
    }
}
