//! What a shell offers after `--pid` and `--vm`: the VMs that run.

use clap_complete::engine::CompletionCandidate;
use dirtyrig_probes::identity;

/// The process id of every VM of this host, explained by the VM's name.
pub fn pids() -> Vec<CompletionCandidate> {
    let candidate = |vm: identity::Vm| CompletionCandidate::new(vm.pid.to_string()).help(vm.name.map(Into::into));
    identity::vms().into_iter().map(candidate).collect()
}

/// The name of every VM of this host that has one.
pub fn names() -> Vec<CompletionCandidate> {
    let names = identity::vms().into_iter().filter_map(|vm| vm.name);
    names.map(CompletionCandidate::new).collect()
}
