//! What there is to pack, whatever the package.

/// Bytes that go into every package.
pub(super) struct Item {
    /// Where it lies in the tarball.
    pub(super) in_tarball: String,
    /// Where a package installs it, from the root.
    pub(super) installed: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

/// What there is to pack, and what is said of it.
pub(super) struct Release {
    pub(super) version: &'static str,
    /// Of the commit, in seconds since 1970: no file is younger.
    pub(super) time: u32,
    pub(super) items: Vec<Item>,
}

pub(super) const SUMMARY: &str = "Limits how fast KVM guests dirty memory, and shows what a limiter did";
pub(super) const DESCRIPTION: &str = "Observes KVM virtual machines from inside the kernel, holds them to a dirty rate from outside, \
                           and measures dirty-rate limiters, QEMU's among them, on a guest of its own.";
pub(super) const LICENCE: &str = "MIT OR Apache-2.0";
