//! What the VMs are called, by their processes: a process that gets the id of one that has ended is another VM.

use std::collections::BTreeMap;

use dirtyrig_probes::identity::{Vm, started, vm_of};

/// The VMs that were seen, each with when its process started.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<u32, (Option<u64>, Vm)>,
}

impl Names {
    /// Looks at a process again. One that has ended keeps its name, until another has its id.
    pub(super) fn look(&mut self, pid: u32) {
        self.look_with(pid, started(pid), vm_of);
    }

    fn look_with(&mut self, pid: u32, started: Option<u64>, name: impl FnOnce(u32) -> Vm) {
        let is_known = match self.known.get(&pid) {
            Some((then, _)) => started.is_none() || *then == started,
            None => false,
        };
        if !is_known {
            self.known.insert(pid, (started, name(pid)));
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<u32, Vm> {
        self.known.iter().map(|(&pid, (_, vm))| (pid, vm.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_the_process_that_has_the_id() {
        let mut names = Names::default();
        let mut look = |started, name: &str| {
            let vm = |pid| Vm {
                pid,
                name: Some(name.to_owned()),
                ..Vm::default()
            };
            names.look_with(7, started, vm);
            names.all()[&7].name.clone().unwrap_or_default()
        };
        assert_eq!(look(Some(100), "first"), "first");
        assert_eq!(look(Some(100), "renamed"), "first", "it is read once");
        assert_eq!(look(None, "nobody"), "first", "it has ended");
        assert_eq!(look(Some(200), "second"), "second");
    }

    #[test]
    fn this_process_started_once() {
        let own = started(std::process::id());
        assert!(own.is_some() && own == started(std::process::id()));
    }
}
