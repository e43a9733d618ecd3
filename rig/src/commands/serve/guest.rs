//! The rig's guest, as a monitor sees it.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use dirtyrig_limiter::{
    limit::Which,
    units::{Pages, Quota},
};
use dirtyrig_machine::Machine;

use crate::{
    commands::output::note,
    engine::{
        interrupt::Interrupt,
        limits::{InForce, Limits, Whom},
        own_vm::OwnVm,
        target::Target,
    },
    qmp::{LimitedVm, VcpuInfo},
    scenario::values::Span,
};

/// The guest of a session. It doesn't keep the machine alive: a command that comes too late is refused.
pub(super) struct ServedGuest {
    machine: Weak<Machine>,
    vcpus: usize,
    interrupt: Interrupt,
    /// Whether a client, not a signal, wanted the end. Relaxed: read after the thread that sets it was joined.
    quit: AtomicBool,
    /// Whether changes are told on stderr.
    tells: bool,
}

impl ServedGuest {
    pub(super) fn new(vm: &OwnVm, interrupt: Interrupt, tells: bool) -> Self {
        Self {
            vcpus: vm.max_vcpus(),
            machine: vm.machine(),
            interrupt,
            quit: AtomicBool::new(false),
            tells,
        }
    }

    /// Whether a client ended the session.
    pub(super) fn was_quit(&self) -> bool {
        self.quit.load(Ordering::Relaxed)
    }

    /// Takes every vCPU out of the guest and out of its sleep, for good: no command waits for one any more.
    pub(super) fn halt(&self) {
        if let Some(machine) = self.machine.upgrade() {
            (0..self.vcpus).for_each(|vcpu| machine.unplug(vcpu));
        }
    }

    fn machine(&self) -> anyhow::Result<Arc<Machine>> {
        self.machine.upgrade().context("the guest has ended")
    }

    fn tell(&self, change: impl FnOnce() -> String) {
        if self.tells {
            note(change());
        }
    }
}

impl LimitedVm for ServedGuest {
    fn vcpus(&self) -> Vec<VcpuInfo> {
        let threads = threads();
        (0..self.vcpus)
            .map(|index| VcpuInfo {
                index,
                thread: threads.get(&format!("vcpu{index}")).copied(),
            })
            .collect()
    }

    fn is_running(&self) -> bool {
        self.machine.strong_count() > 0
    }

    fn limits(&self) -> anyhow::Result<Box<dyn Limits + '_>> {
        let machine = self.machine()?;
        Ok(Box::new(Told { machine, guest: self }))
    }

    fn dirtied(&self) -> anyhow::Result<Vec<Pages>> {
        let machine = self.machine()?;
        machine.flush()?;
        Ok((0..self.vcpus).map(|vcpu| machine.harvested(vcpu)).collect())
    }

    fn quit(&self) {
        self.quit.store(true, Ordering::Relaxed);
        self.interrupt.set();
    }
}

/// The limits of the guest, whose changes the user is told of.
struct Told<'a> {
    machine: Arc<Machine>,
    guest: &'a ServedGuest,
}

impl Limits for Told<'_> {
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()> {
        Limits::set(self.machine.limit(), whom, quota)?;
        self.guest
            .tell(|| format!("a client set {} on {}", quota.rate(), of(whom)));
        Ok(())
    }

    fn cancel(&self, whom: Whom) -> anyhow::Result<()> {
        Limits::cancel(self.machine.limit(), whom)?;
        self.guest
            .tell(|| format!("a client cancelled the limit of {}", of(whom)));
        Ok(())
    }

    fn set_burst(&self, burst: Duration) -> anyhow::Result<()> {
        self.machine.limit().set_burst(burst)?;
        self.guest
            .tell(|| format!("a client lets each vCPU save up {}", Span(burst)));
        Ok(())
    }

    fn query(&self) -> anyhow::Result<InForce> {
        Limits::query(self.machine.limit())
    }
}

fn of(whom: Whom) -> String {
    match whom {
        Whom::Vm => "the VM".to_owned(),
        Whom::Vcpus(Which::All) => "every vCPU".to_owned(),
        Whom::Vcpus(Which::One(vcpu)) => format!("vCPU {vcpu}"),
    }
}

/// The threads of this process by name; none where /proc is hidden.
fn threads() -> HashMap<String, i32> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            // One that has ended meanwhile is none of ours.
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            let id = entry.file_name().to_str()?.parse().ok()?;
            Some((name.trim_end().to_owned(), id))
        })
        .collect()
}
