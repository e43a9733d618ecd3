//! Who is which vCPU: of QEMUs whose APIC IDs have gaps, whose threads have names, none, or such as mislead, and whose
//! vCPUs come and go. The guest's own counters, by APIC ID, say who is limited; `/proc` says who is traced.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dirtyrig_limiter::{
    limit::Which,
    units::{PAGES_PER_MIB, Quota},
};
use dirtyrig_probes::identity::NumberKind;
use dirtyrig_rig::outside::{Fault, Limiter, OutsideError};
use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    DEPTH, eventually,
    shaped::{Launch, Shaped},
};

/// Two sockets of three cores.
const SIX: &str = "6,sockets=2,cores=3,threads=1";
/// A bit of the APIC ID is the socket's, two are the core's.
pub(super) const SIX_IDS: [usize; 6] = [0, 1, 2, 4, 5, 6];
/// So small that a vCPU which isn't held is far above it, however slow the host and however many share a CPU.
const QUOTA_MIB_S: f64 = 1.0;

pub(super) fn launch<'a>(smp: &'a str, apic_ids: &'a [usize], more: &'a [&'a str]) -> Launch<'a> {
    Launch {
        ring: 1024,
        pages: 4096,
        smp,
        apic_ids,
        more,
    }
}

pub(super) fn started(launch: Launch<'_>) -> Result<Shaped, Failed> {
    let mut qemu = Shaped::start(launch)?;
    qemu.log_for_a_minute()?;
    Ok(qemu)
}

/// The number of each vCPU with its KVM id.
pub(super) fn numbers(limiter: &Limiter) -> Vec<(usize, Option<u32>)> {
    let books = limiter.books().into_iter().filter(|(_, book)| book.plugged);
    books.map(|(vcpu, book)| (vcpu, book.id.kvm_id())).collect()
}

/// Checks by the guest's own counters that of `all` vCPUs those in `held`, by APIC ID, are held, and the others are not.
fn held(qemu: &Shaped, limiter: &Limiter, all: &[usize], held: &[usize]) {
    // QEMU logs nothing until a moment after it was asked to, and what isn't logged isn't held.
    let stops = || {
        let of_held = |id: Option<u32>| id.is_some_and(|id| held.contains(&(id as usize)));
        let books = limiter
            .books()
            .into_iter()
            .filter(|(_, book)| of_held(book.id.kvm_id()));
        books.map(|(vcpu, book)| (vcpu, book.stops)).collect::<BTreeMap<_, _>>()
    };
    let before = stops();
    assert_eq!(before.len(), held.len());
    eventually("a stop of each", || {
        stops().iter().all(|(vcpu, stops)| *stops > before[vcpu])
    });
    let most = |span: Duration| QUOTA_MIB_S * (span + DEPTH.burst).as_secs_f64() * PAGES_PER_MIB as f64 + 2.0;
    let rest: Vec<usize> = all.iter().copied().filter(|vcpu| !held.contains(vcpu)).collect();
    let written = |vcpus: &[usize]| vcpus.iter().map(|&vcpu| qemu.written(vcpu)).collect::<Vec<_>>();
    let (begun, before, others) = (Instant::now(), written(held), written(&rest));
    // Until those that run free have done what no limit would have let them do.
    eventually("vCPUs that run free", || {
        let free = written(&rest)
            .into_iter()
            .zip(&others)
            .all(|(now, before)| (now - before) as f64 > 4.0 * most(begun.elapsed()));
        free && begun.elapsed() > Duration::from_millis(500)
    });
    for ((now, before), vcpu) in written(held).into_iter().zip(&before).zip(held) {
        let (pages, most) = (now - before, most(begun.elapsed()));
        assert!(pages as f64 <= most, "APIC ID {vcpu}: {pages} of {most:.0} pages");
    }
    eventually("held vCPUs that run", || {
        written(held)
            .into_iter()
            .zip(&before)
            .all(|(now, before)| now > *before)
    });
}

/// Limits all, then one after the other by number, and checks who is held.
fn limits_by_number(qemu: &Shaped, limiter: &Limiter, all: &[usize]) -> Result<(), Failed> {
    let quota = Quota::new(QUOTA_MIB_S)?;
    let threads: BTreeSet<u32> = limiter.books().iter().map(|(_, book)| book.thread).collect();
    assert_eq!(threads.len(), all.len(), "each vCPU has a thread of its own");
    limiter.set(Which::All, quota)?;
    assert_eq!(qemu.traced(), threads, "each is seized, and nobody else");
    assert_eq!(limiter.query().len(), all.len());
    held(qemu, limiter, all, all);
    limiter.cancel(Which::All)?;
    for (number, kvm_id) in numbers(limiter).into_iter().skip(2).step_by(2) {
        limiter.set(Which::One(number), quota)?;
        let id = kvm_id.ok_or("its KVM id is known")? as usize;
        held(qemu, limiter, all, &[id]);
        limiter.cancel(Which::One(number))?;
    }
    Ok(())
}

fn with_ids(numbers: impl IntoIterator<Item = usize>) -> Vec<(usize, Option<u32>)> {
    numbers.into_iter().zip(SIX_IDS.map(|id| Some(id as u32))).collect()
}

pub(super) fn gaps_with_names() -> Result<(), Failed> {
    let qemu = started(launch(SIX, &SIX_IDS, &["-name", "six,debug-threads=on"]))?;
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    assert_eq!(limiter.number_kind(), NumberKind::CpuIndex);
    assert_eq!(numbers(&limiter), with_ids(0..6));
    let unknown = limiter.set(Which::One(6), Quota::new(1.0)?).expect_err("there are six");
    assert!(
        matches!(unknown, OutsideError::UnknownVcpu { vcpu: 6, .. }),
        "{unknown}"
    );
    limits_by_number(&qemu, &limiter, &SIX_IDS)?;
    drop(limiter);
    observed(&qemu, &with_ids(0..6), "cpu-index");
    recorded(&qemu, &(0..6).collect::<Vec<_>>())
}

pub(super) fn gaps_without_names() -> Result<(), Failed> {
    let qemu = started(launch(SIX, &SIX_IDS, &[]))?;
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    assert_eq!(limiter.number_kind(), NumberKind::KvmId);
    assert_eq!(numbers(&limiter), with_ids(SIX_IDS));
    let unknown = limiter
        .set(Which::One(3), Quota::new(1.0)?)
        .expect_err("no vCPU has this id");
    assert!(unknown.to_string().contains("KVM's id"), "{unknown}");
    limits_by_number(&qemu, &limiter, &SIX_IDS)?;
    drop(limiter);
    observed(&qemu, &with_ids(SIX_IDS), "kvm-id");
    recorded(&qemu, &SIX_IDS)
}

/// Every thread of the process, those of no vCPU too, is called like vCPU 0's.
pub(super) fn names_that_mislead() -> Result<(), Failed> {
    let qemu = started(launch(SIX, &SIX_IDS, &["-name", "vm,process=CPU 0/KVM"]))?;
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    assert_eq!(limiter.number_kind(), NumberKind::KvmId);
    assert_eq!(numbers(&limiter), with_ids(SIX_IDS));
    limits_by_number(&qemu, &limiter, &SIX_IDS)?;
    drop(limiter);
    observed(&qemu, &with_ids(SIX_IDS), "kvm-id");
    Ok(())
}

/// A process's name has 15 bytes: here the last is the first of two of an `ö`.
pub(super) fn a_cut_name() -> Result<(), Failed> {
    let qemu = started(launch("1", &[0], &["-name", "vm,process=process-name-töööö"]))?;
    let name = fs::read(format!("/proc/{}/comm", qemu.pid()))?;
    assert!(
        String::from_utf8(name).is_err(),
        "the kernel cut it in the middle of a letter"
    );
    let rows = observe(&qemu, "300ms")?;
    assert_eq!(rows[0]["process"], "process-name-t\u{fffd}", "{rows:?}");
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    limiter.set(Which::All, Quota::new(QUOTA_MIB_S)?)?;
    held(&qemu, &limiter, &[0], &[0]);
    drop(limiter);
    let summaries = limit(&qemu, &["--quota", "5", "--duration", "500ms"])?;
    assert_eq!(summaries[0]["vmm"], "process-name-t\u{fffd}", "{summaries}");
    let output = attach(&qemu, &["--quota", "50", "--duration", "1s"])?;
    assert_eq!(output[0]["vcpu"], 0, "{output}");
    Ok(())
}

/// A vCPU that is plugged into a held VM is held; unplugged and plugged again it is held again; and one that isn't there
/// has no row.
pub(super) fn plugged_and_unplugged() -> Result<(), Failed> {
    for (name, number) in [(&["-name", "vm,debug-threads=on"][..], 3), (&[][..], 3)] {
        let arguments = [name, &["-qtest", "unix:{folder}/qtest,server=on,wait=off"]].concat();
        let mut qemu = started(launch("1,maxcpus=4,sockets=1,cores=4,threads=1", &[0], &arguments))?;
        let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
        limiter.set(Which::All, Quota::new(QUOTA_MIB_S)?)?;
        assert_eq!(numbers(&limiter), [(0, Some(0))]);
        for _ in 0..2 {
            plug(&mut qemu)?;
            eventually("the plugged vCPU", || {
                numbers(&limiter) == [(0, Some(0)), (number, Some(3))]
            });
            let threads: BTreeSet<u32> = plugged_threads(&limiter);
            eventually("a tracer of both", || qemu.traced() == threads);
            told(&limiter, &Fault::Came { vcpu: number });
            let limits: Vec<usize> = limiter.query().iter().map(|limit| limit.vcpu).collect();
            assert_eq!(limits, [0, number]);
            // What attaches now sees the same.
            observed_numbers(&qemu, &[0, number])?;
            eject(&qemu, 3)?;
            told(&limiter, &Fault::Went { vcpu: number });
            assert_eq!(numbers(&limiter), [(0, Some(0))]);
        }
        plug(&mut qemu)?;
        eventually("the plugged vCPU", || numbers(&limiter).len() == 2);
        drop(limiter);
        let summaries = limit(&qemu, &["--quota", "5", "--duration", "500ms"])?;
        let rows: Vec<&Value> = summaries.as_array().into_iter().flatten().collect();
        let vcpus: Vec<(&Value, &Value)> = rows.iter().map(|row| (&row["vcpu"], &row["vcpus"])).collect();
        assert_eq!(vcpus, [(&json!(0), &json!(2)), (&json!(number), &json!(2))]);
        if !name.is_empty() {
            attached_with_gap(&qemu)?;
            attached_as_one_is_plugged(&mut qemu)?;
        }
    }
    Ok(())
}

/// A child that doesn't outlive its trial.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A vCPU that goes and comes while `run` is attached: it has rows with the limit of all.
fn attached_as_one_is_plugged(qemu: &mut Shaped) -> Result<(), Failed> {
    eject(qemu, 3)?;
    eventually("one vCPU", || {
        let vcpus = qemu.qmp.execute("query-cpus-fast", &Value::Null).expect("QEMU answers");
        vcpus.as_array().is_some_and(|vcpus| vcpus.len() == 1)
    });
    let folder = tempfile::tempdir()?;
    let child = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["run", "--vmm", &format!("attach:{}", qemu.at("qmp2").display())])
        .args([
            "--warm-up",
            "300ms",
            "--quota",
            "50",
            "--duration",
            "10m",
            "--out",
            "out",
        ])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut run = Killed(child);
    let samples = || fs::read_to_string(folder.path().join("out/samples.csv")).unwrap_or_default();
    let limited = |vcpu: &str| {
        let text = samples();
        let mut rows = csv::Reader::from_reader(text.as_bytes());
        let names = rows.headers().ok()?.clone();
        let at = |name: &str| names.iter().position(|found| found == name);
        let (number, quota) = (at("vcpu")?, at("quota_mib_s")?);
        let rows: Vec<csv::StringRecord> = rows.records().flatten().collect();
        let last = rows.iter().rfind(|row| row.get(number) == Some(vcpu))?;
        Some(last.get(quota) == Some("50.0"))
    };
    eventually("a limit of vCPU 0", || limited("0") == Some(true));
    assert_eq!(limited("3"), None, "it isn't plugged yet");
    plug(qemu)?;
    eventually("a limit of vCPU 3", || limited("3") == Some(true));
    kill(Pid::from_raw(run.0.id().cast_signed()), Signal::SIGINT)?;
    assert_eq!(run.0.wait()?.code(), Some(130));
    Ok(())
}

pub(super) fn plugged_threads(limiter: &Limiter) -> BTreeSet<u32> {
    let books = limiter.books().into_iter().filter(|(_, book)| book.plugged);
    books.map(|(_, book)| book.thread).collect()
}

fn told(limiter: &Limiter, fault: &Fault) {
    let mut told = Vec::new();
    eventually(&format!("`{fault}`"), || {
        told.extend(limiter.take_faults());
        told.contains(fault)
    });
}

fn plug(qemu: &mut Shaped) -> Result<(), Failed> {
    let cpu = json!({
        "driver": "qemu64-x86_64-cpu", "id": "late", "socket-id": 0, "core-id": 3, "thread-id": 0,
    });
    qemu.qmp.execute("device_add", &cpu)?;
    Ok(())
}

/// Ejects a vCPU as a guest's ACPI would, by the registers of q35's CPU hotplug.
fn eject(qemu: &Shaped, index: u32) -> Result<(), Failed> {
    const BASE: u32 = 0xcd8;
    let stream = UnixStream::connect(qemu.at("qtest"))?;
    stream.set_read_timeout(Some(super::vm::PATIENCE))?;
    let mut stream = BufReader::new(stream);
    // The first write leaves the mode of old guests.
    for order in [
        format!("outl {BASE:#x} 0x0"),
        format!("outl {BASE:#x} {index:#x}"),
        format!("outb {:#x} 0x8", BASE + 4),
    ] {
        stream.get_mut().write_all(format!("{order}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        assert!(answer.starts_with("OK"), "{order}: {answer}");
    }
    Ok(())
}

/// By QEMU's monitor the vCPUs are 0 and 3.
fn attached_with_gap(qemu: &Shaped) -> Result<(), Failed> {
    for limiter in [None, Some("budget-ebpf")] {
        let limiter = limiter.map(|name| vec!["--limiter", name]).unwrap_or_default();
        let rows = attach(
            qemu,
            &[&["--quota", "50", "--duration", "1s"], limiter.as_slice()].concat(),
        )?;
        let vcpus: Vec<&Value> = rows.as_array().into_iter().flatten().map(|row| &row["vcpu"]).collect();
        assert_eq!(vcpus, [&json!(0), &json!(3)], "{rows}");
    }
    Ok(())
}

/// QEMU's index by its monitor is what counts, though its threads have no names.
pub(super) fn attached_to_by_index() -> Result<(), Failed> {
    let qemu = started(launch(SIX, &SIX_IDS, &[]))?;
    let rows = attach(
        &qemu,
        &["--quota", "5+none", "--duration", "2s", "--limiter", "budget-ebpf"],
    )?;
    let quotas: BTreeMap<u64, bool> = rows
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| (row["vcpu"].as_u64().expect("a number"), row["quota_mib_s"].is_null()))
        .collect();
    assert_eq!(quotas, (0..6).map(|vcpu| (vcpu, vcpu != 0)).collect(), "{rows}");
    Ok(())
}

/// With `-S` no vCPU has run yet. It is found by its name, or said to be missing, and held once it runs.
pub(super) fn a_vm_that_never_ran() -> Result<(), Failed> {
    for (names, is_named) in [
        (&["-S", "-name", "vm,debug-threads=on"][..], true),
        (&["-S"][..], false),
    ] {
        let mut qemu = Shaped::start(launch(SIX, &SIX_IDS, names))?;
        let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
        let kind = if is_named {
            NumberKind::CpuIndex
        } else {
            NumberKind::KvmId
        };
        assert_eq!(limiter.number_kind(), kind);
        if !is_named {
            told(&limiter, &Fault::NotFound { vcpu: 6 });
        }
        limiter.set(Which::All, Quota::new(QUOTA_MIB_S)?)?;
        qemu.qmp.execute("cont", &json!({}))?;
        eventually(&format!("six vCPUs that run ({names:?})"), || {
            SIX_IDS.iter().all(|&id| qemu.written(id) > 0)
        });
        qemu.log_for_a_minute()?;
        let expected = if is_named { with_ids(0..6) } else { with_ids(SIX_IDS) };
        eventually("six vCPUs that are known", || numbers(&limiter) == expected);
        eventually("six that are traced", || qemu.traced() == plugged_threads(&limiter));
        held(&qemu, &limiter, &SIX_IDS, &SIX_IDS);
    }
    Ok(())
}

const UUID: &str = "6f1c1a8e-7f0a-4d3b-9a57-2f5b8a8d7c10";

/// Found by name and UUID; what is unknown or ambiguous lists what is there; both are in what is shown and kept.
pub(super) fn a_vm_by_its_name() -> Result<(), Failed> {
    let one = started(launch(
        "1",
        &[0],
        &["-name", "guest=vm-one,debug-threads=on", "-uuid", UUID],
    ))?;
    let two = started(launch("1", &[0], &["-name", "vm-two"]))?;
    let three = started(launch("1", &[0], &["-name", "vm-two"]))?;
    let shared = format!("vm-one (process {}", one.pid());
    for name in ["vm-one", UUID, &UUID.to_uppercase()] {
        let folder = tempfile::tempdir()?;
        let output = dirtyrig(
            folder.path(),
            &[
                "limit",
                "--vm",
                name,
                "--quota",
                "5",
                "--duration",
                "300ms",
                "--out",
                "out",
            ],
        )?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains(&shared), "{name}: {said}");
        let manifest: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("out/manifest.json"))?)?;
        let limited = &manifest["scenario"]["limited"];
        assert_eq!(
            (&limited["vm"], &limited["uuid"]),
            (&json!("vm-one"), &json!(UUID)),
            "{manifest}"
        );
    }
    for (name, code, words) in [
        (
            "vm-tw",
            2,
            vec!["no VM is called `vm-tw`".to_owned(), shared, UUID.to_owned()],
        ),
        (
            "vm-two",
            2,
            vec![
                format!("process {}", two.pid()),
                format!("process {}", three.pid()),
                "2 VMs".to_owned(),
            ],
        ),
    ] {
        for command in [
            &["limit", "--vm", name, "--quota", "5"][..],
            &["observe", "--vm", name, "--json"],
        ] {
            let folder = tempfile::tempdir()?;
            let output = dirtyrig(folder.path(), command)?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
            assert!(words.iter().all(|words| said.contains(words)), "{command:?}: {said}");
        }
    }
    let rows = lines(&[
        "observe",
        "--vm",
        "vm-one",
        "--json",
        "--interval",
        "100ms",
        "--duration",
        "300ms",
    ])?;
    assert!(!rows.is_empty());
    assert!(
        rows.iter().all(|row| row["vm"] == "vm-one" && row["uuid"] == UUID),
        "{rows:?}"
    );
    Ok(())
}

fn dirtyrig(folder: &std::path::Path, arguments: &[&str]) -> Result<std::process::Output, Failed> {
    Ok(Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?)
}

/// What it prints, as JSON, a line each.
pub(super) fn lines(arguments: &[&str]) -> Result<Vec<Value>, Failed> {
    let folder = tempfile::tempdir()?;
    let output = dirtyrig(folder.path(), arguments)?;
    if !output.status.success() {
        return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn observe(qemu: &Shaped, duration: &str) -> Result<Vec<Value>, Failed> {
    let pid = qemu.pid().to_string();
    lines(&[
        "observe",
        "--pid",
        &pid,
        "--json",
        "--interval",
        "100ms",
        "--duration",
        duration,
    ])
}

/// `observe` shows each vCPU by the number of this kind, with both of its numbers.
fn observed(qemu: &Shaped, expected: &[(usize, Option<u32>)], kind: &str) {
    let mut found = Vec::new();
    // A vCPU shows up with its first event.
    eventually("every vCPU", || {
        let Ok(rows) = observe(qemu, "1s") else { return false };
        let mut last: BTreeMap<u64, Value> = BTreeMap::new();
        for row in rows {
            assert!(row["vcpu_is"] == kind || row["vcpu_is"].is_null(), "{row}");
            if let Some(vcpu) = row["vcpu"].as_u64() {
                last.insert(vcpu, row["kvm_id"].clone());
            }
        }
        found = last
            .into_iter()
            .map(|(vcpu, id)| (vcpu as usize, id.as_u64().map(|id| id as u32)))
            .collect();
        found.len() >= expected.len()
    });
    assert_eq!(found, expected);
}

fn observed_numbers(qemu: &Shaped, expected: &[usize]) -> Result<(), Failed> {
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    let found: Vec<usize> = numbers(&limiter).into_iter().map(|(vcpu, _)| vcpu).collect();
    assert_eq!(found, expected);
    Ok(())
}

/// A recording of `observe` has a row for each vCPU, and for nobody else.
fn recorded(qemu: &Shaped, expected: &[usize]) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let pid = qemu.pid().to_string();
    let output = dirtyrig(
        folder.path(),
        &["observe", "--pid", &pid, "--record", "out", "--duration", "1s"],
    )?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["samples.csv", "summary.csv"] {
        let mut rows = csv::Reader::from_path(folder.path().join("out").join(file))?;
        let column = rows
            .headers()?
            .iter()
            .position(|name| name == "vcpu")
            .ok_or("a column")?;
        let vcpus: BTreeSet<usize> = rows
            .records()
            .flatten()
            .filter_map(|row| row.get(column)?.parse().ok())
            .collect();
        assert_eq!(vcpus, expected.iter().copied().collect(), "{file}");
    }
    Ok(())
}

fn json_of(qemu_arguments: &[&str]) -> Result<Value, Failed> {
    let folder = tempfile::tempdir()?;
    let output = dirtyrig(folder.path(), &[qemu_arguments, &["--json", "--out", "out"]].concat())?;
    if !output.status.success() {
        return Err(format!("{qemu_arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn limit(qemu: &Shaped, more: &[&str]) -> Result<Value, Failed> {
    let pid = qemu.pid().to_string();
    json_of(&[&["limit", "--pid", &pid], more].concat())
}

fn attach(qemu: &Shaped, more: &[&str]) -> Result<Value, Failed> {
    let vmm = format!("attach:{}", qemu.at("qmp2").display());
    json_of(&[&["run", "--vmm", &vmm, "--warm-up", "300ms"], more].concat())
}
