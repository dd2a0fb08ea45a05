//! Ports of this machine that two components would both listen on.

use std::collections::HashMap;
use std::net::IpAddr;

use super::component::Sketch;
use super::context::Context;
use crate::manifest::report::Place;
use crate::model::container::Protocol;
use crate::model::spec::Workload;

/// A port of this machine that a component listens on.
pub(super) struct Listening {
    pub(super) port: u16,
    /// None: every address.
    pub(super) host_ip: Option<IpAddr>,
    pub(super) protocol: Protocol,
    pub(super) place: Place,
}

/// What somebody has of a port. The last two are notes for those who want more than one address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Whole,
    Family { v4: bool },
    Address(IpAddr),
    Something,
    SomethingOf { v4: bool },
}

impl Listening {
    /// What this one takes, and what must not be taken already.
    fn parts(&self) -> (Vec<Part>, Vec<Part>) {
        use Part::{Address, Family, Something, SomethingOf, Whole};
        match self.host_ip {
            None => {
                let both = [SomethingOf { v4: true }, SomethingOf { v4: false }];
                ([Whole, Something].into_iter().chain(both).collect(), vec![Something])
            }
            Some(ip) => {
                let v4 = ip.is_ipv4();
                let (own, others) = if ip.is_unspecified() {
                    (Family { v4 }, vec![Whole, SomethingOf { v4 }])
                } else {
                    (Address(ip), vec![Whole, Family { v4 }, Address(ip)])
                };
                (vec![own, Something, SomethingOf { v4 }], others)
            }
        }
    }

    fn shown(&self) -> String {
        match self.protocol {
            Protocol::Tcp => format!("port {}", self.port),
            Protocol::Udp | Protocol::Sctp => {
                format!("port {}/{}", self.port, self.protocol.as_str())
            }
        }
    }
}

pub(super) fn check(context: &mut Context<'_>, sketches: &[Sketch]) {
    let mut known: HashMap<(Protocol, u16, Part), (&str, Place)> = HashMap::new();
    for sketch in sketches.iter().filter(|sketch| sketch.enabled) {
        // What others run may well be on another machine.
        let external =
            sketch.spec.as_ref().is_some_and(|spec| matches!(spec.workload, Workload::External));
        if external {
            continue;
        }
        for one in &sketch.listening {
            let (takes, excludes) = one.parts();
            let key = |part: Part| (one.protocol, one.port, part);
            if let Some((other, place)) =
                excludes.into_iter().find_map(|part| known.get(&key(part)))
            {
                let message = if *other == sketch.name {
                    let is_container = sketch
                        .spec
                        .as_ref()
                        .is_none_or(|spec| matches!(spec.workload, Workload::Container(_)));
                    let what = if is_container { "published" } else { "declared" };
                    format!("{} is {what} twice", one.shown())
                } else {
                    format!("{} belongs to `{other}` already", one.shown())
                };
                let help = format!("it stands at line {}, column {}", place.line, place.column);
                context.error(one.place, message, "a port of its own", help);
            }
            for part in takes {
                known.entry(key(part)).or_insert((&sketch.name, one.place));
            }
        }
    }
}
