//! The files of `packaging/`: the service with its capabilities alone, and every expression of the alert rules and the
//! dashboard, evaluated by a real Prometheus that reads a real VM's metrics.

#[expect(dead_code, reason = "the trials of `observe` call the rest")]
#[path = "observe/support.rs"]
mod support;

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use serde_json::Value;
use support::{DIRTYRIG, Guest, Observed, column, spoken, wait_until};

fn main() {
    run(vec![
        trial(
            "the service's capabilities are enough",
            &[Need::Kvm, Need::Bpf],
            capabilities_are_enough,
        ),
        trial(
            "Prometheus evaluates every rule and panel",
            &[Need::Kvm, Need::Bpf, Need::Prometheus],
            prometheus_evaluates,
        ),
    ]);
}

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file)
}

/// Runs `observe` as the unit does: as nobody, with the unit's capabilities and no others.
fn capabilities_are_enough() -> Result<(), Failed> {
    let unit = fs::read_to_string(packaging("dirtyrig-observe.service"))?;
    let listed = |key: &str| -> Result<String, Failed> {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        let names = line.ok_or_else(|| format!("the unit has no {key}"))?.split(' ');
        let names: Vec<String> = names.map(|name| name.replacen("CAP_", "+", 1).to_lowercase()).collect();
        Ok(names.join(","))
    };
    let ambient = listed("AmbientCapabilities=")?;
    assert_eq!(ambient, listed("CapabilityBoundingSet=")?);

    let guest = Guest::start(&["--ring", "1024", "--vcpus", "2"])?;
    // Nobody may look into the folder in which this was built.
    let folder = tempfile::Builder::new().prefix("service").tempdir_in("/var/tmp")?;
    let binary = folder.path().join("dirtyrig");
    fs::copy(DIRTYRIG, &binary)?;
    Command::new("chmod")
        .arg("755")
        .args([folder.path(), &binary])
        .status()?;
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
        .arg(format!("--inh-caps=-all,{ambient}"))
        .arg(format!("--ambient-caps=-all,{ambient}"))
        .arg(format!("--bounding-set=-all,{ambient}"))
        .arg(&binary)
        .args([
            "observe",
            "--csv",
            "--duration",
            "1200ms",
            "--interval",
            "400ms",
            "--pid",
        ])
        .arg(guest.pid())
        .stdin(Stdio::null())
        .output()?;
    let (text, said) = spoken(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let vcpus = column(&text, "vcpu");
    assert!(
        ["0", "1"].iter().all(|vcpu| vcpus.iter().any(|found| found == vcpu)),
        "each vCPU's number is known: {text}{said}"
    );
    assert!(
        column(&text, "dirtied_pages").iter().any(|pages| pages != "0"),
        "{text}"
    );
    assert!(
        column(&text, "ring_full_exits").iter().any(|exits| exits != "0"),
        "{text}"
    );
    Ok(())
}

fn prometheus_evaluates() -> Result<(), Failed> {
    let rules = packaging("alerts.yml");
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&rules).output()?;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let guest = Guest::start(&["--ring", "1024"])?;
    let mut observed = Observed::start(&["--pid", &guest.pid(), "--metrics", "127.0.0.1:0", "--interval", "100ms"])?;
    let line = observed.wait_for("metrics: http://")?;
    let address = line
        .trim()
        .trim_start_matches("metrics: http://")
        .trim_end_matches("/metrics");
    let prometheus = Prometheus::start(address, &rules)?;
    wait_until("Prometheus has two scrapes", || {
        let answer = prometheus.query("count_over_time(dirtyrig_dirtied_pages_total[1m])");
        Ok(answer.is_ok_and(|found| found.iter().any(|sample| value(sample) >= 2.0)))
    })?;

    for rule in prometheus.rules()? {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(packaging("grafana.json"))?)?;
    let panels = dashboard["panels"].as_array().ok_or("panels")?;
    for panel in panels {
        for target in panel["targets"].as_array().ok_or("targets")? {
            let expression = target["expr"].as_str().ok_or("an expression")?;
            let expression = filled_in(expression);
            let found = prometheus.query(&expression)?;
            assert!(!found.is_empty(), "{}: nothing for {expression}", panel["title"]);
        }
    }
    let rate = prometheus.query("sum(rate(dirtyrig_dirtied_pages_total[1m])) * 4096 / 1048576")?;
    assert!(value(&rate[0]) > 0.0, "{rate:?}");
    Ok(())
}

/// An expression of the dashboard with what Grafana fills in.
fn filled_in(expression: &str) -> String {
    let mut filled = expression.replace("$__rate_interval", "1m");
    for variable in ["$instance", "$process", "$pid"] {
        filled = filled.replace(variable, ".*");
    }
    assert!(
        !filled.contains('$'),
        "a variable that this does not know: {expression}"
    );
    filled
}

fn value(sample: &Value) -> f64 {
    sample["value"][1]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(f64::NAN)
}

/// A Prometheus that scrapes once a second, until it is dropped.
struct Prometheus {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str, rules: &Path) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        let rules = rules.canonicalize()?;
        fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
                 rule_files: [ '{}' ]\n\
                 scrape_configs: [ {{ job_name: dirtyrig, static_configs: [ {{ targets: [ '{target}' ] }} ] }} ]\n",
                rules.display()
            ),
        )?;
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            address,
            _folder: folder,
        })
    }

    /// What an expression gives now: samples.
    fn query(&self, expression: &str) -> Result<Vec<Value>, Failed> {
        let encoded = expression.bytes().fold(String::new(), |mut encoded, byte| {
            // Writing to a String can't fail.
            let _ = write!(encoded, "%{byte:02X}");
            encoded
        });
        let data = self.get(&format!("/api/v1/query?query={encoded}"))?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// Every rule, each evaluated at least once.
    fn rules(&self) -> Result<Vec<Value>, Failed> {
        let mut rules = Vec::new();
        wait_until("the rules are evaluated", || {
            let data = self.get("/api/v1/rules")?;
            let groups = data["groups"].as_array().cloned().unwrap_or_default();
            rules = groups
                .iter()
                .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
                .collect();
            Ok(!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown"))
        })?;
        Ok(rules)
    }

    fn get(&self, path: &str) -> Result<Value, Failed> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("an answer with a body")?;
        let answer: Value = serde_json::from_str(body)?;
        if answer["status"] == "success" {
            Ok(answer["data"].clone())
        } else {
            Err(format!("{path}: {answer}").into())
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to keep of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
