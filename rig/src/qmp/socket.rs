//! The file of a Unix socket: its owner's alone, never in place of another's, gone at the end.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    stat::{Mode, fchmod},
};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("{} is in use: another process listens there, so choose another path", path.display())]
    Live {
        /// The path asked for.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is no socket and is not overwritten: choose another path", path.display())]
    NoSocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// The system refused.
    #[error("can't {operation} the socket {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that listens, and its file.
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode: what tells the file from one that somebody put in its place.
    identity: (u64, u64),
}

/// Clients that may wait until they are accepted.
const BACKLOG: i32 = 128;

impl Socket {
    /// Listens at `path`. A socket that a killed process left there is replaced.
    pub(super) fn listen(path: &Path) -> Result<Self, SocketError> {
        let failed = |operation: &'static str| {
            move |source: io::Error| SocketError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Of two processes that find the same left-over, only one at a time may look, remove and bind.
        let guard = File::open(folder).map_err(failed("open the folder of"))?;
        guard.lock().map_err(failed("lock the folder of"))?;
        remove_left_over(path)?;
        let listener = open(path).map_err(failed("create"))?;
        let file = fs::symlink_metadata(path).map_err(failed("find"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: (file.dev(), file.ino()),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours {
            // That the folder has become read-only is no reason to fail at the end.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_left_over(path: &Path) -> Result<(), SocketError> {
    let failed = |operation: &'static str| {
        move |source: io::Error| SocketError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(SocketError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove what is left of"))
        }
        // Connected, or too busy to be, or not ours to tell.
        _ => Err(SocketError::Live { path: path.to_owned() }),
    }
}

/// A socket takes its file's mode from its own descriptor's: set before `bind`, so that there is no moment in which the
/// file is another's too, and no umask to change under other threads.
fn open(path: &Path) -> io::Result<UnixListener> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &address)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("the socket").mode() & 0o777
    }

    #[test]
    fn it_is_its_owners_alone_and_goes_with_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let socket = Socket::listen(&path).expect("nothing is there");
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(Socket::listen(&path), Err(SocketError::Live { .. })));
        assert!(path.exists(), "who is refused removes nothing");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "dropping a listener leaves its file");
        drop(Socket::listen(&path).expect("nobody listens"));

        fs::write(&path, "precious").expect("a file");
        assert!(matches!(Socket::listen(&path), Err(SocketError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        let error = Socket::listen(&dir.path().join("no/s")).err().expect("no folder");
        assert!(error.to_string().contains("No such file"), "{error}");
        let long = dir.path().join("x".repeat(200));
        assert!(matches!(Socket::listen(&long), Err(SocketError::Io { .. })));
    }

    #[test]
    fn a_file_that_took_its_place_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let socket = Socket::listen(&path).expect("nothing is there");
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "another's").expect("a file");
        drop(socket);
        assert!(path.exists());
    }
}
