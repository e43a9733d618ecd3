//! Real QEMU, started with our guest. Besides the one along `PATH`, each that `DIRTYRIG_QEMU` names is tried, a list as
//! `PATH` is one: `DIRTYRIG_QEMU=$(xtask/qemu.sh)`.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    Program, Region,
    boot::{BootVcpu, elf},
    image::REGION_BASE,
};
use dirtyrig_rig::{
    qemu::{
        binary::Binary,
        process::{Launch, Qemu},
    },
    qmp::client::{QmpClient, QmpError},
    trace::{Head, Write, Writer},
};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::Kvm, Need::Qemu];

fn main() {
    let mut trials = Vec::new();
    for path in binaries() {
        let name = path
            .as_ref()
            .map_or("the one on the path".to_owned(), |path| path.display().to_string());
        let mut each = |what: &str, test: fn(&Binary) -> Result<(), Failed>| {
            let path = path.clone();
            trials.push(trial(&format!("{name}: {what}"), NEEDS, move || {
                test(&Binary::find(path.as_deref())?)
            }));
        };
        each("every vCPU counts what it writes", every_vcpu_counts);
        each("its monitor limits and answers", its_monitor_limits);
        each("a busy monitor is told", a_busy_monitor_is_told);
        each("one that stands still is told", one_that_stands_still_is_told);
        each("one that is killed is told", one_that_is_killed_is_told);
        each("a ring that can't be had is told", a_ring_that_can_not_be_had_is_told);
        each(
            "one that aborts over its own ring is started again",
            one_that_aborts_is_started_again,
        );
        each("a QEMU without a ring can't be attached to", one_without_a_ring_is_told);
        each("a run on it is recorded under its name", a_run_is_recorded);
        each("a trace is a guest there as in the rig", a_trace_is_a_guest);
        each(
            "killed in a sweep, the finished cells are kept",
            a_sweep_survives_its_end,
        );
    }
    for (name, test) in [
        (
            "attached to, it is limited and left as it was",
            attached_it_is_left_as_it_was as fn() -> Result<(), Failed>,
        ),
        (
            "attached to while it measures by page sampling, the unlimited rate is unknown",
            without_a_log_the_unlimited_rate_is_unknown,
        ),
        (
            "attached to with a ring that doesn't fill, the unlimited rate is the guest's",
            the_unlimited_rate_is_the_guests,
        ),
        (
            "attached to and interrupted, its limits are cancelled",
            interrupted_its_limits_are_cancelled,
        ),
    ] {
        trials.push(trial(name, &[Need::Kvm, Need::Qemu, Need::Bpf], test));
    }
    run(trials)
}

/// The QEMU along `PATH`, and those that the environment names.
fn binaries() -> Vec<Option<PathBuf>> {
    let more = env::var_os("DIRTYRIG_QEMU").unwrap_or_default();
    let more = env::split_paths(&more).filter(|path| !path.as_os_str().is_empty());
    [None].into_iter().chain(more.map(Some)).collect()
}

const RING: u32 = 1024;

fn start(binary: &Binary, ring_entries: u32) -> Result<Qemu, Failed> {
    start_writing(binary, ring_entries, 2, 4 * u64::from(RING))
}

/// One whose vCPUs write `pages` each, in order.
fn start_writing(binary: &Binary, ring_entries: u32, vcpus: u64, pages: u64) -> Result<Qemu, Failed> {
    let vcpus: Vec<BootVcpu> = (0..vcpus)
        .map(|vcpu| BootVcpu {
            program: Program::Sequential,
            region: Region {
                gpa: REGION_BASE + vcpu * pages * 4096,
                pages,
            },
            seed: vcpu + 1,
        })
        .collect();
    let launch = Launch {
        image: &elf(&vcpus, None, 1_000_000_000)?,
        vcpus: vcpus.len(),
        memory_mib: (REGION_BASE + vcpus.len() as u64 * pages * 4096).div_ceil(1 << 20),
        ring_entries,
    };
    Ok(Qemu::start(binary, launch)?)
}

/// Waits until `done`; generous, and only there so that what never happens fails the test instead of hanging it.
fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    for _ in 0..6000 {
        if done()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(format!("{what}: not within a minute").into())
}

fn every_vcpu_counts(binary: &Binary) -> Result<(), Failed> {
    let qemu = start(binary, RING)?;
    for vcpu in 0..2 {
        let before = qemu.truth(vcpu).written;
        wait_until("the counter grows", || Ok(qemu.truth(vcpu).written > before + 100_000))?;
    }
    Ok(())
}

fn its_monitor_limits(binary: &Binary) -> Result<(), Failed> {
    let qemu = start(binary, RING)?;
    let mut client = qemu.connect()?;
    let version = client.version()?;
    let expected = binary.version;
    if version != (expected.major, expected.minor, expected.micro) || client.pid() != Some(qemu.pid()) {
        return Err(format!(
            "{version:?}, process {:?}, for {expected}, {}",
            client.pid(),
            qemu.pid()
        )
        .into());
    }
    client.execute("set-vcpu-dirty-limit", &json!({"cpu-index": 1, "dirty-rate": 100}))?;
    wait_until("it reads a rate", || {
        let limits = client.execute("query-vcpu-dirty-limit", &Value::Null)?;
        let limit = &limits[0];
        if limit["cpu-index"] != 1 || limit["limit-rate"] != 100 || limits.as_array().map(Vec::len) != Some(1) {
            return Err(format!("{limits}").into());
        }
        Ok(limit["current-rate"].as_u64() > Some(0))
    })?;
    client.execute("cancel-vcpu-dirty-limit", &Value::Null)?;
    let left = client.execute("query-vcpu-dirty-limit", &Value::Null)?;
    if left != json!([]) {
        return Err(format!("{left} is left").into());
    }
    match client.execute("set-vcpu-dirty-limit", &json!({"cpu-index": 9, "dirty-rate": 100})) {
        Err(QmpError::Refused { .. }) => Ok(()),
        other => Err(format!("a limit on a vCPU that is not there: {other:?}").into()),
    }
}

fn a_busy_monitor_is_told(binary: &Binary) -> Result<(), Failed> {
    let qemu = start(binary, RING)?;
    let _first = qemu.connect()?;
    match QmpClient::connect(&qemu.socket()) {
        Err(error @ QmpError::Busy { .. }) if error.to_string().contains("one client at a time") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn one_that_stands_still_is_told(binary: &Binary) -> Result<(), Failed> {
    let qemu = start(binary, RING)?;
    let pid = qemu.pid();
    let mut client = qemu.connect()?;
    signal(pid, Signal::SIGSTOP)?;
    match client.execute("query-status", &Value::Null) {
        Err(QmpError::Stopped { pid: stopped }) if stopped == pid => {}
        other => return Err(format!("{other:?}").into()),
    }
    drop(qemu);
    gone(pid)
}

fn one_that_is_killed_is_told(binary: &Binary) -> Result<(), Failed> {
    let mut qemu = start(binary, RING)?;
    let pid = qemu.pid();
    let mut client = qemu.connect()?;
    qemu.check()?;
    signal(pid, Signal::SIGKILL)?;
    match client.execute("query-status", &Value::Null) {
        Err(QmpError::Closed { .. }) => {}
        other => return Err(format!("{other:?}").into()),
    }
    wait_until("its end is seen", || Ok(qemu.check().is_err()))?;
    let error = qemu.check().expect_err("it was just seen").to_string();
    if !error.contains("ended by itself") || !error.contains("signal: 9") {
        return Err(error.into());
    }
    drop(qemu);
    gone(pid)
}

fn a_ring_that_can_not_be_had_is_told(binary: &Binary) -> Result<(), Failed> {
    let Err(error) = start(binary, 5000) else {
        return Err("a ring of 5000 entries was had".into());
    };
    let said = error.message().unwrap_or_default().to_owned();
    if said.contains("power of two") && said.contains("--ring 4096") {
        Ok(())
    } else {
        Err(error)
    }
}

/// The real one, behind a program that aborts as QEMU does when its reaper is early, the first `aborts` times.
fn one_that_aborts_is_started_again(binary: &Binary) -> Result<(), Failed> {
    for (aborts, is_tried) in [(2, true), (3, false)] {
        let folder = tempfile::tempdir()?;
        let (path, starts) = (folder.path().join("qemu"), folder.path().join("starts"));
        let script = format!(
            "#!/bin/sh\n\
             case \"$*\" in *-kernel*) echo >> {starts}; if [ $(wc -l < {starts}) -le {aborts} ]; then\n\
             echo 'kvm_dirty_ring_reap_one: Assertion failed.' >&2; kill -ABRT $$; fi;; esac\n\
             exec {} \"$@\"\n",
            binary.path.display(),
            starts = starts.display()
        );
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        match (start(&Binary::find(Some(&path))?, 4096), is_tried) {
            (Ok(mut qemu), true) => qemu.check()?,
            (Err(error), false) => {
                assert!(
                    error.message().unwrap_or_default().contains("ended at its start"),
                    "{error:?}"
                );
            }
            (started, _) => panic!("{aborts} aborts: {started:?}"),
        }
        assert_eq!(fs::read_to_string(&starts)?.lines().count(), 3);
    }
    Ok(())
}

fn one_without_a_ring_is_told(binary: &Binary) -> Result<(), Failed> {
    let qemu = start(binary, 0)?;
    let folder = tempfile::tempdir()?;
    let output = attach(&qemu, folder.path(), &["--quota", "50"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Without privilege for the probes that is what is told first.
    if output.status.code() == Some(2) && (said.contains("without a dirty ring") || said.contains("probes are needed"))
    {
        Ok(())
    } else {
        Err(format!("{}: {said}", output.status).into())
    }
}

/// `dirtyrig` in a folder of its own.
fn dirtyrig(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirtyrig"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

fn attach(qemu: &Qemu, folder: &Path, more: &[&str]) -> Command {
    let vmm = format!("attach:{}", qemu.socket().display());
    let mut command = dirtyrig(
        folder,
        &["run", "--vmm", &vmm, "--warm-up", "500ms", "--out", "out", "--json"],
    );
    command.args(more);
    command
}

fn succeeded(output: &Output) -> Result<Value, Failed> {
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout)?)
    } else {
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
    }
}

fn a_run_is_recorded(binary: &Binary) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let vmm = format!("qemu:{}", binary.path.display());
    let arguments = [
        "run",
        "--vmm",
        &vmm,
        "--ring",
        "1024",
        "--memory",
        "64",
        // Low enough for a limit that any host comes down to: the law leaves what is within 25 MiB/s of it.
        "--quota",
        "25",
        "--duration",
        "3s",
    ];
    let output = dirtyrig(folder.path(), &arguments)
        .args(["--out", "out", "--json"])
        .output()?;
    let rows = succeeded(&output)?;
    let row = &rows[0];
    let law = binary.version.law().ok_or("a QEMU without a law was found")?;
    if row["vmm"] != format!("qemu-{}", binary.version) || row["limiter"] != law.name() {
        return Err(format!("{row}").into());
    }
    let (unlimited, limited) = (row["unlimited_mib_s"].as_f64(), row["guest_mib_s"].as_f64());
    // Both by the guest's own counter: it ran, and the limit did something.
    if limited <= Some(0.0) || limited >= unlimited {
        return Err(format!("unlimited {unlimited:?}, limited {limited:?}").into());
    }
    Ok(())
}

/// A trace at a rate that any host follows, one vCPU of which writes twice as much as the other: under a quota far above it each VMM's
/// guest does the same, and that is only so if each vCPU follows its own table.
fn a_trace_is_a_guest(binary: &Binary) -> Result<(), Failed> {
    const STEP_NS: u64 = 2_000_000;
    let dir = tempfile::tempdir()?;
    let trace = dir.path().join("two.trace");
    let head = Head {
        tool_version: "test".to_owned(),
        pid: 1,
        process: "made".to_owned(),
        vcpus: vec![0, 1],
        started_utc: String::new(),
        started_ns: 0,
    };
    let mut writer = Writer::create(&trace, &head)?;
    for (vcpu, every) in [(0, 1), (1, 2)] {
        for n in (0..500).step_by(every) {
            let (at_ns, page) = (n * STEP_NS, n % 97 + 1000 * u64::from(vcpu));
            writer.write(vcpu, Some(vcpu), Write { at_ns, slot: 0, page })?;
        }
    }
    writer.finish(0, Duration::from_secs(1))?;
    let vmm = format!("rig,qemu:{}", binary.path.display());
    let arguments = [
        "sweep",
        "--replay",
        "two.trace",
        "--vmm",
        &vmm,
        "--limiter",
        "none",
        "--warm-up",
        "2s",
    ];
    let out = ["--duration", "2s", "--probes", "off", "--json", "--out", "rec"];
    let told = succeeded(&dirtyrig(dir.path(), &arguments).args(out).output()?)?;
    let rows = told.as_array().ok_or("no rows")?;
    assert_eq!(rows.len(), 4, "{told}");
    for pair in rows.chunks(2) {
        let rate = |row: &Value| row["guest_mib_s"].as_f64().unwrap_or_default();
        let ratio = rate(&pair[0]) / rate(&pair[1]);
        assert!((1.5..2.5).contains(&ratio), "{ratio}: {told}");
        assert!(pair.iter().all(|row| row["guest"] == "replay:two.trace"), "{told}");
    }
    assert_ne!(rows[0]["vmm"], rows[2]["vmm"]);
    Ok(())
}

fn attached_it_is_left_as_it_was() -> Result<(), Failed> {
    let qemu = start(&Binary::find(None)?, RING)?;
    let folder = tempfile::tempdir()?;
    let output = attach(&qemu, folder.path(), &["--quota", "50", "--duration", "3s"]).output()?;
    let rows = succeeded(&output)?;
    let row = &rows[0];
    if rows.as_array().map(Vec::len) != Some(2)
        || row["vmm"] != format!("qemu-{}", qemu.version())
        || row["ring_entries"] != RING
        || !row["guest"].is_null()
        || !row["guest_mib_s"].is_null()
    {
        return Err(format!("{rows}").into());
    }
    let samples = fs::read_to_string(folder.path().join("out/samples.csv"))?;
    if !samples.lines().any(|line| line.contains(",50.0,")) {
        return Err("no sample has the limit".into());
    }
    unlimited(&qemu)
}

/// While QEMU measures by page sampling it can't log pages before a limit does: what the guest dirties unlimited is not known.
fn without_a_log_the_unlimited_rate_is_unknown() -> Result<(), Failed> {
    let qemu = start(&Binary::find(None)?, RING)?;
    qemu.connect()?
        .execute("calc-dirty-rate", &json!({"calc-time": 60, "mode": "page-sampling"}))?;
    let folder = tempfile::tempdir()?;
    let output = attach(&qemu, folder.path(), &["--quota", "50", "--duration", "3s"]).output()?;
    let rows = succeeded(&output)?;
    for row in rows.as_array().into_iter().flatten() {
        if !row["unlimited_mib_s"].is_null() || row["verdict"] == "guest-too-slow" {
            return Err(format!("an unlimited rate was made up: {row}").into());
        }
    }
    Ok(())
}

/// With large rings a vCPU of a slow host stays in `KVM_RUN` for as long as QEMU lets it, and no event tells of its pages.
fn the_unlimited_rate_is_the_guests() -> Result<(), Failed> {
    const LARGE: u32 = 65536;
    const WINDOW: Duration = Duration::from_secs(1);
    // More pages than the ring has entries: a page is logged once between two resets.
    let qemu = start_writing(&Binary::find(None)?, LARGE, 1, 2 * u64::from(LARGE))?;
    let folder = tempfile::tempdir()?;
    let vmm = format!("attach:{}", qemu.socket().display());
    let mut command = dirtyrig(folder.path(), &["run", "--vmm", &vmm, "--out", "out", "--json"]);
    command.args(["--quota", "5", "--warm-up", "3s", "--duration", "2s"]);
    let mut child = Killed(command.stdout(fs::File::create(folder.path().join("rows"))?).spawn()?);
    // The guest's own counter; a limit that can't act changes nothing of it.
    let mut seen = Vec::new();
    wait_until("the run ends", || {
        seen.push((Instant::now(), qemu.truth(0).written));
        Ok(child.0.try_wait()?.is_some())
    })?;
    if !child.0.wait()?.success() {
        return Err("it failed".into());
    }
    let rows: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("rows"))?)?;
    let unlimited = rows[0]["unlimited_mib_s"].as_f64().ok_or_else(|| format!("{rows}"))?;
    let rates = seen.iter().filter_map(|(begun, before)| {
        let (end, after) = seen.iter().find(|(at, _)| at.duration_since(*begun) >= WINDOW)?;
        Some((after - before) as f64 / 256.0 / end.duration_since(*begun).as_secs_f64())
    });
    let (least, most) = rates.fold((f64::MAX, 0.0), |(least, most), rate| (rate.min(least), rate.max(most)));
    if !(0.95 * least..=1.05 * most).contains(&unlimited) {
        return Err(format!("it was {least} to {most} by the guest's counter: {rows}").into());
    }
    Ok(())
}

fn interrupted_its_limits_are_cancelled() -> Result<(), Failed> {
    let qemu = start(&Binary::find(None)?, RING)?;
    let folder = tempfile::tempdir()?;
    let mut command = attach(&qemu, folder.path(), &["--quota", "50", "--duration", "10m"]);
    let mut child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    wait_until("a sample has the limit", || {
        let samples = fs::read_to_string(folder.path().join("out/samples.csv")).unwrap_or_default();
        Ok(samples.lines().any(|line| line.contains(",50.0,")))
    })?;
    signal(child.0.id(), Signal::SIGINT)?;
    let status = child.0.wait()?;
    if status.code() != Some(130) {
        return Err(format!("{status}").into());
    }
    unlimited(&qemu)
}

/// QEMU has no limit any more, and its guest runs.
fn unlimited(qemu: &Qemu) -> Result<(), Failed> {
    let limits = qemu.connect()?.execute("query-vcpu-dirty-limit", &Value::Null)?;
    if limits != json!([]) {
        return Err(format!("{limits} is left").into());
    }
    let before = qemu.truth(0).written;
    wait_until("the guest goes on", || Ok(qemu.truth(0).written > before + 10_000))
}

/// A child that doesn't outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It fails if the child has ended by itself, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_sweep_survives_its_end(binary: &Binary) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let vmm = format!("qemu:{}", binary.path.display());
    let arguments = [
        "sweep",
        "--vmm",
        &vmm,
        "--ring",
        "1024",
        "--memory",
        "64",
        "--quota",
        "400,200,100",
    ];
    let rows = || fs::read_to_string(out.join("summary.csv")).map_or(0, |text| text.lines().count().saturating_sub(1));
    let mut command = dirtyrig(folder.path(), &arguments);
    command.args(["--duration", "2s", "--warm-up", "300ms", "--out", "out"]);
    let stderr = folder.path().join("stderr");
    let child = command
        .stdout(Stdio::null())
        .stderr(fs::File::create(&stderr)?)
        .spawn()?;
    let mut child = Killed(child);
    wait_until("a cell is finished", || Ok(rows() > 0))?;
    let mut victim = None;
    wait_until("the next QEMU runs", || {
        victim = qemu_under(child.0.id());
        Ok(victim.is_some())
    })?;
    let victim = victim.ok_or("it was just found")?;
    signal(victim, Signal::SIGKILL)?;
    let status = child.0.wait()?;
    let said = fs::read_to_string(&stderr)?;
    if status.code() != Some(2) || !said.contains("signal: 9") || !said.contains("--resume") {
        return Err(format!("{status}: {said}").into());
    }
    gone(victim)?;
    let kept = rows();
    let output = dirtyrig(folder.path(), &["sweep", "--resume", "out"]).output()?;
    if !output.status.success() || kept == 0 || kept == 3 || rows() != 3 {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{kept} cells kept, {} at the end: {said}", rows()).into());
    }
    Ok(())
}

/// The QEMU with a guest that is a child of `pid`; not one that is only asked for its version.
fn qemu_under(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let mut children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.find(|child: &u32| {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        let program = line.split('\0').next().unwrap_or_default();
        program.ends_with("qemu-system-x86_64") && line.contains("dirty-ring-size")
    })
}

fn signal(pid: u32, signal: Signal) -> Result<(), Failed> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
}

fn gone(pid: u32) -> Result<(), Failed> {
    match std::fs::metadata(format!("/proc/{pid}")) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("process {pid} is left behind").into()),
    }
}
