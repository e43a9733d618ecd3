//! Where the kernel shows its state: `/proc`, `/sys` and `/dev` below one folder, so that a test can lay out its own.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The folder that `/proc`, `/sys` and `/dev` are read from.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// This machine's own.
    pub fn system() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A tree somewhere else.
    #[cfg(test)]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The place of an absolute `path` in this tree.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file without the white space around it; `None` where it is absent, unreadable or empty.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A file that holds one value.
    pub fn value<T: FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The chosen word of a file such as `always [madvise] never`.
    pub fn choice(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        let (chosen, _) = rest.split_once(']')?;
        Some(chosen.to_owned())
    }

    /// The names in a folder, sorted; none where it can't be read.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(path))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

#[cfg(test)]
pub(super) mod fixture {
    //! Trees for tests.

    use super::Root;
    use std::fs;

    /// A tree of files, deleted when dropped.
    pub(crate) struct Tree(tempfile::TempDir);

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        pub(crate) fn root(&self) -> Root {
            Root::at(self.0.path())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::Tree;
    use crate::machine::{cpu::Cpu, kernel::Kernel, kvm::Kvm, memory::Memory};

    #[test]
    fn reads_values_choices_and_names() {
        let tree = Tree::new(&[
            ("/sys/a", " 7 \n"),
            ("/sys/b", "always [madvise] never\n"),
            ("/sys/c", "\n"),
        ]);
        let root = tree.root();
        assert_eq!(root.value::<u32>("/sys/a"), Some(7));
        assert_eq!(root.choice("/sys/b").as_deref(), Some("madvise"));
        assert_eq!(root.choice("/sys/a"), None);
        assert_eq!(root.text("/sys/c"), None);
        assert_eq!(root.text("/sys/absent"), None);
        assert_eq!(root.names("/sys"), ["a", "b", "c"]);
        assert!(root.names("/absent").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_kernel_shows_is_a_fact_or_unknown(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), number: u64) {
            let text = String::from_utf8_lossy(&bytes);
            let lines = format!("processor\t: {text}\ncpu family : {number}\nMemTotal: {number} kB\n{text}: [{text}]");
            let tree = Tree::new(&[
                ("/proc/cpuinfo", &lines), ("/proc/meminfo", &lines), ("/proc/cmdline", &text), ("/proc/self/status", &lines),
                ("/proc/self/timerslack_ns", &text), ("/sys/kernel/security/lockdown", &lines),
                ("/sys/module/kvm_intel/parameters/pml", &text), ("/sys/devices/system/cpu/smt/active", &lines),
            ]);
            let root = tree.root();
            let cpu = Cpu::gather(&root);
            let _ = (Kvm::gather(&root, &cpu), Kernel::gather(&root), Memory::gather(&root));
        }
    }
}
