//! A QEMU that runs already: found through its monitor.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dirtyrig_probes::identity::proc_text;
use serde_json::{Value, json};

use super::{error::QemuError, version::Version};
use crate::qmp::client::{QmpClient, QmpError};

/// For how many seconds its pages are logged before a limit does it: a warm-up and a bit, because it goes on after us.
pub(super) const LOGGED_S: u64 = 5;

/// What is known of it.
#[derive(Debug)]
pub struct Running {
    /// The connection to its monitor.
    pub client: QmpClient,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: Version,
    /// The thread of each vCPU by QEMU's `cpu-index`, which has gaps where vCPUs are plugged.
    pub threads: BTreeMap<usize, u32>,
}

impl Running {
    /// The one whose monitor listens at `socket`.
    pub fn find(socket: &Path) -> Result<Self, QemuError> {
        let mut client = QmpClient::connect(socket)?;
        let (major, minor, micro) = client.version()?;
        let version = Version::new(major, minor, micro);
        if version.law().is_none() {
            return Err(QemuError::TooOld {
                path: socket.to_owned(),
                version,
            });
        }
        let threads = threads(&mut client)?;
        // The socket's maker is QEMU, but for one that was handed over open; its vCPU threads are QEMU's in any case.
        let pid = threads
            .values()
            .next()
            .and_then(|thread| process_of(*thread))
            .filter(|&pid| threads.values().all(|thread| process_of(*thread) == Some(pid)))
            .ok_or_else(|| QemuError::NoProcess {
                path: socket.to_owned(),
            })?;
        Ok(Self {
            client,
            pid,
            version,
            threads,
        })
    }

    /// Makes sure that it can limit, and that nobody else does.
    pub fn check_ring(&mut self) -> Result<(), QemuError> {
        let limits = self.client.execute("query-vcpu-dirty-limit", &Value::Null)?;
        if limits.as_array().is_some_and(|limits| !limits.is_empty()) {
            return Err(QemuError::LimitedAlready { pid: self.pid });
        }
        // Measuring is what tells, and the pages are to be logged from now on anyway.
        let arguments = json!({ "calc-time": LOGGED_S, "mode": "dirty-ring" });
        match self.client.execute("calc-dirty-rate", &arguments) {
            Err(QmpError::Refused { reason, .. }) if reason.contains("dirty-ring") => {
                Err(QemuError::NoRing { pid: self.pid })
            }
            // Somebody else's measurement is under way, and logs the pages as well.
            Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Entries of its dirty rings, as far as its command line says.
    pub fn ring_entries(&self) -> Option<u32> {
        let line = proc_text(format!("/proc/{}/cmdline", self.pid)).ok()?;
        ring_in(&line)
    }

    /// Its memory in MiB.
    pub fn memory_mib(&mut self) -> Result<u64, QemuError> {
        let sizes = self.client.execute("query-memory-size-summary", &Value::Null)?;
        Ok(sizes["base-memory"].as_u64().unwrap_or(0) >> 20)
    }
}

/// The thread of each vCPU, by `cpu-index`.
pub(super) fn threads(client: &mut QmpClient) -> Result<BTreeMap<usize, u32>, QmpError> {
    let cpus = client.execute("query-cpus-fast", &Value::Null)?;
    let of_one = |cpu: &Value| {
        let (index, thread) = (cpu["cpu-index"].as_u64()?, cpu["thread-id"].as_u64()?);
        Some((usize::try_from(index).ok()?, u32::try_from(thread).ok()?))
    };
    Ok(cpus.as_array().into_iter().flatten().filter_map(of_one).collect())
}

fn process_of(thread: u32) -> Option<u32> {
    let path = PathBuf::from(format!("/proc/{thread}/status"));
    let status = proc_text(path).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))?
        .trim()
        .parse()
        .ok()
}

/// The ring's size in a command line, whose words end with zeros.
fn ring_in(line: &str) -> Option<u32> {
    let mut words = line.split('\0');
    words.find(|word| word.trim_start_matches('-') == "accel")?;
    let options = words.next()?.split(',');
    options
        .filter_map(|option| option.strip_prefix("dirty-ring-size="))
        .next_back()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_read_from_the_command_line() {
        let line = |words: &[&str]| words.join("\0");
        assert_eq!(
            ring_in(&line(&["qemu", "-m", "1G", "-accel", "kvm,dirty-ring-size=4096"])),
            Some(4096)
        );
        assert_eq!(
            ring_in(&line(&["qemu", "--accel", "kvm,dirty-ring-size=1024,x=y", ""])),
            Some(1024)
        );
        assert_eq!(ring_in(&line(&["qemu", "-accel", "kvm"])), None);
        assert_eq!(ring_in(&line(&["qemu", "-enable-kvm"])), None);
    }

    #[test]
    fn this_process_has_this_thread() {
        assert_eq!(
            process_of(nix::unistd::gettid().as_raw().unsigned_abs()),
            Some(std::process::id())
        );
        // Above the largest id that Linux gives out.
        assert!(process_of(4_194_305).is_none());
    }
}
