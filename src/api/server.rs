//! The control socket: bound with mode 0600, served to this user and to root alone.
//!
//! A socket file that nobody answers on is left from a daemon that was killed, and is replaced; one
//! that answers is another daemon's. Paths that are too long for a socket address (107 bytes) are
//! reached through `/proc/self/fd`.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt};

/// The longest path that fits a socket address, in bytes.
const LONGEST_PATH: usize = 107;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers on it.
    #[error("another daemon answers on {0}")]
    Taken(PathBuf),
    /// Something else is in its place.
    #[error("{0} is not a socket; remove it")]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Binds the control socket.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {
            if connect(path).is_ok() {
                return Err(SocketError::Taken(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = with_short(path, |short| UnixListener::bind(short)).map_err(failed)?;
    // The folder is closed to others (0700), so that nobody gets in before this.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Connects to a socket, also by a long path.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = with_short(path, |short| std::os::unix::net::UnixStream::connect(short))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Calls with a path that fits a socket address.
fn with_short<T>(path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= LONGEST_PATH {
        return call(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = std::fs::File::open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    call(&short)
}

/// The connections of peers that may speak to us. Those of others are closed, and said so once each.
pub fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    Accept { listener }.filter(|accepted| match accepted {
        Ok(stream) => match peer_is_trusted(stream) {
            Ok(()) => true,
            Err(why) => {
                tracing::warn!("a connection to the control socket was refused: {why}");
                false
            }
        },
        Err(_) => true,
    })
}

fn peer_is_trusted(stream: &UnixStream) -> Result<(), String> {
    let peer = stream.peer_cred().map_err(|error| format!("its user is unknown: {error}"))?;
    let ours = nix::unistd::geteuid().as_raw();
    if peer.uid() == ours || peer.uid() == 0 {
        Ok(())
    } else {
        Err(format!("it belongs to user {}", peer.uid()))
    }
}

/// Accepts connections; a passing want of descriptors does not end the server.
struct Accept {
    listener: UnixListener,
}

impl Stream for Accept {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.listener.poll_accept(context) {
            Poll::Ready(Ok((stream, _))) => Poll::Ready(Some(Ok(stream))),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("stigmer.sock");
            let first = bind(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            assert!(matches!(bind(&path), Err(SocketError::Taken(_))));
            drop(first);
            bind(&path).unwrap();
        });
    }

    #[test]
    fn something_else_in_its_place_is_left_alone() {
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("stigmer.sock");
            std::fs::write(&path, "mine").unwrap();
            assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        });
    }

    #[test]
    fn long_paths_work() {
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
            std::fs::create_dir_all(&deep).unwrap();
            let path = deep.join("stigmer.sock");
            let listener = bind(&path).unwrap();
            let client = connect(&path).unwrap();
            let served = std::pin::pin!(incoming(listener)).next().await.unwrap().unwrap();
            drop((client, served));
        });
    }
}
