//! The commands themselves, with QEMU's semantics; [`session`](super::session) and [`hmp`](super::hmp) are their two
//! spellings.

use std::{sync::Arc, time::Duration};

use dirtyrig_limiter::{
    limit::{LimitInfo, Which},
    units::Quota,
};

use super::{
    dirty_rate::DirtyRate,
    vm::LimitedVm,
    wire::{DirtyLimitInfo, DirtyRateInfo, DirtyRateMode, Error, TimeUnit, Triple, Version},
};
use crate::engine::limits::Whom;

/// The QEMU whose commands are spoken: the shapes of replies were compared with this version's.
const SPOKEN: Triple = Triple {
    major: 10,
    minor: 0,
    micro: 0,
};

/// A monitor of one VM; any number of clients may share it.
pub struct Monitor {
    vm: Arc<dyn LimitedVm>,
    dirty_rate: DirtyRate,
}

impl Monitor {
    /// A monitor of `vm`.
    pub fn new(vm: Arc<dyn LimitedVm>) -> Self {
        Self {
            dirty_rate: DirtyRate::new(Arc::clone(&vm)),
            vm,
        }
    }

    /// Begins the end, as `quit` does.
    pub fn quit(&self) {
        self.vm.quit();
    }

    pub(super) fn vm(&self) -> &dyn LimitedVm {
        &*self.vm
    }

    /// Limits a vCPU, or each of them, to `rate` MiB/s; 0 cancels.
    pub(super) fn set(&self, cpu: Option<i64>, rate: u64) -> Result<(), Error> {
        if rate == 0 {
            return self.cancel(cpu);
        }
        let quota = Quota::new(rate as f64).map_err(|error| Error::generic(error.to_string()))?;
        let which = which(cpu)?;
        Ok(self.vm.limits()?.set(Whom::Vcpus(which), quota)?)
    }

    /// Takes the limit of a vCPU, or of each, away.
    pub(super) fn cancel(&self, cpu: Option<i64>) -> Result<(), Error> {
        let which = which(cpu)?;
        Ok(self.vm.limits()?.cancel(Whom::Vcpus(which))?)
    }

    /// Changes how much a guest may save up.
    pub(super) fn set_burst(&self, millis: u64) -> Result<(), Error> {
        if millis == 0 {
            return Err(Error::generic(
                "parameter 'burst' is 0, which would let a vCPU dirty nothing: give a whole number of ms above 0",
            ));
        }
        Ok(self.vm.limits()?.set_burst(Duration::from_millis(millis))?)
    }

    /// The vCPUs that have a limit.
    pub(super) fn query(&self) -> Result<Vec<DirtyLimitInfo>, Error> {
        let rows = self.vm.limits()?.query()?.vcpus;
        let row = |row: &LimitInfo| DirtyLimitInfo {
            cpu_index: row.vcpu as u64,
            // A limit below 1, which no client can set here, must not read as none.
            limit_rate: (row.quota.mib_per_sec().round() as u64).max(1),
            current_rate: row.current.0 as u64,
        };
        Ok(rows.iter().map(row).collect())
    }

    pub(super) fn calc_dirty_rate(
        &self,
        time: i64,
        unit: TimeUnit,
        mode: DirtyRateMode,
        sample_pages: Option<i64>,
    ) -> Result<(), Error> {
        if sample_pages.is_some() && mode != DirtyRateMode::PageSampling {
            return Err(Error::generic(
                "'sample-pages' is for mode page-sampling alone: leave it out",
            ));
        }
        self.dirty_rate.begin(time, unit, mode)
    }

    pub(super) fn query_dirty_rate(&self, unit: TimeUnit) -> Result<DirtyRateInfo, Error> {
        self.dirty_rate.query(unit)
    }
}

/// Who speaks: what QEMU it speaks like, and that it is none.
pub(super) fn version() -> Version {
    Version {
        qemu: SPOKEN,
        package: concat!("dirtyrig ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

fn which(cpu: Option<i64>) -> Result<Which, Error> {
    cpu.map_or(Ok(Which::All), |index| {
        usize::try_from(index).map(Which::One).map_err(|_| {
            Error::generic(format!(
                "vCPU {index} does not exist: give an index from 0, or none for all"
            ))
        })
    })
}
