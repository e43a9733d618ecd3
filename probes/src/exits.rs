//! Why a vCPU exits, by name.
//!
//! `KVM_EXIT_*` is the kernel's interface to every VMM and stands here as a table. The reasons of hardware exits
//! depend on the processor and grow with it: their names are those that the running kernel prints, from the format of
//! `kvm_exit`.

use std::collections::HashMap;

use dirtyrig_probes_common::{EXIT_KIND_ERRNO, EXIT_KIND_ISA, EXIT_KIND_USERSPACE};
use nix::errno::Errno;

/// Why the vCPU exited, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ExitReason {
    /// `KVM_RUN` returned with this `KVM_EXIT_*`.
    Userspace(u32),
    /// `KVM_RUN` failed with this errno.
    Errno(u32),
    /// A VMX exit: basic reason and flags.
    Vmx(u32),
    /// An SVM exit code.
    Svm(u32),
    /// An exit of another kind of virtualisation.
    Other {
        /// The number of that kind in `kvm_exit`.
        isa: u32,
        /// Its reason.
        reason: u32,
    },
}

/// `isa` in `kvm_exit`.
const VMX: u32 = 1;
const SVM: u32 = 2;

/// `KVM_EXIT_*` by number, from `linux/kvm.h`.
const USERSPACE: [&str; 40] = [
    "UNKNOWN",
    "EXCEPTION",
    "IO",
    "HYPERCALL",
    "DEBUG",
    "HLT",
    "MMIO",
    "IRQ_WINDOW_OPEN",
    "SHUTDOWN",
    "FAIL_ENTRY",
    "INTR",
    "SET_TPR",
    "TPR_ACCESS",
    "S390_SIEIC",
    "S390_RESET",
    "DCR",
    "NMI",
    "INTERNAL_ERROR",
    "OSI",
    "PAPR_HCALL",
    "S390_UCONTROL",
    "WATCHDOG",
    "S390_TSCH",
    "EPR",
    "SYSTEM_EVENT",
    "S390_STSI",
    "IOAPIC_EOI",
    "HYPERV",
    "ARM_NISV",
    "X86_RDMSR",
    "X86_WRMSR",
    "DIRTY_RING_FULL",
    "AP_RESET_HOLD",
    "X86_BUS_LOCK",
    "XEN",
    "RISCV_SBI",
    "RISCV_CSR",
    "NOTIFY",
    "LOONGARCH_IOCSR",
    "MEMORY_FAULT",
];

impl ExitReason {
    pub(crate) fn new(kind: u32, reason: u32) -> Self {
        match kind {
            EXIT_KIND_USERSPACE => Self::Userspace(reason),
            EXIT_KIND_ERRNO => Self::Errno(reason),
            _ => match kind - EXIT_KIND_ISA {
                VMX => Self::Vmx(reason),
                SVM => Self::Svm(reason),
                isa => Self::Other { isa, reason },
            },
        }
    }

    /// Whether the guest left guest mode, as opposed to `KVM_RUN` returning to the VMM.
    pub fn is_hardware(self) -> bool {
        !matches!(self, Self::Userspace(_) | Self::Errno(_))
    }
}

/// The names of hardware exits, by `isa` and reason; an `isa` of `None` stands for those not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExitNames {
    hardware: HashMap<(Option<u32>, u32), String>,
}

impl ExitNames {
    /// Reads them from the `print fmt` of `kvm_exit`: `(REC->isa == 1) ? __print_symbolic(.., { 0, "EXCEPTION_NMI" },
    /// ..) : __print_symbolic(.., { 0x060, "interrupt" }, ..)`.
    pub(crate) fn parse(print: &str) -> Self {
        let mut hardware = HashMap::new();
        let mut pieces = print.split("__print_symbolic(");
        let mut before = pieces.next().unwrap_or_default();
        for piece in pieces {
            let isa = before.rsplit_once("isa == ").and_then(|(_, rest)| leading_number(rest));
            let end = piece.rfind("})").map_or(piece.len(), |end| end + 1);
            let table = &piece[..piece.find("})").map_or(end, |first| first + 1)];
            for entry in table.split('{').skip(1) {
                if let Some((number, rest)) = entry.split_once(',')
                    && let Some(number) = sum(number)
                    && let Some(name) = rest.split('"').nth(1)
                {
                    hardware.insert((isa, number), name.to_owned());
                }
            }
            before = &piece[table.len()..];
        }
        Self { hardware }
    }

    /// A name to show: never empty, the number where there is no better one.
    pub(crate) fn name(&self, reason: ExitReason) -> String {
        match reason {
            ExitReason::Userspace(number) => USERSPACE
                .get(number as usize)
                .map_or_else(|| format!("KVM_EXIT_{number}"), |name| format!("KVM_EXIT_{name}")),
            ExitReason::Errno(number) => Errno::from_raw(i32::try_from(number).unwrap_or_default())
                .to_string()
                .split(':')
                .next()
                .map_or_else(
                    || format!("errno {number}"),
                    |name| {
                        if name.starts_with("UnknownErrno") {
                            format!("errno {number}")
                        } else {
                            name.to_owned()
                        }
                    },
                ),
            // Bits above the basic reason are flags, such as a failed entry.
            ExitReason::Vmx(number) => self.hardware_name(VMX, number & 0xffff, "VMX"),
            ExitReason::Svm(number) => self.hardware_name(SVM, number, "SVM"),
            ExitReason::Other { isa, reason } => self.hardware_name(isa, reason, &format!("isa {isa}")),
        }
    }

    fn hardware_name(&self, isa: u32, number: u32, kind: &str) -> String {
        let named = self.hardware.get(&(Some(isa), number));
        // The kernel's last table is that of every other isa, which in fact is SVM.
        let named = named.or_else(|| (isa != VMX).then(|| self.hardware.get(&(None, number)))?);
        named.cloned().unwrap_or_else(|| format!("{kind} exit {number:#x}"))
    }
}

fn leading_number(text: &str) -> Option<u32> {
    text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
        .parse()
        .ok()
}

/// The value of `12`, `0x040 + 14` or `-1`.
fn sum(expression: &str) -> Option<u32> {
    expression.split('+').try_fold(0_u32, |total, term| {
        let term = term.trim();
        let value = match (term.strip_prefix("0x"), term.strip_prefix('-')) {
            (Some(hex), _) => u32::from_str_radix(hex, 16).ok()?,
            (_, Some(negated)) => negated.parse::<u32>().ok()?.wrapping_neg(),
            _ => term.parse().ok()?,
        };
        Some(total.wrapping_add(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = r#" "vcpu %u reason %s%s%s", REC->vcpu_id, (REC->isa == 1) ? __print_symbolic(REC->exit_reason & 0xffff, { 0, "EXCEPTION_NMI" }, { 48, "EPT_VIOLATION" }) : __print_symbolic(REC->exit_reason, { 0x040 + 14, "PF excp" }, { 0x060, "interrupt" }, { 0x400, "npf" }, { -1, "invalid_guest_state" }), (REC->isa == 1 && REC->exit_reason & ~0xffff) ? " " : "", (REC->isa == 1) ? __print_flags(REC->exit_reason & ~0xffff, " ", { 0x80000000, "FAILED_VMENTRY" }) : """#;

    #[test]
    fn hardware_exits_have_the_names_that_the_kernel_prints() {
        let names = ExitNames::parse(PRINT);
        assert_eq!(names.name(ExitReason::Vmx(48)), "EPT_VIOLATION");
        assert_eq!(names.name(ExitReason::Vmx(0x8000_0030)), "EPT_VIOLATION");
        assert_eq!(names.name(ExitReason::Svm(0x400)), "npf");
        assert_eq!(names.name(ExitReason::Svm(0x4e)), "PF excp");
        assert_eq!(names.name(ExitReason::Svm(u32::MAX)), "invalid_guest_state");
        assert_eq!(names.hardware.len(), 6);
    }

    #[test]
    fn what_has_no_name_shows_its_number() {
        let names = ExitNames::parse(PRINT);
        assert_eq!(names.name(ExitReason::Vmx(0x60)), "VMX exit 0x60");
        assert_eq!(names.name(ExitReason::Svm(0x999)), "SVM exit 0x999");
        assert_eq!(names.name(ExitReason::Other { isa: 7, reason: 3 }), "isa 7 exit 0x3");
        assert_eq!(names.name(ExitReason::Userspace(99)), "KVM_EXIT_99");
        assert_eq!(names.name(ExitReason::Errno(9999)), "errno 9999");
        assert_eq!(ExitNames::default().name(ExitReason::Vmx(48)), "VMX exit 0x30");
    }

    #[test]
    fn returns_of_kvm_run_have_the_names_of_the_interface() {
        let names = ExitNames::default();
        assert_eq!(names.name(ExitReason::Userspace(31)), "KVM_EXIT_DIRTY_RING_FULL");
        assert_eq!(names.name(ExitReason::Userspace(39)), "KVM_EXIT_MEMORY_FAULT");
        assert_eq!(names.name(ExitReason::Errno(4)), "EINTR");
    }

    proptest::proptest! {
        #[test]
        fn any_print_format_gives_every_exit_a_name(words in proptest::collection::vec(proptest::sample::select(vec![
            "__print_symbolic(", "isa == ", "1", "{", "})", "}", ",", "\"", "npf", "0x", "-", "+", "99999999999", "\u{e9}", " ",
        ]), 0..60), reason: u32) {
            let names = ExitNames::parse(&words.concat());
            for reason in [ExitReason::Vmx(reason), ExitReason::Svm(reason), ExitReason::Userspace(reason), ExitReason::Errno(reason)] {
                names.name(reason);
            }
        }

        #[test]
        fn any_text_gives_every_exit_a_name(text in ".*", reason: u32) {
            proptest::prop_assert!(!ExitNames::parse(&text).name(ExitReason::Errno(reason)).is_empty());
        }
    }
}
