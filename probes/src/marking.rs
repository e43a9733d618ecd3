//! The kernel's function through which every page goes that is marked in a dirty bitmap, and how programs get to it.

use std::{fs, path::Path};

use aya::{
    Btf as KernelBtf, Ebpf,
    programs::{FEntry, KProbe, ProgramError, fentry::FEntryLinkId, kprobe::KProbeLinkId},
};

use crate::{
    attach::{explain, refusal},
    btf::Btf,
};

/// In KVM, exported; the pages of VMs with rings pass it too.
const FUNCTION: &str = "mark_page_dirty_in_slot";
/// (kvm, memslot, gfn), since Linux 5.12.
const PARAMETERS: usize = 3;
const STRUCTURE: &str = "kvm_memory_slot";
const MEMBERS: [&str; 4] = ["dirty_bitmap", "base_gfn", "id", "as_id"];
/// Where the kernel says how it takes kprobes.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Where a slot has what the programs read: the members of [`MEMBERS`], in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotLayout {
    pub(crate) bitmap: u32,
    pub(crate) base: u32,
    pub(crate) id: u32,
    pub(crate) space: u32,
}

impl SlotLayout {
    /// That of the running kernel. An error says what would help.
    pub(crate) fn find() -> Result<Self, String> {
        let btf = Btf::of("kvm")?;
        match btf.parameters(FUNCTION) {
            Some(PARAMETERS) => {}
            Some(found) => {
                return Err(format!(
                    "{FUNCTION} has {found} parameters where {PARAMETERS} are expected: Linux 5.12 or later is needed"
                ));
            }
            None => return Err(no_function()),
        }
        let [bitmap, base, id, space] = btf.offsets(STRUCTURE, MEMBERS)?;
        Ok(Self {
            bitmap,
            base,
            id,
            space,
        })
    }
}

/// A way to the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The cheaper one.
    Fentry,
    Kprobe,
}

/// Both, the better first.
pub(crate) const WAYS: [Way; 2] = [Way::Fentry, Way::Kprobe];

/// A program at the function.
pub(crate) enum Link {
    Fentry(FEntryLinkId),
    Kprobe(KProbeLinkId),
}

/// The programs for the two ways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programs {
    pub(crate) fentry: &'static str,
    pub(crate) kprobe: &'static str,
}

impl Programs {
    /// Attaches the better program that this kernel takes. An error says of each what would help.
    pub(crate) fn attach(self, ebpf: &mut Ebpf) -> Result<Link, String> {
        let mut refusals = Vec::new();
        for way in WAYS {
            match self.attach_by(ebpf, way) {
                Ok(link) => return Ok(link),
                Err(why) => refusals.push(format!("{way}: {why}")),
            }
        }
        Err(refusals.join("; "))
    }

    /// Attaches the program for `way`.
    pub(crate) fn attach_by(self, ebpf: &mut Ebpf, way: Way) -> Result<Link, String> {
        match way {
            Way::Fentry => self.attach_fentry(ebpf).map(Link::Fentry),
            Way::Kprobe => self.attach_kprobe(ebpf).map(Link::Kprobe),
        }
    }

    fn attach_fentry(self, ebpf: &mut Ebpf) -> Result<FEntryLinkId, String> {
        if Btf::of("kvm")?.is_module(FUNCTION) {
            return Err("KVM is a module here, and functions of modules can't be named yet".to_owned());
        }
        let btf = KernelBtf::from_sys_fs().map_err(|error| explain(&error))?;
        let program: &mut FEntry = program(ebpf, self.fentry);
        match program.load(FUNCTION, &btf) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(format!("{}{}", refusal(&error), lockdown())),
        }
        program.attach().map_err(|error| explain(&error))
    }

    fn attach_kprobe(self, ebpf: &mut Ebpf) -> Result<KProbeLinkId, String> {
        if !Path::new(KPROBES).exists() {
            return Err("this kernel has no kprobes; one built with CONFIG_KPROBE_EVENTS has".to_owned());
        }
        let program: &mut KProbe = program(ebpf, self.kprobe);
        match program.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(refusal(&error)),
        }
        program.attach(FUNCTION, 0).map_err(|error| {
            if is_listed() {
                format!("a kprobe on {FUNCTION} is refused: {}{}", explain(&error), lockdown())
            } else {
                no_function()
            }
        })
    }

    /// Detaches what was attached.
    pub(crate) fn detach(self, ebpf: &mut Ebpf, link: Link) -> Result<(), ProgramError> {
        match link {
            Link::Fentry(link) => program::<FEntry>(ebpf, self.fentry).detach(link),
            Link::Kprobe(link) => program::<KProbe>(ebpf, self.kprobe).detach(link),
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        })
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut P
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .expect("the embedded object has this program")
}

fn no_function() -> String {
    format!("this kernel has no function {FUNCTION}: `modprobe kvm_intel` or `modprobe kvm_amd`")
}

/// Whether the kernel lists the function.
fn is_listed() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some(FUNCTION))
}

/// What may be the reason of a refusal: `; the kernel is locked down (integrity)`.
fn lockdown() -> String {
    let modes = fs::read_to_string(LOCKDOWN).unwrap_or_default();
    let mode = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match mode {
        Some(("none", _)) => String::new(),
        Some((mode, _)) => format!("; the kernel is locked down ({mode}): boot with lockdown=none"),
        None => "; if the kernel is locked down, boot with lockdown=none".to_owned(),
    }
}
