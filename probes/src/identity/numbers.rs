//! Which of its two numbers a vCPU is shown by. All vCPUs of a VM are shown by the same kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::VcpuId;

/// What a number shown for a vCPU is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NumberKind {
    /// The VMM's index, by the names of its threads or by its monitor: what its own commands take.
    CpuIndex,
    /// KVM's id: on x86 the APIC ID.
    #[default]
    KvmId,
}

impl NumberKind {
    /// As machines read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuIndex => "cpu-index",
            Self::KvmId => "kvm-id",
        }
    }

    /// The kind by which the vCPUs of one VM can be shown: their indices where each has one, no two have the same, and they
    /// are in the order of KVM's ids, which is how VMMs give them out. Names that don't mislead pass.
    pub fn of(vcpus: impl IntoIterator<Item = VcpuId>) -> Self {
        let mut by_index: BTreeMap<u32, Option<u32>> = BTreeMap::new();
        let mut any = false;
        for vcpu in vcpus {
            any = true;
            let Some(index) = vcpu.index else { return Self::KvmId };
            if by_index.insert(index, vcpu.kvm_id()).is_some() {
                return Self::KvmId;
            }
        }
        let ids: Vec<u32> = by_index.into_values().flatten().collect();
        if any && ids.is_sorted_by(|a, b| a < b) {
            Self::CpuIndex
        } else {
            Self::KvmId
        }
    }
}

impl fmt::Display for NumberKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CpuIndex => "the VMM's index",
            Self::KvmId => "KVM's id",
        })
    }
}

/// A number shown for a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number {
    /// The number.
    pub value: u32,
    /// What it is.
    pub kind: NumberKind,
}

impl Number {
    /// Of `vcpu` in a VM that is shown by `kind`, if that is known of it.
    pub fn of(vcpu: VcpuId, kind: NumberKind) -> Option<Self> {
        let value = match kind {
            NumberKind::CpuIndex => vcpu.index?,
            NumberKind::KvmId => vcpu.kvm_id()?,
        };
        Some(Self { value, kind })
    }
}

/// The numbers of the vCPUs of one VM, which never change once they are given: limits and recordings go by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    kind: NumberKind,
    by_kvm_id: BTreeMap<u32, u32>,
}

impl Numbers {
    /// Of a VM whose vCPUs are `vcpus` now.
    pub fn new(vcpus: impl IntoIterator<Item = VcpuId>) -> Self {
        Self {
            kind: NumberKind::of(vcpus),
            by_kvm_id: BTreeMap::new(),
        }
    }

    /// What they are.
    pub fn kind(&self) -> NumberKind {
        self.kind
    }

    /// The number of the vCPU with this KVM id. `index` is what its thread's name says: of one that comes later without a
    /// name, or with one that another has, the number is free and else means nothing.
    #[expect(clippy::missing_panics_doc, reason = "it would be a fault in here")]
    pub fn give(&mut self, kvm_id: u32, index: Option<u32>) -> u32 {
        if let Some(&given) = self.by_kvm_id.get(&kvm_id) {
            return given;
        }
        let taken: BTreeSet<u32> = self.by_kvm_id.values().copied().collect();
        let wanted = match self.kind {
            NumberKind::CpuIndex => index,
            NumberKind::KvmId => Some(kvm_id),
        };
        let above = taken.last().map_or(Some(0), |last| last.checked_add(1));
        let free = |number: &u32| !taken.contains(number);
        let number = wanted.filter(free).or(above).or_else(|| (0..=u32::MAX).find(free));
        let number = number.expect("a VM has fewer vCPUs than there are numbers");
        self.by_kvm_id.insert(kvm_id, number);
        number
    }

    /// The number of the vCPU with this KVM id, if it has one by now.
    pub fn given(&self, kvm_id: u32) -> Option<u32> {
        self.by_kvm_id.get(&kvm_id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Evidence, KvmId},
        *,
    };

    fn vcpu(kvm: impl Into<Option<u32>>, index: impl Into<Option<u32>>) -> VcpuId {
        let evidence = Evidence::Descriptor;
        VcpuId {
            kvm: kvm.into().map(|id| KvmId { id, evidence }),
            index: index.into(),
        }
    }

    #[test]
    fn indices_are_shown_where_names_do_not_mislead() {
        let kind = |vcpus: &[VcpuId]| NumberKind::of(vcpus.iter().copied());
        // Two sockets of three cores.
        let six = [(0, 0), (1, 1), (2, 2), (4, 3), (5, 4), (6, 5)].map(|(kvm, index)| vcpu(kvm, index));
        assert_eq!(kind(&six), NumberKind::CpuIndex);
        assert_eq!(
            kind(&[vcpu(0, 0), vcpu(None, 3)]),
            NumberKind::CpuIndex,
            "one id isn't known yet"
        );
        assert_eq!(kind(&[vcpu(0, 0), vcpu(1, None)]), NumberKind::KvmId, "one has no name");
        assert_eq!(kind(&[vcpu(0, 0), vcpu(1, 0)]), NumberKind::KvmId, "two have the same");
        assert_eq!(kind(&[vcpu(0, 1), vcpu(1, 0)]), NumberKind::KvmId, "out of order");
        assert_eq!(kind(&[]), NumberKind::KvmId);
    }

    #[test]
    fn a_number_stays_whatever_comes_later() {
        let mut numbers = Numbers::new([vcpu(0, 0), vcpu(4, 3)]);
        assert_eq!((numbers.give(0, Some(0)), numbers.give(4, Some(3))), (0, 3));
        assert_eq!(numbers.give(4, None), 3, "its next thread");
        assert_eq!(numbers.give(2, Some(2)), 2);
        assert_eq!(numbers.give(5, Some(3)), 4, "a name that another has");
        assert_eq!(numbers.give(6, None), 5);
        let given = |id| numbers.given(id);
        assert_eq!((given(4), given(5), given(9)), (Some(3), Some(4), None));

        let mut numbers = Numbers::new([vcpu(0, None), vcpu(4, None)]);
        assert_eq!(numbers.kind(), NumberKind::KvmId);
        assert_eq!((numbers.give(4, Some(1)), numbers.give(0, None)), (4, 0));
    }

    proptest::proptest! {
        #[test]
        fn any_vcpus_get_numbers_of_their_own(
            vcpus in proptest::collection::btree_map(
                proptest::prop_oneof![0..4u32, u32::MAX - 2..=u32::MAX], proptest::option::of(0..4u32), 0..8,
            ),
        ) {
            let mut numbers = Numbers::new(vcpus.iter().map(|(&id, &index)| vcpu(id, index)));
            let given: BTreeSet<u32> = vcpus.iter().map(|(&id, &index)| numbers.give(id, index)).collect();
            proptest::prop_assert_eq!(given.len(), vcpus.len());
        }
    }
}
