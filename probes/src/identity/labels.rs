//! The index that a VMM writes into the names of its vCPU threads.

use super::proc::thread_name;

/// The VMM's index in the name of a thread, if the name is one that VMMs give their vCPUs. It is a label: any thread may be
/// called so.
pub fn index_in_thread_name(process: u32, thread: u32) -> Option<u32> {
    index_in(&thread_name(process, thread)?)
}

/// `CPU 0/KVM` (QEMU), `fc_vcpu 0` (Firecracker), `vcpu0` (Cloud Hypervisor).
fn index_in(name: &str) -> Option<u32> {
    let number = name
        .strip_prefix("CPU ")
        .and_then(|rest| rest.strip_suffix("/KVM"))
        .or_else(|| name.strip_prefix("fc_vcpu "))
        .or_else(|| name.strip_prefix("vcpu"))?;
    // `parse` would take a sign.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpu_threads_are_known_by_the_names_that_vmms_give_them() {
        assert_eq!(index_in("CPU 0/KVM"), Some(0));
        assert_eq!(index_in("CPU 12/KVM"), Some(12));
        assert_eq!(index_in("fc_vcpu 3"), Some(3));
        assert_eq!(index_in("vcpu7"), Some(7));
        for other in [
            "qemu-system-x86",
            "CPU 0/TCG",
            "CPU +1/KVM",
            "CPU /KVM",
            "vcpu",
            "vcpu_manager",
            "CPU 0/KV\u{fffd}",
            "",
        ] {
            assert_eq!(index_in(other), None, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_has_an_index_or_none(name in ".{0,15}") {
            for name in [name.clone(), format!("CPU {name}/KVM"), format!("vcpu{name}")] {
                let _ = index_in(&name);
            }
        }
    }
}
