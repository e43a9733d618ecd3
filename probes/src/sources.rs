//! Which sources of dirtied pages work on this kernel, as the probes and the quota would find out.

use std::fmt;

use aya::EbpfLoader;

use crate::{
    Error,
    attach::{attach_raw, refusal},
    marking::{SlotLayout, WAYS, Way},
    object,
    observer::load_error,
    pages::bitmap_marks,
};

/// Where the pages are told from that a vCPU dirties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The dirty rings of a VM.
    Ring,
    /// A VM's dirty bitmap, by a program that the kernel calls as a page is marked in it.
    BitmapByFentry,
    /// The same by a kprobe, which costs more.
    BitmapByKprobe,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::BitmapByFentry => "bitmap by fentry",
            Self::BitmapByKprobe => "bitmap by kprobe",
        })
    }
}

/// Whether a source works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// Which.
    pub source: Source,
    /// An error says why not, and what would help.
    pub works: Result<(), String>,
}

/// Tries every source, and detaches again what it attached.
///
/// # Errors
/// What keeps any program from being loaded, such as a lack of privilege.
pub fn page_sources() -> Result<Vec<SourceStatus>, Error> {
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .load(object::observer())
        .map_err(load_error)?;
    let ring = attach_raw(&mut ebpf, "push_raw", "kvm_dirty_ring_push");
    let mut sources = vec![SourceStatus {
        source: Source::Ring,
        works: ring.map(drop).map_err(|error| refusal(&error)),
    }];
    let layout = SlotLayout::find();
    for way in WAYS {
        let source = match way {
            Way::Fentry => Source::BitmapByFentry,
            Way::Kprobe => Source::BitmapByKprobe,
        };
        let attached = bitmap_marks::PROGRAMS.attach_by(&mut ebpf, way).map(drop);
        let works = attached.and_then(|()| layout.clone().map(drop));
        sources.push(SourceStatus { source, works });
    }
    Ok(sources)
}
