//! `dirtyrig limit` as its users run it, and how it may end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_limiter::{
    limit::Which,
    units::{PAGES_PER_MIB, Quota},
};
use dirtyrig_rig::{outside::Limiter, qmp::client::QmpClient};
use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{DEPTH, eventually, is_free, vm::Qemu};

/// A `dirtyrig limit` in a folder of its own; dropping it kills it.
struct Limit {
    child: Child,
    dir: tempfile::TempDir,
}

impl Limit {
    fn start(pid: u32, arguments: &[&str]) -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        let child = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
            .args(["limit", "--pid", &pid.to_string(), "--out", "out"])
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.path().join("stdout"))?)
            .stderr(fs::File::create(dir.path().join("stderr"))?)
            .spawn()?;
        Ok(Self { child, dir })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.at("stderr")).unwrap_or_default()
    }

    /// Waits until its samples say that a vCPU has a quota.
    fn wait_until_it_limits(&mut self) {
        let samples = self.at("out/samples.csv");
        let limits = || {
            let text = fs::read_to_string(&samples).unwrap_or_default();
            let mut rows = csv::Reader::from_reader(text.as_bytes());
            let quota = rows.headers().ok()?.iter().position(|name| name == "quota_mib_s")?;
            let last = rows.records().filter_map(Result::ok).last()?;
            (!last.get(quota)?.is_empty()).then_some(())
        };
        eventually("a limit", || limits().is_some());
    }

    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    fn ended_with(&mut self, code: i32) -> Result<(), Failed> {
        let status = self.child.wait()?;
        if status.code() == Some(code) {
            Ok(())
        } else {
            Err(format!("{status} where {code} was expected: {}", self.said()).into())
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dirtyrig(folder: &Path, arguments: &[&str]) -> Result<Output, Failed> {
    Ok(Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?)
}

pub(super) fn interrupted_it_leaves_a_recording() -> Result<(), Failed> {
    let qemu = Qemu::logging(4096, 2)?;
    let mut limit = Limit::start(qemu.pid(), &["--quota", "25", "--json"])?;
    limit.wait_until_it_limits();
    limit.signal(Signal::SIGINT)?;
    limit.ended_with(0)?;
    is_free(&qemu);
    let rows: Value = serde_json::from_str(&fs::read_to_string(limit.at("stdout"))?)?;
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    assert_eq!(
        (&rows[1]["limiter"], &rows[1]["quota_mib_s"]),
        (&json!("budget-ebpf"), &json!(25.0))
    );
    for command in ["plot", "report"] {
        let output = dirtyrig(limit.dir.path(), &[command, "out"])?;
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// One quota for three vCPUs is judged by what all three do, and nothing is said of a guest of which nothing is known.
pub(super) fn a_quota_for_all() -> Result<(), Failed> {
    const QUOTA: f64 = 20.0;
    let qemu = Qemu::logging(4096, 3)?;
    let mut limit = Limit::start(qemu.pid(), &["--quota", "20", "--per-vm", "--duration", "5s", "--json"])?;
    limit.ended_with(0)?;
    let rows: Value = serde_json::from_str(&fs::read_to_string(limit.at("stdout"))?)?;
    assert_eq!(rows.as_array().map(Vec::len), Some(3), "{rows}");
    for row in rows.as_array().into_iter().flatten() {
        // A busy host may keep it from settling; to miss it, a vCPU would have to be judged by its third.
        assert!(row["verdict"] == "held" || row["verdict"] == "not-settled", "{row}");
        assert_eq!(
            (&row["verdict"], &row["reason"]),
            (&rows[0]["verdict"], &rows[0]["reason"])
        );
        assert!(
            row["reason"]
                .as_str()
                .is_some_and(|reason| reason.starts_with("all vCPUs together: ")),
            "{row}"
        );
        let together = row["vm_ring_mib_s"].as_f64().ok_or("no rate of all")?;
        assert!((together - QUOTA).abs() <= 0.1 * QUOTA, "{row}");
        for unknown in [
            "guest",
            "guest_mib_s",
            "memory_mib",
            "vm_guest_mib_s",
            "predicted_floor_mib_s",
        ] {
            assert!(row[unknown].is_null(), "{unknown} of {row}");
        }
    }
    let said = limit.said();
    assert!(said.contains("truth - MiB/s") && !said.contains("NaN"), "{said}");
    assert!(
        said.contains("dirtyrig plot") && !limit.at("out/plots").exists(),
        "{said}"
    );
    for file in ["samples.csv", "summary.csv", "manifest.json"] {
        let text = fs::read_to_string(limit.at("out").join(file))?;
        assert!(!text.contains("NaN") && !text.contains("sequential"), "{file}: {text}");
    }
    Ok(())
}

pub(super) fn it_ends_with_its_time_and_with_the_vm() -> Result<(), Failed> {
    let mut qemu = Qemu::logging(4096, 1)?;
    Limit::start(qemu.pid(), &["--quota", "25", "--per-vm", "--duration", "500ms"])?.ended_with(0)?;
    is_free(&qemu);
    let mut limit = Limit::start(qemu.pid(), &["--quota", "25", "--vcpu", "0"])?;
    limit.wait_until_it_limits();
    qemu.kill()?;
    limit.ended_with(0)?;
    assert!(limit.said().contains("has ended"), "{}", limit.said());
    Ok(())
}

pub(super) fn qmp_clients_command_it() -> Result<(), Failed> {
    let qemu = Qemu::logging(4096, 2)?;
    let mut limit = Limit::start(qemu.pid(), &["--quota", "100", "--socket", "qmp"])?;
    let socket = limit.at("qmp");
    limit.wait_until_it_limits();
    let mut client = QmpClient::connect(&socket)?;
    client.execute("set-vcpu-dirty-limit", &json!({"cpu-index": 1, "dirty-rate": 25}))?;
    let limits = client.execute("query-vcpu-dirty-limit", &Value::Null)?;
    assert_eq!(limits[1]["limit-rate"], 25, "{limits}");
    let unknown = client.execute("set-vcpu-dirty-limit", &json!({"cpu-index": 7, "dirty-rate": 25}));
    assert!(unknown.is_err(), "a limit of a vCPU that is not there");
    client.execute("cancel-vcpu-dirty-limit", &Value::Null)?;
    eventually("a VM without a limit", || {
        qemu.threads().iter().all(|(_, tracer)| *tracer == 0)
    });
    client.execute("quit", &Value::Null)?;
    limit.ended_with(0)?;
    is_free(&qemu);
    Ok(())
}

pub(super) fn another_vmm_is_limited_too() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut vmm = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["run", "--limiter", "none", "--ring", "4096", "--duration", "1h"])
        .args(["--probes", "off", "--out", "run"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let samples = || fs::read_to_string(dir.path().join("run/samples.csv")).unwrap_or_default();
    eventually("a guest", || samples().lines().count() > 10);
    // By that guest's own counter.
    let truth = || {
        let text = samples();
        let mut rows = csv::Reader::from_reader(text.as_bytes());
        let guest = rows.headers().ok()?.iter().position(|name| name == "guest_mib_s")?;
        rows.records()
            .filter_map(Result::ok)
            .last()?
            .get(guest)?
            .parse::<f64>()
            .ok()
    };
    let unlimited = truth().ok_or("the guest's own counter")?;
    let quota = f64::min(5.0, unlimited / 10.0);
    let mut limit = Limit::start(vmm.id(), &["--quota", &quota.to_string()])?;
    limit.wait_until_it_limits();
    eventually("a guest that is held", || {
        truth().is_some_and(|rate| (0.5 * quota..1.5 * quota).contains(&rate))
    });
    limit.signal(Signal::SIGINT)?;
    limit.ended_with(0)?;
    eventually("a guest that is free", || {
        truth().is_some_and(|rate| rate > unlimited / 2.0)
    });
    vmm.kill()?;
    vmm.wait()?;
    Ok(())
}

/// What cannot be is told with its remedy, and no thread is left stopped.
pub(super) fn what_can_not_be_is_told() -> Result<(), Failed> {
    let qemu = Qemu::logging(4096, 1)?;
    let silent = Qemu::start(Some(4096), 1)?;
    let (pid, off) = (qemu.pid().to_string(), silent.pid().to_string());
    let me = std::process::id().to_string();
    let folder = tempfile::tempdir()?;
    for (arguments, code, words) in [
        (vec!["--pid", "4194305", "--quota", "25"], 2, "4194305"),
        (vec!["--pid", &me, "--quota", "25"], 2, "KVM"),
        (
            vec!["--pid", &pid, "--quota", "25", "--vcpu", "9"],
            2,
            "vCPU 9 is unknown",
        ),
        (vec!["--pid", &pid, "--quota", "0"], 2, "quota"),
        (vec!["--pid", &pid], 2, "--quota"),
        (
            vec!["--pid", &off, "--quota", "25", "--duration", "3s"],
            0,
            "its dirty logging is off",
        ),
    ] {
        let output = dirtyrig(folder.path(), &[&["limit"], arguments.as_slice()].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && said.contains(words),
            "{arguments:?}: {}: {said}",
            output.status
        );
    }
    is_free(&qemu);
    Ok(())
}

/// QEMU answers QMP, and its own kicks get through: it can stop and go on while it is held.
pub(super) fn its_own_kicks_get_through() -> Result<(), Failed> {
    let mut qemu = Qemu::logging(4096, 2)?;
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    limiter.set(Which::All, Quota::new(5.0)?)?;
    for _ in 0..10 {
        qemu.qmp.execute("stop", &json!({}))?;
        let written = [0, 1].map(|vcpu| qemu.written(vcpu));
        let state = qemu.qmp.execute("query-status", &json!({}))?;
        assert_eq!(state["running"], false, "{state}");
        thread::sleep(Duration::from_millis(30));
        assert_eq!(written, [0, 1].map(|vcpu| qemu.written(vcpu)), "it stands still");
        qemu.qmp.execute("cont", &json!({}))?;
        eventually("vCPUs that go on", || {
            (0..2).all(|vcpu| qemu.written(vcpu) > written[vcpu])
        });
    }
    drop(limiter);
    is_free(&qemu);
    Ok(())
}

/// A number that a longer run may raise.
fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a whole number"))
}

/// A random sequence of its own for each run, whose seed is printed; `DIRTYRIG_SEED` repeats one.
fn random() -> StdRng {
    let seed = from_environment("DIRTYRIG_SEED", rand::random());
    println!("DIRTYRIG_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Limits at random, for `DIRTYRIG_CHANGE_SECONDS`; QEMU answers after each.
pub(super) fn random_changes() -> Result<(), Failed> {
    let length = Duration::from_secs(from_environment("DIRTYRIG_CHANGE_SECONDS", 5));
    let mut qemu = Qemu::logging(4096, 2)?;
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    let mut rng = random();
    let (begun, mut changes) = (Instant::now(), 0_u64);
    let mut logging = Logging::new();
    while begun.elapsed() < length {
        logging.keep(&mut qemu)?;
        // As many small quotas as large ones.
        let quota = Quota::new(10_f64.powf(rng.random_range(0.0..3.0)))?;
        match rng.random_range(0..6) {
            0 => limiter.set(Which::All, quota)?,
            1 | 2 => limiter.set(Which::One(rng.random_range(0..2)), quota)?,
            3 => limiter.cancel(Which::One(rng.random_range(0..2)))?,
            4 => limiter.set_vm(quota)?,
            _ => limiter.cancel_vm()?,
        }
        qemu.qmp.execute("query-status", &json!({}))?;
        thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        changes += 1;
    }
    drop(limiter);
    println!("{changes} changes in {:?}", begun.elapsed());
    is_free(&qemu);
    Ok(())
}

/// Killed at random moments, the limiter leaves a VM that runs on: `DIRTYRIG_KILL_ROUNDS` times.
pub(super) fn killed_it_frees_the_vm() -> Result<(), Failed> {
    let mut qemu = Qemu::logging(4096, 2)?;
    let quota = qemu.at_most(5.0).mib_per_sec();
    let mut rng = random();
    let mut logging = Logging::new();
    let mut back = Vec::new();
    for _ in 0..from_environment("DIRTYRIG_KILL_ROUNDS", 3) {
        logging.keep(&mut qemu)?;
        let mut limit = Limit::start(qemu.pid(), &["--quota", &quota.to_string()])?;
        eventually("a VM that is held", || {
            qemu.threads().iter().any(|(_, tracer)| *tracer != 0)
        });
        thread::sleep(Duration::from_micros(rng.random_range(0..300_000)));
        limit.child.kill()?;
        let killed = Instant::now();
        let mut before = (killed, qemu.written(0));
        // Between two looks; a quarter of the speed is what the quota lets through at most.
        eventually("full speed", || {
            let now = (Instant::now(), qemu.written(0));
            let pages = (now.1 - before.1) as f64;
            let rate = pages / PAGES_PER_MIB as f64 / now.0.duration_since(before.0).as_secs_f64();
            before = now;
            rate > qemu.speed() / 2.0
        });
        back.push(killed.elapsed());
        limit.child.wait()?;
        is_free(&qemu);
        qemu.qmp.execute("query-status", &json!({}))?;
    }
    back.sort_unstable();
    println!(
        "killed {} times: full speed after {:?} (median), {:?} at most",
        back.len(),
        back[back.len() / 2],
        back[back.len() - 1]
    );
    Ok(())
}

/// Keeps pages logged for longer than one of QEMU's measurements lasts.
pub(super) struct Logging(Instant);

impl Logging {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn keep(&mut self, qemu: &mut Qemu) -> Result<(), Failed> {
        if self.0.elapsed() > Duration::from_secs(50) {
            eventually("the end of a measurement", || {
                let state = qemu.qmp.execute("query-dirty-rate", &json!({})).expect("QEMU answers");
                state["status"] == "measured"
            });
            qemu.log_for_a_minute()?;
            self.0 = Instant::now();
        }
        Ok(())
    }
}
