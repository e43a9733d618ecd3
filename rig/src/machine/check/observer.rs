//! Checks of what observes: tracefs, BTF, eBPF; and of QEMU. None is needed to run and limit the rig's own guest.

use dirtyrig_probes::KvmEvent;

use super::{Finding, Status};
use crate::machine::{Facts, bpf::Load, pid_namespace::PidNamespace, tracefs::Tracefs};

/// The probes need the first two; the third opens tracefs, whose folders are root's.
const PRIVILEGE: &str =
    "sudo setcap cap_bpf,cap_perfmon,cap_dac_read_search=ep $(command -v dirtyrig), or run it as root with sudo";

/// The first QEMU with a dirty limit.
const QEMU_WITH_LIMIT: (u32, u32) = (7, 1);

/// Whether process ids mean the same here as in the kernel's events.
pub(super) fn pid_namespace(facts: &Facts) -> Finding {
    match facts.pid_namespace {
        PidNamespace::Initial => Finding::ok("the host's"),
        PidNamespace::Own => Finding::missing(
            "one of its own, such as a container's: the kernel's process ids don't apply",
            "run it on the host, or in a container with the host's PID namespace (--pid=host)",
        ),
        PidNamespace::Unknown => Finding::missing(
            "unknown: /proc/self/ns/pid can't be read",
            "sudo mount -t proc proc /proc",
        ),
    }
}

/// Whether the layout of the probes' events can be read.
pub(super) fn tracefs(facts: &Facts) -> Finding {
    const MOUNT: &str = "sudo mount -t tracefs tracefs /sys/kernel/tracing";
    match &facts.tracefs {
        Tracefs::Unsupported => Finding::missing("this kernel has no tracefs", "boot a kernel with CONFIG_FTRACE=y"),
        Tracefs::Unmounted => Finding::missing("not mounted, and this user may not mount it", MOUNT),
        Tracefs::Denied { at } => Finding::missing(format!("{} is not readable by this user", at.display()), PRIVILEGE),
        Tracefs::Readable { at, events } => with_events(&at.display().to_string(), events),
        Tracefs::Private { events } => with_events("not mounted; a mount that only dirtyrig sees", events),
    }
}

fn with_events(place: &str, events: &[String]) -> Finding {
    let is_absent = |event: &KvmEvent| !events.contains(&event.to_string());
    let absent: Vec<KvmEvent> = KvmEvent::ALL.into_iter().filter(is_absent).collect();
    let call = is_absent(&KvmEvent::Run);
    let of_kvm = absent.len() - usize::from(call);
    if absent.is_empty() {
        Finding::ok(format!(
            "{place}, with all {} tracepoints that the probes use",
            KvmEvent::ALL.len()
        ))
    } else if of_kvm + 1 == KvmEvent::ALL.len() {
        Finding::missing(
            format!("{place} has no tracepoints of KVM"),
            "load KVM, or boot a kernel with tracepoints",
        )
    } else {
        let names: Vec<String> = absent.iter().map(ToString::to_string).collect();
        let remedy = match (of_kvm, call) {
            (0, _) => "boot a kernel with CONFIG_FTRACE_SYSCALLS=y",
            (_, false) => "boot Linux 5.15 or newer for all of them",
            (_, true) => "boot Linux 5.15 or newer with CONFIG_FTRACE_SYSCALLS=y for all of them",
        };
        Finding::degraded(format!("{place} lacks {}", names.join(", ")), remedy)
    }
}

/// Whether the kernel describes its types.
pub(super) fn btf(facts: &Facts) -> Finding {
    match facts.btf.vmlinux_bytes {
        Some(bytes) => Finding::ok(format!("/sys/kernel/btf/vmlinux, {} KiB", bytes / 1024)),
        None => Finding::missing(
            "no /sys/kernel/btf/vmlinux",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (Debian's and Ubuntu's)",
        ),
    }
}

/// Whether the kernel takes our programs.
pub(super) fn bpf(facts: &Facts) -> Finding {
    let bpf = &facts.bpf;
    match &bpf.load {
        Load::Works if bpf.jit_enable == Some(0) => Finding::degraded(
            "programs load, but are interpreted: each event costs the guest more",
            "sudo sysctl net.core.bpf_jit_enable=1",
        ),
        Load::Works if !bpf.cap_perfmon => Finding::missing(
            "programs load, but CAP_PERFMON is lacking, so they can't be attached",
            PRIVILEGE,
        ),
        Load::Works => Finding::ok("programs load"),
        Load::Unsupported => Finding::missing(
            "this kernel has no programs on raw tracepoints",
            "boot Linux 5.15 or newer with CONFIG_BPF_EVENTS=y",
        ),
        Load::Refused { error } if !(bpf.cap_bpf && bpf.cap_perfmon) => {
            let lacking = match (bpf.cap_bpf, bpf.cap_perfmon) {
                (false, false) => "CAP_BPF and CAP_PERFMON",
                (false, true) => "CAP_BPF",
                (true, _) => "CAP_PERFMON",
            };
            Finding::missing(format!("this user lacks {lacking} ({error})"), PRIVILEGE)
        }
        Load::Refused { error } => {
            let lockdown = facts.kernel.lockdown.as_deref().unwrap_or("unknown");
            Finding::missing(
                format!("refused in spite of the privilege ({error}); lockdown: {lockdown}"),
                "run outside containers and user namespaces; boot with lockdown=integrity rather than confidentiality",
            )
        }
    }
}

/// Whether pages can be told from this source: for `observe`, `limit` and `budget-ebpf`.
pub(super) fn page_source(facts: &Facts, name: &str) -> Finding {
    let source = facts.page_sources.iter().find(|source| source.name == name);
    match source.map(|source| &source.refused) {
        Some(None) => Finding::ok("works"),
        Some(Some(why)) if name == "ring" => Finding::missing(why, ring_remedy(facts)),
        Some(Some(why)) => Finding::missing(
            why,
            "start VMs with dirty rings (QEMU: -accel kvm,dirty-ring-size=4096), whose pages are seen without it",
        ),
        None => Finding::missing("not tried", "see bpf"),
    }
}

/// What lets programs see a ring's pages: what another check misses, or else KVM's own events.
fn ring_remedy(facts: &Facts) -> String {
    let others = [pid_namespace, bpf].map(|check| check(facts));
    let missing = others.into_iter().find(|finding| finding.status == Status::Missing);
    missing
        .and_then(|finding| finding.remedy)
        .unwrap_or_else(|| "sudo modprobe kvm_intel, or kvm_amd; if it is loaded, boot Linux 5.15 or newer".to_owned())
}

/// Whether there is a QEMU to compare with.
pub(super) fn qemu(facts: &Facts) -> Finding {
    const INSTALL: &str = "sudo apt-get install qemu-system-x86";
    let Some(qemu) = &facts.qemu else {
        return Finding::missing(
            "no qemu-system-x86_64 on the path: its own limiter can't be measured",
            INSTALL,
        );
    };
    let path = qemu.path.display();
    match (&qemu.version, qemu.major_minor()) {
        (Some(version), Some(major_minor)) if major_minor < QEMU_WITH_LIMIT => Finding::degraded(
            format!("{path}, {version}: has no dirty limit, which came with 7.1"),
            INSTALL,
        ),
        (Some(version), _) => Finding::ok(format!("{path}, {version}")),
        (None, _) => Finding::degraded(format!("{path} does not tell its version"), format!("{path} --version")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Status, fixture::healthy};
    use crate::machine::{Facts, bpf::Load, pid_namespace::PidNamespace, qemu::Qemu, tracefs::Tracefs};

    fn after(change: impl Fn(&mut Facts), check: fn(&Facts) -> Finding) -> Finding {
        let mut facts = healthy();
        change(&mut facts);
        check(&facts)
    }

    fn remedy(finding: &Finding) -> &str {
        finding.remedy.as_deref().unwrap()
    }

    #[test]
    fn each_state_of_tracefs_has_its_own_remedy() {
        let with = |tracefs: Tracefs| after(|facts| facts.tracefs = tracefs.clone(), super::tracefs);
        let readable = |events: &[&str]| Tracefs::Readable {
            at: "/t".into(),
            events: events.iter().map(ToString::to_string).collect(),
        };
        assert!(remedy(&with(Tracefs::Unmounted)).starts_with("sudo mount -t tracefs"));
        assert!(remedy(&with(Tracefs::Unsupported)).contains("CONFIG_FTRACE"));
        assert!(remedy(&with(Tracefs::Denied { at: "/t".into() })).contains("setcap"));
        assert_eq!(with(readable(&["sys_enter_ioctl"])).status, Status::Missing);
        let old = with(readable(&[
            "kvm_exit",
            "kvm_entry",
            "kvm_userspace_exit",
            "sys_enter_ioctl",
        ]));
        assert_eq!(old.status, Status::Degraded);
        assert_eq!(
            old.found,
            "/t lacks kvm_dirty_ring_exit, kvm_dirty_ring_push, kvm_dirty_ring_reset"
        );
        assert!(remedy(&old).contains("5.15"));
        let all = super::KvmEvent::ALL.map(|event| event.to_string());
        let without_calls: Vec<_> = all
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "sys_enter_ioctl")
            .collect();
        let blind = with(readable(&without_calls));
        assert_eq!(blind.found, "/t lacks sys_enter_ioctl");
        assert_eq!(remedy(&blind), "boot a kernel with CONFIG_FTRACE_SYSCALLS=y");
        assert_eq!(with(Tracefs::Private { events: all.to_vec() }).status, Status::Ok);
    }

    #[test]
    fn a_ring_that_is_not_seen_has_the_remedy_of_its_cause() {
        let blind = |facts: &mut Facts| {
            for source in facts.page_sources.iter_mut().filter(|source| source.name == "ring") {
                source.refused = Some("no".to_owned());
            }
        };
        let ring = |facts: &Facts| super::page_source(facts, "ring");
        assert!(remedy(&after(blind, ring)).contains("modprobe"));
        let contained = |facts: &mut Facts| {
            blind(facts);
            facts.pid_namespace = PidNamespace::Own;
        };
        assert!(remedy(&after(contained, ring)).contains("--pid=host"));
    }

    #[test]
    fn only_the_hosts_pid_namespace_will_do() {
        let with = |namespace| after(|facts| facts.pid_namespace = namespace, super::pid_namespace);
        assert_eq!(with(PidNamespace::Initial).status, Status::Ok);
        assert!(remedy(&with(PidNamespace::Own)).contains("--pid=host"));
        assert_eq!(with(PidNamespace::Unknown).status, Status::Missing);
    }

    #[test]
    fn btf_is_there_or_not() {
        assert_eq!(
            after(|facts| facts.btf.vmlinux_bytes = None, super::btf).status,
            Status::Missing
        );
    }

    #[test]
    fn bpf_is_believed_by_what_it_did() {
        let refused = |cap_bpf, cap_perfmon| {
            after(
                |facts| {
                    facts.bpf.load = Load::Refused {
                        error: "Operation not permitted".to_owned(),
                    };
                    facts.bpf.cap_bpf = cap_bpf;
                    facts.bpf.cap_perfmon = cap_perfmon;
                },
                super::bpf,
            )
        };
        assert!(refused(false, false).found.contains("CAP_BPF and CAP_PERFMON"));
        assert!(refused(false, true).found.contains("lacks CAP_BPF ("));
        assert!(refused(true, false).found.contains("lacks CAP_PERFMON ("));
        assert!(refused(true, true).found.contains("in spite of the privilege"));
        assert_eq!(
            after(|facts| facts.bpf.load = Load::Unsupported, super::bpf).status,
            Status::Missing
        );
        assert_eq!(
            after(|facts| facts.bpf.jit_enable = Some(0), super::bpf).status,
            Status::Degraded
        );
        assert_eq!(
            after(|facts| facts.bpf.jit_enable = None, super::bpf).status,
            Status::Ok
        );
    }

    #[test]
    fn an_old_qemu_has_no_limit() {
        let with = |version: Option<&str>| {
            let version = version.map(str::to_owned);
            after(
                |facts| {
                    facts.qemu = Some(Qemu {
                        path: "/q".into(),
                        version: version.clone(),
                    });
                },
                super::qemu,
            )
            .status
        };
        assert_eq!(with(Some("7.0.0")), Status::Degraded);
        assert_eq!(with(Some("7.1.0")), Status::Ok);
        assert_eq!(with(Some("devel")), Status::Ok);
        assert_eq!(with(None), Status::Degraded);
        assert_eq!(after(|facts| facts.qemu = None, super::qemu).status, Status::Missing);
    }
}
