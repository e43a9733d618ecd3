//! What can't be done is said with its remedy.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use dirtyrig_probes::{Options, Probes, Source, SourceStatus, Target, page_sources};
use libtest_mimic::Failed;
use serde_json::Value;

use super::support::{DIRTYRIG, Guest, column, observe, spoken, wait_until};

fn says(output: &Output, code: i32, words: &[&str]) {
    let (text, said) = spoken(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(text.is_empty(), "{text}");
    for word in words {
        assert!(said.contains(word), "it should say `{word}`, but says: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

pub(crate) fn refused() -> Result<(), Failed> {
    // Beyond what the kernel gives out.
    says(
        &observe(&["--csv", "--pid", "4194305"])?,
        2,
        &["there is no process 4194305"],
    );
    let own = std::process::id().to_string();
    says(
        &observe(&["--csv", "--pid", &own])?,
        2,
        &[&own, "has no KVM VM open", "id of a VMM"],
    );
    says(&observe(&[])?, 2, &["no terminal", "--csv, --json"]);
    says(
        &observe(&["--csv", "--interval", "1ms"])?,
        2,
        &["`--interval 1ms` is too short", "50ms"],
    );
    says(
        &observe(&["--csv", "--json"])?,
        2,
        &["--csv", "--json", "cannot be used with"],
    );
    says(
        &observe(&["--metrics", "nowhere"])?,
        2,
        &["`--metrics nowhere`", "127.0.0.1:9435"],
    );
    says(
        &observe(&["--trace", "x", "--pid", "1", "--pid", "2"])?,
        2,
        &["a trace is of one VM", "--pid"],
    );
    Ok(())
}

pub(crate) fn nothing_is_overwritten() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let (file, folder) = (dir.path().join("a.trace"), dir.path().join("rec"));
    fs::write(&file, "precious")?;
    fs::create_dir(&folder)?;
    fs::write(folder.join("summary.csv"), "precious")?;
    let guest = Guest::start(&[])?;
    let (path, folder_path) = (file.display().to_string(), folder.display().to_string());
    let trace = observe(&["--pid", &guest.pid(), "--trace", &path, "--duration", "100ms"])?;
    says(&trace, 2, &["a.trace", "never overwritten", "--trace"]);
    let record = observe(&["--pid", &guest.pid(), "--record", &folder_path, "--duration", "100ms"])?;
    says(&record, 2, &["rec", "never overwritten", "--record"]);
    assert_eq!(fs::read_to_string(&file)?, "precious");
    assert_eq!(fs::read_to_string(folder.join("summary.csv"))?, "precious");
    Ok(())
}

pub(crate) fn without_privilege() -> Result<(), Failed> {
    let guest = Guest::start(&[])?;
    // It may look at the process, but not load programs.
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-all,+sys_ptrace,+dac_read_search", DIRTYRIG])
        .args(["observe", "--csv", "--duration", "100ms", "--pid", &guest.pid()])
        .stdin(Stdio::null())
        .output()?;
    says(&output, 4, &["refused to load eBPF programs", "run as root", "setcap"]);
    Ok(())
}

pub(crate) fn without_tracefs() -> Result<(), Failed> {
    let guest = Guest::start(&["--ring", "1024"])?;
    // In mounts of its own, without the capability to mount it again.
    let script = "umount -l /sys/kernel/debug/tracing /sys/kernel/tracing 2>/dev/null; \
                  exec setpriv --bounding-set -sys_admin \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", DIRTYRIG])
        .args([
            "observe",
            "--csv",
            "--duration",
            "1500ms",
            "--interval",
            "500ms",
            "--pid",
            &guest.pid(),
        ])
        .stdin(Stdio::null())
        .output()?;
    let (text, said) = spoken(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("tracefs is not mounted") && said.contains("mount -t tracefs"),
        "{said}"
    );
    let pages = column(&text, "dirtied_pages");
    assert!(
        pages.iter().any(|count| count != "0"),
        "raw tracepoints do without: {text}{said}"
    );
    for name in [
        "in_run_pct",
        "stalled_pct",
        "ring_full_stalls",
        "interrupted_stalls",
        "hardware_exits",
    ] {
        assert!(
            column(&text, name).iter().all(String::is_empty),
            "{name} is not seen: {text}"
        );
    }
    Ok(())
}

/// Pages of a VM without a ring are seen where the kernel lets a program run on its dirty bitmap. Elsewhere they are unknown, not 0.
pub(crate) fn without_ring() -> Result<(), Failed> {
    let qemu = super::qemu::start(0)?;
    let mut client = qemu.connect()?;
    let mut probes = Probes::attach(&Options::new(Target::Pid(qemu.pid())))?;
    let mut vcpus = Vec::new();
    wait_until("its vCPUs are seen", || {
        // They leave KVM_RUN for this alone.
        client.execute("stop", &Value::Null)?;
        client.execute("cont", &Value::Null)?;
        vcpus = probes.vcpus()?;
        Ok(vcpus.len() == 2)
    })?;
    let is_bitmap = |source: &SourceStatus| source.source != Source::Ring && source.works.is_ok();
    let seen = page_sources()?.iter().any(is_bitmap);
    assert!(vcpus.iter().all(|vcpu| vcpu.sees_pages == seen), "{vcpus:?}");
    let notes = probes.status()?.notes;
    assert_eq!(
        notes.iter().any(|note| note.starts_with("a VM has no dirty ring")),
        !seen,
        "{notes:?}"
    );
    Ok(())
}
