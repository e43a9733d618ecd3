//! Pages of VMs with a dirty bitmap, counted as they are marked in it. The pages of VMs with rings pass the same function, so the
//! program is attached only while there is a VM without.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use aya::Ebpf;

use super::{Counted, PageSource, Threads};
use crate::{
    Error, Target,
    attach::refusal,
    marking::{Link, Programs},
    process,
};

pub(crate) const PROGRAMS: Programs = Programs {
    fentry: "mark_fentry",
    kprobe: "mark_kprobe",
};

/// How often to look for VMs without rings.
const LOOK: Duration = Duration::from_secs(1);
/// And at most this part of the time: many processes take long to look through.
const LOOKING: u32 = 50;

/// The VMs with a bitmap that are watched.
pub(crate) struct BitmapMarks {
    target: Target,
    /// Whether this kernel lets their pages be seen; an error says what would help.
    possible: Result<(), String>,
    link: Option<Link>,
    looked: Option<Instant>,
    looking_took: Duration,
    /// The processes that are watched whose VM has no ring.
    without_ring: BTreeSet<u32>,
    /// Those of which pages were not seen, the ones that have ended included.
    unseen: BTreeSet<u32>,
}

impl BitmapMarks {
    /// `possible`: whether the programs know the layout of what they read.
    pub(crate) fn of(target: Target, possible: Result<(), String>) -> Self {
        Self {
            target,
            possible,
            link: None,
            looked: None,
            looking_took: Duration::ZERO,
            without_ring: BTreeSet::new(),
            unseen: BTreeSet::new(),
        }
    }
}

impl PageSource for BitmapMarks {
    fn pages(&self, _ebpf: &Ebpf, counted: &Counted, _look: bool) -> Result<u64, Error> {
        Ok(counted.pushed.marked)
    }

    /// Attaches the program while a VM has no ring.
    fn tend(&mut self, ebpf: &mut Ebpf, _threads: &dyn Fn() -> Result<Threads, Error>) -> Result<(), Error> {
        let every = LOOK.max(self.looking_took * LOOKING);
        if self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Ok(());
        }
        let begin = Instant::now();
        self.looked = Some(begin);
        let processes = process::watched(self.target).into_iter();
        let has_bitmap =
            |&pid: &u32| !process::vcpu_descriptors(pid).is_empty() && process::has_ring(pid) == Some(false);
        self.without_ring = processes.filter(has_bitmap).collect();
        self.looking_took = begin.elapsed();
        match (!self.without_ring.is_empty() && self.possible.is_ok(), self.link.take()) {
            (true, None) => match PROGRAMS.attach(ebpf) {
                Ok(link) => self.link = Some(link),
                Err(why) => self.possible = Err(why),
            },
            (false, Some(link)) => PROGRAMS.detach(ebpf, link).map_err(|error| Error::Load {
                source: format!("can't detach it: {}", refusal(&error)).into(),
            })?,
            (_, link) => self.link = link,
        }
        if self.link.is_none() {
            self.unseen.extend(&self.without_ring);
        }
        Ok(())
    }

    fn runs_for_each_page(&self) -> bool {
        self.link.is_some()
    }

    fn is_blind_to(&self, process: u32) -> bool {
        self.unseen.contains(&process)
    }

    fn blind(&self) -> Option<String> {
        let why = self.possible.as_ref().err().filter(|_| !self.without_ring.is_empty())?;
        Some(format!(
            "a VM has no dirty ring, and pages that are marked in a dirty bitmap are not seen here ({why}); a ring is always seen \
             (QEMU: `-accel kvm,dirty-ring-size=4096`)"
        ))
    }
}
