//! A domain of a real libvirt: observed, held, suspended, resumed, saved, restored, destroyed. Its APIC IDs have gaps, and its
//! monitor is libvirt's alone.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_limiter::{limit::Which, units::Quota};
use dirtyrig_probes::identity::{NumberKind, find_vm};
use dirtyrig_rig::outside::{End, Limiter};
use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    DEPTH, eventually,
    identity::{SIX_IDS, lines, numbers, plugged_threads},
    shaped::{image, traced},
};

pub(super) const NAME: &str = "dirtyrig-trial";
const QUOTA_MIB_S: f64 = 1.0;

/// A libvirt daemon with all its files in a folder; dropping it destroys the domain and ends it.
pub(super) struct Libvirt {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Libvirt {
    pub(super) fn start() -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/libvirt.sh");
        let daemon = Command::new(script)
            .arg("run")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()?;
        let mut libvirt = Self { daemon, folder };
        let given_up = Instant::now() + super::vm::PATIENCE;
        while libvirt.virsh(&["list"]).is_err() {
            let ended = libvirt.daemon.try_wait()?;
            if ended.is_some() || Instant::now() > given_up {
                let log = fs::read_to_string(libvirt.at("log")).unwrap_or_default();
                return Err(format!("libvirtd: {ended:?}: {log}").into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(libvirt)
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn virsh(&self, arguments: &[&str]) -> Result<String, Failed> {
        let socket = self.at("run/libvirt/libvirt-sock");
        let uri = format!("qemu+unix:///system?socket={}", socket.display());
        let output = Command::new("virsh")
            .args(["--quiet", "-c", &uri])
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            return Err(format!("virsh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts a domain of two sockets of three cores, and waits until its guest runs on all of them: logged from while the firmware
    /// runs, a ring may be pushed past its end. Its pages are logged once something asks for it.
    pub(super) fn create(&self) -> Result<(), Failed> {
        let memory_mib = image(&self.at("guest.elf"), &SIX_IDS, 4096)? >> 20;
        let domain = format!(
            "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <name>{NAME}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>6</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel></os>\
             <features><acpi/><kvm><dirty-ring state='on' size='1024'/></kvm></features>\
             <cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model>\
             <topology sockets='2' dies='1' cores='3' threads='1'/></cpu>\
             <devices><emulator>{}</emulator><controller type='usb' model='none'/><memballoon model='none'/></devices>\
             <qemu:commandline><qemu:arg value='-bios'/><qemu:arg value='qboot.rom'/></qemu:commandline></domain>",
            self.at("guest.elf").display(),
            qemu()?.display(),
        );
        fs::write(self.at("domain.xml"), domain)?;
        self.virsh(&["create", &self.at("domain.xml").display().to_string()])?;
        eventually("six vCPUs in the guest's program", || {
            let registers = self.virsh(&["qemu-monitor-command", NAME, "--hmp", "info registers -a"]);
            registers.is_ok_and(|all| all.matches("CPL=3").count() == SIX_IDS.len())
        });
        Ok(())
    }

    /// Turns dirty logging on, for a minute, the only way that libvirt lets others do it.
    pub(super) fn log_for_a_minute(&self) -> Result<(), Failed> {
        let command = r#"{"execute": "calc-dirty-rate", "arguments": {"calc-time": 60, "mode": "dirty-ring"}}"#;
        self.virsh(&["qemu-monitor-command", NAME, command])?;
        Ok(())
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // It fails if the domain was destroyed, which is what is wanted.
        let _ = self.virsh(&["destroy", NAME]);
        // It is the script's process still: it became the daemon.
        let _ = kill(Pid::from_raw(self.daemon.id().cast_signed()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// The QEMU along `PATH`, as libvirt wants it: by its whole path.
fn qemu() -> Result<PathBuf, Failed> {
    let path = std::env::var_os("PATH").ok_or("a PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("qemu-system-x86_64"));
    found
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| "qemu-system-x86_64 is on the path".into())
}

/// Every vCPU of the domain has spent its grant again.
pub(super) fn stopped_again(limiter: &Limiter) {
    let stops = || {
        limiter
            .books()
            .into_iter()
            .map(|(_, book)| book.stops)
            .collect::<Vec<_>>()
    };
    let before = stops();
    eventually("six vCPUs that run and are held", || {
        stops().iter().zip(&before).all(|(now, before)| now > before)
    });
}

pub(super) fn a_domain() -> Result<(), Failed> {
    let libvirt = Libvirt::start()?;
    libvirt.create()?;
    let uuid = libvirt.virsh(&["domuuid", NAME])?;
    let vm = find_vm(NAME)?;
    assert_eq!((vm.uuid.as_ref(), find_vm(&uuid)?.pid), (Some(&uuid), vm.pid));
    libvirt.log_for_a_minute()?;

    // Observed.
    let rows = lines(&[
        "observe",
        "--vm",
        NAME,
        "--json",
        "--interval",
        "200ms",
        "--duration",
        "2s",
    ])?;
    let last = rows.last().ok_or("a line")?;
    assert_eq!(
        (&last["vm"], &last["uuid"]),
        (&NAME.into(), &uuid.clone().into()),
        "{last}"
    );
    assert!(
        rows.iter()
            .all(|row| row["vcpu_is"] == "cpu-index" && row["vcpu"] == row["cpu_index"]),
        "{rows:?}"
    );

    // Held.
    let limiter = Limiter::attach(vm.pid, DEPTH)?;
    let expected: Vec<(usize, Option<u32>)> = SIX_IDS
        .iter()
        .enumerate()
        .map(|(i, &id)| (i, Some(id as u32)))
        .collect();
    assert_eq!(
        (limiter.number_kind(), numbers(&limiter)),
        (NumberKind::CpuIndex, expected.clone())
    );
    limiter.set(Which::All, Quota::new(QUOTA_MIB_S)?)?;
    assert_eq!(traced(vm.pid), plugged_threads(&limiter));
    stopped_again(&limiter);

    // Suspended and resumed while it is held; one that attaches meanwhile finds the same vCPUs.
    libvirt.virsh(&["suspend", NAME])?;
    assert_eq!(libvirt.virsh(&["domstate", NAME])?, "paused");
    let meanwhile = Limiter::attach(vm.pid, DEPTH)?;
    assert_eq!(numbers(&meanwhile), expected);
    drop(meanwhile);
    let pages = || limiter.books().iter().map(|(_, book)| book.pages).sum::<u64>();
    let before = pages();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(pages(), before, "it stands still");
    libvirt.virsh(&["resume", NAME])?;
    stopped_again(&limiter);

    // Saved: its process ends. Restored it is another.
    let saved = libvirt.at("saved").display().to_string();
    libvirt.virsh(&["save", NAME, &saved])?;
    eventually("the end of what was saved", || limiter.end() == Some(End::Gone));
    assert!(find_vm(NAME).is_err());
    libvirt.virsh(&["restore", &saved])?;
    let again = find_vm(&uuid)?;
    assert_ne!(again.pid, vm.pid);
    libvirt.log_for_a_minute()?;
    let limiter = Limiter::attach(again.pid, DEPTH)?;
    limiter.set(Which::All, Quota::new(QUOTA_MIB_S)?)?;
    assert_eq!(numbers(&limiter), expected);
    stopped_again(&limiter);

    // Destroyed.
    libvirt.virsh(&["destroy", NAME])?;
    eventually("the end of what was destroyed", || limiter.end() == Some(End::Gone));
    Ok(())
}
