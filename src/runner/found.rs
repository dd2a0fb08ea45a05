//! The sockets of a component that has outlived engine and keeper: it alone has them.
//!
//! They are duplicated out of the process. What comes out is taken only if it listens where one of the
//! component's sockets is declared: a program may have closed what it got, and something else may have
//! its number.
//!
//! Failure paths: a kernel that does not allow it, or a process that is another one by now, has nothing
//! to be found; the socket is opened anew at the next launch.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::net::{SocketAddrAny, SocketAddrUnix, sockopt};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::keeper::identity;
use crate::model::socket::ListenAddress;

/// What the process of this pid, whose pidfd has this inode (0: unknown), listens on by the numbers from 3
/// on.
pub(super) fn listening(pid: u32, inode: u64, count: usize) -> Vec<(ListenAddress, OwnedFd)> {
    let Some(pidfd) = identity::open(pid) else { return Vec::new() };
    if identity::inode(pidfd.as_fd()) != inode {
        return Vec::new();
    }
    (3..)
        .take(count)
        .filter_map(|number| pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok())
        .filter_map(|socket| Some((address(&socket)?, socket)))
        .collect()
}

/// Where a socket listens; `None` for everything else.
fn address(socket: &OwnedFd) -> Option<ListenAddress> {
    if !sockopt::socket_acceptconn(socket).ok()? {
        return None;
    }
    let address: SocketAddrAny = rustix::net::getsockname(socket).ok()?;
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return Some(ListenAddress::Tcp(address));
    }
    let address = SocketAddrUnix::try_from(address).ok()?;
    Some(ListenAddress::Unix(PathBuf::from(OsStr::from_bytes(address.path_bytes()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_listens_has_an_address() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        assert_eq!(address(&tcp.into()), Some(ListenAddress::Tcp(at)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(address(&unix.into()), Some(ListenAddress::Unix(path)));
        assert_eq!(address(&client.into()), None);
        assert_eq!(address(&std::fs::File::open("/dev/null").unwrap().into()), None);
    }
}
