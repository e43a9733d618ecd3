//! The systemd unit for `limit`, run as systemd does: as nobody, with the unit's capabilities and no others.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use dirtyrig_rig::qmp::client::QmpClient;
use libtest_mimic::Failed;
use nix::unistd::{Gid, Uid, chown};
use serde_json::{Value, json};

use super::{
    eventually,
    identity::{launch, started},
};

const NAME: &str = "vm for a unit";
/// Whom nothing belongs to.
const NOBODY: u32 = 65534;

/// What the unit says, and a place in which it is run.
struct Unit {
    text: String,
    folder: tempfile::TempDir,
}

impl Unit {
    fn new() -> Result<Self, Failed> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/dirtyrig-limit@.service");
        // Nobody may look into the folder in which this was built.
        let folder = tempfile::Builder::new().prefix("unit").tempdir_in("/var/tmp")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::copy(env!("CARGO_BIN_EXE_dirtyrig"), folder.path().join("dirtyrig"))?;
        Ok(Self {
            text: fs::read_to_string(path)?,
            folder,
        })
    }

    fn value(&self, key: &str) -> Result<&str, Failed> {
        let value = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        Ok(value.ok_or_else(|| format!("the unit has no {key}"))?)
    }

    fn capabilities(&self) -> Result<Vec<String>, Failed> {
        let listed = self.value("AmbientCapabilities")?;
        assert_eq!(listed, self.value("CapabilityBoundingSet")?);
        Ok(listed
            .split(' ')
            .map(|name| name.replacen("CAP_", "+", 1).to_lowercase())
            .collect())
    }

    /// A folder of nobody's.
    fn folder_of_its_own(&self, name: &str) -> Result<PathBuf, Failed> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        chown(&path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)))?;
        Ok(path)
    }

    /// The unit's command with its specifiers and variables filled in, in words.
    fn words(&self, options: &str) -> Result<Vec<String>, Failed> {
        let runtime = self.folder_of_its_own("run")?.display().to_string();
        let command = self.value("ExecStart")?.replace("%t/dirtyrig-limit/%i", &runtime);
        let mut words = Vec::new();
        for word in command.split(' ').skip(1) {
            match word {
                "%I" => words.push(NAME.to_owned()),
                "${QUOTA}" => words.push("20".to_owned()),
                "$OPTIONS" => words.extend(options.split_whitespace().map(str::to_owned)),
                other => words.push(other.to_owned()),
            }
        }
        assert!(!words.iter().any(|word| word.contains(['%', '$'])), "{words:?}");
        Ok(words)
    }

    fn command(&self, words: &[String], capabilities: &[String], folder: &str) -> Result<Command, Failed> {
        let listed = format!("-all,{}", capabilities.join(","));
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
            .args(["--clear-groups", "--no-new-privs"])
            .arg(format!("--inh-caps={listed}"))
            .arg(format!("--ambient-caps={listed}"))
            .arg(format!("--bounding-set={listed}"))
            .arg(self.folder.path().join("dirtyrig"))
            .args(words)
            .current_dir(self.folder_of_its_own(folder)?)
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// What is limited, by the recording that a run left in `folder`.
fn limited(folder: &Path) -> Result<Value, Failed> {
    let run = fs::read_dir(folder.join("results"))?.next().ok_or("a recording")??;
    let manifest: Value = serde_json::from_str(&fs::read_to_string(run.path().join("manifest.json"))?)?;
    Ok(manifest["scenario"]["limited"].clone())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It holds a VM of another user by its name or its process, one vCPU by its number, and QMP clients command it.
pub(super) fn its_capabilities_are_enough() -> Result<(), Failed> {
    let unit = Unit::new()?;
    let all = unit.capabilities()?;
    let name = format!("guest={NAME},debug-threads=on");
    let qemu = started(launch("2", &[0, 1], &["-name", &name]))?;

    let child = unit
        .command(&unit.words("--vcpu 1")?, &all, "by-name")?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let socket = unit.folder.path().join("run/qmp.sock");
    eventually("its socket", || socket.exists());
    let mut client = QmpClient::connect(&socket)?;
    let mut limits = Value::Null;
    eventually("the limit of one vCPU", || {
        limits = client
            .execute("query-vcpu-dirty-limit", &json!({}))
            .unwrap_or_else(|error| json!(error.to_string()));
        limits.as_array().is_some_and(|limits| limits.len() == 1)
    });
    assert_eq!(limits[0]["cpu-index"], 1, "{limits}");
    client.execute("quit", &json!({}))?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("runs free again"), "{}", said(&output));
    let found = limited(&unit.folder.path().join("by-name"))?;
    assert_eq!(found["vcpu_is"], "cpu-index", "{found}");

    let pid = qemu.pid().to_string();
    let by_pid = [
        "limit",
        "--pid",
        &pid,
        "--quota",
        "20",
        "--vcpu",
        "1",
        "--duration",
        "300ms",
    ]
    .map(str::to_owned);
    let output = unit.command(&by_pid, &all, "by-pid")?.output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let found = limited(&unit.folder.path().join("by-pid"))?;
    let ids: Vec<_> = found["vcpus"]
        .as_array()
        .ok_or("vCPUs")?
        .iter()
        .map(|vcpu| &vcpu["kvm_id"])
        .collect();
    assert_eq!(ids, [&json!(0), &json!(1)], "{found}");

    for without in &all {
        let rest: Vec<String> = all.iter().filter(|&name| name != without).cloned().collect();
        let output = unit.command(&by_pid, &rest, "less")?.output()?;
        assert!(
            !output.status.success(),
            "{without} is listed and not needed: {}",
            said(&output)
        );
        // What can't be looked at isn't taken for absent.
        assert!(!said(&output).contains("has no KVM VM"), "{without}: {}", said(&output));
    }
    Ok(())
}
