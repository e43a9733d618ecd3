//! QEMU, which the rig can measure beside its own guest.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

const PROGRAM: &str = "qemu-system-x86_64";

/// The QEMU on the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Where it is.
    pub path: PathBuf,
    /// Its version, such as `10.0.2`; `None` where it would not say.
    pub version: Option<String>,
}

impl Qemu {
    /// Looks along `PATH` and asks what it finds for its version.
    pub fn gather() -> Option<Self> {
        let path = env::split_paths(&env::var_os("PATH")?)
            .map(|folder| folder.join(PROGRAM))
            .find(|path| path.is_file())?;
        let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output().ok();
        let version = output.and_then(|output| version_in(&String::from_utf8_lossy(&output.stdout)));
        Some(Self { path, version })
    }

    /// The first two numbers of the version.
    pub fn major_minor(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.as_deref()?.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

fn version_in(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_whitespace();
    words.find(|word| *word == "version")?;
    words.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_in_what_qemu_prints() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022\n";
        assert_eq!(version_in(debian).as_deref(), Some("7.2.22"));
        assert_eq!(version_in("something else\n"), None);
        assert_eq!(version_in(""), None);
    }

    #[test]
    fn takes_the_version_apart() {
        let of = |version: &str| {
            Qemu {
                path: PROGRAM.into(),
                version: Some(version.to_owned()),
            }
            .major_minor()
        };
        assert_eq!(of("10.0.2"), Some((10, 0)));
        assert_eq!(of("7.2.22"), Some((7, 2)));
        assert_eq!(of("devel"), None);
    }
}
