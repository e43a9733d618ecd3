//! What makes two rows repetitions of the same thing.

use std::{cmp::Ordering, collections::BTreeSet, fmt};

use serde::Serialize;

use crate::model::Summary;

/// One vCPU of one point of a sweep; its repetitions are pooled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Name and version of the VMM.
    pub vmm: String,
    /// Name of the limiter.
    pub limiter: String,
    /// Entries of a vCPU's ring; none where that is not known.
    pub ring_entries: Option<u32>,
    /// The measuring period.
    pub period_ms: u64,
    /// The limit; none where nothing was limited.
    pub quota_mib_s: Option<f64>,
    /// The limit of all vCPUs together, where there was one.
    pub vm_quota_mib_s: Option<f64>,
    /// Program of this vCPU; none of a guest that is not ours.
    pub guest: Option<String>,
    /// How many vCPUs there were.
    pub vcpus: u32,
    /// Index of this one.
    pub vcpu: u32,
    /// Memory that is dirtied, all vCPUs together; none of a guest that is not ours.
    pub memory_mib: Option<u64>,
}

impl Cell {
    /// Whose repetition a row is.
    pub fn of(row: &Summary) -> Self {
        Self {
            vmm: row.vmm.clone(),
            limiter: row.limiter.clone(),
            ring_entries: row.ring_entries,
            period_ms: row.period_ms,
            quota_mib_s: row.quota_mib_s,
            vm_quota_mib_s: row.vm_quota_mib_s,
            guest: row.guest.clone(),
            vcpus: row.vcpus,
            vcpu: row.vcpu,
            memory_mib: row.memory_mib,
        }
    }
}

impl Eq for Cell {}

impl PartialOrd for Cell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cell {
    fn cmp(&self, other: &Self) -> Ordering {
        // No limit is the largest.
        let quota = |cell: &Self| cell.quota_mib_s.unwrap_or(f64::INFINITY);
        let vm_quota = |cell: &Self| cell.vm_quota_mib_s.unwrap_or(f64::INFINITY);
        let key = |cell: &Self| {
            (
                cell.vmm.clone(),
                cell.limiter.clone(),
                cell.ring_entries,
                cell.period_ms,
            )
        };
        let rest = |cell: &Self| (cell.guest.clone(), cell.vcpus, cell.vcpu, cell.memory_mib);
        key(self)
            .cmp(&key(other))
            .then(quota(self).total_cmp(&quota(other)))
            .then(vm_quota(self).total_cmp(&vm_quota(other)))
            .then_with(|| rest(self).cmp(&rest(other)))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period_s = self.period_ms as f64 / 1000.0;
        let ring = self
            .ring_entries
            .map_or_else(|| "unknown".to_owned(), |entries| entries.to_string());
        write!(f, "{} ring {ring} {period_s} s", self.limiter)?;
        match self.quota_mib_s {
            Some(quota) => write!(f, " quota {quota}")?,
            None if self.vm_quota_mib_s.is_some() => {}
            None => write!(f, " unlimited")?,
        }
        if let Some(quota) = self.vm_quota_mib_s {
            write!(f, " VM quota {quota}")?;
        }
        match self.guest.as_deref() {
            Some("sequential") => {}
            guest => write!(f, " {}", guest.unwrap_or("guest unknown"))?,
        }
        if self.vcpus > 1 {
            write!(f, " vCPU {}/{}", self.vcpu, self.vcpus)?;
        }
        if self.vmm != "rig" {
            write!(f, " on {}", self.vmm)?;
        }
        Ok(())
    }
}

/// The cells that rows are repetitions of.
pub fn cells(rows: &[Summary]) -> BTreeSet<Cell> {
    rows.iter().map(Cell::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_one_cell_and_its_name_says_what_is_unusual() {
        let row = |cell, quota| Summary {
            cell,
            repetition: cell,
            vmm: "rig".to_owned(),
            limiter: "qemu-7.2".to_owned(),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(4096),
            period_ms: 500,
            vcpus: 1,
            quota_mib_s: quota,
            ..Summary::default()
        };
        let cells = cells(&[row(0, None), row(1, Some(25.0)), row(2, Some(25.0)), row(3, Some(3.0))]);
        let names: Vec<String> = cells.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "qemu-7.2 ring 4096 0.5 s quota 3",
                "qemu-7.2 ring 4096 0.5 s quota 25",
                "qemu-7.2 ring 4096 0.5 s unlimited"
            ]
        );
        let odd = Summary {
            vmm: "qemu-10.0.2".to_owned(),
            guest: Some("random".to_owned()),
            vcpus: 2,
            vcpu: 1,
            ..row(0, None)
        };
        assert_eq!(
            Cell::of(&odd).to_string(),
            "qemu-7.2 ring 4096 0.5 s unlimited random vCPU 1/2 on qemu-10.0.2"
        );
    }
}
