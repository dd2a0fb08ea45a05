//! Unix sockets by their paths, also where a path is too long for a socket address (107 bytes): it is
//! reached through `/proc/self/fd` then.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The longest path that fits a socket address, in bytes.
const LONGEST_PATH: usize = 107;

/// Connects without waiting: where too many wait in its queue already, the error is
/// [`io::ErrorKind::WouldBlock`].
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    with_short(path, |short| Ok(rustix::net::connect(&socket, &SocketAddrUnix::new(short)?)?))?;
    Ok(socket)
}

/// Whether somebody listens behind a socket's file. Queues a connection, which is closed at once.
pub fn is_answered(path: &Path) -> bool {
    match connect(path) {
        Ok(_) => true,
        // Only a queue that is there can be full.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Calls with a path that fits a socket address.
pub fn with_short<T>(path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= LONGEST_PATH {
        return call(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    call(&short)
}
