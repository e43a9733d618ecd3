//! `dirtyrig observe` and `run --replay` on real VMs: the rig's own, and QEMU's, against the kernel's own trace.

#[path = "observe/errors.rs"]
mod errors;
#[path = "observe/moments.rs"]
mod moments;
#[path = "observe/qemu.rs"]
mod qemu;
#[path = "observe/readings.rs"]
mod readings;
#[path = "observe/replay.rs"]
mod replay;
#[path = "observe/support.rs"]
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use dirtyrig_rig::{model::Verdict, recording::Recording};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{Guest, column, observe, spoken};

const HERE: &[Need] = &[Need::Kvm, Need::Bpf];

fn main() {
    run(vec![
        trial("every vcpu has its lines", HERE, every_vcpu_has_its_lines),
        trial("a vm that ends is said to", HERE, a_vm_that_ends_is_said_to),
        trial("a vm that starts later shows up", HERE, a_vm_that_starts_later),
        trial("a closed pipe ends it quietly", HERE, a_closed_pipe_ends_it),
        trial("a terminal that goes away ends it", HERE, a_terminal_that_goes_away),
        trial(
            "what was recorded is drawn, after ctrl-c too",
            HERE,
            what_was_recorded_is_drawn,
        ),
        trial("metrics are served", HERE, metrics_are_served),
        trial(
            "a trace replayed has the same pages in the same order",
            HERE,
            replay::same_pages,
        ),
        trial("a replay of what a guest did", HERE, replay::what_a_guest_did),
        trial(
            "counts of QEMU's vCPUs are those of tracefs",
            &[Need::Kvm, Need::Bpf, Need::Qemu],
            qemu::counts_are_those_of_tracefs,
        ),
        trial(
            "every second of QEMU's vCPUs is right",
            &[Need::Kvm, Need::Bpf, Need::Qemu],
            moments::every_second_is_right,
        ),
        trial(
            "pages that can't be seen are unknown",
            &[Need::Kvm, Need::Bpf, Need::Qemu],
            errors::without_ring,
        ),
        trial("vCPUs are read as often as somebody asks", HERE, readings::as_asked),
        trial("what can't be watched is said with its remedy", HERE, errors::refused),
        trial("nothing is overwritten", HERE, errors::nothing_is_overwritten),
        trial("without privilege the remedy is named", HERE, errors::without_privilege),
        trial(
            "without tracefs it says what it can't see",
            HERE,
            errors::without_tracefs,
        ),
    ]);
}

fn every_vcpu_has_its_lines() -> Result<(), Failed> {
    let guest = Guest::start(&["--vcpus", "2", "--ring", "1024"])?;
    let output = observe(&[
        "--pid",
        &guest.pid(),
        "--csv",
        "--duration",
        "1200ms",
        "--interval",
        "400ms",
    ])?;
    let (text, said) = spoken(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let vcpus = column(&text, "vcpu");
    assert!(
        ["0", "1"].iter().all(|vcpu| vcpus.iter().any(|found| found == vcpu)),
        "{text}"
    );
    assert!(column(&text, "pid").iter().all(|pid| *pid == guest.pid()));
    let total = |name: &str| -> f64 {
        column(&text, name)
            .iter()
            .map(|value| value.parse().unwrap_or(0.0))
            .sum()
    };
    assert!(
        total("dirty_mib_s") > 0.0 && total("ring_full_exits") > 0.0 && total("ring_full_max_us") > 0.0,
        "{text}"
    );
    assert!(column(&text, "lost_records").iter().all(|count| count == "0"), "{text}");
    // No silent zero: either the kernel reports such exits, or it is said in words.
    let hardware = column(&text, "hardware_exits");
    let unseen = said.contains("kvm_exit never fired");
    assert!(hardware.iter().all(|count| count.is_empty() == unseen), "{text}{said}");
    Ok(())
}

fn a_vm_that_ends_is_said_to() -> Result<(), Failed> {
    let mut guest = Guest::start(&["--ring", "1024"])?;
    let mut observed = support::Observed::start(&["--pid", &guest.pid(), "--json", "--interval", "100ms"])?;
    observed.wait_for("watching process")?;
    guest.end()?;
    observed.wait_for("has ended")?;
    let status = observed.end(None)?;
    assert_eq!(status.code(), Some(0), "it ends by itself");
    Ok(())
}

fn a_vm_that_starts_later() -> Result<(), Failed> {
    let mut observed = support::Observed::start(&["--json", "--interval", "100ms"])?;
    // Other VMs of this host have lines too, and a full pipe would stop it.
    let lines = observed.reader();
    let guest = Guest::start(&["--ring", "1024"])?;
    observed.wait_for(&format!("watching process {}", guest.pid()))?;
    let status = observed.end(Some(nix::sys::signal::Signal::SIGINT))?;
    lines.join().map_err(|_| "the reader panicked")?;
    assert_eq!(status.code(), Some(0), "ctrl-c is its end where no time is set");
    Ok(())
}

fn a_closed_pipe_ends_it() -> Result<(), Failed> {
    let guest = Guest::start(&["--ring", "1024"])?;
    // No line is due for an hour, so that only the pipe can tell.
    let mut observed = support::Observed::start(&["--pid", &guest.pid(), "--json", "--interval", "1h"])?;
    observed.wait_for("watching process")?;
    observed.close_stdout();
    let status = observed.end(None)?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}

fn a_terminal_that_goes_away() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("seen");
    let guest = Guest::start(&["--ring", "1024"])?;
    let path = folder.display().to_string();
    let (observed, mut terminal) = support::Observed::on_terminal(&["--pid", &guest.pid(), "--record", &path])?;
    // The title of the live view and the rates of a vCPU; once they are there, the keys are waited for.
    let mut screen = String::new();
    let mut bytes = [0; 4096];
    while !(screen.contains("nothing lost") && screen.contains(&guest.pid())) {
        let read = terminal.read(&mut bytes)?;
        screen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    drop(terminal);
    let status = observed.end(None)?;
    assert_eq!(status.code(), Some(0), "it ends by itself");
    assert_eq!(
        Recording::open(&folder)?.summaries.len(),
        1,
        "what was recorded is kept"
    );
    Ok(())
}

fn what_was_recorded_is_drawn() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("seen");
    let guest = Guest::start(&["--vcpus", "2", "--ring", "1024"])?;
    let path = folder.display().to_string();
    let mut observed = support::Observed::start(&["--pid", &guest.pid(), "--record", &path, "--duration", "1h"])?;
    observed.wait_for("watching process")?;
    // Rows are with the system at once, so that a few of them say that the recording has begun.
    support::wait_until("samples are recorded", || {
        let rows = fs::read_to_string(folder.join("samples.csv")).unwrap_or_default();
        Ok(rows.lines().count() > 20)
    })?;
    let status = observed.end(Some(nix::sys::signal::Signal::SIGINT))?;
    assert_eq!(status.code(), Some(130), "cut short");
    let recording = Recording::open(&folder)?;
    assert_eq!(recording.gaps(), None);
    assert_eq!(recording.summaries.len(), 2);
    for row in &recording.summaries {
        assert!(
            row.guest_mib_s.is_none() && row.unlimited_mib_s.is_none(),
            "nobody knows"
        );
        assert!(row.ring_mib_s > Some(0.0) && row.pauses > Some(0), "{row:?}");
        assert!(
            row.probe_pushed_pages > Some(0) && row.probe_pauses > Some(0),
            "{row:?}"
        );
        assert!(row.reason.contains("observed from outside"), "{}", row.reason);
        assert_eq!((row.verdict, &row.guest), (Verdict::Unknown, &None), "{row:?}");
    }
    // The host is its VMs': nothing is drawn until somebody asks.
    assert!(!folder.join("plots").exists(), "figures were drawn beside a VM");
    let plotted = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .arg("plot")
        .arg(&folder)
        .output()?;
    assert!(plotted.status.success(), "{}", String::from_utf8_lossy(&plotted.stderr));
    for figure in ["convergence.svg", "stalls.svg"] {
        let svg = fs::read_to_string(folder.join("plots").join(figure))?;
        assert!(svg.contains("observed"), "{figure}");
    }
    Ok(())
}

fn metrics_are_served() -> Result<(), Failed> {
    let guest = Guest::start(&["--ring", "1024"])?;
    let arguments = ["--pid", &guest.pid(), "--metrics", "127.0.0.1:0", "--interval", "100ms"];
    let mut observed = support::Observed::start(&arguments)?;
    let line = observed.wait_for("metrics: http://")?;
    let address = line
        .trim()
        .trim_start_matches("metrics: http://")
        .trim_end_matches("/metrics")
        .to_owned();
    let mut answer = String::new();
    support::wait_until("pages are counted", || {
        let mut stream = TcpStream::connect(&address)?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\nConnection: close\r\n\r\n"
        )?;
        answer.clear();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains("dirtyrig_dirtied_pages_total{"))
    })?;
    assert!(
        answer.contains("Content-Type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("pid=\"{}\"", guest.pid())) && answer.ends_with("# EOF\n"),
        "{answer}"
    );
    assert!(answer.contains("le=\"+Inf\""), "{answer}");
    let in_use = observe(&["--pid", &guest.pid(), "--metrics", &address])?;
    let (_, said) = spoken(&in_use);
    assert!(
        in_use.status.code() == Some(2) && said.contains(&address) && said.contains("--metrics"),
        "{said}"
    );
    assert_eq!(observed.end(Some(nix::sys::signal::Signal::SIGTERM))?.code(), Some(0));
    assert!(TcpStream::connect(&address).is_err());
    Ok(())
}
