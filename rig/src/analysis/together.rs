//! All vCPUs of a VM as one: what a quota of the whole VM is judged by.

use crate::model::Sample;

/// The samples of all vCPUs added up, one for each instant. `samples` are in the order of their times, and those of one
/// instant share it to the bit. What is not known of one vCPU is not known of all.
pub(super) fn together(samples: &[Sample]) -> Vec<Sample> {
    samples
        .chunk_by(|a, b| a.t_s.total_cmp(&b.t_s).is_eq())
        .map(sum)
        .collect()
}

fn sum(rows: &[Sample]) -> Sample {
    let count = |of: fn(&Sample) -> Option<u64>| rows.iter().map(of).sum::<Option<u64>>();
    let rate = |of: fn(&Sample) -> Option<f64>| rows.iter().map(of).sum::<Option<f64>>();
    Sample {
        cell: rows[0].cell,
        t_s: rows[0].t_s,
        quota_mib_s: rows[0].vm_quota_mib_s,
        ring_mib_s: rate(|row| row.ring_mib_s),
        guest_mib_s: rate(|row| row.guest_mib_s),
        guest_read_mib_s: rate(|row| row.guest_read_mib_s),
        written_pages: count(|row| row.written_pages),
        read_pages: count(|row| row.read_pages),
        harvested_pages: count(|row| row.harvested_pages),
        ring_full_exits: count(|row| row.ring_full_exits),
        exits: count(|row| row.exits),
        ..Sample::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_does_not_tell_is_not_known_of_all() {
        let row = |vcpu, guest_mib_s, pages| Sample {
            vcpu,
            t_s: 1.0,
            vm_quota_mib_s: Some(20.0),
            guest_mib_s,
            ring_mib_s: Some(6.5),
            harvested_pages: pages,
            ..Sample::default()
        };
        let all = together(&[row(0, Some(6.0), Some(5)), row(1, None, Some(7))]);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].guest_mib_s, all[0].ring_mib_s), (None, Some(13.0)));
        assert_eq!((all[0].harvested_pages, all[0].quota_mib_s), (Some(12), Some(20.0)));
    }
}
