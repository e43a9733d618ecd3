//! The human monitor on stdin: with history and completion on a terminal, line by line from a pipe.
//!
//! Its thread owns stdin. It ends with `quit`, at the end of the input, or when [`Console`] is dropped: a line editor is
//! told by a flag that it looks at twenty times a second, a pipe is waited for together with one of our own.

use std::{
    io::{self, IsTerminal, PipeReader, PipeWriter, Read, pipe},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use reedline::{
    ColumnarMenu, Completer, CompletionResult, DefaultPrompt, DefaultPromptSegment, Emacs, KeyCode, KeyModifiers,
    MenuBuilder, Reedline, ReedlineEvent, ReedlineMenu, Signal, Span, Suggestion, default_emacs_keybindings,
};

use crate::{
    commands::output::note,
    engine::interrupt::Interrupt,
    qmp::{Monitor, hmp},
    stdout::data,
};

/// How often the line editor looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A piped line that is longer is no command.
const LONGEST_LINE: usize = 64 * 1024;
const MENU: &str = "completion";

/// The console's thread; dropping it ends it.
pub(super) struct Console {
    /// Told to the line editor. Relaxed: nothing is published with it.
    ending: Arc<AtomicBool>,
    /// Closed to end the wait for a pipe.
    closer: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Starts to read commands for `monitor`; `quit` sets `interrupt`. The end of the input does too, unless the session
    /// can be reached another way: `has_socket`.
    pub(super) fn start(monitor: Arc<Monitor>, interrupt: Interrupt, has_socket: bool) -> anyhow::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let (end, closer) = pipe().context("can't make a pipe")?;
        let told = Arc::clone(&ending);
        let work = move || {
            let read = if io::stdin().is_terminal() {
                on_terminal(&monitor, told)
            } else {
                from_pipe(&monitor, &end)
            };
            let ended = read.unwrap_or_else(|error| {
                note(format_args!("warning: the console ends: {error:#}"));
                Ended::OfInput
            });
            match ended {
                Ended::Quit => monitor.quit(),
                Ended::Interrupted => interrupt.set(),
                Ended::OfInput if !has_socket => monitor.quit(),
                Ended::OfInput | Ended::Told => {}
            }
        };
        let thread = thread::Builder::new().name("console".into()).spawn(work);
        Ok(Self {
            ending,
            closer: Some(closer),
            thread: Some(thread.context("can't start a thread")?),
        })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.closer = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Why no more lines are read.
#[derive(Clone, Copy)]
enum Ended {
    /// `quit` was typed.
    Quit,
    /// ctrl-c was, which in a line editor is no signal.
    Interrupted,
    /// There are no more.
    OfInput,
    /// The session ends.
    Told,
}

/// Does what a line says; whether it was the last.
fn obey(monitor: &Monitor, line: &str) -> anyhow::Result<bool> {
    let answer = hmp::run(monitor, line);
    if let Some(text) = answer.text.strip_suffix('\n') {
        data(text)?;
    }
    Ok(answer.quits)
}

fn on_terminal(monitor: &Monitor, told: Arc<AtomicBool>) -> anyhow::Result<Ended> {
    let mut keys = default_emacs_keybindings();
    keys.add_binding(
        KeyModifiers::NONE,
        KeyCode::Tab,
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]),
    );
    let mut editor = Reedline::create()
        .with_completer(Box::new(Words))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(
            ColumnarMenu::default().with_name(MENU),
        )))
        .with_quick_completions(true)
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_poll_interval(LOOK_EVERY)
        .with_break_signal(told);
    let prompt = DefaultPrompt::new(
        DefaultPromptSegment::Basic("dirtyrig".to_owned()),
        DefaultPromptSegment::Empty,
    );
    data("`help` lists the commands, `quit` ends the session")?;
    loop {
        match editor.read_line(&prompt).context("can't read the terminal")? {
            Signal::Success(line) if obey(monitor, &line)? => return Ok(Ended::Quit),
            Signal::CtrlC => return Ok(Ended::Interrupted),
            Signal::CtrlD => return Ok(Ended::OfInput),
            Signal::ExternalBreak(_) => return Ok(Ended::Told),
            _ => {}
        }
    }
}

/// Completes with the words of the human monitor.
struct Words;

impl Completer for Words {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        let typed = line.get(..position).unwrap_or(line);
        let start = typed.rfind(' ').map_or(0, |space| space + 1);
        let words = hmp::completions(typed).into_iter().map(|word| Suggestion {
            value: word.to_owned(),
            span: Span::new(start, typed.len()),
            append_whitespace: true,
            ..Suggestion::default()
        });
        CompletionResult::fresh(words.collect::<Vec<_>>())
    }
}

fn from_pipe(monitor: &Monitor, end: &PipeReader) -> anyhow::Result<Ended> {
    let stdin = io::stdin();
    let mut typed: Vec<u8> = Vec::new();
    let mut bytes = [0; 16 * 1024];
    loop {
        while let Some(length) = typed.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = typed.drain(..=length).collect();
            if obey(monitor, &String::from_utf8_lossy(&line))? {
                return Ok(Ended::Quit);
            }
        }
        anyhow::ensure!(
            typed.len() <= LONGEST_LINE,
            "a line of more than {LONGEST_LINE} bytes is no command"
        );
        if !wait(&stdin, end).context("can't wait for stdin")? {
            return Ok(Ended::Told);
        }
        // More than stdin buffers, so that nothing is left in its buffer while we wait for more.
        match stdin.lock().read(&mut bytes).context("can't read stdin")? {
            0 if obey(monitor, &String::from_utf8_lossy(&typed))? => return Ok(Ended::Quit),
            0 => return Ok(Ended::OfInput),
            length => typed.extend_from_slice(&bytes[..length]),
        }
    }
}

/// Waits for input; `false` if the session ends first.
fn wait(stdin: &io::Stdin, end: &PipeReader) -> nix::Result<bool> {
    let mut fds = [
        PollFd::new(end.as_fd(), PollFlags::POLLIN),
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(fds[0].any() == Some(false)),
        }
    }
}
