//! A QEMU of ours: started with our guest, seen to run it, killed and reaped when it is dropped.
//!
//! It is in a process group of its own, so that ctrl-c and ctrl-z at a terminal reach us alone and we end it in order;
//! and the kernel kills it if the thread that started it ends without doing so.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    binary::Binary,
    error::QemuError,
    memory::{SharedMemory, Truth},
    version::Version,
};
use crate::{
    commands::output::note,
    qmp::client::{QmpClient, QmpError},
};

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The ELF image of the guest (see [`dirtyrig_guests::boot`]).
    pub image: &'a [u8],
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// Its memory in MiB, the low memory included.
    pub memory_mib: u64,
    /// Entries of each vCPU's dirty ring; 0 for none.
    pub ring_entries: u32,
}

/// How long QEMU and the guest may take to start: it takes a fraction of a second, and ten times as much on a busy host.
const START: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How often it may lose a race with itself before that is an error, see [`lost_its_race`].
const MOST_STARTS: u32 = 3;

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    version: Version,
    child: Child,
    stderr: File,
    memory: Arc<SharedMemory>,
    vcpus: usize,
    /// Holds the image and the socket.
    folder: TempDir,
}

impl Qemu {
    /// Starts `binary` and waits until every vCPU of the guest runs its program.
    ///
    /// It must be called by a thread that lives as long as QEMU is to.
    pub fn start(binary: &Binary, launch: Launch<'_>) -> Result<Self, QemuError> {
        let mut starts = 1;
        loop {
            let mut qemu = Self::spawn(binary, launch, None)?;
            match qemu.wait_for_guest() {
                Err(QemuError::Start { said, .. }) if starts < MOST_STARTS && lost_its_race(&said) => {
                    note(format_args!(
                        "warning: QEMU {} aborted at its start: its reaper met a vCPU without a ring; started again",
                        binary.version
                    ));
                    starts += 1;
                }
                result => return result.map(|()| qemu),
            }
        }
    }

    /// Starts `binary` as the destination of a migration from a QEMU of the same `launch`; it listens at `incoming`. Its guest
    /// doesn't run until one has come, and its monitor answers as soon as it can be connected to.
    ///
    /// It must be called by a thread that lives as long as QEMU is to.
    pub fn start_destination(binary: &Binary, launch: Launch<'_>, incoming: &str) -> Result<Self, QemuError> {
        let mut qemu = Self::spawn(binary, launch, Some(incoming))?;
        let begun = Instant::now();
        while UnixStream::connect(qemu.socket()).is_err() {
            qemu.check_start(begun)?;
            thread::sleep(LOOK_EVERY);
        }
        Ok(qemu)
    }

    fn spawn(binary: &Binary, launch: Launch<'_>, incoming: Option<&str>) -> Result<Self, QemuError> {
        let io = |operation| move |source| QemuError::Io { operation, source };
        let memory = Arc::new(SharedMemory::new(launch.memory_mib << 20)?);
        let folder = tempfile::Builder::new()
            .prefix("dirtyrig-qemu-")
            .tempdir()
            .map_err(io("make a temporary folder"))?;
        let kernel = folder.path().join("guest.elf");
        std::fs::write(&kernel, launch.image).map_err(io("write the guest's image"))?;
        let stderr = tempfile::tempfile().map_err(io("keep what it says"))?;
        let child = command(&binary.path)
            .args(arguments(binary, launch, &memory, folder.path(), &kernel))
            .args(incoming.into_iter().flat_map(|uri| ["-incoming", uri]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().map_err(io("keep what it says"))?)
            .process_group(0)
            .spawn()
            .map_err(|source| QemuError::NotExecutable {
                path: binary.path.clone(),
                source,
            })?;
        Ok(Self {
            version: binary.version,
            child,
            stderr,
            memory,
            vcpus: launch.vcpus,
            folder,
        })
    }

    fn wait_for_guest(&mut self) -> Result<(), QemuError> {
        let begun = Instant::now();
        while !(0..self.vcpus).all(|vcpu| self.memory.has_begun(vcpu)) {
            self.check_start(begun)?;
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// An error if it has ended, or takes too long, before it was ready.
    fn check_start(&mut self, begun: Instant) -> Result<(), QemuError> {
        if let Some(status) = self.child.try_wait().map_err(wait)? {
            let said = self.said();
            return Err(QemuError::Start {
                version: self.version,
                status: status.to_string(),
                remedy: remedy(&said),
                said,
            });
        }
        if begun.elapsed() > START {
            return Err(QemuError::NoGuest {
                version: self.version,
                waited: START,
                said: self.said(),
            });
        }
        Ok(())
    }

    /// A connection to its monitor.
    pub fn connect(&self) -> Result<QmpClient, QmpError> {
        QmpClient::connect(&self.socket())
    }

    /// The socket of its monitor, which serves one client at a time.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// The socket of a second monitor, for a second client.
    pub fn second_socket(&self) -> PathBuf {
        second_socket(self.folder.path())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What a vCPU has done, by the guest's own counters.
    pub fn truth(&self, vcpu: usize) -> Truth {
        self.memory.truth(vcpu)
    }

    /// How many vCPUs it has.
    pub fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// Its memory.
    pub fn memory(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.memory)
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<(), QemuError> {
        match self.child.try_wait().map_err(wait)? {
            None => Ok(()),
            Some(status) => Err(QemuError::Ended {
                version: self.version,
                pid: self.pid(),
                status: status.to_string(),
                said: self.said(),
            }),
        }
    }

    /// Kills and reaps it.
    pub fn kill(&mut self) -> Result<(), QemuError> {
        // Of one that has ended already, killing says so, and reaping is all that is left.
        let _ = self.child.kill();
        self.child.wait().map(drop).map_err(wait)
    }

    /// The end of what it wrote to stderr.
    fn said(&mut self) -> String {
        const LAST: usize = 2000;
        let mut bytes = Vec::new();
        let read = self.stderr.rewind().and_then(|()| self.stderr.read_to_end(&mut bytes));
        match read {
            Err(error) => format!("  (can't be read: {error})"),
            Ok(0) => "  (nothing)".to_owned(),
            Ok(_) => {
                let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LAST)..]).into_owned();
                let lines: Vec<String> = text.trim_end().lines().map(|line| format!("  {line}")).collect();
                lines.join("\n")
            }
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // There is nobody to be told of what can't be killed.
        let _ = self.kill();
    }
}

fn wait(source: io::Error) -> QemuError {
    QemuError::Io {
        operation: "wait",
        source,
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("qmp")
}

fn second_socket(folder: &Path) -> PathBuf {
    folder.join("second")
}

/// What starts `program` so that the kernel kills it when we die; plainly where no tool of the system can arrange that.
fn command(program: &Path) -> Command {
    let help = Command::new("setpriv").arg("--help").stdin(Stdio::null()).output();
    if help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--pdeathsig")) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn arguments(binary: &Binary, launch: Launch<'_>, memory: &SharedMemory, folder: &Path, kernel: &Path) -> Vec<String> {
    let Launch {
        vcpus,
        memory_mib,
        ring_entries,
        ..
    } = launch;
    // A comma in a path would end it: QEMU reads two as one.
    let path = |path: &Path| path.display().to_string().replace(',', ",,");
    let mut arguments: Vec<String> = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        .map(str::to_owned)
        .into();
    arguments.extend(binary.firmware().iter().map(|&word| word.to_owned()));
    let mut pair = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    pair("-machine", "q35,memory-backend=ram".to_owned());
    let ring = if ring_entries == 0 {
        String::new()
    } else {
        format!(",dirty-ring-size={ring_entries}")
    };
    pair("-accel", format!("kvm{ring}"));
    // Not `host`: a guest of ours needs next to nothing, and a nested host offers less than it names.
    pair("-cpu", "qemu64".to_owned());
    // The guest finds its number in its local APIC's ID, so these must have no gaps.
    pair("-smp", format!("{vcpus},sockets=1,cores={vcpus},threads=1"));
    pair("-m", format!("{memory_mib}M"));
    // Not `prealloc=on`: see `SharedMemory::new`.
    pair(
        "-object",
        format!(
            "memory-backend-file,id=ram,size={memory_mib}M,share=on,mem-path={}",
            memory.path().display()
        ),
    );
    for (name, socket) in [("qmp", socket(folder)), ("second", second_socket(folder))] {
        pair(
            "-chardev",
            format!("socket,id={name},path={},server=on,wait=off", path(&socket)),
        );
        pair("-mon", format!("chardev={name},mode=control"));
    }
    pair("-kernel", kernel.display().to_string());
    arguments
}

/// Whether it aborted because its reaper thread, which looks once a second, met a vCPU whose ring was not mapped yet: on a
/// busy host there is time for that.
fn lost_its_race(said: &str) -> bool {
    said.contains("kvm_dirty_ring_reap_one")
}

/// What to do about what QEMU says when it ends at its start.
fn remedy(said: &str) -> &'static str {
    let says = |words: &str| said.contains(words);
    if says("dirty-ring-size") || says("dirty ring") {
        "give a ring that this QEMU and this kernel have, a power of two up to 65536 (`--ring 4096`), on Linux 5.11 or newer"
    } else if says("/dev/kvm") || says("failed to initialize kvm") || says("Could not access KVM") {
        "`dirtyrig doctor` says what keeps this user from KVM"
    } else if says("allocate memory") || says("preallocate") {
        "give the guest less memory (`--memory`)"
    } else {
        "try another QEMU (`--vmm qemu:BINARY`)"
    }
}
