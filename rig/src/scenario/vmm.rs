//! Which VMM runs the guest, as it is written down: `rig`, `qemu`, `qemu:/path/to/binary`, `attach:/path/to/socket`.

use std::{fmt, path::PathBuf, str::FromStr};

/// A VMM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vmm {
    /// The rig's own VM.
    #[default]
    Rig,
    /// A QEMU that is started with the rig's guest.
    Qemu {
        /// Its binary; without one, the one along `PATH`.
        binary: Option<PathBuf>,
    },
    /// A QEMU that runs already, whatever its guest.
    Attach {
        /// The socket of its monitor.
        socket: PathBuf,
    },
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rig => f.write_str("rig"),
            Self::Qemu { binary: None } => f.write_str("qemu"),
            Self::Qemu { binary: Some(path) } => write!(f, "qemu:{}", path.display()),
            Self::Attach { socket } => write!(f, "attach:{}", socket.display()),
        }
    }
}

/// No VMM.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no VMM `{text}`: give rig, qemu, qemu:BINARY or attach:QMP-SOCKET")]
pub struct UnknownVmm {
    text: String,
}

impl FromStr for Vmm {
    type Err = UnknownVmm;

    fn from_str(text: &str) -> Result<Self, UnknownVmm> {
        match text.split_once(':') {
            None if text == "rig" => Ok(Self::Rig),
            None if text == "qemu" => Ok(Self::Qemu { binary: None }),
            Some(("qemu", path)) if !path.is_empty() => Ok(Self::Qemu {
                binary: Some(path.into()),
            }),
            Some(("attach", path)) if !path.is_empty() => Ok(Self::Attach { socket: path.into() }),
            _ => Err(UnknownVmm { text: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_is_read_back() {
        for text in [
            "rig",
            "qemu",
            "qemu:/opt/qemu/bin/qemu-system-x86_64",
            "attach:/run/qmp:1",
        ] {
            assert_eq!(text.parse::<Vmm>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_answered_with_what_there_is() {
        for text in ["", "QEMU", "qemu:", "attach", "attach:", "rig:x", "xen"] {
            let error = text.parse::<Vmm>().expect_err(text).to_string();
            assert!(error.contains("rig, qemu, qemu:BINARY or attach:QMP-SOCKET"), "{error}");
        }
    }
}
