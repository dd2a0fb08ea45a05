//! TCP connections: names to addresses, addresses to a stream.
//!
//! Every address of a name is tried, the next one when the one before fails or has not answered after
//! `HEAD_START`, and the first that accepts wins (RFC 8305 in small): `localhost` is `::1` and 127.0.0.1,
//! and a component listens on either.
//!
//! Failure paths: no address, or the sum of what each address said. A connection of a socket to itself,
//! which Linux makes when a closed port lies in the range from which local ports are taken, counts as
//! refused: it would make a dead component look alive, and take the port away from it.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
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
        let mut waiting = self.addresses().await?.into_iter().take(ADDRESSES);
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
                    Some((_, Ok(stream))) => return Ok(stream),
                    Some((address, Err(error))) => {
                        failures.push(format!("{} ({address})", text::io_error(&error)));
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

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
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
    async fn a_socket_connected_to_itself_is_a_closed_port() {
        // Binding first and then connecting to the own address is what chance does to a prober.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let stream = socket.connect(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        drop(stream);
        let error = attempt(address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
