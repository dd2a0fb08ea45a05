//! Where a component listens, as seen from this machine.
//!
//! A check without a host means the component itself. For a process that is this machine. For a
//! container it is the published port, if the port is published; else the container's own address, which
//! Linux can reach; a container in the host's network listens on this machine.
//!
//! Failure paths: a container that has neither is asked for on this machine, where nobody answers, which is
//! what the probe then says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::connect::authority;

/// This machine.
const LOCAL: &str = "127.0.0.1";

/// Where a component listens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Reach {
    /// On this machine.
    #[default]
    Local,
    /// In a network of its own.
    Container {
        /// Published TCP ports: where each is reached.
        published: BTreeMap<u16, (String, u16)>,
        /// Its address in its first network.
        address: Option<IpAddr>,
    },
}

impl Reach {
    /// Where a check that names this host and port must knock.
    pub(super) fn place(&self, host: Option<&str>, port: u16) -> (String, u16) {
        match (host, self) {
            (Some(host), _) => (host.to_owned(), port),
            (None, Self::Local) => (LOCAL.to_owned(), port),
            (None, Self::Container { published, address }) => {
                published.get(&port).cloned().unwrap_or_else(|| {
                    (address.map_or_else(|| LOCAL.to_owned(), |address| address.to_string()), port)
                })
            }
        }
    }
}

/// `127.0.0.1:8080`; `:8080` where only the port is known before the component runs.
pub(super) fn shown(host: Option<&str>, port: u16) -> String {
    host.map_or_else(|| format!(":{port}"), |host| authority(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_outranks_the_address_and_a_host_outranks_both() {
        let published = BTreeMap::from([(80, ("127.0.0.1".to_owned(), 8080))]);
        let address = Some(IpAddr::from([172, 17, 0, 2]));
        let reach = Reach::Container { published, address };
        assert_eq!(reach.place(None, 80), ("127.0.0.1".to_owned(), 8080));
        assert_eq!(reach.place(None, 81), ("172.17.0.2".to_owned(), 81));
        assert_eq!(reach.place(Some("db"), 80), ("db".to_owned(), 80));
        assert_eq!(Reach::Local.place(None, 80), (LOCAL.to_owned(), 80));
        assert_eq!(shown(None, 80), ":80");
        assert_eq!(shown(Some("::1"), 80), "[::1]:80");
    }
}
