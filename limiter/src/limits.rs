//! The limits in force and the readings behind them: what the commands write, the governor adjusts, the vCPUs read.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    limit::{LimitError, LimitInfo, Which},
    units::{MibPerSec, Micros, Quota},
};

#[derive(Debug)]
struct Table {
    quotas: Vec<Option<Quota>>,
    /// One quota for all vCPUs together.
    vm: Option<Quota>,
    readings: Vec<MibPerSec>,
}

impl Table {
    fn in_service(&self) -> bool {
        self.vm.is_some() || self.quotas.iter().any(Option::is_some)
    }
}

/// The limits of a machine's vCPUs.
#[derive(Debug)]
pub(crate) struct Limits {
    table: Mutex<Table>,
    /// Raised after every change of a limit, so that a vCPU looks into the table only then.
    generation: AtomicU64,
    /// Whether any limit is in force.
    in_service: AtomicBool,
    /// The sleep of each vCPU after a ring-full exit; the governor writes it, the vCPU reads it. A lone value: Relaxed.
    throttles: Vec<AtomicU64>,
}

impl Limits {
    pub(crate) fn new(max_vcpus: usize) -> Self {
        let table = Table {
            quotas: vec![None; max_vcpus],
            vm: None,
            readings: vec![MibPerSec(0.0); max_vcpus],
        };
        Self {
            table: Mutex::new(table),
            generation: AtomicU64::new(0),
            in_service: AtomicBool::new(false),
            throttles: (0..max_vcpus).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    // ---- the commands ---------------------------------------------------------------------------------------------

    /// Sets or, with `None`, cancels; tells whether any limit is in force now.
    pub(crate) fn set(&self, which: Which, quota: Option<Quota>) -> Result<bool, LimitError> {
        let mut table = self.lock();
        let max = table.quotas.len();
        match which {
            Which::All => table.quotas.fill(quota),
            Which::One(vcpu) => *table.quotas.get_mut(vcpu).ok_or(LimitError::BadIndex { vcpu, max })? = quota,
        }
        Ok(self.changed(&table))
    }

    /// Sets or cancels the quota of the whole machine; tells whether any limit is in force now.
    pub(crate) fn set_vm(&self, quota: Option<Quota>) -> bool {
        let mut table = self.lock();
        table.vm = quota;
        self.changed(&table)
    }

    /// Has every vCPU look at its limits anew.
    pub(crate) fn touch(&self) {
        self.changed(&self.lock());
    }

    fn changed(&self, table: &Table) -> bool {
        let in_service = table.in_service();
        self.in_service.store(in_service, Ordering::Relaxed);
        // Release: pairs with the acquire in `generation`, so that who sees the count raised sees what it stands for.
        self.generation.fetch_add(1, Ordering::Release);
        in_service
    }

    /// The vCPUs that have a limit of their own, with the last reading of each.
    pub(crate) fn query(&self) -> Vec<LimitInfo> {
        let table = self.lock();
        let rows = table.quotas.iter().zip(&table.readings).enumerate();
        rows.filter_map(|(vcpu, (quota, current))| {
            quota.map(|quota| LimitInfo {
                vcpu,
                quota,
                current: *current,
            })
        })
        .collect()
    }

    // ---- the vCPUs ------------------------------------------------------------------------------------------------

    /// Changes whenever a limit does.
    pub(crate) fn generation(&self) -> u64 {
        // Acquire: pairs with the release in `changed`.
        self.generation.load(Ordering::Acquire)
    }

    /// Whether any limit is in force. A lone flag, Relaxed: whoever must not miss its change is woken after it.
    pub(crate) fn in_service(&self) -> bool {
        self.in_service.load(Ordering::Relaxed)
    }

    pub(crate) fn quota(&self, vcpu: usize) -> Option<Quota> {
        self.lock().quotas[vcpu]
    }

    pub(crate) fn vm_quota(&self) -> Option<Quota> {
        self.lock().vm
    }

    pub(crate) fn throttle(&self, vcpu: usize) -> Micros {
        Micros(self.throttles[vcpu].load(Ordering::Relaxed))
    }

    // ---- the governor ---------------------------------------------------------------------------------------------

    pub(crate) fn quotas(&self) -> Vec<Option<Quota>> {
        self.lock().quotas.clone()
    }

    pub(crate) fn set_throttle(&self, vcpu: usize, throttle: Micros) {
        self.throttles[vcpu].store(throttle.0, Ordering::Relaxed);
    }

    pub(crate) fn set_readings(&self, readings: &[MibPerSec]) {
        self.lock().readings.copy_from_slice(readings);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each update is a single assignment: a panic elsewhere leaves none half-done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
