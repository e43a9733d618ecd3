//! A real QEMU of any shape that runs our guest: its topology, its names, a socket more.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
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
use dirtyrig_rig::{qemu::target::tsc_hz, qmp::client::QmpClient};
use nix::fcntl::posix_fallocate;
use serde_json::json;
use tempfile::TempDir;
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

use super::vm::PATIENCE;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) ring: u32,
    /// Pages of each vCPU's region.
    pub(crate) pages: u64,
    /// What `-smp` takes.
    pub(crate) smp: &'a str,
    /// The APIC IDs of the vCPUs that run from the start, which the guest knows them by.
    pub(crate) apic_ids: &'a [usize],
    /// Further arguments; in each, `{folder}` is a folder that goes with the QEMU.
    pub(crate) more: &'a [&'a str],
}

/// A QEMU with one guest. Dropping it ends it.
pub(crate) struct Shaped {
    child: Child,
    pub(crate) qmp: QmpClient,
    memory: GuestMemoryMmap,
    folder: TempDir,
}

/// Where guest memory can be that no disk is written for.
fn folder() -> std::io::Result<TempDir> {
    let shm = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    if shm.is_dir() {
        builder.tempdir_in(shm)
    } else {
        builder.tempdir()
    }
}

/// The guest's image, with a block for each APIC ID up to the highest; returns the size of its memory, in bytes.
pub(crate) fn image(path: &Path, apic_ids: &[usize], pages: u64) -> anyhow::Result<u64> {
    let blocks = apic_ids.iter().max().map_or(0, |highest| highest + 1) as u64;
    let guests: Vec<BootVcpu> = (0..blocks)
        .map(|vcpu| BootVcpu {
            program: "sequential".parse().expect("a program"),
            region: Region {
                gpa: REGION_BASE + vcpu * pages * PAGE_SIZE,
                pages,
            },
            seed: vcpu,
        })
        .collect();
    fs::write(path, elf(&guests, None, tsc_hz()?)?)?;
    Ok(REGION_BASE + blocks * pages * PAGE_SIZE)
}

impl Shaped {
    /// Boots the guest; its dirty rings log nothing yet. With `-S` among the arguments no vCPU has run.
    pub(crate) fn start(launch: Launch<'_>) -> anyhow::Result<Self> {
        let folder = folder()?;
        let at = |name: &str| folder.path().join(name);
        let bytes = image(&at("guest.elf"), launch.apic_ids, launch.pages)?;
        let mib = bytes >> 20;
        // Allocated here and not by QEMU, which would do it between the start of its reaper and that of its first vCPU: if that
        // takes a second, 7.2 aborts.
        posix_fallocate(File::create(at("ram"))?, 0, i64::try_from(bytes)?)?;
        let place = folder.path().display().to_string();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35,memory-backend=ram", "-cpu", "qemu64"])
            .args(["-accel", &format!("kvm,dirty-ring-size={}", launch.ring)])
            .args(["-m", &format!("{mib}M"), "-smp", launch.smp])
            .args(["-bios", "qboot.rom", "-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-object")
            .arg(format!(
                "memory-backend-file,id=ram,size={mib}M,share=on,mem-path={}",
                at("ram").display()
            ))
            .args(launch.more.iter().map(|word| word.replace("{folder}", &place)))
            .arg("-kernel")
            .arg(at("guest.elf"))
            .stdin(Stdio::null())
            .stderr(File::create(at("stderr"))?);
        // A socket serves one client: the second is for dirtyrig.
        for socket in ["qmp", "qmp2"] {
            let socket = at(socket).display().to_string();
            command.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
        }
        let mut child = command.spawn()?;
        let opened = connect(&at("qmp"), &mut child).and_then(|qmp| {
            let ram = OpenOptions::new().read(true).write(true).open(at("ram"))?;
            Ok((qmp, map(ram, bytes)?))
        });
        let (qmp, memory) = opened.inspect_err(|_| end(&mut child))?;
        let qemu = Self {
            child,
            qmp,
            memory,
            folder,
        };
        let given_up = Instant::now() + PATIENCE;
        while !launch.more.contains(&"-S") && launch.apic_ids.iter().any(|&vcpu| qemu.written(vcpu) == 0) {
            anyhow::ensure!(Instant::now() < given_up, "the guest does not start");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(qemu)
    }

    /// Turns dirty logging on through a measurement of its own, for the longest that QEMU takes.
    pub(crate) fn log_for_a_minute(&mut self) -> anyhow::Result<()> {
        self.qmp
            .execute("calc-dirty-rate", &json!({"calc-time": 60, "mode": "dirty-ring"}))?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its sockets are.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pages that the vCPU with an APIC ID wrote, by its own counter.
    pub(crate) fn written(&self, apic_id: usize) -> u64 {
        // The count alone is looked at.
        self.memory
            .load(GuestAddress(LowMemory::block_gpa(apic_id)), Ordering::Relaxed)
            .expect("the block is in memory")
    }

    /// The threads that somebody traces.
    pub(crate) fn traced(&self) -> BTreeSet<u32> {
        traced(self.pid())
    }
}

/// The threads of a process that somebody traces.
pub(crate) fn traced(pid: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    let is_traced = |thread: &u32| {
        let status = fs::read(format!("/proc/{pid}/task/{thread}/status")).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    };
    threads.filter(is_traced).collect()
}

impl Drop for Shaped {
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

fn connect(path: &Path, child: &mut Child) -> anyhow::Result<QmpClient> {
    let given_up = Instant::now() + PATIENCE;
    loop {
        match QmpClient::connect(path) {
            Ok(client) => return Ok(client),
            Err(error) => {
                if let Some(status) = child.try_wait()? {
                    anyhow::bail!("QEMU ended by itself: {status}");
                }
                anyhow::ensure!(Instant::now() < given_up, "no QMP: {error}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
