//! Sockets that are opened for a component and handed to each of its processes (`sd_listen_fds(3)`).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Connections that wait to be accepted, unless something else is declared: as many as the kernel allows.
pub const DEFAULT_BACKLOG: u32 = 4096;

/// The mode of the file of a Unix socket, unless something else is declared.
pub const DEFAULT_MODE: u32 = 0o600;

/// A listening socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SocketSpec {
    /// Where it listens.
    pub address: ListenAddress,
    /// So many connections wait at most to be accepted.
    pub backlog: u32,
    /// The mode of its file; it has one if it is a Unix socket.
    pub mode: Option<u32>,
}

/// Where a socket listens. Its text is unique on the machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenAddress {
    /// An address and a port of this machine.
    // Other formats leave out the scope of an IPv6 address.
    Tcp(#[serde(with = "super::embedded")] SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The port, if it has one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
