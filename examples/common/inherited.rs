//! Sockets that whoever started this process has opened for it, in the way of systemd: `LISTEN_FDS` of
//! them, from descriptor 3 on, if `LISTEN_PID` is this process (`sd_listen_fds(3)`).

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process;

use rustix::net::AddressFamily;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A listening socket of either kind.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The next connection. May be dropped without losing one.
    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// All sockets that were handed down. Must be called inside of a runtime, once, and before this process
/// opens anything that it wants to keep.
pub(crate) fn listeners() -> io::Result<Vec<Listener>> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    // Those of another process, perhaps the parent of this one, are none of its business.
    if number("LISTEN_PID") != Some(process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    (3..).take(count as usize).map(take).collect()
}

#[expect(unsafe_code, reason = "an inherited descriptor is only known by its number")]
fn take(number: i32) -> io::Result<Listener> {
    // SAFETY: whoever started this process says that it is open and for this process, and nobody else
    // takes it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::ioctl_fionbio(&socket, true)?;
    // Programs that this one starts have no business with it.
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    let family = rustix::net::getsockname(&socket)?.address_family();
    Ok(if family == AddressFamily::UNIX {
        Listener::Unix(UnixListener::from_std(socket.into())?)
    } else {
        Listener::Tcp(TcpListener::from_std(socket.into())?)
    })
}
