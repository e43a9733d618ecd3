//! The families of metrics.

use std::fmt;

use dirtyrig_probes::{StallCounters, VcpuCounters, VcpuId, identity::Vm};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{
    super::watched::{Reading, Sees},
    negotiation::Exposition,
};

/// Upper bounds of the histogram of stalls, in seconds: from what a harvest takes to QEMU's longest sleep.
const BOUNDS_S: [f64; 13] = [
    0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 30.0,
];

/// Bytes of a page as KVM logs it.
const PAGE_BYTES: u64 = 4096;

/// The newest reading as text.
pub(super) fn text(reading: &Reading, exposition: Exposition) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("dirtyrig");
    registry.register_collector(Box::new(Newest(reading.clone())));
    let mut text = String::new();
    match exposition {
        Exposition::Prometheus => prometheus_text::encode(&mut text, &registry)?,
        Exposition::OpenMetrics => text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

#[derive(Debug)]
struct Newest(Reading);

/// A counter of a vCPU: name, help, whether it is seen here, how to get it, where it is seen of this vCPU.
type Count = (
    &'static str,
    &'static str,
    fn(Sees) -> bool,
    fn(&VcpuCounters) -> Option<u64>,
);

/// Pages that a vCPU has dirtied, where they can be seen.
fn dirtied(vcpu: &VcpuCounters) -> Option<u64> {
    vcpu.sees_pages.then_some(vcpu.pushed_pages)
}

const COUNTS: [Count; 4] = [
    (
        "dirtied_pages",
        "Pages pushed to the vCPU's dirty ring",
        |sees| sees.pages,
        dirtied,
    ),
    (
        "reset_pages",
        "Entries of the vCPU's dirty ring that were reset",
        |sees| sees.resets,
        |vcpu| Some(vcpu.reset_entries),
    ),
    (
        "ring_full_exits",
        "Returns of KVM_RUN because the dirty ring was full",
        |sees| sees.returns,
        |vcpu| Some(vcpu.ring_full_exits),
    ),
    (
        "userspace_exits",
        "Returns of KVM_RUN, whatever the reason",
        |sees| sees.returns,
        |vcpu| Some(vcpu.userspace_exits),
    ),
];

/// The same in bytes, which is the unit that others count in.
const BYTES: [Count; 2] = [
    (
        "dirtied",
        "Bytes of the pages pushed to the vCPU's dirty ring",
        |sees| sees.pages,
        |vcpu| Some(dirtied(vcpu)? * PAGE_BYTES),
    ),
    (
        "reset",
        "Bytes of the pages whose ring entries were reset",
        |sees| sees.resets,
        |vcpu| Some(vcpu.reset_entries * PAGE_BYTES),
    ),
];

impl Collector for Newest {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(reading) = self;
        let counts = COUNTS.into_iter().map(|count| (None, count));
        let bytes = BYTES.into_iter().map(|count| (Some(&Unit::Bytes), count));
        for (unit, (name, help, is_seen, count)) in counts.chain(bytes) {
            if !is_seen(reading.sees) {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for (vcpu, count) in reading.vcpus.iter().filter_map(|vcpu| Some((vcpu, count(vcpu)?))) {
                let labels = labels(reading, vcpu);
                let metric = family.encode_family(&labels)?;
                ConstCounter::new(count).encode(metric)?;
            }
        }
        if reading.sees.hardware_exits {
            let help = "Exits from guest mode";
            let mut family = encoder.encode_descriptor("hardware_exits", help, None, MetricType::Counter)?;
            for vcpu in &reading.vcpus {
                let labels = labels(reading, vcpu);
                let metric = family.encode_family(&labels)?;
                ConstCounter::new(vcpu.exits).encode(metric)?;
            }
        }
        if reading.sees.runs {
            let help = "Time in KVM_RUN, the call that goes on included";
            let mut family = encoder.encode_descriptor("in_run", help, Some(&Unit::Seconds), MetricType::Counter)?;
            for vcpu in &reading.vcpus {
                let labels = labels(reading, vcpu);
                let metric = family.encode_family(&labels)?;
                ConstCounter::new(vcpu.in_run.as_secs_f64()).encode(metric)?;
            }
        }
        exits(reading, &mut encoder)?;
        if reading.sees.stall_ends {
            stalls(reading, &mut encoder)?;
        }
        lost(reading, &mut encoder)
    }
}

fn exits(reading: &Reading, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help = "Exits by reason";
    let mut family = encoder.encode_descriptor("exits", help, None, MetricType::Counter)?;
    for vcpu in &reading.vcpus {
        for exit in &vcpu.exit_reasons {
            let mut labels = labels(reading, vcpu);
            let source = if exit.reason.is_hardware() {
                "hardware"
            } else {
                "userspace"
            };
            labels.extend([("source", source.to_owned()), ("reason", exit.name.clone())]);
            let metric = family.encode_family(&labels)?;
            ConstCounter::new(exit.count).encode(metric)?;
        }
    }
    Ok(())
}

fn stalls(reading: &Reading, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help = "Length of stalls: from the return of KVM_RUN to the vCPU's next entry";
    let mut family = encoder.encode_descriptor("stall", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for vcpu in &reading.vcpus {
        for (cause, stalls) in [("ring_full", &vcpu.ring_full), ("interrupted", &vcpu.interrupted)] {
            let mut labels = labels(reading, vcpu);
            labels.push(("cause", cause.to_owned()));
            let (count, buckets) = buckets(stalls);
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<[(&str, &str); 0]>(stalls.total.as_secs_f64(), count, &buckets, None)?;
        }
    }
    Ok(())
}

/// How many there are, and how many in each bucket. A bucket of the kernel's that lies across a bound counts above it.
fn buckets(stalls: &StallCounters) -> (u64, Vec<(f64, u64)>) {
    let mut buckets: Vec<(f64, u64)> = BOUNDS_S.iter().map(|&bound| (bound, 0)).collect();
    buckets.push((f64::INFINITY, 0));
    let mut count = 0;
    for (_, to, stalls) in stalls.lengths.buckets() {
        let last = buckets.len() - 1;
        let index = buckets
            .iter()
            .position(|(bound, _)| to.as_secs_f64() <= *bound)
            .unwrap_or(last);
        buckets[index].1 += stalls;
        count += stalls;
    }
    (count, buckets)
}

fn lost(reading: &Reading, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help = "What could not be recorded, by kind";
    let mut family = encoder.encode_descriptor("lost_records", help, None, MetricType::Counter)?;
    let lost = &reading.lost;
    for (kind, count) in [
        ("stalls", lost.stalls),
        ("pushes", lost.pushes),
        ("threads", lost.threads),
        ("exits", lost.exits),
        ("histograms", lost.histograms),
        ("rings", lost.rings),
        ("vcpus", lost.vcpus),
    ] {
        let labels = [("kind", kind)];
        let metric = family.encode_family(&labels)?;
        ConstCounter::new(count).encode(metric)?;
    }
    let help = "Whether a process that was watched still runs";
    let mut family = encoder.encode_descriptor("process_up", help, None, MetricType::Gauge)?;
    for (pid, vm) in &reading.vms {
        let labels = of_vm(*pid, Some(vm));
        let metric = family.encode_family(&labels)?;
        ConstGauge::new(i64::from(!reading.ended.contains(pid))).encode(metric)?;
    }
    Ok(())
}

fn labels(reading: &Reading, vcpu: &VcpuCounters) -> Vec<(&'static str, String)> {
    let text = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    let mut labels = of_vm(vcpu.process, reading.vms.get(&vcpu.process));
    labels.extend([
        ("vcpu", text(vcpu.number.map(|number| number.value))),
        ("kvm_id", text(vcpu.vcpu.and_then(VcpuId::kvm_id))),
        ("cpu_index", text(vcpu.vcpu.and_then(|vcpu| vcpu.index))),
        ("thread", vcpu.thread.to_string()),
    ]);
    labels
}

/// What is not known is empty, which is the same as no label.
fn of_vm(pid: u32, vm: Option<&Vm>) -> Vec<(&'static str, String)> {
    let vm = vm.cloned().unwrap_or_default();
    vec![
        ("pid", pid.to_string()),
        ("process", vm.process),
        ("vm", vm.name.unwrap_or_default()),
        ("uuid", vm.uuid.unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::rates::tests::{reading, thread},
        *,
    };

    #[test]
    fn counters_go_out_as_they_are() {
        let text = text(&reading(1, vec![thread(7, 5120)]), Exposition::OpenMetrics).expect("text");
        assert!(text.contains("dirtyrig_dirtied_bytes_total{pid=\"1\""), "{text}");
        assert!(text.contains("} 20971520\n"), "{text}");
        let line = "dirtyrig_dirtied_pages_total{pid=\"1\",process=\"qemu\",vm=\"web01\",uuid=\"\",vcpu=\"\",kvm_id=\"\",\
                    cpu_index=\"\",thread=\"7\"} 5120";
        assert!(text.lines().any(|found| found == line), "{text}");
        assert!(text.contains("# TYPE dirtyrig_dirtied_pages counter\n"), "{text}");
        assert!(text.contains("reason=\"KVM_EXIT_DIRTY_RING_FULL\"} 5"), "{text}");
        assert!(text.contains("# TYPE dirtyrig_stall_seconds histogram\n"), "{text}");
        assert!(
            text.contains("dirtyrig_process_up{pid=\"1\",process=\"qemu\",vm=\"web01\",uuid=\"\"} 1\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn what_is_not_seen_has_no_metric() {
        let mut blind = reading(1, vec![thread(7, 5120)]);
        let text_of = |reading: &Reading| text(reading, Exposition::OpenMetrics).expect("text");
        assert!(!text_of(&blind).contains("hardware_exits"));
        blind.sees.stall_ends = false;
        assert!(!text_of(&blind).contains("stall_seconds"));
        for seen in [
            "dirtied_pages",
            "reset_pages",
            "ring_full_exits",
            "userspace_exits",
            "in_run",
        ] {
            assert!(text_of(&blind).contains(seen), "{seen}");
        }
        blind.vcpus[0].sees_pages = false;
        assert!(!text_of(&blind).contains("dirtied_pages_total{"));
        assert!(text_of(&blind).contains("reset_pages_total{"));
        blind.sees = Sees::default();
        for unseen in [
            "dirtied_pages",
            "reset_pages",
            "ring_full_exits",
            "userspace_exits",
            "in_run",
        ] {
            assert!(!text_of(&blind).contains(unseen), "{unseen}");
        }
        blind.sees.hardware_exits = true;
        assert!(text_of(&blind).contains("dirtyrig_hardware_exits_total"));
    }
}
