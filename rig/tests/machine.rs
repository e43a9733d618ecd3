//! The checks against the machine they run on.

use std::process::Command;

use dirtyrig_rig::machine::{Facts, check, kvm::Device, require_kvm};
use dirtyrig_ring::RingSize;
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;

fn main() {
    run(vec![
        trial("kvm is found where it is", &[Need::Kvm], kvm_is_found),
        trial("facts survive a manifest", &[], facts_survive),
        trial("doctor's exit code says what its report says", &[], exit_code_agrees),
    ]);
}

fn kvm_is_found() -> Result<(), Failed> {
    require_kvm()?;
    let facts = Facts::gather();
    let Device::Usable(capabilities) = &facts.kvm.device else {
        return Err(format!("{:?} although a VM can be created", facts.kvm.device).into());
    };
    RingSize::new(capabilities.dirty_ring_entries)?;
    if facts.kvm.module.is_none() {
        return Err("a VM can be created, so a module runs it".into());
    }
    Ok(())
}

fn facts_survive() -> Result<(), Failed> {
    let mut facts = Facts::gather();
    let mut again: Facts = serde_json::from_str(&serde_json::to_string(&facts.to_map())?)?;
    // JSON may cost a float its last bit; that there is a report is enough.
    if facts.noise.take().is_some() != again.noise.take().is_some() {
        return Err("the noise was lost".into());
    }
    if again != facts {
        return Err(format!("{again:?} was read back for {facts:?}").into());
    }
    Ok(())
}

fn exit_code_agrees() -> Result<(), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["doctor", "--json"])
        .output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let expected = if report["ready"] == true { 0 } else { 4 };
    if output.status.code() != Some(expected) {
        return Err(format!("{} with ready: {}", output.status, report["ready"]).into());
    }
    // Those of the facts, and the one that attaches the probes.
    let names = report["checks"].as_array().map(Vec::len);
    if names != Some(check::CHECKS.len() + 1) {
        return Err(format!("{names:?} of {} checks are in the report", check::CHECKS.len() + 1).into());
    }
    Ok(())
}
