//! Real QEMU, started with our guest. Besides the one along `PATH`, each that `DIRTYRIG_QEMU` names is tried, a list as
//! `PATH` is one: `DIRTYRIG_QEMU=$(xtask/qemu.sh)`.

use std::{env, path::PathBuf, thread, time::Duration};

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
    let pages = 4 * u64::from(RING);
    let vcpus: Vec<BootVcpu> = (0..2)
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
        image: &elf(&vcpus, 1_000_000_000)?,
        vcpus: vcpus.len(),
        memory_mib: 64,
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

fn signal(pid: u32, signal: Signal) -> Result<(), Failed> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
}

fn gone(pid: u32) -> Result<(), Failed> {
    match std::fs::metadata(format!("/proc/{pid}")) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("process {pid} is left behind").into()),
    }
}
