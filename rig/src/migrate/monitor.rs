//! What a migration needs of QEMU's monitor.

use std::{path::Path, time::Duration};

use dirtyrig_limiter::units::{PAGE_SIZE, Pages};
use serde_json::{Value, json};

use super::error::MigrateError;
use crate::{
    qemu::{running::Running, version::Version},
    qmp::client::{Event, QmpClient, QmpError},
};

/// How often it is looked whether a migration was started.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The monitor of a running QEMU.
#[derive(Debug)]
pub struct Monitor {
    pub(super) client: QmpClient,
    pid: u32,
    version: Version,
    vcpus: usize,
}

/// How far a migration is, by QEMU's account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// QEMU's word: `active`, `completed`, `failed`, ...; empty before the first migration.
    pub status: String,
    /// Pages that QEMU knows to be left.
    pub left: Pages,
    /// Pages that were sent, those of zeros included.
    pub sent_pages: Pages,
    /// Bytes on the wire.
    pub sent_bytes: u64,
    /// Memory of the VM.
    pub memory: Pages,
    /// Syncs so far.
    pub syncs: u64,
    /// How long it has taken, or took.
    pub total: Duration,
    /// How long the VM was away, known at the end.
    pub downtime: Option<Duration>,
    /// Time that every vCPU sleeps, where QEMU throttles.
    pub throttle_pct: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Progress {
    /// Whether it goes on.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.status.as_str(), "" | "none" | "completed" | "failed" | "cancelled")
    }
}

impl Monitor {
    /// Of the QEMU whose monitor listens at `socket`.
    pub fn connect(socket: &Path) -> Result<Self, MigrateError> {
        let running = Running::find(socket)?;
        Ok(Self {
            client: running.client,
            pid: running.pid,
            version: running.version,
            vcpus: running.threads.len(),
        })
    }

    /// The process of QEMU.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How many vCPUs it has.
    pub fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// An error if something stands in the way of a migration that can be seen before it starts.
    pub fn check(&mut self) -> Result<(), MigrateError> {
        let info = self.client.execute("query-migrate", &Value::Null)?;
        let progress = progress_in(&info);
        if progress.is_under_way() {
            return Err(MigrateError::UnderWay {
                status: progress.status,
            });
        }
        let reasons: Vec<String> = strings(&info["blocked-reasons"]);
        if !reasons.is_empty() {
            return Err(MigrateError::Blocked { reasons });
        }
        let status = self.client.execute("query-status", &Value::Null)?;
        if status["running"].as_bool() == Some(false) {
            let status = status["status"].as_str().unwrap_or("not running").to_owned();
            return Err(MigrateError::NotRunning { status });
        }
        Ok(())
    }

    /// Waits until a migration is under way; false if `is_over` says so first.
    pub fn wait_for_migration(&mut self, is_over: impl Fn() -> bool) -> Result<bool, MigrateError> {
        while !self.progress()?.is_under_way() {
            if is_over() {
                return Ok(false);
            }
            // Whatever happens there is a reason to look.
            self.next_event(LOOK_EVERY)?;
        }
        Ok(true)
    }

    /// Memory that a migration sends: the guest's RAM, and that of its devices.
    pub fn memory(&mut self) -> Result<Pages, MigrateError> {
        match self.client.execute("x-query-ramblock", &Value::Null) {
            Ok(text) => {
                let used = ram_blocks(text["human-readable-text"].as_str().unwrap_or_default());
                if used > 0 {
                    return Ok(Pages(used.div_ceil(PAGE_SIZE)));
                }
            }
            Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let sizes = self.client.execute("query-memory-size-summary", &Value::Null)?;
        let bytes = |name: &str| sizes[name].as_u64().unwrap_or(0);
        Ok(Pages(
            bytes("base-memory")
                .saturating_add(bytes("plugged-memory"))
                .div_ceil(PAGE_SIZE),
        ))
    }

    /// The highest rate that QEMU may send at, `None` for any.
    pub fn max_bandwidth(&mut self) -> Result<Option<u64>, MigrateError> {
        let parameters = self.client.execute("query-migrate-parameters", &Value::Null)?;
        Ok(parameters["max-bandwidth"].as_u64().filter(|&rate| rate != 0))
    }

    /// Starts it.
    pub fn start(&mut self, uri: &str) -> Result<(), MigrateError> {
        self.client.execute("migrate", &json!({ "uri": uri }))?;
        Ok(())
    }

    /// Cancels it; it goes on until QEMU says otherwise.
    pub fn cancel(&mut self) -> Result<(), MigrateError> {
        self.client.execute("migrate_cancel", &Value::Null)?;
        Ok(())
    }

    /// Any command.
    pub fn command(&mut self, command: &str, arguments: &Value) -> Result<Value, MigrateError> {
        Ok(self.client.execute(command, arguments)?)
    }

    /// Its parameters and capabilities of migration.
    pub fn settings(&mut self) -> Result<(Value, Value), MigrateError> {
        let parameters = self.command("query-migrate-parameters", &Value::Null)?;
        Ok((parameters, self.command("query-migrate-capabilities", &Value::Null)?))
    }

    /// How far it is.
    pub fn progress(&mut self) -> Result<Progress, MigrateError> {
        Ok(progress_in(&self.client.execute("query-migrate", &Value::Null)?))
    }

    /// The next event, waited for no longer than `patience`.
    pub fn next_event(&mut self, patience: Duration) -> Result<Option<Event>, MigrateError> {
        Ok(self.client.next_event(patience)?)
    }
}

fn strings(list: &Value) -> Vec<String> {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}

fn progress_in(info: &Value) -> Progress {
    let ram = &info["ram"];
    let number = |name: &str| ram[name].as_u64().unwrap_or(0);
    let millis = |value: &Value| value.as_u64().map(Duration::from_millis);
    Progress {
        status: info["status"].as_str().unwrap_or_default().to_owned(),
        left: Pages(number("remaining").div_ceil(PAGE_SIZE)),
        sent_pages: Pages(number("normal").saturating_add(number("duplicate"))),
        sent_bytes: number("transferred"),
        memory: Pages(number("total").div_ceil(PAGE_SIZE)),
        syncs: number("dirty-sync-count"),
        total: millis(&info["total-time"]).unwrap_or_default(),
        downtime: millis(&info["downtime"]),
        throttle_pct: info["cpu-throttle-percentage"].as_u64(),
        error: info["error-desc"].as_str().map(str::to_owned),
    }
}

/// Bytes in use, in the table of QEMU's memory blocks: a line each, with page size, offset, used and total bytes.
fn ram_blocks(table: &str) -> u64 {
    let used = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut hex = words
            .iter()
            .filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        hex.nth(1)
    };
    table.lines().skip(1).filter_map(used).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_sum_of_the_blocks_in_use() {
        let table = "              Block Name    PSize              Offset               Used              Total                HVA  RO\n\
                     \x20                    ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000 0x00007f7b47e00000  rw\n\
                     \x20   /rom@etc/acpi/tables    4 KiB  0x0000000004040000 0x0000000000020000 0x0000000000200000 0x00007f7b47a00000  ro\n";
        assert_eq!(ram_blocks(table), 0x402_0000);
        assert_eq!(ram_blocks(""), 0);
    }

    #[test]
    fn what_qemu_leaves_out_is_not_known() {
        let none = progress_in(&json!({}));
        assert!(!none.is_under_way() && none.downtime.is_none() && none.error.is_none());
        let active = progress_in(&json!({
            "status": "active", "total-time": 1500,
            "ram": {"remaining": 8193, "normal": 7, "duplicate": 3, "transferred": 5, "total": 16384, "dirty-sync-count": 2},
        }));
        assert!(active.is_under_way());
        assert_eq!((active.left, active.sent_pages, active.syncs), (Pages(3), Pages(10), 2));
        let failed = progress_in(&json!({"status": "failed", "error-desc": "no route"}));
        assert!(!failed.is_under_way());
        assert_eq!(failed.error.as_deref(), Some("no route"));
    }

    proptest::proptest! {
        #[test]
        fn any_table_has_a_size(lines in proptest::collection::vec("(ram| |0x|[0-9a-f]{1,16}|KiB){0,12}", 0..4)) {
            let _ = ram_blocks(&lines.join("\n"));
        }

        #[test]
        fn any_numbers_are_progress(number: u64, other: u64) {
            let progress = progress_in(&json!({
                "status": 5, "total-time": number, "downtime": other, "error-desc": [],
                "ram": {"remaining": number, "normal": other, "duplicate": number, "total": number, "dirty-sync-count": -1},
            }));
            proptest::prop_assert!(!progress.is_under_way());
        }
    }
}
