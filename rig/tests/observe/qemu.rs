//! A real QEMU, counted twice over the same seconds: by `dirtyrig observe`, and by tracefs's own events.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    Program, Region,
    boot::{BootVcpu, elf},
    image::REGION_BASE,
};
use dirtyrig_probes::{Options, Probes, Target, Tracefs, VcpuCounters, VcpuId};
use dirtyrig_rig::qemu::{
    binary::Binary,
    process::{Launch, Qemu},
};
use libtest_mimic::Failed;
use nix::{libc::O_NONBLOCK, sys::signal::Signal};
use serde_json::{Value, json};

use super::support::{Observed, wait_until};

const RING: u32 = 4096;
const VCPUS: u32 = 2;
/// Twice what a ring covers.
const PAGES: u64 = 2 * RING as u64;
/// Between two readings of QEMU's, which empty the rings.
const PERIOD: Duration = Duration::from_secs(1);
/// Ring-full exits of each vCPU to be seen.
const RING_FULLS: u64 = 3;

pub(crate) fn counts_are_those_of_tracefs() -> Result<(), Failed> {
    let qemu = start(RING)?;
    let mut client = qemu.connect()?;
    // A limit too high to throttle turns dirty logging on, and keeps it on.
    client.execute("set-vcpu-dirty-limit", &json!({"dirty-rate": 100_000}))?;
    let mut probes = Probes::attach(&Options::new(Target::Pid(qemu.pid())))?;
    wait_until("pages are logged", || {
        let vcpus = probes.vcpus()?;
        Ok(vcpus.len() == VCPUS as usize && vcpus.iter().all(|vcpu| vcpu.pushed_pages > 0))
    })?;
    client.execute("stop", &Value::Null)?;
    // With every vCPU out of the guest, nothing is pushed, and QEMU soon has reset all: once it has not for two of its periods.
    let mut resets = (Vec::new(), Instant::now());
    wait_until("nothing is reset any more", || {
        let now: Vec<u64> = probes.vcpus()?.iter().map(|vcpu| vcpu.reset_entries).collect();
        if now != resets.0 {
            resets = (now, Instant::now());
        }
        Ok(resets.1.elapsed() > 2 * PERIOD)
    })?;
    drop(probes);
    let mut probes = Probes::attach(&Options::new(Target::Pid(qemu.pid())))?;
    let pid = qemu.pid().to_string();
    let mut observed = Observed::start(&["--pid", &pid, "--json", "--interval", "100ms"])?;
    let lines = observed.reader();
    observed.wait_for("watching process")?;
    let mut trace = Trace::start(qemu.pid())?;
    client.execute("cont", &Value::Null)?;
    wait_until("rings are full", || {
        trace.read()?;
        let vcpus = probes.vcpus()?;
        Ok(vcpus.len() == VCPUS as usize && vcpus.iter().all(|vcpu| vcpu.ring_full_exits >= RING_FULLS))
    })?;
    client.execute("stop", &Value::Null)?;
    let mut before = Vec::new();
    wait_until("all is reset", || {
        trace.read()?;
        let vcpus = probes.vcpus()?;
        let counts = |vcpus: &[VcpuCounters]| -> Vec<_> {
            let counts = |vcpu: &VcpuCounters| (vcpu.pushed_pages, vcpu.reset_entries, vcpu.userspace_exits);
            vcpus.iter().map(counts).collect()
        };
        let still = counts(&std::mem::replace(&mut before, vcpus.clone())) == counts(&vcpus);
        Ok(still && vcpus.iter().all(|vcpu| vcpu.reset_entries >= vcpu.pushed_pages))
    })?;
    trace.read()?;
    // At its end it prints one more line of each vCPU.
    let status = observed.end(Some(Signal::SIGINT))?;
    assert_eq!(status.code(), Some(0));
    let lines = lines.join().map_err(|_| "the reader panicked")?;

    assert_eq!(trace.overrun()?, 0, "tracefs lost events");
    assert!(!probes.lost()?.any());
    for vcpu in &before {
        let own = trace.of(vcpu.thread);
        agree(vcpu, &own, &lines)?;
    }
    Ok(())
}

pub(crate) fn start(ring_entries: u32) -> Result<Qemu, Failed> {
    let vcpus: Vec<BootVcpu> = (0..u64::from(VCPUS))
        .map(|vcpu| BootVcpu {
            // So that text of every event can be kept up with.
            program: Program::Paced { mib_per_sec: 40.0 },
            region: Region {
                gpa: REGION_BASE + vcpu * PAGES * 4096,
                pages: PAGES,
            },
            seed: vcpu + 1,
        })
        .collect();
    let launch = Launch {
        // The guest's clock need not be right for what is counted.
        image: &elf(&vcpus, None, 2_000_000_000)?,
        vcpus: vcpus.len(),
        memory_mib: 128,
        ring_entries,
    };
    Ok(Qemu::start(&Binary::find(None)?, launch)?)
}

/// Checks the counts of one vCPU: tracefs's, the library's, and those on the last line that was printed.
fn agree(vcpu: &VcpuCounters, own: &Counts, lines: &str) -> Result<(), Failed> {
    let id = vcpu.vcpu.and_then(VcpuId::kvm_id).ok_or("the vCPU is named")?;
    assert_eq!(
        own.ring_full_vcpu,
        Some(id),
        "kvm_dirty_ring_exit names the vCPU of the thread"
    );
    assert_eq!(
        (vcpu.pushed_pages, vcpu.ring_full_exits),
        (own.pushes, own.ring_full),
        "vCPU {id}"
    );
    assert_eq!(vcpu.reset_entries, own.pushes, "vCPU {id}: all was reset");
    let mut of_vcpu = lines.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["vcpu"] == id).then_some(line)
    });
    let last = of_vcpu.next_back().ok_or("it has a line")?;
    assert_eq!(last["dirtied_pages"], own.pushes, "vCPU {id}: {last}");
    assert_eq!(last["ring_full_exits"], own.ring_full, "vCPU {id}: {last}");
    assert_eq!(last["userspace_exits"], own.userspace, "vCPU {id}: {last}");
    assert_eq!(last["thread"], vcpu.thread);
    assert_eq!(last["lost_records"], 0);
    Ok(())
}

/// What tracefs has of one thread.
#[derive(Debug, Default)]
struct Counts {
    pushes: u64,
    ring_full: u64,
    userspace: u64,
    ring_full_vcpu: Option<u32>,
}

/// An instance of tracefs of our own, which goes when this is dropped.
struct Trace {
    _tracefs: Tracefs,
    root: PathBuf,
    pipe: File,
    /// What was read of a line that is not complete yet.
    rest: String,
    threads: BTreeMap<u32, Counts>,
}

impl Trace {
    fn start(pid: u32) -> Result<Self, Failed> {
        let tracefs = Tracefs::open()?;
        let root = tracefs
            .root()
            .join(format!("instances/dirtyrig-test-{}", std::process::id()));
        fs::create_dir(&root)?;
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(root.join("trace_pipe"));
        let trace = Self {
            pipe: pipe?,
            _tracefs: tracefs,
            root,
            rest: String::new(),
            threads: BTreeMap::new(),
        };
        trace.set("buffer_size_kb", "65536")?;
        let threads: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<_>>()?;
        trace.set("set_event_pid", &threads.join(" "))?;
        for event in ["kvm_dirty_ring_push", "kvm_dirty_ring_exit", "kvm_userspace_exit"] {
            trace.set(&format!("events/kvm/{event}/enable"), "1")?;
        }
        Ok(trace)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), Failed> {
        let path = self.root.join(file);
        fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// Counts what came since the last call.
    fn read(&mut self) -> Result<(), Failed> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match self.pipe.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.rest.push_str(&String::from_utf8_lossy(&buffer[..count]));
            while let Some(end) = self.rest.find('\n') {
                let line: String = self.rest.drain(..=end).collect();
                self.count(&line)?;
            }
        }
    }

    /// `<comm>-<tid> [cpu] flags time: event: fields`, where a comm may have spaces: `CPU 0/KVM-4711`.
    fn count(&mut self, line: &str) -> Result<(), Failed> {
        let Some((head, event)) = line.split_once(": kvm_") else {
            return Err(format!("an event was not understood: {line}").into());
        };
        let thread = head.split(" [").next().and_then(|task| task.trim().rsplit('-').next());
        let thread: u32 = thread
            .and_then(|thread| thread.parse().ok())
            .ok_or_else(|| format!("whose event is {line}"))?;
        let own = self.threads.entry(thread).or_default();
        if event.starts_with("dirty_ring_push:") {
            own.pushes += 1;
        } else if let Some(vcpu) = event.strip_prefix("dirty_ring_exit: vcpu ") {
            own.ring_full_vcpu = vcpu.trim().parse().ok();
        } else if event.starts_with("userspace_exit:") {
            own.userspace += 1;
            // Named by later kernels, a number to earlier ones.
            own.ring_full += u64::from(event.contains("(31)") || event.contains("DIRTY_RING_FULL"));
        }
        Ok(())
    }

    fn of(&mut self, thread: u32) -> Counts {
        self.threads.remove(&thread).unwrap_or_default()
    }

    /// Events that were overwritten before they were read.
    fn overrun(&self) -> Result<u64, Failed> {
        let mut overrun = 0;
        for cpu in fs::read_dir(self.root.join("per_cpu"))? {
            let stats = fs::read_to_string(cpu?.path().join("stats"))?;
            for line in stats.lines() {
                if let Some(count) = line.strip_prefix("overrun:").or(line.strip_prefix("dropped events:")) {
                    overrun += count.trim().parse::<u64>()?;
                }
            }
        }
        Ok(overrun)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        for event in ["kvm_dirty_ring_push", "kvm_dirty_ring_exit", "kvm_userspace_exit"] {
            let _ = fs::write(self.root.join(format!("events/kvm/{event}/enable")), "0");
        }
        // The pipe keeps the instance busy until it is closed.
        if let Ok(other) = File::open("/dev/null") {
            self.pipe = other;
        }
        let _ = fs::remove_dir(&self.root);
    }
}
