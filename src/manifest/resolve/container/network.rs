//! How a container is connected: networks, network mode, shared namespaces, hosts, name servers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Owner, text};
use crate::manifest::resolve::at::At;
use crate::manifest::resolve::component::Dependency;
use crate::manifest::resolve::context::Context;
use crate::manifest::resolve::declared::{DEFAULT_NETWORK, contains};
use crate::manifest::resolve::graph::Join;
use crate::manifest::schema::OneOrMany;
use crate::manifest::schema::container::Container;
use crate::manifest::schema::container::network::{
    Attachment, AttachmentOrNothing, Attachments, ExtraHosts,
};
use crate::manifest::schema::scalars::Word;
use crate::manifest::tree::{Node, short};
use crate::manifest::words::nearest;
use crate::model::container::{AttachmentSpec, NetworkDeclaration, NetworkSpec};
use crate::model::spec::Condition;

/// `at` is the container.
pub(super) fn network(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Container,
    owner: &mut Owner<'_>,
) -> NetworkSpec {
    let at_mode = at.key("network_mode");
    if raw.network_mode.is_some() && raw.networks.is_some() {
        let help = "`network_mode` is instead of networks";
        let place = at_mode.key_place();
        context.error(place, "both `network_mode` and `networks`", "one of the two", help);
    }
    if raw.network_mode.is_some() {
        let modes = ["host", "none", "bridge"];
        let mode = namespace(context, at_mode, raw.network_mode.as_ref(), &modes, owner);
        return mode.map(NetworkSpec::Mode).unwrap_or_default();
    }
    let at = at.key("networks");
    let none = Attachment::default();
    let mut found = Vec::new();
    match &raw.networks {
        Some(Attachments::List(names)) => {
            let mut seen = BTreeSet::new();
            for (index, name) in names.iter().enumerate() {
                let at = at.item(index);
                if !seen.insert(name) {
                    let message = format!("`{}` is in this list twice", short(&name.0.0));
                    context.error(at.place(), message, "", "");
                }
                found.extend(attachment(context, at, &name.0.0, &none, owner));
            }
        }
        // In the order of the file: the first one is that of the default route.
        Some(Attachments::Map(map)) => {
            for entry in at.node().map(Node::entries).unwrap_or_default() {
                let raw = match map.get(&*entry.key) {
                    Some(AttachmentOrNothing::Attachment(raw)) => raw,
                    Some(AttachmentOrNothing::Nothing(())) | None => &none,
                };
                let at = At::new(&entry.node, entry.place);
                found.extend(attachment(context, at, &entry.key, raw, owner));
            }
        }
        None => {}
    }
    if found.is_empty() {
        found.extend(attachment(context, at, DEFAULT_NETWORK, &none, owner));
    }
    if found.is_empty() { NetworkSpec::default() } else { NetworkSpec::Networks(found) }
}

fn attachment(
    context: &mut Context<'_>,
    at: At<'_>,
    name: &str,
    raw: &Attachment,
    owner: &mut Owner<'_>,
) -> Option<AttachmentSpec> {
    let network = owner.declared.network(context, at, name)?;
    let own = std::iter::once(owner.sketch.name.clone());
    let mut seen = BTreeSet::new();
    let aliases = own.chain(raw.aliases.iter().flatten().map(text));
    let aliases = aliases.filter(|alias| seen.insert(alias.clone())).collect();
    let mut fixed = |key: &str, raw: Option<&Word>, is_v4: bool| {
        address(context, at.key(key), raw, is_v4, &network, owner)
    };
    Some(AttachmentSpec {
        ipv4_address: fixed("ipv4_address", raw.ipv4_address.as_ref(), true),
        ipv6_address: fixed("ipv6_address", raw.ipv6_address.as_ref(), false),
        aliases,
        network,
    })
}

/// A fixed address.
fn address(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&Word>,
    is_v4: bool,
    network: &NetworkDeclaration,
    owner: &Owner<'_>,
) -> Option<String> {
    let raw = text(raw?);
    let Some(ip) = raw.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == is_v4) else {
        let (kind, example) = if is_v4 { ("IPv4", "172.28.0.10") } else { ("IPv6", "fd00::10") };
        let message = format!("`{}` is no {kind} address", short(&raw));
        context.error(at.place(), message, format!("an address such as {example}"), "");
        return None;
    };
    if owner.replicas > 1 {
        let message = format!("{} replicas cannot all have the address {ip}", owner.replicas);
        context.error(at.place(), message, "no fixed address", "take it out: names find them all");
    }
    let subnets = &network.subnets;
    if !network.external && !subnets.iter().any(|(subnet, _)| contains(subnet, ip)) {
        let message = format!("no subnet of this network has the address {ip}");
        let help = if subnets.is_empty() {
            "a fixed address needs a declared subnet: `ipam: { config: [{ subnet: ... }] }` of the network"
        } else {
            ""
        };
        context.error(at.place(), message, "an address of a declared subnet", help);
    }
    Some(ip.to_string())
}

/// A word, or whose namespace it shares. That of a component means that it runs before.
pub(super) fn namespace(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&Word>,
    words: &[&str],
    owner: &mut Owner<'_>,
) -> Option<String> {
    let mode = text(raw?);
    if words.contains(&mode.as_str()) {
        return Some(mode);
    }
    if let Some(component) = mode.strip_prefix("service:").filter(|name| !name.is_empty()) {
        let sketch = &mut *owner.sketch;
        sketch.joins.push(Join { name: component.to_owned(), place: at.place() });
        if !sketch.dependencies.iter().any(|known| known.name == component) {
            sketch.dependencies.push(Dependency {
                name: component.to_owned(),
                condition: Condition::Started,
                place: at.place(),
            });
        }
        return Some(format!("container:{}.{component}", owner.declared.project()));
    }
    if mode.strip_prefix("container:").is_some_and(|name| !name.is_empty()) {
        return Some(mode);
    }
    let expected = format!("{}, service:COMPONENT or container:NAME", words.join(", "));
    let help = nearest(&mode, words.iter().copied())
        .map(|near| format!("did you mean `{near}`?"))
        .unwrap_or_default();
    context.error(at.place(), format!("`{}` is not known here", short(&mode)), expected, help);
    None
}

/// What the engine refuses beside a network that is not the container's own.
pub(super) fn contradictions(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Container,
    network: &NetworkSpec,
) {
    let (NetworkSpec::Mode(mode), Some(written)) = (network, &raw.network_mode) else { return };
    let shared = mode.starts_with("container:");
    let why = match mode.as_str() {
        "host" => {
            "the container is in the network of the host, where its ports are open as they are"
        }
        "none" => "the container has no network",
        _ if shared => "it belongs to the container whose network this one shares",
        _ => return,
    };
    for (key, given, applies) in [
        ("ports", raw.ports.as_ref().is_some_and(|ports| !ports.is_empty()), true),
        ("hostname", raw.hostname.is_some(), shared),
        ("dns", raw.dns.is_some(), shared),
        ("extra_hosts", raw.extra_hosts.is_some(), shared),
    ] {
        if given && applies {
            // Without the name of another container, which may be the value of a variable.
            let written = written.0.0.split(':').next().unwrap_or_default();
            let message = format!("`{key}` has no meaning with `network_mode: {written}`");
            let help = format!("take it out: {why}");
            context.error(at.key(key).key_place(), message, "", help);
        }
    }
}

/// Names with their addresses, in the order of the file.
pub(super) fn extra_hosts(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Container,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    match &raw.extra_hosts {
        None => {}
        Some(ExtraHosts::List(lines)) => {
            for (index, line) in lines.iter().enumerate() {
                let at = at.item(index);
                let line = line.0.0.as_str();
                let parts = line.split_once('=').or_else(|| line.split_once(':'));
                let Some((name, address)) = parts else {
                    let message = format!("`{}` has no address", short(line));
                    let expected = "NAME=ADDRESS, such as db=10.0.0.3";
                    context.error(at.place(), message, expected, "");
                    continue;
                };
                for address in address.split(',') {
                    found.extend(extra_host(context, at, name, address));
                }
            }
        }
        Some(ExtraHosts::Map(map)) => {
            for entry in at.node().map(Node::entries).unwrap_or_default() {
                let at = At::new(&entry.node, entry.place);
                let addresses = map.get(&*entry.key).map_or(&[][..], OneOrMany::as_slice);
                for (index, address) in addresses.iter().enumerate() {
                    found.extend(extra_host(context, at.item(index), &entry.key, &address.0.0));
                }
            }
        }
    }
    found
}

fn extra_host(
    context: &mut Context<'_>,
    at: At<'_>,
    name: &str,
    address: &str,
) -> Option<(String, String)> {
    if name.is_empty() || name.contains([':', '=', ' ']) {
        let message = format!("`{}` is no name of a host", short(name));
        context.error(at.place(), message, "NAME=ADDRESS, such as db=10.0.0.3", "");
        return None;
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if bare == "host-gateway" {
        return Some((name.to_owned(), bare.to_owned()));
    }
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some((name.to_owned(), ip.to_string()));
    }
    let message = format!("`{}` is no address", short(address));
    context.error(at.place(), message, "an IP address, or host-gateway", "");
    None
}

pub(super) fn name_servers(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&OneOrMany<Word>>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (index, word) in raw.into_iter().flat_map(OneOrMany::as_slice).enumerate() {
        if let Ok(ip) = word.0.0.parse::<IpAddr>() {
            found.push(ip.to_string());
        } else {
            let message = format!("`{}` is no address of a name server", short(&word.0.0));
            let expected = "an IP address such as 9.9.9.9";
            context.error(at.item(index).place(), message, expected, "");
        }
    }
    found
}
