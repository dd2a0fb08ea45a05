//! TCP connections: names to addresses, addresses to a stream.
//!
//! Every address of a name is tried, the next one when the one before fails or has not answered after
//! `HEAD_START`, and the first that accepts wins (RFC 8305 in small): `localhost` is `::1` and 127.0.0.1,
//! and a component listens on either.
//!
//! On the same machine a connection is there as soon as it has been asked for. Whoever wants no more than
//! that has it without a timer, a registration with epoll or a second turn of the loop, which together
//! cost more than the connection.
//!
//! Failure paths: no address, or the sum of what each address said. A connection of a socket to itself,
//! which Linux makes when a closed port lies in the range from which local ports are taken, counts as
//! refused: it would make a dead component look alive, and take the port away from it.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, getpeername, getsockname, socket_with};
use tokio::net::TcpStream;

use super::blocking::OneAtATime;
use super::text;

/// How long an address may keep quiet before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried; a hostile zone may hold thousands.
const ADDRESSES: usize = 16;

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn authority(host: &str, port: u16) -> String {
    let host = bare(host);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The host without the brackets of an IPv6 literal.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A host and port, and the lookup that may still run for it.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    lookup: OneAtATime<io::Result<Vec<SocketAddr>>>,
}

impl Endpoint {
    /// # Errors
    /// The host is empty or the port is 0.
    pub(super) fn new(host: &str, port: u16) -> Result<Self, String> {
        let host = bare(host).to_owned();
        if host.is_empty() {
            return Err("the host is empty".to_owned());
        }
        if port == 0 {
            return Err("port 0 cannot be connected to".to_owned());
        }
        Ok(Self { host, port, lookup: OneAtATime::default() })
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub(super) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// A connection to the first address that accepts one.
    pub(super) async fn connect(&mut self) -> Result<TcpStream, String> {
        let stream = self.first().await?.into_stream();
        stream.map_err(|error| format!("{} ({})", text::io_error(&error), self.authority()))
    }

    /// Whether an address accepts a connection, which is closed again.
    pub(super) async fn accepts(&mut self) -> Result<(), String> {
        self.first().await.map(drop)
    }

    async fn first(&mut self) -> Result<Connection, String> {
        let addresses = self.addresses().await?;
        if let [address] = *addresses {
            return attempt(address).await.map_err(|error| failure(address, &error));
        }
        let mut waiting = addresses.into_iter().take(ADDRESSES);
        let mut trying = FuturesUnordered::new();
        let mut failures = Vec::new();
        let mut next = waiting.next();
        loop {
            if let Some(address) = next.take() {
                trying.push(async move { (address, attempt(address).await) });
            }
            let head_start = tokio::time::sleep(HEAD_START);
            tokio::select! {
                result = trying.next() => match result {
                    Some((_, Ok(connection))) => return Ok(connection),
                    Some((address, Err(error))) => {
                        failures.push(failure(address, &error));
                        next = waiting.next();
                    }
                    None => return Err(failures.join("; ")),
                },
                () = head_start, if waiting.len() > 0 => next = waiting.next(),
            }
        }
    }

    async fn addresses(&mut self) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let (host, port) = (self.host.clone(), self.port);
        let found = self
            .lookup
            .run(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect))
            .await?;
        match found {
            Ok(addresses) if addresses.is_empty() => Err(format!("{}: no address", self.host)),
            Ok(addresses) => Ok(addresses),
            Err(error) => {
                let why = text::io_error(&error);
                let why = why.trim_start_matches("failed to lookup address information: ");
                Err(format!("cannot resolve {}: {why}", self.host))
            }
        }
    }
}

fn failure(address: SocketAddr, error: &io::Error) -> String {
    format!("{} ({address})", text::io_error(error))
}

/// A connection that was accepted.
enum Connection {
    /// As soon as it was asked for. The runtime does not know of it.
    AtOnce(OwnedFd),
    /// After a while.
    Later(TcpStream),
}

impl Connection {
    fn into_stream(self) -> io::Result<TcpStream> {
        match self {
            Self::AtOnce(socket) => TcpStream::from_std(socket.into()),
            Self::Later(stream) => Ok(stream),
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<Connection> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    if is_connected(&socket)? {
        return Ok(Connection::AtOnce(socket));
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    if is_connected(&stream)? {
        return Ok(Connection::Later(stream));
    }
    Err(Errno::NOTCONN.into())
}

/// Whether somebody else is at the other end by now.
///
/// # Errors
/// It is the socket itself.
fn is_connected(socket: impl std::os::fd::AsFd) -> io::Result<bool> {
    let peer = match getpeername(&socket) {
        Ok(peer) => peer,
        Err(Errno::NOTCONN) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if Some(getsockname(&socket)?) == peer {
        return Err(Errno::CONNREFUSED.into());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn brackets_belong_to_ipv6_alone() {
        assert_eq!(authority("::1", 80), "[::1]:80");
        assert_eq!(authority("[::1]", 80), "[::1]:80");
        assert_eq!(authority("db.local", 80), "db.local:80");
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_early() {
        assert!(Endpoint::new("", 80).is_err());
        assert!(Endpoint::new("[]", 80).is_err());
        assert!(Endpoint::new("h", 0).is_err());
    }

    #[tokio::test]
    async fn every_address_of_localhost_is_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut endpoint = Endpoint::new("localhost", port).unwrap();
        let stream = endpoint.connect().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn what_is_accepted_at_once_needs_no_turn_of_the_loop_and_can_be_used() {
        for host in ["127.0.0.1", "::1"] {
            let listener = match tokio::net::TcpListener::bind((host, 0)).await {
                // Not every machine has it.
                Err(_) if host == "::1" => continue,
                listener => listener.unwrap(),
            };
            let port = listener.local_addr().unwrap().port();
            let mut endpoint = Endpoint::new(host, port).unwrap();
            // A kernel that is busy may need a moment.
            let mut is_at_once = false;
            for _ in 0..100 {
                let mut accepted = Box::pin(endpoint.accepts());
                is_at_once = match accepted.as_mut().now_or_never() {
                    Some(accepted) => accepted.is_ok(),
                    None => accepted.await.is_err(),
                };
                drop(listener.accept().await.unwrap());
                if is_at_once {
                    break;
                }
            }
            assert!(is_at_once, "{host}");
            let mut stream = endpoint.connect().await.unwrap();
            let (mut other, _) = listener.accept().await.unwrap();
            other.write_all(b"x").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
        }
    }

    #[tokio::test]
    async fn what_is_accepted_later_is_waited_for_and_what_is_closed_is_refused() {
        // A queue of one, and somebody in it.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = socket.listen(0).unwrap();
        let mut waiting = vec![tokio::net::TcpStream::connect(address).await.unwrap()];
        let mut endpoint = Endpoint::new("127.0.0.1", address.port()).unwrap();
        let mut accepted = Box::pin(endpoint.accepts());
        assert_eq!(accepted.as_mut().now_or_never(), None);
        waiting.push(listener.accept().await.unwrap().0);
        // The kernel asks once more after a second.
        assert_eq!(accepted.await, Ok(()));
        drop(listener);
        let refused = format!("connection refused ({address})");
        assert_eq!(endpoint.accepts().await, Err(refused));
    }

    #[tokio::test]
    async fn a_socket_connected_to_itself_is_a_closed_port() {
        // Binding first and then connecting to the own address is what chance does to a prober.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let stream = socket.connect(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        drop(stream);
        let error = attempt(address).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
