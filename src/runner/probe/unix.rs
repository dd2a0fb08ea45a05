//! A connection to a Unix stream socket is accepted.
//!
//! A socket address holds 107 bytes of path. A longer path is reached through the folder's descriptor,
//! as `/proc/self/fd/N/name`, so that a deep project folder does not forbid the probe.
//!
//! Failure paths: a missing file, a socket on which nobody listens (left behind by a dead process), and
//! a server that no longer accepts: its queue is full, which the kernel reports at once.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

use super::{Kind, Run, Target, text};

/// The longest path in a socket address; one byte of its 108 ends it.
const LONGEST_PATH: usize = 107;

pub(super) struct Unix {
    pub(super) path: PathBuf,
}

impl Kind for Unix {
    fn run<'a>(&'a mut self, _target: &'a Target) -> Run<'a> {
        Box::pin(async move {
            connect(&self.path).await.map(drop).map_err(|error| {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => "no such socket".to_owned(),
                    io::ErrorKind::WouldBlock => "nobody accepts, its queue is full".to_owned(),
                    _ => text::io_error(&error),
                };
                format!("{why} ({})", self.path.display()).into()
            })
        })
    }
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().as_bytes().len() <= LONGEST_PATH {
        return UnixStream::connect(path).await;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    };
    let folder = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    UnixStream::connect(&short).await
}
