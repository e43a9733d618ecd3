//! Who is which vCPU, on real KVM: what the kernel says holds, whatever threads are called.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use dirtyrig_probes::{
    Options, Probes, Target,
    identity::{Evidence, Number, NumberKind, index_in_thread_name, vcpu_threads},
};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{AfterExit, Guest, Shape};

fn main() {
    run(vec![
        trial(
            "names_are_labels_and_the_kernel_is_right",
            &[Need::Kvm, Need::Bpf],
            names_are_labels,
        ),
        trial(
            "a_thread_is_told_without_an_event_of_its",
            &[Need::Kvm, Need::Bpf],
            without_an_event,
        ),
    ]);
}

const VCPUS: usize = 2;

fn started() -> Guest {
    let nothing: AfterExit = Arc::new(|_, _| {});
    let mut guest = Guest::new(Shape {
        vcpus: VCPUS,
        ring_entries: 1024,
        pages_per_vcpu: 2048,
    });
    guest.start(&Arc::new(AtomicBool::new(true)), &nothing);
    for vcpu in 0..VCPUS {
        guest.wait_for(vcpu, 1);
    }
    guest
}

fn rename(thread: u32, name: &str) -> Result<(), Failed> {
    Ok(fs::write(format!("/proc/self/task/{thread}/comm"), name)?)
}

/// Each vCPU's thread is called as the other's, and a thread that runs none is called as one of them too.
fn names_are_labels() -> Result<(), Failed> {
    let guest = started();
    let me = nix::unistd::gettid().as_raw().unsigned_abs();
    let (of_0, of_1) = (guest.thread(0), guest.thread(1));
    for (names, kind) in [
        (["CPU 0/KVM", "CPU 1/KVM", "CPU 2/KVM"], NumberKind::CpuIndex),
        (["CPU 1/KVM", "CPU 0/KVM", "CPU 0/KVM"], NumberKind::KvmId),
        (["CPU 1/KVM", "CPU 1/KVM", "CPU 1/KVM"], NumberKind::KvmId),
        (["CPU 0/KVM", "anything", "CPU 1/KVM"], NumberKind::KvmId),
    ] {
        for (thread, name) in [of_0, of_1, me].into_iter().zip(names) {
            rename(thread, name)?;
        }
        assert_eq!(
            index_in_thread_name(std::process::id(), me).is_some(),
            names[2].starts_with("CPU")
        );
        let mut probes = Probes::attach(&Options::new(Target::Pid(std::process::id())))?;
        let mut shown = BTreeMap::new();
        while shown.len() < VCPUS {
            std::thread::sleep(Duration::from_millis(5));
            let vcpus = probes.vcpus()?.into_iter();
            shown = vcpus.filter_map(|vcpu| Some((vcpu.thread, vcpu.number?))).collect();
        }
        let number = |value| Number { value, kind };
        assert_eq!(
            shown,
            BTreeMap::from([(of_0, number(0)), (of_1, number(1))]),
            "{names:?}"
        );
    }
    Ok(())
}

/// From outside, with nothing attached: neither does a thread have to leave `KVM_RUN`, nor to sleep.
fn without_an_event() -> Result<(), Failed> {
    let guest = started();
    let wanted = BTreeSet::from([0, 1, 7]);
    let found = vcpu_threads(std::process::id(), &wanted, &BTreeSet::new(), false);
    for vcpu in 0..VCPUS as u32 {
        let of = found.get(&vcpu).ok_or("it runs")?;
        assert_eq!(of.thread, guest.thread(vcpu as usize));
        let evidence = of.vcpu.kvm.map(|kvm| kvm.evidence);
        assert_eq!(
            evidence,
            Some(Evidence::Debugfs),
            "KVM keeps a note of it since Linux 5.18"
        );
    }
    assert_eq!(found.len(), VCPUS, "no thread runs vCPU 7");
    let known = BTreeSet::from([guest.thread(0)]);
    let others = vcpu_threads(std::process::id(), &wanted, &known, false);
    assert_eq!(others.into_keys().collect::<Vec<_>>(), [1]);
    Ok(())
}
