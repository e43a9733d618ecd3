//! Whether anybody is at the other end of stdout: a pipe's reader, or a terminal.

use std::{
    io::{self, Stdout},
    os::fd::AsFd as _,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Whether the other end has gone: nothing may be written for a long time that would tell.
pub(super) fn has_gone() -> bool {
    ask(&io::stdout(), PollFlags::empty(), Duration::ZERO)
        .is_ok_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
}

/// Waits for input from the terminal that stdout is; says whether some came, or the terminal went. A signal ends it early.
pub(super) fn wait_for_input(at_most: Duration) -> nix::Result<bool> {
    match ask(&io::stdout(), PollFlags::POLLIN, at_most) {
        Ok(events) => Ok(!events.is_empty()),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error),
    }
}

fn ask(stdout: &Stdout, events: PollFlags, at_most: Duration) -> nix::Result<PollFlags> {
    let mut fds = [PollFd::new(stdout.as_fd(), events)];
    // Rounded up, so that a wait of less than a millisecond is none of zero, over and over.
    let timeout = at_most.as_micros().div_ceil(1000);
    poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX))?;
    Ok(fds[0].revents().unwrap_or_else(PollFlags::empty))
}
