//! What a VM is called: its name and its UUID, as the VMM was given them.

use std::fmt::Write as _;

use super::{proc::proc_text, proc::process_name};
use crate::process::kvm_pids;

/// A process that has a VM, and what the VM is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vm {
    /// The process.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub process: String,
    /// The VM's name: QEMU's `-name`, which is libvirt's domain.
    pub name: Option<String>,
    /// Its UUID: QEMU's `-uuid`, which is the domain's.
    pub uuid: Option<String>,
}

/// No VM, or more than one, is called so. The text lists those that are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct NoSuchVm {
    /// What was asked for.
    pub wanted: String,
    /// The VMs that fit: none, or several.
    pub fitting: Vec<Vm>,
    /// The VMs that are there.
    pub there: Vec<Vm>,
}

/// The VM of a process, whether it has one or not.
pub fn vm_of(pid: u32) -> Vm {
    let line = proc_text(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&str> = line.split('\0').collect();
    Vm {
        pid,
        process: process_name(pid).unwrap_or_else(|| format!("process {pid}")),
        name: name_in(&words),
        uuid: uuid_in(&words),
    }
}

/// The VMs on this host, as far as this process may look, by process.
pub fn vms() -> Vec<Vm> {
    kvm_pids().into_iter().map(vm_of).collect()
}

/// The one VM that is called `wanted`, by name or UUID.
///
/// # Errors
/// [`NoSuchVm`] if there is none, or more than one; it lists those that there are.
pub fn find_vm(wanted: &str) -> Result<Vm, NoSuchVm> {
    choose(wanted, vms())
}

fn choose(wanted: &str, there: Vec<Vm>) -> Result<Vm, NoSuchVm> {
    let fits = |vm: &&Vm| {
        let has = |uuid: &String| uuid.eq_ignore_ascii_case(wanted);
        vm.name.as_deref() == Some(wanted) || vm.uuid.as_ref().is_some_and(has)
    };
    let fitting: Vec<Vm> = there.iter().filter(fits).cloned().collect();
    match fitting.as_slice() {
        [vm] => Ok(vm.clone()),
        _ => Err(NoSuchVm {
            wanted: wanted.to_owned(),
            fitting,
            there,
        }),
    }
}

impl NoSuchVm {
    fn text(&self) -> String {
        let wanted = &self.wanted;
        if self.there.is_empty() {
            return format!(
                "no VM is called `{wanted}`: this host has no process with a KVM VM that this user may look at (root may \
                 look at all)"
            );
        }
        let mut text = if self.fitting.is_empty() {
            format!("no VM is called `{wanted}`: give one of these by its name or UUID, or its process as `--pid`")
        } else {
            format!(
                "{} VMs are called `{wanted}`: give the UUID of the one that is meant, or its process as `--pid`",
                self.fitting.len()
            )
        };
        let listed = if self.fitting.is_empty() {
            &self.there
        } else {
            &self.fitting
        };
        for vm in listed {
            // Writing to a string can't fail.
            let _ = write!(text, "\n  {vm}");
        }
        text
    }
}

impl std::fmt::Display for Vm {
    /// `web01 (process 4711, qemu-system-x86, UUID ...)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, process, .. } = self;
        let name = self.name.as_deref().unwrap_or("(no name)");
        write!(f, "{name} (process {pid}, {process}")?;
        if let Some(uuid) = &self.uuid {
            write!(f, ", UUID {uuid}")?;
        }
        f.write_str(")")
    }
}

/// The values of an option of QEMU's, in order: `-name x` or `--name x`.
fn values<'a>(words: &'a [&str], option: &str) -> impl Iterator<Item = &'a str> {
    let option = option.to_owned();
    let pairs = words.windows(2);
    pairs
        .filter(move |pair| {
            let word = pair[0]
                .strip_prefix('-')
                .map(|word| word.strip_prefix('-').unwrap_or(word));
            word == Some(option.as_str())
        })
        .map(|pair| pair[1])
}

fn name_in(words: &[&str]) -> Option<String> {
    let names = values(words, "name").filter_map(guest_in);
    names.last().filter(|name| !name.is_empty())
}

/// The guest in `guest=web01,debug-threads=on` or `web01,process=x`: a comma in a value is written twice.
fn guest_in(options: &str) -> Option<String> {
    const COMMA: char = '\u{0}';
    let escaped = options.replace(",,", &COMMA.to_string());
    let mut guest = None;
    for (place, option) in escaped.split(',').enumerate() {
        match option.split_once('=') {
            Some(("guest", name)) => guest = Some(name),
            // The first may leave its key out.
            None if place == 0 => guest = Some(option),
            _ => {}
        }
    }
    guest.map(|name| name.replace(COMMA, ","))
}

fn uuid_in(words: &[&str]) -> Option<String> {
    values(words, "uuid").last().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_qemu_reads_them() {
        let name = |line: &str| name_in(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(
            name("qemu -name guest=web01,debug-threads=on -S").as_deref(),
            Some("web01")
        );
        assert_eq!(name("qemu --name web01,process=x -S").as_deref(), Some("web01"));
        assert_eq!(name("qemu -name process=x,guest=a=b -S").as_deref(), Some("a=b"));
        assert_eq!(name("qemu -name a,,b,debug-threads=on").as_deref(), Some("a,b"));
        assert_eq!(name("qemu -name one -name two").as_deref(), Some("two"));
        for without in ["qemu -name debug-threads=on", "qemu -m 1G", "qemu -name", ""] {
            assert_eq!(name(without), None, "{without}");
        }
        let uuid = |line: &str| uuid_in(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(uuid("qemu -uuid 1-2 -S").as_deref(), Some("1-2"));
        assert_eq!(uuid("qemu -S"), None);
    }

    fn vm(pid: u32, name: &str, uuid: &str) -> Vm {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Vm {
            pid,
            process: "qemu".to_owned(),
            name: some(name),
            uuid: some(uuid),
        }
    }

    #[test]
    fn a_vm_is_found_by_its_name_or_uuid_or_the_others_are_listed() {
        let there = || {
            vec![
                vm(1, "web01", "aa-1"),
                vm(2, "web02", "aa-2"),
                vm(3, "web02", "aa-3"),
                vm(4, "", ""),
            ]
        };
        let found = |wanted: &str| choose(wanted, there()).map(|vm| vm.pid);
        assert_eq!(found("web01"), Ok(1));
        assert_eq!(found("AA-3"), Ok(3));
        let unknown = found("web").expect_err("no prefix will do").to_string();
        assert!(
            unknown.contains("`web`") && unknown.contains("web01 (process 1, qemu, UUID aa-1)"),
            "{unknown}"
        );
        assert!(unknown.contains("(no name) (process 4"), "{unknown}");
        let twice = found("web02").expect_err("two").to_string();
        assert!(
            twice.contains("2 VMs") && twice.contains("aa-3") && !twice.contains("web01"),
            "{twice}"
        );
        let none = choose("web01", Vec::new()).expect_err("none").to_string();
        assert!(none.contains("no process with a KVM VM"), "{none}");
    }

    proptest::proptest! {
        #[test]
        fn any_command_line_names_a_vm_or_none(words in proptest::collection::vec("(-name|--uuid|guest=|,|=|\u{fffd}|.){0,6}", 0..6)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _ = (name_in(&words), uuid_in(&words));
        }
    }
}
