//! tracefs: where it is, and the layout of an event's record as its `format` file gives it.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

/// Where the kernel makes a directory for it, and where older set-ups have it.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A mounted tracefs.
#[derive(Clone, Debug)]
pub(crate) struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    /// The tracefs that is mounted, or else the one that this call mounts. An error says what to do.
    pub(crate) fn find_or_mount() -> Result<Self, String> {
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        mount(
            Some("tracefs"),
            PLACES[0],
            Some("tracefs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .map_err(|errno| {
            format!(
                "tracefs is not mounted, and mounting it failed ({errno}): as root, `mount -t tracefs tracefs {}`",
                PLACES[0]
            )
        })?;
        Self::find().ok_or_else(|| {
            format!(
                "tracefs was mounted at {} but has no events: the kernel lacks CONFIG_TRACING",
                PLACES[0]
            )
        })
    }

    fn find() -> Option<Self> {
        PLACES
            .into_iter()
            .map(Path::new)
            .find(|place| place.join("events").is_dir())
            .map(|place| Self { root: place.into() })
    }

    /// The layout of an event's record. An error says what to do.
    pub(crate) fn format(&self, category: &str, event: &str) -> Result<Format, String> {
        let path = self.root.join("events").join(category).join(event).join("format");
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.lacks(category, event),
            io::ErrorKind::PermissionDenied => format!("{} is not readable: run as root", path.display()),
            _ => format!("{}: {error}", path.display()),
        })?;
        Ok(Format::parse(&text))
    }

    /// Why there is no such event, and what would help.
    fn lacks(&self, category: &str, event: &str) -> String {
        let remedy = if category == "syscalls" {
            "its kernel was built without CONFIG_FTRACE_SYSCALLS, and only another kernel has it"
        } else if self.root.join("events").join(category).is_dir() {
            "KVM is loaded, but older than this event, and only a later kernel has it"
        } else {
            "KVM is not loaded: `modprobe kvm_intel` or `modprobe kvm_amd`"
        };
        format!("this machine has no event {category}:{event}: {remedy}")
    }
}

/// The fields of an event's record, and the names that its `print fmt` gives to numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    fields: HashMap<String, (u32, u32)>,
    print: String,
}

impl Format {
    fn parse(text: &str) -> Self {
        let number = |part: &str, key: &str| part.trim().strip_prefix(key)?.parse().ok();
        let fields = text.lines().filter_map(|line| {
            let mut parts = line.trim().strip_prefix("field:")?.split(';');
            let name = parts.next()?.rsplit([' ', '*']).next()?.split('[').next()?;
            Some((
                name.to_owned(),
                (number(parts.next()?, "offset:")?, number(parts.next()?, "size:")?),
            ))
        });
        let print = text
            .lines()
            .find_map(|line| line.strip_prefix("print fmt:"))
            .unwrap_or_default();
        Self {
            fields: fields.collect(),
            print: print.to_owned(),
        }
    }

    /// The offset of a field of `size` bytes.
    pub(crate) fn offset(&self, name: &str, size: u32) -> Result<u32, String> {
        match self.fields.get(name) {
            Some(&(offset, found)) if found == size => Ok(offset),
            Some((_, found)) => Err(format!("its field {name} has {found} bytes, not {size}")),
            None => Err(format!("it has no field {name}")),
        }
    }

    /// What follows `print fmt:`.
    pub(crate) fn print(&self) -> &str {
        &self.print
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_fits_the_event() {
        let root = std::env::temp_dir().join(format!("dirtyrig-tracefs-{}", std::process::id()));
        let tracefs = Tracefs { root: root.clone() };
        let lacks = |category, event| tracefs.format(category, event).expect_err("it is not there");
        assert!(lacks("kvm", "kvm_exit").contains("modprobe kvm_intel"));
        fs::create_dir_all(root.join("events/kvm")).expect("a folder");
        let (later, syscalls) = (lacks("kvm", "kvm_exit"), lacks("syscalls", "sys_enter_ioctl"));
        fs::remove_dir_all(&root).expect("it was just made");
        assert!(later.contains("later kernel") && !later.contains("modprobe"), "{later}");
        assert!(
            syscalls.contains("CONFIG_FTRACE_SYSCALLS") && !syscalls.contains("modprobe"),
            "{syscalls}"
        );
    }

    const PUSH: &str = "name: kvm_dirty_ring_push\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:int index;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:u64 offset;\toffset:24;\tsize:8;\tsigned:0;\n\
        \tfield:char * name;\toffset:32;\tsize:8;\tsigned:0;\n\
        \tfield:u8 bytes[16];\toffset:40;\tsize:16;\tsigned:0;\n\n\
        print fmt: \"ring %d\", REC->index\n";

    #[test]
    fn fields_are_found_by_name_and_size() {
        let format = Format::parse(PUSH);
        assert_eq!(format.offset("index", 4), Ok(8));
        assert_eq!(format.offset("offset", 8), Ok(24));
        assert_eq!(format.offset("name", 8), Ok(32));
        assert_eq!(format.offset("bytes", 16), Ok(40));
        assert_eq!(format.print(), " \"ring %d\", REC->index");
    }

    #[test]
    fn a_field_that_is_not_as_expected_is_named() {
        let format = Format::parse(PUSH);
        assert_eq!(format.offset("slot", 4), Err("it has no field slot".into()));
        assert_eq!(
            format.offset("offset", 4),
            Err("its field offset has 8 bytes, not 4".into())
        );
    }
}
