//! Networks and volumes of the project, by the names that containers use.
//!
//! A container's spec holds all that is declared of what it uses. Bound: the copies of all containers
//! together, so that a thousand labels under ten thousand containers are refused and not built.
//!
//! Failure paths: a name that nobody declared is an error, because a new and empty volume in the place of a
//! misspelt one is a loss of data; after a mistake in the declarations themselves nothing is said of names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::at::At;
use super::container::{labels, pairs};
use super::context::Context;
use super::unfit;
use crate::manifest::de;
use crate::manifest::merge::map_of_list;
use crate::manifest::report::Place;
use crate::manifest::schema::container::mounts::{Volume, VolumeOrNothing};
use crate::manifest::schema::container::network::{Ipam, Network, NetworkOrNothing};
use crate::manifest::schema::scalars::Word;
use crate::manifest::tree::{Entry, Node, short};
use crate::model::container::{NetworkDeclaration, VolumeSpec};

/// The network of every container that names none.
pub(super) const DEFAULT_NETWORK: &str = "default";
/// Labels, options and subnets in all copies together.
const MOST_COPIED: usize = 200_000;

/// What containers can name.
pub(super) struct Declared {
    project: String,
    networks: BTreeMap<String, NetworkDeclaration>,
    volumes: BTreeMap<String, VolumeSpec>,
    networks_damaged: bool,
    volumes_damaged: bool,
    copied: usize,
}

impl Declared {
    /// `damaged` tells whether something was taken out below this top-level key.
    pub(super) fn new(
        context: &mut Context<'_>,
        root: &Node,
        project: &str,
        damaged: impl Fn(&str) -> bool,
    ) -> Self {
        let mut declared = Self {
            project: project.to_owned(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            networks_damaged: damaged("networks"),
            volumes_damaged: damaged("volumes"),
            copied: 0,
        };
        let mut taken = BTreeMap::new();
        for entry in root.get("networks").map(Node::entries).unwrap_or_default() {
            if let Some(network) = declared.read_network(context, entry) {
                unique(context, entry, &network.name, &mut taken);
                declared.networks.insert(entry.key.to_string(), network);
            }
        }
        let mut taken = BTreeMap::new();
        for entry in root.get("volumes").map(Node::entries).unwrap_or_default() {
            if let Some(volume) = declared.read_volume(context, entry) {
                unique(context, entry, &volume.name, &mut taken);
                declared.volumes.insert(entry.key.to_string(), volume);
            }
        }
        if !declared.networks_damaged && !declared.networks.contains_key(DEFAULT_NETWORK) {
            let name = format!("{project}_{DEFAULT_NETWORK}");
            let network = NetworkDeclaration { name, ..plain_network() };
            declared.networks.insert(DEFAULT_NETWORK.to_owned(), network);
        }
        declared
    }

    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// The network of this name.
    pub(super) fn network(
        &mut self,
        context: &mut Context<'_>,
        at: At<'_>,
        name: &str,
    ) -> Option<NetworkDeclaration> {
        if let Some(network) = self.networks.get(name) {
            let size = network.labels.len() + network.driver_opts.len() + network.subnets.len();
            return may_copy(&mut self.copied, context, at, size).then(|| network.clone());
        }
        if !self.networks_damaged {
            let known = self.networks.keys().map(String::as_str);
            let help = match name {
                "host" | "none" | "bridge" => format!("write `network_mode: {name}` instead"),
                _ => undeclared(context, "networks", name, known),
            };
            let message = format!("the network `{}` is not declared", short(name));
            context.error(at.place(), message, "a network of the top-level `networks`", help);
        }
        None
    }

    /// The volume of this name.
    pub(super) fn volume(
        &mut self,
        context: &mut Context<'_>,
        at: At<'_>,
        name: &str,
    ) -> Option<VolumeSpec> {
        if let Some(volume) = self.volumes.get(name) {
            let size = volume.labels.len() + volume.driver_opts.len();
            return may_copy(&mut self.copied, context, at, size).then(|| volume.clone());
        }
        if !self.volumes_damaged {
            let help = if name.starts_with(['.', '/', '~']) {
                "a path is mounted with `type: bind`".to_owned()
            } else if name.contains('/') {
                format!("a path begins with `./`, `/` or `~`: `./{}`", short(name))
            } else {
                undeclared(context, "volumes", name, self.volumes.keys().map(String::as_str))
            };
            let message = format!("the volume `{}` is not declared", short(name));
            context.error(at.place(), message, "a volume of the top-level `volumes`", help);
        }
        None
    }

    /// The engine's name, and whether others make it. `others` are further keys that are given.
    fn identity(
        &self,
        context: &mut Context<'_>,
        at: At<'_>,
        key: &str,
        (name, external): (Option<&Word>, Option<bool>),
        others: &[&str],
    ) -> (String, bool) {
        let external = external.unwrap_or_default();
        if external {
            for other in others {
                let message = format!("`{}` is external and has `{other}`", short(key));
                let help = format!("take out `{other}` or `external`: others make it");
                context.error(at.key(other).key_place(), message, "one of the two", help);
            }
        }
        let (place, real) = match name {
            Some(name) => (at.key("name").place(), name.0.0.clone()),
            None if external => (at.key_place(), key.to_owned()),
            None => (at.key_place(), format!("{}_{key}", self.project)),
        };
        let legal = |one: u8| one.is_ascii_alphanumeric() || b"_.-".contains(&one);
        let begins = real.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if !begins || real.len() > 255 || !real.bytes().all(legal) || !key.bytes().all(legal) {
            let message = format!("`{}` cannot be a name here", short(name.map_or(key, |_| &real)));
            let expected = "letters, digits, `_`, `.` and `-`, the first a letter or a digit";
            context.error(place, message, expected, "");
        }
        (real, external)
    }

    fn read_network(&self, context: &mut Context<'_>, entry: &Entry) -> Option<NetworkDeclaration> {
        let node = lengthened(&entry.node);
        let raw = match de::read::<NetworkOrNothing>(&node) {
            Ok(NetworkOrNothing::Network(raw)) => raw,
            Ok(NetworkOrNothing::Nothing(())) => Network::default(),
            Err(error) => {
                let error = unfit(context, error, entry.place);
                context.push(error);
                return None;
            }
        };
        let at = At::new(&node, entry.place);
        let others: Vec<&str> = [
            ("driver", raw.driver.is_some()),
            ("driver_opts", raw.driver_opts.is_some()),
            ("internal", raw.internal.is_some()),
            ("attachable", raw.attachable.is_some()),
            ("enable_ipv6", raw.enable_ipv6.is_some()),
            ("ipam", raw.ipam.is_some()),
            ("labels", raw.labels.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect();
        let named = (raw.name.as_ref(), raw.external);
        let (name, external) = self.identity(context, at, &entry.key, named, &others);
        for (key, word) in
            [("name", Some(&name)), ("driver", raw.driver.as_ref().map(|one| &one.0.0))]
        {
            if let Some(word) = word.filter(|word| matches!(word.as_str(), "host" | "none")) {
                let help = format!("write `network_mode: {word}` in the container instead");
                let message = format!("`{word}` is no network that can be named");
                context.error(at.key(key).place(), message, "a network of its own", help);
            }
        }
        Some(NetworkDeclaration {
            name,
            external,
            driver: raw.driver.map(|driver| driver.0.0),
            driver_opts: pairs(raw.driver_opts.as_ref()),
            internal: raw.internal.unwrap_or_default(),
            attachable: raw.attachable.unwrap_or_default(),
            enable_ipv6: raw.enable_ipv6.unwrap_or_default(),
            subnets: subnets(context, at.key("ipam"), raw.ipam.as_ref()),
            labels: labels(context, at.key("labels"), raw.labels.as_ref()),
        })
    }

    fn read_volume(&self, context: &mut Context<'_>, entry: &Entry) -> Option<VolumeSpec> {
        let node = lengthened(&entry.node);
        let raw = match de::read::<VolumeOrNothing>(&node) {
            Ok(VolumeOrNothing::Volume(raw)) => raw,
            Ok(VolumeOrNothing::Nothing(())) => Volume::default(),
            Err(error) => {
                let error = unfit(context, error, entry.place);
                context.push(error);
                return None;
            }
        };
        let at = At::new(&node, entry.place);
        let others: Vec<&str> = [
            ("driver", raw.driver.is_some()),
            ("driver_opts", raw.driver_opts.is_some()),
            ("labels", raw.labels.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect();
        let named = (raw.name.as_ref(), raw.external);
        let (name, external) = self.identity(context, at, &entry.key, named, &others);
        Some(VolumeSpec {
            name,
            external,
            driver: raw.driver.map(|driver| driver.0.0),
            driver_opts: pairs(raw.driver_opts.as_ref()),
            labels: labels(context, at.key("labels"), raw.labels.as_ref()),
        })
    }
}

/// Whether a copy of so many entries is not too much.
fn may_copy(copied: &mut usize, context: &mut Context<'_>, at: At<'_>, size: usize) -> bool {
    *copied = copied.saturating_add(size);
    if *copied > MOST_COPIED {
        let message =
            "the declarations of networks and volumes, in so many containers, are too much";
        let expected = format!("at most {MOST_COPIED} labels, options and subnets");
        context.error(at.place(), message, expected, "");
    }
    *copied <= MOST_COPIED
}

fn plain_network() -> NetworkDeclaration {
    NetworkDeclaration {
        name: String::new(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        internal: false,
        attachable: false,
        enable_ipv6: false,
        subnets: Vec::new(),
        labels: BTreeMap::new(),
    }
}

fn lengthened(node: &Node) -> Node {
    let mut node = node.clone();
    for key in ["labels", "driver_opts"] {
        if let Some(pairs) = node.get_mut(key) {
            map_of_list(pairs);
        }
    }
    node
}

/// Two declarations of one thing would contradict.
fn unique(
    context: &mut Context<'_>,
    entry: &Entry,
    name: &str,
    taken: &mut BTreeMap<String, (String, Place)>,
) {
    let known = taken.entry(name.to_owned()).or_insert((entry.key.to_string(), entry.place));
    if *known.0 != *entry.key {
        let message = format!("`{}` has the same name", short(&known.0));
        let help = format!("it stands at line {}, column {}", known.1.line, known.1.column);
        context.error(entry.place, message, "a name of its own", help);
    }
}

fn undeclared<'a>(
    context: &mut Context<'_>,
    key: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> String {
    let declare = format!("declare it at the top level: `{key}: {{ {}: {{}} }}`", short(name));
    match context.nearest(name, known) {
        Some(near) => format!("did you mean `{near}`? Otherwise {declare}"),
        None => declare,
    }
}

/// The subnets, each with its gateway.
fn subnets(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&Ipam>,
) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let at = at.key("config");
    for (index, raw) in raw.and_then(|ipam| ipam.config.as_ref()).into_iter().flatten().enumerate()
    {
        let at = at.item(index);
        let subnet = &raw.subnet.0.0;
        if cidr(subnet).is_none() {
            let message = format!("`{}` is no subnet", short(subnet));
            let expected = "an address with the length of its prefix, such as 172.28.0.0/16";
            context.error(at.key("subnet").place(), message, expected, "");
            continue;
        }
        let gateway = raw.gateway.as_ref().map(|gateway| gateway.0.0.clone());
        let fits = |gateway: &String| gateway.parse().is_ok_and(|ip| contains(subnet, ip));
        if let Some(wrong) = gateway.as_ref().filter(|gateway| !fits(gateway)) {
            let message = format!("`{}` is no address of the subnet", short(wrong));
            context.error(at.key("gateway").place(), message, "an address in it", "");
        }
        found.push((subnet.clone(), gateway));
    }
    found
}

/// The address and the length of the prefix.
fn cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let digits = length.bytes().all(|one| one.is_ascii_digit());
    let length = length.parse().ok().filter(|length| digits && *length <= most)?;
    Some((address, length))
}

/// Whether an address belongs to a subnet.
pub(super) fn contains(subnet: &str, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let Some((network, length)) = cidr(subnet) else { return false };
    let ((network, all), (ip, all_of_ip)) = (bits(network), bits(ip));
    let shift = all - length;
    all == all_of_ip && (shift == 128 || network >> shift == ip >> shift)
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn addresses_of_subnets() {
        let has = |subnet: &str, ip: &str| contains(subnet, ip.parse().unwrap());
        assert!(has("172.28.0.0/16", "172.28.255.1"));
        assert!(!has("172.28.0.0/16", "172.29.0.1"));
        assert!(has("172.28.0.5/32", "172.28.0.5"));
        assert!(has("0.0.0.0/0", "1.2.3.4"));
        assert!(has("fd00::/8", "fdff::1"));
        assert!(has("::/0", "fdff::1"));
        assert!(!has("::/0", "1.2.3.4"));
        for wrong in ["", "172.28.0.0", "172.28.0.0/33", "172.28.0.0/+8", "a/8", "fd00::/129"] {
            assert!(!has(wrong, "172.28.0.0"), "{wrong}");
        }
    }
}
