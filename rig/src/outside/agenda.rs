//! When something is to be done about each vCPU. What is due next is found at once, however many there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The due times of vCPUs, at most one each.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    of: BTreeMap<usize, Duration>,
    order: BTreeSet<(Duration, usize)>,
}

impl Agenda {
    /// Takes the place of what was noted for the vCPU; `None` is nothing to be done.
    pub(super) fn note(&mut self, vcpu: usize, due: Option<Duration>) {
        if let Some(before) = self.of.remove(&vcpu) {
            self.order.remove(&(before, vcpu));
        }
        if let Some(due) = due {
            self.of.insert(vcpu, due);
            self.order.insert((due, vcpu));
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|&(due, _)| due)
    }

    /// A vCPU for which something is due at `now`, the most overdue first; what was noted for it is gone then.
    pub(super) fn take(&mut self, now: Duration) -> Option<usize> {
        let &(due, vcpu) = self.order.first().filter(|&&(due, _)| due <= now)?;
        self.order.remove(&(due, vcpu));
        self.of.remove(&vcpu);
        Some(vcpu)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_noted_last_counts() {
        let mut agenda = Agenda::default();
        agenda.note(0, Some(5 * MS));
        agenda.note(1, Some(3 * MS));
        agenda.note(0, Some(2 * MS));
        assert_eq!(agenda.next(), Some(2 * MS));
        agenda.note(1, None);
        assert_eq!(
            (agenda.take(MS), agenda.take(2 * MS), agenda.take(9 * MS)),
            (None, Some(0), None)
        );
    }

    proptest! {
        #[test]
        fn it_is_what_a_look_at_all_would_find(
            steps in prop::collection::vec((0_usize..20, prop::option::of(0_u32..100), 0_u32..100), 0..200),
        ) {
            let mut agenda = Agenda::default();
            let mut all: BTreeMap<usize, u32> = BTreeMap::new();
            for (vcpu, due, now) in steps {
                agenda.note(vcpu, due.map(|due| due * MS));
                match due {
                    Some(due) => drop(all.insert(vcpu, due)),
                    None => drop(all.remove(&vcpu)),
                }
                prop_assert_eq!(agenda.next(), all.values().min().map(|&due| due * MS));
                let first = all.iter().map(|(&vcpu, &due)| (due, vcpu)).min().filter(|&(due, _)| due <= now);
                prop_assert_eq!(agenda.take(now * MS), first.map(|(_, vcpu)| vcpu));
                if let Some((_, vcpu)) = first {
                    all.remove(&vcpu);
                }
            }
        }
    }
}
