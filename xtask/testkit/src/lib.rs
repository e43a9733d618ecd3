//! Tests that need a device, as trials of a `harness = false` target.
//!
//! Where the device is missing a trial shows as *ignored*, never as a pass. `DIRTYRIG_REQUIRE=kvm,bpf` (any of the
//! names of [`Need`]) turns a missing device into a failure instead: continuous integration sets it.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// What a trial needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `/dev/kvm`, readable and writable.
    Kvm,
    /// Privilege to load eBPF programs, and tracefs.
    Bpf,
    /// A `qemu-system-x86_64` on the path.
    Qemu,
    /// A `chromium` on the path.
    Chromium,
    /// Java and `HdrHistogram`'s own tools, as Debian packages them.
    HdrHistogram,
    /// `prometheus` and `promtool` on the path.
    Prometheus,
    /// libvirt's daemon and client on the path.
    Libvirt,
    /// The readers that are Python packages, in [`readers`].
    PythonReaders,
}

/// The library of `HdrHistogram`'s own tools.
pub const HDR_HISTOGRAM_JAR: &str = "/usr/share/java/hdrhistogram.jar";

/// The folder with the Python packages that read our output, which `xtask/readers.sh` makes: `DIRTYRIG_READERS`, or
/// `target/readers`.
pub fn readers() -> PathBuf {
    std::env::var_os("DIRTYRIG_READERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/readers"),
        PathBuf::from,
    )
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Bpf => "bpf",
            Self::Qemu => "qemu",
            Self::Chromium => "chromium",
            Self::HdrHistogram | Self::PythonReaders => "readers",
            Self::Prometheus => "prometheus",
            Self::Libvirt => "libvirt",
        }
    }

    /// Whether this machine has it.
    pub fn is_met(self) -> bool {
        match self {
            Self::Kvm => nix::unistd::access(
                "/dev/kvm",
                nix::unistd::AccessFlags::R_OK | nix::unistd::AccessFlags::W_OK,
            )
            .is_ok(),
            Self::Bpf => nix::unistd::geteuid().is_root() && Path::new("/sys/kernel/tracing").is_dir(),
            Self::Qemu => is_on_path("qemu-system-x86_64"),
            Self::Chromium => is_on_path("chromium"),
            Self::HdrHistogram => is_on_path("java") && Path::new(HDR_HISTOGRAM_JAR).is_file(),
            Self::Prometheus => is_on_path("prometheus") && is_on_path("promtool"),
            Self::Libvirt => is_on_path("libvirtd") && is_on_path("virsh"),
            Self::PythonReaders => readers().join("bin/python").is_file(),
        }
    }

    /// Whether `DIRTYRIG_REQUIRE` names it.
    fn is_required(self) -> bool {
        std::env::var("DIRTYRIG_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word.trim() == self.name()))
    }
}

fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// A trial named `name` that runs `test` where every need is met; ignored elsewhere, or failed if the need is required.
pub fn trial<F>(name: &str, needs: &'static [Need], test: F) -> Trial
where
    F: FnOnce() -> Result<(), Failed> + Send + 'static,
{
    let missing = needs.iter().copied().find(|need| !need.is_met());
    match missing {
        None => Trial::test(name, test),
        Some(need) if need.is_required() => Trial::test(name, move || {
            Err(format!("DIRTYRIG_REQUIRE names `{}`, which this machine lacks", need.name()).into())
        }),
        Some(need) => Trial::test(format!("{name} (needs {})", need.name()), || Ok(())).with_ignored_flag(true),
    }
}

/// Runs the trials one after the other (two guests at once would disturb each other's timing) and exits.
pub fn run(trials: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let conclusion: Conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit()
}
