//! Published ports: the short form, ranges, the long form.
//!
//! Invariant: ranges are bounded before they are written out.

use std::net::IpAddr;

use super::Owner;
use crate::manifest::resolve::at::At;
use crate::manifest::resolve::context::Context;
use crate::manifest::resolve::listening::Listening;
use crate::manifest::schema::container::Container;
use crate::manifest::schema::container::network::{PortEntry, PortMap, ProtocolName};
use crate::manifest::tree::short;
use crate::model::container::{PortMapping, Protocol};

/// Ports of one container; a wider range is a mistake.
const MOST_OF_ONE: usize = 1000;

/// The published ports; the owner's list of what is listened on gets those of the host.
pub(super) fn ports(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Container,
    owner: &mut Owner<'_>,
) -> Vec<PortMapping> {
    let mut found: Vec<PortMapping> = Vec::new();
    for (index, entry) in raw.ports.iter().flatten().enumerate() {
        let at = at.item(index);
        let (place, mappings) = match entry {
            PortEntry::Short(text) => (at.place(), short_form(&text.0.0)),
            PortEntry::Full(map) => (at.key("published").place(), long_form(context, at, map)),
        };
        let mappings = match mappings {
            Ok(mappings) => mappings,
            Err(Wrong { message, expected, help }) => {
                context.error(place, message, expected, help);
                continue;
            }
        };
        if found.len() + mappings.len() > MOST_OF_ONE || !context.take_ports(mappings.len()) {
            let expected = format!("at most {MOST_OF_ONE} of one container, 100000 of all");
            let help = "a container in the network of the host needs none: `network_mode: host`";
            context.error(place, "these are too many published ports", expected, help);
            return found;
        }
        for mapping in mappings {
            if found.contains(&mapping) {
                let message = format!("{} is in this list twice", shown(&mapping));
                context.error(place, message, "", "");
                break;
            }
            if let (Some(port), None) = (mapping.published, mapping.published_end) {
                owner.sketch.listening.push(Listening {
                    port,
                    host_ip: mapping.host_ip.as_deref().and_then(|text| text.parse().ok()),
                    protocol: mapping.protocol,
                    place,
                });
                if owner.replicas > 1 {
                    let message = format!(
                        "{} replicas cannot all have port {port} of the host",
                        owner.replicas
                    );
                    let help = format!(
                        "write \"{0}\": the engine chooses a port for each; or a range such as \"{port}-{1}:{0}\"",
                        mapping.target,
                        u32::from(port) + owner.replicas - 1
                    );
                    context.error(place, message, "no fixed port of the host", help);
                    break;
                }
            }
            found.push(mapping);
        }
    }
    found
}

fn shown(mapping: &PortMapping) -> String {
    let target = format!("port {}/{}", mapping.target, mapping.protocol.as_str());
    match mapping.published {
        Some(port) => format!("{target} on port {port} of the host"),
        None => target,
    }
}

/// Why it is no port, in the words of a diagnostic.
struct Wrong {
    message: String,
    expected: &'static str,
    help: &'static str,
}

const FORM: &str = "[[IP:]HOST:]CONTAINER[/PROTOCOL], such as \"8080:80\"";

fn wrong(message: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), expected: FORM, help: "" }
}

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`.
fn short_form(text: &str) -> Result<Vec<PortMapping>, Wrong> {
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, name)) => (
            rest,
            protocol(name).ok_or_else(|| Wrong {
                message: format!("`{}` is no protocol", short(name)),
                expected: "tcp, udp or sctp",
                help: "",
            })?,
        ),
    };
    let mut parts = rest.rsplitn(3, ':');
    let target = range(parts.next().unwrap_or_default())?;
    let published = parts.next();
    let host_ip = parts.next().map(address).transpose()?;
    let published = match (published, &host_ip) {
        // `80`, and `127.0.0.1::80`: the engine chooses.
        (None, _) | (Some(""), Some(_)) => None,
        (Some(text), _) => Some(range(text)?),
    };
    mappings(target, published, host_ip.as_deref(), protocol)
}

fn long_form(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &PortMap,
) -> Result<Vec<PortMapping>, Wrong> {
    let target = context.port(at.key("target"), &raw.target);
    let host_ip = match &raw.host_ip {
        None => None,
        Some(ip) => match address(&ip.0.0) {
            Ok(ip) => Some(ip),
            Err(Wrong { message, expected, help }) => {
                context.error(at.key("host_ip").place(), message, expected, help);
                None
            }
        },
    };
    let published = raw.published.as_ref().map(|text| range(&text.0.0)).transpose()?;
    let protocol = match raw.protocol {
        None | Some(ProtocolName::Tcp) => Protocol::Tcp,
        Some(ProtocolName::Udp) => Protocol::Udp,
        Some(ProtocolName::Sctp) => Protocol::Sctp,
    };
    mappings((target, target), published, host_ip.as_deref(), protocol)
}

fn mappings(
    (first, last): (u16, u16),
    published: Option<(u16, u16)>,
    host_ip: Option<&str>,
    protocol: Protocol,
) -> Result<Vec<PortMapping>, Wrong> {
    let mapping = |target: u16, published: Option<u16>, published_end: Option<u16>| PortMapping {
        target,
        published,
        published_end,
        host_ip: host_ip.map(ToOwned::to_owned),
        protocol,
    };
    let count = usize::from(last - first) + 1;
    if count > MOST_OF_ONE {
        return Err(Wrong {
            message: format!("{count} ports are too many"),
            expected: "at most 1000",
            help: "a container in the network of the host needs none: `network_mode: host`",
        });
    }
    match published {
        None => Ok((first..=last).map(|target| mapping(target, None, None)).collect()),
        Some((from, to)) if to - from == last - first => Ok((first..=last)
            .zip(from..=to)
            .map(|(target, published)| mapping(target, Some(published), None))
            .collect()),
        Some((from, to)) if first == last => Ok(vec![mapping(first, Some(from), Some(to))]),
        Some((from, to)) => Err(Wrong {
            message: format!(
                "{count} ports of the container cannot have {} of the host",
                u32::from(to - from) + 1
            ),
            expected: "two ranges of the same length",
            help: "",
        }),
    }
}

/// `80`, `8000-8010`.
fn range(text: &str) -> Result<(u16, u16), Wrong> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or_else(|| {
            let message = if text.is_empty() {
                "a port is missing".to_owned()
            } else {
                format!("`{}` is no port from 1 to 65535", short(text))
            };
            wrong(message)
        })
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(wrong(format!("the range {first}-{last} ends before it begins")));
    }
    Ok((first, last))
}

/// With or without the brackets of an IPv6 address.
fn address(text: &str) -> Result<String, Wrong> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| Wrong {
        message: if text.is_empty() {
            "the address of the host is missing".to_owned()
        } else {
            format!("`{}` is no address of the host", short(text))
        },
        expected: "an IP address such as 127.0.0.1 or [::1]",
        help: "",
    })
}

fn protocol(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as `IP HOST-END CONTAINER/PROTOCOL`.
    fn read(text: &str) -> Vec<String> {
        match short_form(text) {
            Err(Wrong { message, .. }) => vec![message],
            Ok(mappings) => mappings
                .iter()
                .map(|one| {
                    let ip = one.host_ip.as_deref().unwrap_or("*");
                    let host = one.published.map_or("?".into(), |port| port.to_string());
                    let end = one.published_end.map_or(String::new(), |port| format!("-{port}"));
                    format!("{ip} {host}{end} {}/{}", one.target, one.protocol.as_str())
                })
                .collect(),
        }
    }

    #[test]
    fn the_short_forms_of_the_specification() {
        for (text, expected) in [
            ("3000", &["* ? 3000/tcp"][..]),
            ("3000-3001", &["* ? 3000/tcp", "* ? 3001/tcp"]),
            ("8000:8000", &["* 8000 8000/tcp"]),
            ("9090-9091:8080-8081", &["* 9090 8080/tcp", "* 9091 8081/tcp"]),
            ("8000-9000:80", &["* 8000-9000 80/tcp"]),
            ("127.0.0.1:8001:8001", &["127.0.0.1 8001 8001/tcp"]),
            (
                "127.0.0.1:5000-5001:6000-6001",
                &["127.0.0.1 5000 6000/tcp", "127.0.0.1 5001 6001/tcp"],
            ),
            ("127.0.0.1::80", &["127.0.0.1 ? 80/tcp"]),
            ("::1:6000:6000", &["::1 6000 6000/tcp"]),
            ("[::1]:6001:6001", &["::1 6001 6001/tcp"]),
            ("[0:0:0:0:0:0:0:1]:6001:6001", &["::1 6001 6001/tcp"]),
            ("6060:6060/udp", &["* 6060 6060/udp"]),
            ("53/UDP", &["* ? 53/udp"]),
            ("9:9/sctp", &["* 9 9/sctp"]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_port() {
        for (text, expected) in [
            ("", "a port is missing"),
            (":80", "a port is missing"),
            (":8080:80", "the address of the host is missing"),
            ("80:", "a port is missing"),
            ("0", "`0` is no port from 1 to 65535"),
            ("65536", "`65536` is no port from 1 to 65535"),
            ("+80", "`+80` is no port from 1 to 65535"),
            ("http", "`http` is no port from 1 to 65535"),
            ("80/tpc", "`tpc` is no protocol"),
            ("90-80", "the range 90-80 ends before it begins"),
            ("1-3:1-2", "2 ports of the container cannot have 3 of the host"),
            ("1:1-2", "2 ports of the container cannot have 1 of the host"),
            ("1-65535", "65535 ports are too many"),
            ("localhost:80:80", "`localhost` is no address of the host"),
            ("1.2.3:80:80", "`1.2.3` is no address of the host"),
        ] {
            assert_eq!(read(text), [expected], "{text}");
        }
    }
}
