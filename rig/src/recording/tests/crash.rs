//! kill -9 at any moment: a file may end at any byte of what was being written to it.

use std::fs;

use super::*;

/// Cuts `file` off behind `from`, and hands each state of the folder to `check`. It cuts at each byte of the last row, and at
/// each of the two before and behind the end of every other. In between it cuts at every 13th, which comes to each column as the rows go by.
fn at_every_byte(dir: &Path, file: &str, from: usize, check: impl FnMut(&Path)) {
    let whole = fs::read(dir.join(file)).expect("the file is there");
    let is_end = |len: usize| whole[len.saturating_sub(2)..whole.len().min(len + 2)].contains(&b'\n');
    let last_row = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n');
    let is_wanted = |len: &usize| Some(*len) >= last_row || is_end(*len) || len.is_multiple_of(13);
    at_each((from..whole.len()).filter(is_wanted), dir, file, check);
}

fn at_every(step: usize, dir: &Path, file: &str, from: usize, check: impl FnMut(&Path)) {
    at_each((from..length(dir, file)).step_by(step), dir, file, check);
}

fn at_each(lengths: impl Iterator<Item = usize>, dir: &Path, file: &str, mut check: impl FnMut(&Path)) {
    let whole = fs::read(dir.join(file)).expect("the file is there");
    let mut lengths = lengths.peekable();
    assert!(lengths.peek().is_some(), "nothing was written to {file}");
    for len in lengths {
        let copy = folder();
        for name in [MANIFEST, SAMPLES, SUMMARY, STALLS, EXITS] {
            fs::copy(dir.join(name), copy.path().join(name)).expect("the file is copied");
        }
        fs::write(copy.path().join(file), &whole[..len]).expect("the file is cut");
        check(copy.path());
    }
}

fn length(dir: &Path, file: &str) -> usize {
    fs::read(dir.join(file)).expect("the file is there").len()
}

/// Cell 0 must be whole; cell 1, which was being written, must run again and leave each row once.
fn resumes_to_the_whole(dir: &Path) {
    let before = Recording::open(dir).expect("a recording that was killed opens");
    assert_eq!(before.samples, samples(0));
    assert_eq!(before.summaries, summaries(0));
    assert_eq!(before.missing(), BTreeSet::from([1]));

    let mut recorder = Recorder::resume(dir).expect("a recording that was killed resumes");
    assert_eq!(recorder.missing().collect::<Vec<_>>(), [1]);
    run_cell(&mut recorder, 1);
    assert_eq!(recorder.finish().expect("the recording ends"), State::Complete);

    let after = Recording::open(dir).expect("the recording opens");
    assert_eq!(after.samples, [samples(0), samples(1)].concat());
    assert_eq!(after.summaries, [summaries(0), summaries(1)].concat());
    assert_eq!(after.stalls().expect("the log opens").len(), 14);
    assert_eq!(after.exits().expect("the exits open"), [exits(0), exits(1)].concat());
    assert_eq!(after.manifest.resumed_utc.len(), 1);
}

#[test]
fn while_samples_are_appended() {
    let dir = folder();
    let mut recorder = record(dir.path(), 2, 1);
    let from = length(dir.path(), SAMPLES);
    recorder.append_samples(&samples(1)).expect("samples are appended");
    at_every_byte(dir.path(), SAMPLES, from, resumes_to_the_whole);
}

#[test]
fn while_stalls_are_appended() {
    let dir = folder();
    let mut recorder = record(dir.path(), 2, 1);
    let from = length(dir.path(), STALLS);
    begin_cell(&mut recorder, 1);
    at_every_byte(dir.path(), STALLS, from, resumes_to_the_whole);
}

#[test]
fn while_exits_are_appended() {
    let dir = folder();
    let mut recorder = record(dir.path(), 2, 1);
    let from = length(dir.path(), EXITS);
    begin_cell(&mut recorder, 1);
    at_every_byte(dir.path(), EXITS, from, resumes_to_the_whole);
}

#[test]
fn while_a_cell_is_finished() {
    let dir = folder();
    let mut recorder = record(dir.path(), 2, 1);
    let from = length(dir.path(), SUMMARY);
    run_cell(&mut recorder, 1);
    at_every_byte(dir.path(), SUMMARY, from, resumes_to_the_whole);
}

#[test]
fn while_the_recording_is_begun() {
    let dir = folder();
    drop(record(dir.path(), 1, 0));
    // Files are made in this order, after the manifest.
    let made = [SAMPLES, STALLS, EXITS, SUMMARY];
    for (index, file) in made.into_iter().enumerate() {
        let later = &made[index + 1..];
        // A header has no structure that a step could miss.
        at_every(17, dir.path(), file, 0, |dir| {
            for name in later {
                fs::remove_file(dir.join(name)).expect("the file is there");
            }
            let mut recorder = Recorder::resume(dir).expect("a recording that was just begun resumes");
            run_cell(&mut recorder, 0);
            recorder.finish().expect("the recording ends");
            let recording = Recording::open(dir).expect("the recording opens");
            assert_eq!(recording.samples, samples(0));
            assert_eq!(recording.stalls().expect("the log opens").len(), 7);
        });
    }
}

#[test]
fn a_torn_row_is_reported_and_not_counted() {
    let dir = folder();
    drop(record(dir.path(), 2, 1));
    let path = dir.path().join(SAMPLES);
    let mut bytes = fs::read(&path).expect("the file is there");
    bytes.extend_from_slice(b"1,0,0.1");
    fs::write(&path, bytes).expect("the file is written");
    let recording = Recording::open(dir.path()).expect("the recording opens");
    assert_eq!(recording.torn, [Torn { file: SAMPLES, line: 8 }]);
    assert_eq!(recording.samples, samples(0));
}

#[test]
fn leftovers_between_finished_cells_go_too() {
    // A cell that failed was followed by one that did not.
    let dir = folder();
    let mut recorder = record(dir.path(), 3, 1);
    begin_cell(&mut recorder, 1);
    run_cell(&mut recorder, 2);
    drop(recorder);
    let mut recorder = Recorder::resume(dir.path()).expect("the recording resumes");
    assert_eq!(recorder.missing().collect::<Vec<_>>(), [1]);
    run_cell(&mut recorder, 1);
    recorder.finish().expect("the recording ends");
    let recording = Recording::open(dir.path()).expect("the recording opens");
    assert_eq!(recording.samples, [samples(0), samples(2), samples(1)].concat());
}

#[test]
fn a_whole_recording_is_resumed_without_a_change() {
    let dir = finished_recording();
    let read = |name| fs::read(dir.path().join(name)).expect("the file is there");
    let before = [SAMPLES, SUMMARY, STALLS, EXITS].map(read);
    let recorder = Recorder::resume(dir.path()).expect("the recording resumes");
    assert_eq!(recorder.missing().count(), 0);
    recorder.finish().expect("the recording ends");
    assert_eq!(before, [SAMPLES, SUMMARY, STALLS, EXITS].map(read));
    assert!(Recording::open(dir.path()).is_ok());
}
