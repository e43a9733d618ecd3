//! `/proc`, byte by byte: what other processes call themselves is no UTF-8 that anybody promises.

use std::{fs, io, path::Path};

/// The text of a file under `/proc`; what is no UTF-8 in it becomes U+FFFD.
///
/// # Errors
/// Those of reading the file.
pub fn proc_text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The name of a process or, with a path below it, of a thread: at most 15 bytes.
fn name_at(path: &str) -> Option<String> {
    let name = proc_text(path).ok()?;
    // The kernel ends it with one newline; others may be part of it.
    Some(name.strip_suffix('\n').unwrap_or(&name).to_owned())
}

/// The name of a process as the kernel has it; `None` if it is gone.
pub fn process_name(pid: u32) -> Option<String> {
    name_at(&format!("/proc/{pid}/comm"))
}

/// The name of a thread.
pub(super) fn thread_name(process: u32, thread: u32) -> Option<String> {
    name_at(&format!("/proc/{process}/task/{thread}/comm"))
}

/// The threads of a process.
pub(super) fn threads(process: u32) -> Vec<u32> {
    numbers_in(&format!("/proc/{process}/task"))
}

/// The entries of a folder that are numbers, in their order.
pub(super) fn numbers_in(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// When a process started, in ticks since boot: one that gets the id of another has another start. `None` if there is none.
pub fn started(pid: u32) -> Option<u64> {
    let stat = proc_text(format!("/proc/{pid}/stat")).ok()?;
    stat_field(&stat, 22)?.parse().ok()
}

/// Field `number` of a `stat` file, counted from 1 as `proc(5)` does, and from 3 on: the name before it may have anything
/// in it.
pub(super) fn stat_field(stat: &str, number: usize) -> Option<&str> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(number.checked_sub(3)?)
}

/// Whether a thread has spent time in a guest, by the kernel's ticks.
pub(super) fn has_run_a_guest(process: u32, thread: u32) -> bool {
    let Ok(stat) = proc_text(format!("/proc/{process}/task/{thread}/stat")) else {
        return false;
    };
    let ticks = stat_field(&stat, 43).and_then(|ticks| ticks.trim_end().parse::<u64>().ok());
    ticks.is_some_and(|ticks| ticks > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_ends_in_the_middle_of_a_letter_is_read() {
        // "process-name-töööö" after its 15th byte.
        let dir = std::env::temp_dir().join(format!("dirtyrig-comm-{}", std::process::id()));
        fs::write(&dir, b"process-name-t\xc3\n").expect("a file");
        let name = name_at(&dir.display().to_string());
        fs::remove_file(&dir).expect("it is there");
        assert_eq!(name.as_deref(), Some("process-name-t\u{fffd}"));
    }

    #[test]
    fn fields_are_counted_behind_the_name_whatever_is_in_it() {
        let stat = "4711 (CPU 0) (KVM) S 1 4711 4711 0";
        assert_eq!(stat_field(stat, 3), Some("S"));
        assert_eq!(stat_field(stat, 4), Some("1"));
        assert_eq!(stat_field(stat, 43), None);
        assert_eq!(stat_field("", 3), None);
    }

    #[test]
    fn this_process_has_a_name_and_threads() {
        let pid = std::process::id();
        assert!(process_name(pid).is_some_and(|name| !name.is_empty()));
        assert!(threads(pid).contains(&pid));
        assert_eq!(
            process_name(4_194_305),
            None,
            "above the largest id that Linux gives out"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_line_has_fields_or_none(line in "[ -~\u{fffd}]{0,60}", number in 0usize..60) {
            let _ = stat_field(&line, number);
            let _ = stat_field(&format!("1 ({line}) S 1 {line}"), number);
        }
    }
}
