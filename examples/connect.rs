//! The least that tcp probes of many components take: to connect, to be told of it, and to close. The
//! yardstick of the probes in `benches/scale`.
//!
//! ```text
//! connect EACH TURNS PORT...        10 turns a second, EACH connections in each, to the ports of 127.0.0.1 in turn
//!
//!   socket, connect (which does not wait) × EACH ──> epoll_wait ──> SO_ERROR, close × EACH ──> sleep
//! ```
//!
//! It prints the nanoseconds for which it was on a processor. It deliberately decides nothing: no timeout, no
//! result that is kept, no time of its own for each.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// As often as the probes of an interval of 10 s have a turn (ADR 0012).
const TURN: Duration = Duration::from_millis(100);

#[expect(
    clippy::disallowed_methods,
    reason = "a turn is a moment, and no state that one could wait for"
)]
fn main() -> io::Result<()> {
    let usage = || io::Error::other("usage: connect EACH TURNS PORT...");
    let numbers: Result<Vec<u32>, _> = env::args().skip(1).map(|word| word.parse()).collect();
    let numbers = numbers.map_err(|_| usage())?;
    let [each, turns, ports @ ..] = &*numbers else { return Err(usage()) };
    let ports: Result<Vec<u16>, _> = ports.iter().map(|port| u16::try_from(*port)).collect();
    let ports = ports.map_err(|_| usage())?;
    if ports.is_empty() {
        return Err(usage());
    }
    let mut next = ports.iter().cycle();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let began = Instant::now();
    for turn in 1..=*turns {
        let opened: io::Result<Vec<OwnedFd>> =
            next.by_ref().take(*each as usize).map(|port| open(&epoll, *port)).collect();
        for connection in told(&epoll, opened?)? {
            sockopt::socket_error(&connection)??;
        }
        thread::sleep((began + TURN * turn).saturating_duration_since(Instant::now()));
    }
    let schedstat = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = schedstat.split_ascii_whitespace().next().unwrap_or_default();
    writeln!(io::stdout(), "{nanoseconds}")
}

fn open(epoll: &OwnedFd, port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let connection = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&connection, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let told = EventFlags::OUT | EventFlags::ET;
    epoll::add(epoll, &connection, EventData::new_u64(0), told)?;
    Ok(connection)
}

/// These once all of them are connected, or refused.
fn told(epoll: &OwnedFd, opened: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let mut events = Vec::with_capacity(opened.len());
    while events.len() < opened.len() {
        epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), None)?;
    }
    Ok(opened)
}
