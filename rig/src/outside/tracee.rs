//! A thread of another process, held by ptrace: stopped, continued, let go.
//!
//! `PTRACE_SEIZE` stops nothing by itself. From then on each signal that is about to reach the thread stops it first,
//! and its tracer decides what becomes of the signal. Signals are plain numbers here, because VMMs kick their vCPUs with
//! real-time ones.
//!
//! The kernel takes requests from the thread alone that seized, hence nothing here is `Send`. If that thread ends, for
//! whatever reason, the kernel lets all its tracees go: one that was stopped runs on.

use std::{io, marker::PhantomData, mem::MaybeUninit, ptr};

use nix::libc;

/// A thread that this thread has seized.
#[derive(Debug)]
pub(super) struct Tracee {
    thread: libc::pid_t,
    /// Not `Send`: requests must come from the thread that seized.
    _tracer: PhantomData<*const ()>,
}

/// What became of a tracee: why it stopped, or that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It stopped because this signal is about to be delivered; [`Tracee::resume`] delivers it, another, or none.
    Signal(i32),
    /// Its whole process was stopped (`SIGSTOP`, ctrl-z): [`Tracee::listen`] leaves it so until `SIGCONT`.
    GroupStop,
    /// It stopped because its process goes on after a [`Self::GroupStop`].
    Trap,
    /// Its process runs another program from here on.
    Exec,
    /// It ended, or was killed; nothing more can be asked of it.
    Gone,
}

impl Tracee {
    /// Seizes a thread, which goes on running. `EPERM` if it may not be traced or has a tracer, `ESRCH` if it is gone.
    pub(super) fn seize(thread: u32) -> io::Result<Self> {
        let tracee = Self {
            thread: thread.cast_signed(),
            _tracer: PhantomData,
        };
        tracee.request(libc::PTRACE_SEIZE, libc::PTRACE_O_TRACEEXEC.cast_unsigned() as usize)?;
        Ok(tracee)
    }

    /// Lets a stopped thread run on and delivers `signal`, 0 for none.
    pub(super) fn resume(&self, signal: i32) -> io::Result<()> {
        self.request(libc::PTRACE_CONT, signal.cast_unsigned() as usize)
    }

    /// Leaves a thread stopped that is in a [`Change::GroupStop`], until its process goes on.
    pub(super) fn listen(&self) -> io::Result<()> {
        self.request(libc::PTRACE_LISTEN, 0)
    }

    /// Lets a stopped thread go for good and delivers `signal`, 0 for none.
    pub(super) fn detach(self, signal: i32) -> io::Result<()> {
        self.request(libc::PTRACE_DETACH, signal.cast_unsigned() as usize)
    }

    /// Whether the signal for which the thread is stopped was sent by the kernel itself, as an eBPF program does, and
    /// not by a process.
    pub(super) fn is_from_kernel(&self) -> io::Result<bool> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the kernel writes a `siginfo_t` there, or nothing.
        let done = unsafe {
            libc::ptrace(
                libc::PTRACE_GETSIGINFO,
                self.thread,
                ptr::null_mut::<libc::c_void>(),
                info.as_mut_ptr(),
            )
        };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: written, or zeros, which are a valid value too.
        Ok(unsafe { info.assume_init() }.si_code == libc::SI_KERNEL)
    }

    /// A request whose argument is a number. A thread that is being killed answers none: that is no error, because its
    /// [`Change::Gone`] follows.
    fn request(&self, request: libc::c_uint, data: usize) -> io::Result<()> {
        // SAFETY: none of these requests reads or writes memory of this process.
        let done = unsafe { libc::ptrace(request, self.thread, ptr::null_mut::<libc::c_void>(), data) };
        if done != -1 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) && request != libc::PTRACE_SEIZE => Ok(()),
            error => Err(error),
        }
    }
}

/// What happened next to one of this thread's tracees, by thread id; `None` if nothing did. It doesn't wait: the kernel
/// sends this process a `SIGCHLD` for each. A child process of this very thread would be reaped too.
pub(super) fn next_change() -> io::Result<Option<(u32, Change)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place to write to.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) } {
        0 => Ok(None),
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
        thread => Ok(Some((thread.cast_unsigned(), change(status)))),
    }
}

fn change(status: i32) -> Change {
    if !libc::WIFSTOPPED(status) {
        return Change::Gone;
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 => Change::Signal(signal),
        libc::PTRACE_EVENT_EXEC => Change::Exec,
        libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Change::GroupStop,
        _ => Change::Trap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_why_a_thread_stopped() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        assert_eq!(change(stopped(libc::SIGUSR1, 0)), Change::Signal(libc::SIGUSR1));
        assert_eq!(change(stopped(64, 0)), Change::Signal(64), "a real-time signal");
        let event = libc::PTRACE_EVENT_STOP;
        assert_eq!(change(stopped(libc::SIGSTOP, event)), Change::GroupStop);
        assert_eq!(change(stopped(libc::SIGTTIN, event)), Change::GroupStop);
        assert_eq!(change(stopped(libc::SIGTRAP, event)), Change::Trap);
        assert_eq!(change(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC)), Change::Exec);
        assert_eq!(change(3 << 8), Change::Gone, "exited with code 3");
        assert_eq!(change(libc::SIGKILL), Change::Gone, "killed");
    }

    #[test]
    fn a_thread_that_does_not_exist_is_not_seized() {
        // Above the largest id that Linux gives out.
        let error = Tracee::seize(4_194_305).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        assert_eq!(next_change().unwrap(), None);
    }
}
