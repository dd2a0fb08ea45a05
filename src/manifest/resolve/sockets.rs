//! Sockets that are opened for a component: where they listen, and that each is there once.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::at::At;
use super::component::Sketch;
use super::container::mode_of;
use super::context::{Context, is_name};
use super::listening::Listening;
use crate::manifest::report::Place;
use crate::manifest::schema::component::{Component, Socket, SocketEntry};
use crate::manifest::schema::scalars::ListenText;
use crate::manifest::tree::{Node, Scalar, short};
use crate::model::container::Protocol;
use crate::model::socket::{DEFAULT_BACKLOG, DEFAULT_MODE, ListenAddress, SocketSpec};

/// The longest path of a Unix socket, which is a part of the name under which it is held.
const LONGEST_PATH: usize = 800;
/// The longest name of its file: a path that is too long for the kernel is shortened to that.
const LONGEST_FILE: usize = 80;

const ADDRESSES: &str =
    "a port, or an address such as \"127.0.0.1:8080\", \"0.0.0.0:80\" or \"[::1]:80\"";

/// The sockets of a component, with what they take of this machine.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) specs: BTreeMap<String, SocketSpec>,
    pub(super) listening: Vec<Listening>,
    /// Of Unix sockets.
    pub(super) files: Vec<(PathBuf, Place)>,
}

/// With `is_damaged` something of them was taken out because of a mistake: what is missing may be that.
pub(super) fn sockets(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Component,
    is_damaged: bool,
) -> Sockets {
    let mut found = Sockets::default();
    let places = at.children();
    for (name, raw) in raw.sockets.iter().flatten() {
        let at = places.get(name.as_str()).copied().unwrap_or(at);
        if !is_name(name) {
            let message = format!("`{}` cannot be the name of a socket", short(name));
            let expected =
                "letters, digits, `-` and `_`, at most 63, the first a letter or a digit";
            context.error(at.key_place(), message, expected, "");
            continue;
        }
        let spec = match raw {
            Socket::Tcp(text) => address(context, at, text).map(|address| SocketSpec {
                address,
                backlog: DEFAULT_BACKLOG,
                mode: None,
            }),
            Socket::Full(entry) if is_damaged && entry.tcp.is_none() && entry.unix.is_none() => {
                None
            }
            Socket::Full(entry) => full(context, at, entry),
        };
        let Some(spec) = spec else { continue };
        match &spec.address {
            ListenAddress::Tcp(address) => found.listening.push(Listening {
                port: address.port(),
                host_ip: Some(address.ip()),
                protocol: Protocol::Tcp,
                place: at.place(),
            }),
            ListenAddress::Unix(path) => found.files.push((path.clone(), at.place())),
        }
        found.specs.insert(name.clone(), spec);
    }
    found
}

fn full(context: &mut Context<'_>, at: At<'_>, raw: &SocketEntry) -> Option<SocketSpec> {
    let backlog = raw.backlog.unwrap_or(DEFAULT_BACKLOG);
    match (&raw.tcp, &raw.unix) {
        (Some(text), None) => {
            if raw.mode.is_some() {
                let message = "a socket of TCP has no file, and so no `mode`";
                context.error(at.key("mode").key_place(), message, "", "take it out");
            }
            let address = address(context, at.key("tcp"), text)?;
            Some(SocketSpec { address, backlog, mode: None })
        }
        (None, Some(path)) => {
            let path = context.path(path);
            check_path(context, at.key("unix"), &path)?;
            let mode = match &raw.mode {
                None => DEFAULT_MODE,
                Some(text) => mode(context, at.key("mode"), &text.0.0)?,
            };
            Some(SocketSpec { address: ListenAddress::Unix(path), backlog, mode: Some(mode) })
        }
        (None, None) | (Some(_), Some(_)) => {
            let message = "a socket listens on one of `tcp` and `unix`";
            let help = "write `{ tcp: \"127.0.0.1:8080\" }` or `{ unix: run/api.sock }`";
            context.error(at.key_place(), message, "exactly one of the two", help);
            None
        }
    }
}

fn mode(context: &mut Context<'_>, at: At<'_>, text: &str) -> Option<u32> {
    let mode = mode_of(context, at, text)?;
    if mode > 0o777 {
        let message = format!("`{}` is no mode of a socket", short(text));
        context.error(at.place(), message, "octal digits from 0000 to 0777", "");
        return None;
    }
    Some(mode)
}

fn check_path(context: &mut Context<'_>, at: At<'_>, path: &Path) -> Option<()> {
    let file = path.file_name().map_or(0, |name| name.as_bytes().len());
    if file == 0 {
        context.error(at.place(), "this is a folder", "the path of a socket", "add a name to it");
        return None;
    }
    for (length, most, what) in [
        (path.as_os_str().as_bytes().len(), LONGEST_PATH, "the whole path"),
        (file, LONGEST_FILE, "the name of the file"),
    ] {
        if length > most {
            let message = format!("{what} has {length} bytes, too many for a socket");
            context.error(at.place(), message, format!("at most {most}"), "");
            return None;
        }
    }
    Some(())
}

/// `8080` is a port of this machine alone; whoever wants others to reach it says so.
fn address(context: &mut Context<'_>, at: At<'_>, text: &ListenText) -> Option<ListenAddress> {
    let text = text.0.0.as_str();
    let port = match at.node().and_then(Node::typed) {
        Some(Scalar::Int(value)) => u16::try_from(value).ok(),
        _ => text.parse().ok(),
    };
    let found = match port {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    };
    let found = found.filter(|address: &SocketAddr| address.port() > 0);
    if found.is_none() {
        let help = match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("write `127.0.0.1:{port}`"),
            Some(("" | "*", port)) => {
                format!("write `0.0.0.0:{port}` for all addresses of IPv4, `[::]:{port}` of IPv6")
            }
            Some(_) => "a name is not looked up: write its address".to_owned(),
            None if text.starts_with('/') => format!("write `{{ unix: {} }}`", short(text)),
            None => String::new(),
        };
        let message = format!("`{}` is no address to listen on", short(text));
        context.error(at.place(), message, ADDRESSES, help);
    }
    found.map(ListenAddress::Tcp)
}

/// No two components have the same Unix socket, and none has it twice.
pub(super) fn check(context: &mut Context<'_>, sketches: &[Sketch]) {
    let mut known: BTreeMap<&Path, (&str, Place)> = BTreeMap::new();
    for sketch in sketches.iter().filter(|sketch| sketch.enabled) {
        for (path, place) in &sketch.files {
            match known.get(path.as_path()) {
                None => drop(known.insert(path, (&sketch.name, *place))),
                Some((other, first)) => {
                    let message =
                        format!("the socket {} belongs to `{other}` already", path.display());
                    let help = format!("it stands at line {}, column {}", first.line, first.column);
                    context.error(*place, message, "a path of its own", help);
                }
            }
        }
    }
}
