//! A disk that fills up, for real: `/dev/full`, and a process that may not write beyond a file size.

use std::{env, process::Command};

use nix::sys::{
    resource::{Resource, setrlimit},
    signal::{SigSet, Signal},
};

use super::*;
use crate::recording::journal::Journal;

const FOLDER: &str = "DIRTYRIG_TEST_FULL_DISK";

#[test]
fn a_device_without_room_is_named_with_the_remedy() {
    let full = Journal::open("/dev/full".into(), b"header\n").expect_err("nothing fits on /dev/full");
    assert!(matches!(full, RecordingError::NoRoom { .. }), "{full:?}");
    let text = full.to_string();
    assert!(text.contains("`/dev/full`") && text.contains("--resume"), "{text}");
}

#[test]
fn a_disk_that_fills_up_costs_no_finished_cell() {
    // The limit is the whole process's, so a process of its own takes it.
    let dir = folder();
    let this = env::current_exe().expect("the test knows its own file");
    let child = Command::new(this)
        .args([
            "--ignored",
            "--exact",
            "recording::tests::full_disk::child_writes_until_nothing_fits",
        ])
        .env(FOLDER, dir.path())
        .output()
        .expect("the test starts itself");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));

    let before = Recording::open(dir.path()).expect("what was finished opens");
    let finished = before.finished().len() as u32;
    assert!(finished > 2, "only {finished} cells fitted");
    assert_eq!(before.samples, (0..finished).flat_map(samples).collect::<Vec<_>>());
    assert_eq!(before.torn, [], "a failed write left a torn row");

    let mut recorder = Recorder::resume(dir.path()).expect("with room again it resumes");
    run_cell(&mut recorder, finished);
    drop(recorder);
    let after = Recording::open(dir.path()).expect("the recording opens");
    assert_eq!(after.finished().len() as u32, finished + 1);
}

#[test]
#[ignore = "the part of the test above that runs in a process of its own"]
fn child_writes_until_nothing_fits() {
    let Some(dir) = env::var_os(FOLDER) else {
        return;
    };
    let mut recorder = Recorder::create(dir, manifest(1000)).expect("the folder is new");
    // Blocked, so that a write beyond the limit fails instead of killing the process.
    SigSet::from(Signal::SIGXFSZ)
        .thread_block()
        .expect("a signal can be blocked");
    setrlimit(Resource::RLIMIT_FSIZE, 10_000, 10_000).expect("a limit can be lowered");
    let error = (0..1000)
        .find_map(|cell| {
            recorder
                .append_samples(&samples(cell))
                .and_then(|()| recorder.append_summaries(cell, &summaries(cell)))
                .err()
        })
        .expect("the limit is reached");
    assert!(matches!(error, RecordingError::NoRoom { .. }), "{error:?}");
    // What failed must have left the files whole: appending goes on failing, and nothing tears.
    assert!(recorder.append_samples(&vec![Sample::default(); 500]).is_err());
}
