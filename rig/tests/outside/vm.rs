//! A real QEMU that runs our guest: its QMP, and the counters that the guest keeps in its memory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    PAGE_SIZE, Region,
    boot::{BootVcpu, elf},
    image::{LowMemory, REGION_BASE},
};
use dirtyrig_rig::qemu::target::tsc_hz;
use serde_json::{Value, json};
use tempfile::TempDir;
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

/// Pages of a vCPU's region: twice the largest ring's, so that no page is written again before its ring was reset.
const PAGES: u64 = 2 * 65_536;
/// Generous: only there so that a QEMU that hangs fails a test instead of hanging it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A QEMU with one guest. Dropping it ends it.
pub(crate) struct Qemu {
    child: Child,
    pub(crate) qmp: Qmp,
    memory: GuestMemoryMmap,
    _folder: TempDir,
}

/// Where guest memory can be that no disk is written for.
fn folder() -> io::Result<TempDir> {
    let shm = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    if shm.is_dir() {
        builder.tempdir_in(shm)
    } else {
        builder.tempdir()
    }
}

impl Qemu {
    /// Boots a guest whose vCPUs write their pages in order; its dirty rings, if it has any, log nothing yet.
    pub(crate) fn start(ring: Option<u32>, vcpus: usize) -> anyhow::Result<Self> {
        Self::running("sequential", ring, vcpus)
    }

    /// The same with another program.
    pub(crate) fn running(program: &str, ring: Option<u32>, vcpus: usize) -> anyhow::Result<Self> {
        let folder = folder()?;
        let at = |name: &str| folder.path().join(name);
        let guests: Vec<BootVcpu> = (0..vcpus as u64)
            .map(|vcpu| BootVcpu {
                program: program.parse().expect("a program"),
                region: Region {
                    gpa: REGION_BASE + vcpu * PAGES * PAGE_SIZE,
                    pages: PAGES,
                },
                seed: vcpu,
            })
            .collect();
        fs::write(at("guest.elf"), elf(&guests, tsc_hz()?)?)?;
        let bytes = REGION_BASE + vcpus as u64 * PAGES * PAGE_SIZE;
        let mib = bytes >> 20;
        let accel = ring.map_or_else(|| "kvm".to_owned(), |entries| format!("kvm,dirty-ring-size={entries}"));
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35,memory-backend=ram", "-cpu", "qemu64", "-accel", &accel])
            .args([
                "-m",
                &format!("{mib}M"),
                "-smp",
                &format!("{vcpus},sockets=1,cores={vcpus},threads=1"),
            ])
            .args(["-bios", "qboot.rom", "-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-object")
            .arg(format!(
                "memory-backend-file,id=ram,size={mib}M,share=on,prealloc=on,mem-path={}",
                at("ram").display()
            ))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", at("qmp").display()))
            .arg("-kernel")
            .arg(at("guest.elf"))
            .stdin(Stdio::null());
        let mut child = command.spawn()?;
        let opened = Qmp::connect(&at("qmp"), &mut child).and_then(|qmp| {
            let ram = OpenOptions::new().read(true).write(true).open(at("ram"))?;
            Ok((qmp, map(ram, bytes)?))
        });
        let (qmp, memory) = opened.inspect_err(|_| end(&mut child))?;
        let qemu = Self {
            child,
            qmp,
            memory,
            _folder: folder,
        };
        let given_up = Instant::now() + PATIENCE;
        while (0..vcpus).any(|vcpu| qemu.written(vcpu) == 0) {
            anyhow::ensure!(Instant::now() < given_up, "the guest does not start");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(qemu)
    }

    /// The same with its dirty logging on, for a minute.
    pub(crate) fn logging(ring: u32, vcpus: usize) -> anyhow::Result<Self> {
        let mut qemu = Self::start(Some(ring), vcpus)?;
        qemu.log_for_a_minute()?;
        Ok(qemu)
    }

    /// Turns dirty logging on through a measurement of its own, for the longest that QEMU takes.
    pub(crate) fn log_for_a_minute(&mut self) -> anyhow::Result<()> {
        self.qmp
            .ask("calc-dirty-rate", &json!({"calc-time": 60, "mode": "dirty-ring"}))?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Pages that a vCPU wrote, by its own counter.
    pub(crate) fn written(&self, vcpu: usize) -> u64 {
        // The count alone is looked at.
        self.memory
            .load(GuestAddress(LowMemory::block_gpa(vcpu)), Ordering::Relaxed)
            .expect("the block is in memory")
    }

    /// States of its threads, as `/proc` has them, with their tracers.
    pub(crate) fn threads(&self) -> Vec<(char, u32)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("QEMU runs");
        let thread = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
            Some((field("State:")?.chars().next()?, field("TracerPid:")?.parse().ok()?))
        };
        tasks.flatten().filter_map(thread).collect()
    }

    /// Kills it, as an out-of-memory killer would.
    pub(crate) fn kill(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Both fail if it has ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn map(ram: File, bytes: u64) -> anyhow::Result<GuestMemoryMmap> {
    let range = (GuestAddress(0), bytes as usize, Some(FileOffset::new(ram, 0)));
    Ok(GuestMemoryMmap::from_ranges_with_files([range])?)
}

/// A connection to QMP.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    fn connect(path: &Path, child: &mut Child) -> anyhow::Result<Self> {
        let given_up = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => {
                    if let Some(status) = child.try_wait()? {
                        anyhow::bail!("QEMU ended by itself: {status}");
                    }
                    anyhow::ensure!(Instant::now() < given_up, "no QMP: {error}");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        qmp.read()?;
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        anyhow::ensure!(self.reader.read_line(&mut line)? > 0, "QEMU closed QMP");
        Ok(serde_json::from_str(&line)?)
    }

    /// Runs a command and returns what it returns.
    pub(crate) fn ask(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let mut request = json!({"execute": command, "arguments": arguments}).to_string();
        request.push('\n');
        self.reader.get_mut().write_all(request.as_bytes())?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                anyhow::bail!("{command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }
}
