//! Where the pages are told from that vCPUs dirty. One interface, a source a file:
//!
//! | source | what it asks | what it costs |
//! |---|---|---|
//! | [`RingIndex`] | the index of each vCPU's dirty ring, at any moment | nothing a page, once it is known whose ring is which |
//! | [`RingPushes`] | a program on `kvm_dirty_ring_push` | a program per page |
//! | [`BitmapMarks`] | a program on `mark_page_dirty_in_slot` | a program per page and pass |
//!
//! A vCPU's pages are the sum of what they tell: a VM has rings or a bitmap.

pub(crate) mod bitmap_marks;
mod ring_index;
mod ring_pushes;

use aya::Ebpf;
use dirtyrig_probes_common::{Pushed, Thread};

use crate::{Error, Target};
pub(crate) use bitmap_marks::BitmapMarks;
pub(crate) use ring_index::RingIndex;
pub(crate) use ring_pushes::RingPushes;

/// The threads that are known, by id.
pub(crate) type Threads = Vec<(u32, Thread)>;

/// What the programs counted of a thread.
pub(crate) struct Counted {
    /// What it says of itself.
    pub(crate) thread: Thread,
    /// What was counted page by page.
    pub(crate) pushed: Pushed,
}

/// A source of dirtied pages.
pub(crate) trait PageSource {
    /// The pages that a thread has dirtied by now, or, without a `look` at what it is just doing, by its last entry into
    /// `KVM_RUN` or return from it. A look tells the truth if `thread` was true before and after.
    fn pages(&self, ebpf: &Ebpf, counted: &Counted, look: bool) -> Result<u64, Error>;

    /// Keeps up with vCPUs that come and go. Called at each drain and reading.
    fn tend(&mut self, _ebpf: &mut Ebpf, _threads: &dyn Fn() -> Result<Threads, Error>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether a program runs for each page that is dirtied.
    fn runs_for_each_page(&self) -> bool;

    /// Whether it missed the pages of a thread that has ended.
    fn missed(&self, _thread: &Thread) -> bool {
        false
    }

    /// Whether the pages of this process are its to tell, and it can't see them.
    fn is_blind_to(&self, _process: u32) -> bool {
        false
    }

    /// What it does not see although a VM that is watched needs it, and what would help.
    fn blind(&self) -> Option<String> {
        None
    }
}

/// Of which VMs, and what for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Whose vCPUs.
    pub(crate) target: Target,
    /// Each page is wanted, and not only their number.
    pub(crate) traced: bool,
}
