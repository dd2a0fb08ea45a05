//! Free ports that stay free for the test that asked, also among tests in other processes.
//!
//! A port is leased by a lock on a file of its number. The numbers lie below those that the kernel
//! gives to outgoing connections, so that no client takes one between two starts of a server.

use std::env;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::process;

use rustix::fs::{FlockOperation, flock};

const RANGE: Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 that nobody listens on, leased until this value is dropped.
pub(crate) struct Port {
    number: u16,
    _lease: File,
}

impl Port {
    /// The port's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// Leases a port.
pub(crate) fn free_port() -> Port {
    let uid = rustix::process::geteuid().as_raw();
    let folder = env::temp_dir().join(format!("stigmer-test-ports-{uid}"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
    // Processes start looking in different places, so that few meet.
    let first = u16::try_from(process::id() * 37 % u32::from(RANGE.end - RANGE.start)).unwrap_or(0);
    RANGE
        .cycle_from(first)
        .find_map(|number| {
            let path = folder.join(number.to_string());
            let lease = OpenOptions::new().append(true).create(true).open(path).ok()?;
            flock(&lease, FlockOperation::NonBlockingLockExclusive).ok()?;
            // Only a look: the listener is closed again at once.
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            Some(Port { number, _lease: lease })
        })
        .unwrap_or_else(|| panic!("no free port in {RANGE:?}"))
}

/// The whole range once, from somewhere in it.
trait CycleFrom {
    fn cycle_from(self, offset: u16) -> impl Iterator<Item = u16>;
}

impl CycleFrom for Range<u16> {
    fn cycle_from(self, offset: u16) -> impl Iterator<Item = u16> {
        let middle = self.start + offset;
        (middle..self.end).chain(self.start..middle)
    }
}
