//! What the probes saw, summed up beside the limiter's own figures.

use std::time::Duration;

use super::stats;
use crate::model::{KernelCounts, Probed, Sample, Summary};

/// A time that was computed another way than a sample's may differ in its last digits.
const SAME_S: f64 = 1e-6;

/// Enters into the summaries of a cell what the probes saw of its measured part. `samples` are those that the summaries
/// were made from.
pub fn add_probes(summaries: &mut [Summary], samples: &[Sample], probed: &Probed) {
    for summary in summaries {
        summary.probe_notes = probed.notes.join("; ");
        let last = samples.iter().rfind(|sample| sample.vcpu == summary.vcpu);
        if let Some(last) = last
            && !probed.counts.is_empty()
        {
            // The measured part ends with the cell.
            add_to(summary, last.t_s - summary.measured_s - SAME_S, probed);
        }
    }
}

fn add_to(summary: &mut Summary, from_s: f64, probed: &Probed) {
    let vcpu = summary.vcpu as usize;
    let counts = |index: usize| probed.counts.get(index).and_then(|(_, vcpus)| vcpus.get(vcpu));
    // The newest count from before the part, as with samples.
    let part = probed
        .counts
        .iter()
        .take_while(|(t_s, _)| *t_s <= from_s + 2.0 * SAME_S)
        .count();
    let (Some(base), Some(end)) = (counts(part.saturating_sub(1)), counts(probed.counts.len() - 1)) else {
        return;
    };
    let sees = probed.sees;
    let gain = |is_seen: bool, count: fn(&KernelCounts) -> u64| is_seen.then(|| count(end).saturating_sub(count(base)));
    summary.probe_pushed_pages = gain(sees.pages, |counts| counts.pushed_pages);
    summary.probe_reset_pages = gain(sees.resets, |counts| counts.reset_pages);
    summary.probe_ring_full_exits = gain(sees.returns, |counts| counts.ring_full_exits);
    summary.probe_userspace_exits = gain(sees.returns, |counts| counts.userspace_exits);
    summary.probe_hardware_exits = gain(sees.hardware_exits, |counts| counts.hardware_exits);
    summary.probe_lost = Some(probed.lost);
    if !sees.stall_ends {
        return;
    }

    let own = probed
        .stalls
        .iter()
        .filter(|stall| stall.vcpu == vcpu && stall.at.as_secs_f64() >= from_s);
    let micros = |span: Duration| span.as_secs_f64() * 1e6;
    let (mut lengths, mut overheads) = (Vec::new(), Vec::new());
    for stall in own {
        lengths.push(micros(stall.length));
        overheads.extend(stall.overhead().map(micros));
    }
    lengths.sort_unstable_by(f64::total_cmp);
    overheads.sort_unstable_by(f64::total_cmp);
    summary.probe_pauses = Some(lengths.len() as u64);
    summary.probe_stall_p50_us = stats::percentile(&lengths, 0.5);
    summary.probe_stall_p99_us = stats::percentile(&lengths, 0.99);
    summary.probe_stall_p999_us = stats::percentile(&lengths, 0.999);
    summary.probe_stall_max_us = stats::percentile(&lengths, 1.0);
    summary.probe_overhead_p50_us = stats::percentile(&overheads, 0.5);
    summary.probe_overhead_p99_us = stats::percentile(&overheads, 0.99);
}

#[cfg(test)]
mod tests {
    use dirtyrig_probes::Sees;

    use super::*;
    use crate::model::KernelStall;

    fn probed() -> Probed {
        let counts = |pushed_pages, hardware_exits| KernelCounts {
            pushed_pages,
            hardware_exits,
            ..KernelCounts::default()
        };
        let stall = |vcpu, at_ms, length_us, asked_us: Option<u64>| KernelStall {
            vcpu,
            at: Duration::from_millis(at_ms),
            length: Duration::from_micros(length_us),
            asked: asked_us.map(Duration::from_micros),
        };
        Probed {
            counts: (0..=4)
                .map(|tick| (f64::from(tick) * 0.1, vec![counts(0, 0), counts(100 << tick, 7)]))
                .collect(),
            stalls: vec![
                stall(1, 150, 9000, Some(1)),
                stall(0, 250, 8000, Some(1)),
                stall(1, 250, 1000, Some(900)),
                stall(1, 350, 3000, None),
            ],
            sees: Sees {
                pages: true,
                resets: true,
                returns: true,
                runs: true,
                stall_ends: true,
                hardware_exits: false,
            },
            lost: 5,
            notes: vec!["one".to_owned(), "two".to_owned()],
            ..Probed::default()
        }
    }

    /// The summary of vCPU 1, measured from 0.2 to 0.4 s.
    fn summary(probed: &Probed) -> Summary {
        let samples = [0.3, 0.4].map(|t_s| Sample {
            vcpu: 1,
            t_s,
            ..Sample::default()
        });
        let mut rows = [Summary {
            vcpu: 1,
            measured_s: 0.2,
            ..Summary::default()
        }];
        add_probes(&mut rows, &samples, probed);
        let [row] = rows;
        row
    }

    #[test]
    fn counts_and_stalls_are_those_of_the_measured_part() {
        let row = summary(&probed());
        assert_eq!(row.probe_pushed_pages, Some(1600 - 400));
        assert_eq!((row.probe_pauses, row.probe_lost), (Some(2), Some(5)));
        assert!(row.probe_stall_max_us.is_some_and(|max| (max - 3000.0).abs() < 1e-6));
        assert!(
            row.probe_overhead_p50_us
                .is_some_and(|median| (median - 100.0).abs() < 1e-6),
            "of those whose asked part is known"
        );
        assert_eq!(row.probe_notes, "one; two");
    }

    #[test]
    fn what_the_kernel_does_not_report_is_no_zero() {
        assert_eq!(summary(&probed()).probe_hardware_exits, None);
        let mut seen = probed();
        seen.sees.hardware_exits = true;
        assert_eq!(summary(&seen).probe_hardware_exits, Some(0));
        let row = summary(&Probed {
            sees: Sees::default(),
            ..probed()
        });
        let counts = [
            row.probe_pushed_pages,
            row.probe_reset_pages,
            row.probe_ring_full_exits,
            row.probe_userspace_exits,
            row.probe_hardware_exits,
            row.probe_pauses,
        ];
        assert_eq!(counts, [None; 6], "no event of it was attached");
        assert_eq!((row.probe_stall_max_us, row.probe_lost), (None, Some(5)));
        let without = Probed {
            notes: vec!["without probes: why".to_owned()],
            ..Probed::default()
        };
        let row = summary(&without);
        assert_eq!(
            (row.probe_pushed_pages, row.probe_pauses, row.probe_lost),
            (None, None, None)
        );
        assert_eq!(row.probe_notes, "without probes: why");
    }
}
