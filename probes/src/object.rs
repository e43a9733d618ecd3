//! The embedded eBPF objects: byte for byte what `cargo xtask ebpf` builds from `probes/ebpf`.

/// Aligned as the ELF reader wants it.
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);

static OBSERVER_ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../prebuilt/observer.bpf.o"));
static QUOTA_ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../prebuilt/quota.bpf.o"));

/// The observer's programs and maps.
pub(crate) fn observer() -> &'static [u8] {
    &OBSERVER_ALIGNED.0
}

/// The quota's.
pub(crate) fn quota() -> &'static [u8] {
    &QUOTA_ALIGNED.0
}
