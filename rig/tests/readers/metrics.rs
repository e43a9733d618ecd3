//! What `observe --metrics` serves, in Prometheus and its tools: 1,000 vCPUs, and beside them a client that never reads.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_probes::{ExitCount, ExitReason, StallCounters, VcpuCounters, identity::Vm};
use dirtyrig_rig::observe::{
    metrics::Metrics,
    outlet::{Outlet, Report},
    watched::{Reading, Sees},
};
use dirtyrig_testkit::{Need, trial};
use libtest_mimic::{Failed, Trial};

use super::{output_of, python};

const VCPUS: u32 = 1000;
/// A hang shows as a failure instead.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn trials() -> Vec<Trial> {
    const PROMETHEUS: &[Need] = &[Need::Prometheus];
    const PYTHON: &[Need] = &[Need::PythonReaders];
    vec![
        trial("promtool finds nothing wrong with the metrics", PROMETHEUS, promtool),
        trial(
            "prometheus-client parses the metrics as OpenMetrics and as text",
            PYTHON,
            client,
        ),
        trial(
            "Prometheus scrapes 1,000 vCPUs beside clients that never read",
            PROMETHEUS,
            prometheus,
        ),
    ]
}

fn reading() -> Reading {
    let vcpu = |thread| VcpuCounters {
        at: Duration::from_secs(10),
        process: 4711,
        thread,
        vcpu: None,
        number: None,
        gone: false,
        pushed_pages: 1_000_000 + u64::from(thread),
        sees_pages: true,
        reset_entries: 1_000_000,
        resets: 1,
        userspace_exits: 5,
        ring_full_exits: 3,
        runs: 5,
        entries: 9,
        exits: 9,
        in_run: Duration::from_millis(1_500),
        stalled_since: None,
        ring_full: StallCounters::default(),
        interrupted: StallCounters::default(),
        exit_reasons: vec![ExitCount {
            reason: ExitReason::Userspace(31),
            name: "KVM_EXIT_DIRTY_RING_FULL".to_owned(),
            count: 3,
        }],
    };
    Reading {
        at: Duration::from_secs(10),
        vcpus: (0..VCPUS).map(vcpu).collect(),
        vms: BTreeMap::from([(
            4711,
            Vm {
                pid: 4711,
                process: "a \"quoted\" name\\".to_owned(),
                name: Some("web01".to_owned()),
                uuid: None,
            },
        )]),
        sees: Sees {
            pages: true,
            resets: true,
            returns: true,
            runs: true,
            stall_ends: true,
            hardware_exits: true,
        },
        ..Reading::default()
    }
}

fn served() -> Result<Metrics, Failed> {
    let mut metrics = Metrics::serve("127.0.0.1:0".parse()?)?;
    metrics.report(&Report {
        t_s: 1.0,
        reading: reading(),
        rates: Vec::new(),
    })?;
    Ok(metrics)
}

/// The body of an answer.
fn get(address: SocketAddr, path: &str, accept: &str) -> Result<String, Failed> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.contains(" 200 ") {
        Ok(body.to_owned())
    } else {
        Err(head.to_owned().into())
    }
}

const TEXT: &str = "text/plain;version=0.0.4";
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

fn promtool() -> Result<(), Failed> {
    let metrics = served()?;
    let text = get(metrics.address(), "/metrics", TEXT)?;
    let said = output_of(Command::new("promtool").args(["check", "metrics"]), text.as_bytes())?;
    if said.trim().is_empty() {
        Ok(())
    } else {
        Err(said.into())
    }
}

const PARSER: &str = r#"
import sys
from prometheus_client import openmetrics, parser
import prometheus_client.openmetrics.parser as open_metrics
kind, text = sys.argv[1], sys.stdin.read()
parse = {"open": open_metrics.text_string_to_metric_families, "text": parser.text_string_to_metric_families}[kind]
families = {family.name: family for family in parse(text)}
assert len(families["dirtyrig_dirtied_pages"].samples) == 1000
dirtied = {sample.labels["thread"]: sample for sample in families["dirtyrig_dirtied_bytes"].samples}
assert dirtied["7"].value == 4096 * 1000007 and dirtied["7"].name == "dirtyrig_dirtied_bytes_total", dirtied["7"]
assert dirtied["7"].labels["process"] == 'a "quoted" name\\', dirtied["7"]
if kind == "open":
    assert families["dirtyrig_dirtied_bytes"].unit == "bytes"
    assert families["dirtyrig_in_run_seconds"].unit == "seconds"
assert families["dirtyrig_in_run_seconds"].samples[0].value == 1.5
assert families["dirtyrig_stall_seconds"].type == "histogram"
"#;

fn client() -> Result<(), Failed> {
    let metrics = served()?;
    for (kind, accept) in [("open", OPEN_METRICS), ("text", TEXT)] {
        let text = get(metrics.address(), "/metrics", accept)?;
        python(PARSER, &[kind], text.as_bytes())?;
    }
    Ok(())
}

/// A process that is ended with the trial.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // One that has ended by itself needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prometheus() -> Result<(), Failed> {
    let metrics = served()?;
    // More than one, and each asks for more than any buffer of the system's holds.
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(metrics.address())?;
        for _ in 0..50 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        }
        silent.push(stream);
    }
    let dir = tempfile::tempdir()?;
    let config = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: dirtyrig\n  static_configs:\n  - targets: ['{}']\n",
        metrics.address()
    );
    fs::write(dir.path().join("prometheus.yml"), config)?;
    output_of(
        Command::new("promtool")
            .args(["check", "config", "prometheus.yml"])
            .current_dir(dir.path()),
        b"",
    )?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Command::new("prometheus")
        .args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--log.level=error",
        ])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    let _prometheus = Guard(child);
    let begin = Instant::now();
    // Scraped twice at the least, so that it is known to come back.
    for (query, expected) in [
        ("count(dirtyrig_dirtied_bytes_total)", "\"1000\""),
        ("min_over_time(up[1m])", "\"1\""),
        ("count_over_time(up[1m])%3Ebool%201", "\"1\""),
        ("max(dirtyrig_dirtied_bytes_total)", "\"4100091904\""),
    ] {
        loop {
            let answer = get(address, &format!("/api/v1/query?query={query}"), "*/*");
            match answer {
                Ok(answer) if answer.contains(expected) => break,
                _ if begin.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(200)),
                Ok(answer) => return Err(format!("{query}: {answer}").into()),
                Err(error) => return Err(error),
            }
        }
    }
    drop(silent);
    Ok(())
}
