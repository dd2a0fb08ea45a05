//! Opening a socket that a component listens on.
//!
//! Failure paths: an address that somebody has, that this machine does not have, or that needs more
//! rights is a launch that failed, and the failure says what to do about it. The file of a Unix socket
//! that nobody answers on is left from somebody who was killed, and is replaced.
//!
//! A daemon of root's may be told to open sockets in folders of others. Mode and owner are therefore
//! given to the file by a descriptor, after a look that it is a socket: a link that somebody puts in its
//! place in between leads to nothing else.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{Gid, Uid};

use crate::keeper::wire::Credentials;
use crate::model::socket::{DEFAULT_MODE, ListenAddress, SocketSpec};
use crate::model::{LaunchError, LaunchStage, Retry};
use crate::unix_socket::{is_answered, with_short};

/// By what the file of a Unix socket is known again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// That of the socket at this path; `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        let id = Self { device: found.dev(), inode: found.ino() };
        found.file_type().is_socket().then_some(id)
    }
}

/// What went wrong, and what to do about it.
struct Problem {
    errno: Errno,
    message: String,
    hint: String,
}

/// Opens a socket. Its file, if it has one, belongs to `owner`.
pub(super) fn open(
    name: &str,
    spec: &SocketSpec,
    owner: Option<&Credentials>,
) -> Result<OwnedFd, LaunchError> {
    let opened = match &spec.address {
        ListenAddress::Tcp(address) => {
            tcp(*address, spec).map_err(|errno| tcp_problem(*address, errno))
        }
        ListenAddress::Unix(path) => unix(path, spec, owner),
    };
    opened.map_err(|problem| {
        let is_scarcity =
            matches!(problem.errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS);
        LaunchError {
            stage: LaunchStage::Prepare,
            errno: Some(problem.errno.raw_os_error()),
            message: format!(
                "cannot listen on {} for the socket `{name}`: {}",
                spec.address, problem.message
            ),
            hint: (!problem.hint.is_empty()).then_some(problem.hint),
            retry: if is_scarcity { Retry::Soon } else { Retry::Counted },
        }
    })
}

/// Gives a socket that is open what is declared of it by now.
pub(super) fn adjust(socket: &OwnedFd, spec: &SocketSpec, owner: Option<&Credentials>) {
    // Neither can fail for a socket that listens, and where it did, the socket is still good.
    let _ = rustix::net::listen(socket, backlog(spec));
    if let ListenAddress::Unix(path) = &spec.address {
        let _ = own(path, spec.mode.unwrap_or(DEFAULT_MODE), owner);
    }
}

fn backlog(spec: &SocketSpec) -> i32 {
    i32::try_from(spec.backlog).unwrap_or(i32::MAX)
}

fn tcp(address: SocketAddr, spec: &SocketSpec) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of the owner before, which may linger for a minute, are no reason to wait.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // An address means itself: `[::]` is not also `0.0.0.0`.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, backlog(spec))?;
    Ok(socket)
}

fn tcp_problem(address: SocketAddr, errno: Errno) -> Problem {
    let port = address.port();
    let (message, hint) = match errno {
        Errno::ADDRINUSE => (
            "the address is in use".to_owned(),
            format!(
                "`ss -ltnp 'sport = :{port}'` shows who has it; end that, or declare another address"
            ),
        ),
        Errno::ADDRNOTAVAIL => (
            "this machine has no such address".to_owned(),
            "`ip address` shows those that it has; 0.0.0.0 and [::] stand for all of them"
                .to_owned(),
        ),
        Errno::ACCESS => (
            "it is not allowed".to_owned(),
            format!(
                "port {port} needs root, CAP_NET_BIND_SERVICE, or a lower \
                 net.ipv4.ip_unprivileged_port_start; or declare a higher port"
            ),
        ),
        other => (io::Error::from(other).to_string(), String::new()),
    };
    Problem { errno, message, hint }
}

fn unix(path: &Path, spec: &SocketSpec, owner: Option<&Credentials>) -> Result<OwnedFd, Problem> {
    let plain = |error: io::Error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let folder = path.parent().unwrap_or(path).display();
        let (message, hint) = match errno {
            Errno::NOENT => (
                format!("the folder {folder} is not there"),
                format!("make it, as the user of the daemon: `mkdir -p {folder}`"),
            ),
            Errno::ADDRINUSE => (
                "somebody answers on it".to_owned(),
                format!("`ss -lxp | grep {}` shows who has it; end that", path.display()),
            ),
            Errno::ACCESS | Errno::PERM => (
                error.to_string(),
                format!("the user of the daemon must be allowed to write to {folder}"),
            ),
            _ => (error.to_string(), String::new()),
        };
        Problem { errno, message, hint }
    };
    make_room(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Problem {
            errno: Errno::EXIST,
            message: "there is something that is no socket".to_owned(),
            hint: "remove it, or declare another path".to_owned(),
        },
        _ => plain(error),
    })?;
    let open = || -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        with_short(path, |short| Ok(rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)?))?;
        // Until here nobody but this user may connect, by the mask of the engine; and nobody at all can.
        own(path, spec.mode.unwrap_or(DEFAULT_MODE), owner)?;
        rustix::net::listen(&socket, backlog(spec))?;
        Ok(socket)
    };
    open().map_err(plain)
}

/// Removes the file of a socket that nobody answers on.
fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if is_answered(path) => Err(Errno::ADDRINUSE.into()),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn own(path: &Path, mode: u32, owner: Option<&Credentials>) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if let Some(owner) = owner {
        let (user, group) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(file.as_fd(), "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(link, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn at(address: ListenAddress) -> SocketSpec {
        SocketSpec { address, backlog: 16, mode: None }
    }

    #[test]
    fn an_address_in_use_is_named_with_who_to_ask() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let error = open("http", &at(ListenAddress::Tcp(address)), None).unwrap_err();
        assert_eq!(
            error.message,
            format!("cannot listen on {address} for the socket `http`: the address is in use")
        );
        assert!(error.hint.unwrap().contains(&format!("sport = :{}", address.port())));
        assert_eq!(error.retry, Retry::Counted);
        drop(other);
        open("http", &at(ListenAddress::Tcp(address)), None).unwrap();
    }

    #[test]
    fn all_addresses_of_both_families_are_two() {
        let six = at(ListenAddress::Tcp("[::]:0".parse().unwrap()));
        // Not every machine has IPv6.
        let Ok(six) = open("six", &six, None) else { return };
        let port =
            std::net::TcpListener::from(six.try_clone().unwrap()).local_addr().unwrap().port();
        let four = SocketAddr::from(([0, 0, 0, 0], port));
        open("four", &at(ListenAddress::Tcp(four)), None).unwrap();
    }

    #[test]
    fn a_file_is_replaced_only_if_it_is_a_socket_that_nobody_answers_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let spec = SocketSpec { mode: Some(0o660), ..at(ListenAddress::Unix(path.clone())) };
        let socket = open("s", &spec, None).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = open("s", &spec, None).unwrap_err();
        assert!(error.message.ends_with("somebody answers on it"), "{error:?}");
        drop(socket);
        open("s", &spec, None).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        let error = open("s", &spec, None).unwrap_err();
        assert!(error.message.ends_with("there is something that is no socket"), "{error:?}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(open("s", &spec, None).is_err());
    }

    #[test]
    fn a_folder_that_is_missing_is_named_and_a_long_path_works() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(100)).join("y".repeat(60));
        let spec = at(ListenAddress::Unix(deep.join("s")));
        let error = open("s", &spec, None).unwrap_err();
        assert!(error.message.contains("is not there"), "{error:?}");
        assert!(error.hint.unwrap().contains("mkdir -p"));
        fs::create_dir_all(&deep).unwrap();
        let _socket = open("s", &spec, None).unwrap();
        assert!(is_answered(&deep.join("s")));
        assert!(UnixListener::bind(deep.join("t")).is_err());
    }
}
