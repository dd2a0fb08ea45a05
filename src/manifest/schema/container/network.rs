//! How a container is reached and connected, as it is written; and the networks of the project.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::manifest::schema::OneOrMany;
use crate::manifest::schema::pairs::Pairs;
use crate::manifest::schema::scalars::{Port, PortRange, PortText, Text, Word};
use crate::manifest::schema::shape::shaped;

/// A published port, or several.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged, extend("x-expected" = "a text such as \"8080:80\", or a map"))]
pub(in crate::manifest) enum PortEntry {
    /// All of it.
    Full(PortMap),
    /// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`.
    Short(PortText),
}

shaped!(PortEntry { map => Full(PortMap), scalar => Short(PortText) });

/// A published port.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct PortMap {
    /// The port in the container.
    pub(in crate::manifest) target: Port,
    /// The port of the host, or a range of which a free one is taken. Default: one that the engine chooses.
    pub(in crate::manifest) published: Option<PortRange>,
    /// The address of the host. Default: all.
    pub(in crate::manifest) host_ip: Option<Word>,
    /// Default: tcp.
    pub(in crate::manifest) protocol: Option<ProtocolName>,
    /// For people; not used.
    #[expect(dead_code, reason = "taken as in Compose, where it changes nothing on one machine")]
    pub(in crate::manifest) name: Option<Text>,
    /// For people; not used.
    #[expect(dead_code, reason = "taken as in Compose, where it changes nothing on one machine")]
    pub(in crate::manifest) app_protocol: Option<Text>,
    /// Not used: on one machine both are the same.
    #[expect(dead_code, reason = "taken as in Compose, where it changes nothing on one machine")]
    pub(in crate::manifest) mode: Option<PortMode>,
}

/// A transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum ProtocolName {
    Tcp,
    Udp,
    Sctp,
}

/// Where a port of a cluster is published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum PortMode {
    Host,
    Ingress,
}

/// The networks of a container: a list, or a map.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum Attachments {
    /// Each with what is special there.
    Map(BTreeMap<String, AttachmentOrNothing>),
    /// Just their names.
    List(Vec<Word>),
}

shaped!(Attachments { map => Map(BTreeMap<String, AttachmentOrNothing>), list => List(Vec<Word>) });

/// A connection to a network, or nothing: a connection without anything special.
#[derive(Clone, Debug)]
pub(in crate::manifest) enum AttachmentOrNothing {
    Attachment(Attachment),
    Nothing(()),
}

shaped!(AttachmentOrNothing { map => Attachment(Attachment), null => Nothing(()) });

impl JsonSchema for AttachmentOrNothing {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AttachmentOrNothing".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let attachment = generator.subschema_for::<Attachment>();
        json_schema!({
            "description": "A connection to a network. Nothing: one without anything special.",
            "x-expected": "a map, or nothing",
            "anyOf": [attachment, { "const": null }],
        })
    }
}

/// A connection to a network.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Attachment {
    /// Names by which others on this network find it, besides the component's own.
    pub(in crate::manifest) aliases: Option<Vec<Word>>,
    /// A fixed address. The network needs a subnet for it.
    pub(in crate::manifest) ipv4_address: Option<Word>,
    /// A fixed address. The network needs a subnet for it.
    pub(in crate::manifest) ipv6_address: Option<Word>,
}

/// Lines for `/etc/hosts`: a map, or a list of `NAME=ADDRESS`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum ExtraHosts {
    /// From name to address or addresses.
    Map(BTreeMap<String, OneOrMany<Word>>),
    /// `NAME=ADDRESS` or `NAME:ADDRESS`.
    List(Vec<Word>),
}

shaped!(ExtraHosts { map => Map(BTreeMap<String, OneOrMany<Word>>), list => List(Vec<Word>) });

/// A network of the project, or nothing: a network as the engine makes it.
#[derive(Clone, Debug)]
pub(in crate::manifest) enum NetworkOrNothing {
    Network(Network),
    Nothing(()),
}

shaped!(NetworkOrNothing { map => Network(Network), null => Nothing(()) });

impl JsonSchema for NetworkOrNothing {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NetworkOrNothing".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let network = generator.subschema_for::<Network>();
        json_schema!({
            "description": "A network. Nothing: one as the engine makes it.",
            "x-expected": "a map, or nothing",
            "anyOf": [network, { "const": null }],
        })
    }
}

/// A network that containers name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Network {
    /// The engine's name of it. Default: `PROJECT_NAME`; of an external one its own.
    pub(in crate::manifest) name: Option<Word>,
    /// Others make it, and it must be there. Default: false.
    pub(in crate::manifest) external: Option<bool>,
    /// What makes it. Default: bridge.
    pub(in crate::manifest) driver: Option<Word>,
    /// Options of the driver.
    pub(in crate::manifest) driver_opts: Option<Pairs>,
    /// Without a way out of the machine. Default: false.
    pub(in crate::manifest) internal: Option<bool>,
    /// Containers of others may be connected by hand. Default: false.
    pub(in crate::manifest) attachable: Option<bool>,
    /// IPv6 beside IPv4. Default: false.
    pub(in crate::manifest) enable_ipv6: Option<bool>,
    /// Where addresses are taken from. Default: the engine chooses.
    pub(in crate::manifest) ipam: Option<Ipam>,
    /// Labels of the network.
    pub(in crate::manifest) labels: Option<Pairs>,
}

/// Where addresses are taken from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Ipam {
    /// The only one is `default`.
    #[expect(dead_code, reason = "there is only one")]
    pub(in crate::manifest) driver: Option<IpamDriver>,
    /// The subnets.
    pub(in crate::manifest) config: Option<Vec<Subnet>>,
}

/// What manages addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum IpamDriver {
    Default,
}

/// A subnet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Subnet {
    /// Such as `172.28.0.0/16`.
    pub(in crate::manifest) subnet: Word,
    /// An address in it. Default: the engine chooses.
    pub(in crate::manifest) gateway: Option<Word>,
}
