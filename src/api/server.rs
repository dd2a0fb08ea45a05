//! The control socket: bound with mode 0600, served to this user and to root alone.
//!
//! Connections have half of the descriptors that this process may have, so that supervision has the
//! other half whatever clients do: a connection over that is closed at once. And one descriptor is kept
//! in reserve for them, so that whoever asks gets an answer when supervision has all others.
//!
//! A socket file that nobody answers on is left from a daemon that was killed, and is replaced; one
//! that answers is another daemon's.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use crate::unix_socket::{self, is_answered, with_short};

/// The most connections at a time, each of which takes some memory.
const MOST: usize = 4096;

/// How long it waits where the kernel has nothing to accept a connection with.
const PAUSE: Duration = Duration::from_millis(100);

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
            if is_answered(path) {
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

/// Connects to a socket, also by a long path. Never waits: where too many wait in its queue already,
/// the error is [`io::ErrorKind::WouldBlock`].
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = unix_socket::connect(path)?;
    UnixStream::from_std(socket.into())
}

/// The connections of peers that may speak to us. Those of others are closed, and said so once each;
/// those that are too many are closed, and said so once until there is room again.
pub fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<Served>> {
    accepted(listener, room())
}

/// How many connections there may be at a time.
fn room() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = limit.map_or(MOST, |limit| usize::try_from(limit / 2).unwrap_or(MOST));
    half.clamp(1, MOST)
}

fn accepted(listener: UnixListener, room: usize) -> impl Stream<Item = io::Result<Served>> {
    let room = Arc::new(Semaphore::new(room));
    let mut is_told = false;
    let reserve = Reserve::default();
    reserve.fill();
    Accept { listener, pause: None, reserve: reserve.clone() }.filter_map(move |stream| {
        if let Err(why) = peer_is_trusted(&stream) {
            tracing::warn!("a connection to the control socket was refused: {why}");
            return None;
        }
        let Ok(place) = room.clone().try_acquire_owned() else {
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!("too many connections to the control socket; more are refused");
            }
            return None;
        };
        is_told = false;
        Some(Ok(Served { stream: Some(stream), reserve: reserve.clone(), _place: place }))
    })
}

/// The descriptor that is kept for connections: good for nothing but to be closed.
#[derive(Clone, Debug, Default)]
struct Reserve(Arc<Mutex<Option<OwnedFd>>>);

impl Reserve {
    /// Takes one, if it has none and there is one to be had.
    fn fill(&self) {
        let mut reserve = self.get();
        if reserve.is_none() {
            *reserve = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 0).ok();
        }
    }

    /// Lets it go; false if there is none.
    fn release(&self) -> bool {
        self.get().take().is_some()
    }

    /// Ends a connection. Where the reserve is out, its descriptor becomes the reserve in one step, so
    /// that nothing else can take it in between.
    fn end(&self, stream: UnixStream) {
        let mut reserve = self.get();
        if reserve.is_some() {
            return;
        }
        let Ok(stream) = stream.into_std() else { return };
        let mut descriptor = OwnedFd::from(stream);
        let flags = rustix::io::DupFlags::CLOEXEC;
        if rustix::io::dup3(io::stdin(), &mut descriptor, flags).is_ok() {
            *reserve = Some(descriptor);
        }
    }

    fn get(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is served, and the place that it takes.
#[derive(Debug)]
pub struct Served {
    /// Until it is dropped.
    stream: Option<UnixStream>,
    reserve: Reserve,
    _place: OwnedSemaphorePermit,
}

impl Served {
    fn stream(&mut self) -> io::Result<Pin<&mut UnixStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.reserve.end(stream);
        }
    }
}

impl Connected for Served {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
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

/// Whether there is no descriptor left, of this process or of the machine.
fn is_scarcity(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Accepts connections. A passing want of descriptors does not end the server, nor keep it busy: the
/// connection that could not be accepted stays in the queue, so that trying again at once would fail
/// again, without end.
///
/// The one in reserve is let go for it; it comes back when a connection ends.
struct Accept {
    listener: UnixListener,
    pause: Option<Pin<Box<Sleep>>>,
    reserve: Reserve,
}

impl Stream for Accept {
    type Item = UnixStream;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            self.reserve.fill();
            let mut accepted = std::task::ready!(self.listener.poll_accept(context));
            if accepted.as_ref().is_err_and(is_scarcity) && self.reserve.release() {
                accepted = std::task::ready!(self.listener.poll_accept(context));
            }
            match accepted {
                Ok((stream, _)) => return Poll::Ready(Some(stream)),
                Err(error) => {
                    tracing::debug!("cannot accept a connection: {error}");
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

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
    fn a_full_queue_holds_nobody_up() {
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("stigmer.sock");
            let socket =
                rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            rustix::net::listen(&socket, 2).unwrap();
            let mut queued = Vec::new();
            let full = loop {
                match connect(&path) {
                    Ok(stream) => queued.push(stream),
                    Err(error) => break error,
                }
                assert!(queued.len() < 10);
            };
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
            assert!(is_answered(&path));
            assert!(matches!(bind(&path), Err(SocketError::Taken(_))));
            drop(socket);
            assert!(!is_answered(&path));
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

    #[test]
    fn a_connection_too_many_is_closed_and_the_next_one_is_served_when_there_is_room() {
        use tokio::io::AsyncReadExt;
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("stigmer.sock");
            let mut served = std::pin::pin!(accepted(bind(&path).unwrap(), 1));
            let first = connect(&path).unwrap();
            let first_served = served.next().await.unwrap().unwrap();
            let mut second = connect(&path).unwrap();
            let third = tokio::select! {
                _ = served.next() => panic!("there is room for one"),
                end = second.read_u8() => end,
            };
            assert_eq!(third.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            drop((first, first_served));
            let fourth = connect(&path).unwrap();
            let fourth_served = served.next().await.unwrap().unwrap();
            drop((fourth, fourth_served));
        });
    }
}
