//! Where the engine is: found as Docker's own client finds it, and then where Podman listens.
//!
//! ```text
//!   DOCKER_HOST ─▶ DOCKER_CONTEXT ─▶ currentContext of config.json ─▶ the first socket that is there
//! ```
//!
//! Of the sockets, an ordinary user's own (rootless Docker, Docker Desktop) comes before the system's, and
//! Docker's before Podman's. The environment is that of the daemon.
//!
//! Failure paths: a context that is not there, a scheme that cannot be spoken: said in plain words. Where
//! nothing is found the places that were looked at are named.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::model::id::hex;

/// How an engine is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// `host:port`, without encryption.
    Tcp(String),
    /// `host:port`, with a client certificate.
    Tls {
        /// `host:port`.
        host: String,
        /// The folder of `ca.pem`, `cert.pem` and `key.pem`.
        certificates: PathBuf,
    },
}

impl Address {
    /// As `DOCKER_HOST` has it.
    #[must_use]
    pub fn as_url(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Tcp(host) | Self::Tls { host, .. } => format!("tcp://{host}"),
        }
    }
}

/// An address and why it is that one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where the engine is.
    pub address: Address,
    /// What led there: `DOCKER_HOST`, `the context NAME`, or nothing for a default.
    pub by: Option<String>,
}

/// What decides.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// `DOCKER_CONFIG`, or `~/.docker`.
    pub config: Option<PathBuf>,
    /// `DOCKER_CERT_PATH`.
    pub certificates: Option<PathBuf>,
    /// Whether `DOCKER_TLS_VERIFY` or `DOCKER_TLS` is set.
    pub tls: bool,
    /// `XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The user's number.
    pub uid: u32,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        let home = path("HOME");
        Self {
            host: text("DOCKER_HOST"),
            context: text("DOCKER_CONTEXT"),
            config: path("DOCKER_CONFIG")
                .or_else(|| home.as_ref().map(|home| home.join(".docker"))),
            certificates: path("DOCKER_CERT_PATH"),
            tls: text("DOCKER_TLS_VERIFY").or_else(|| text("DOCKER_TLS")).is_some(),
            runtime: path("XDG_RUNTIME_DIR"),
            home,
            uid: nix::unistd::geteuid().as_raw(),
        }
    }

    /// The engine's address.
    ///
    /// # Errors
    /// In plain words: what was looked for and is not there.
    pub fn find(&self) -> Result<Found, String> {
        if let Some(host) = &self.host {
            let address = Self::address_of(host, self.certificates_folder(), self.tls)?;
            return Ok(Found { address, by: Some("DOCKER_HOST".into()) });
        }
        if let Some(context) = self.context.clone().or_else(|| self.current_context())
            && context != "default"
        {
            let address = self.of_context(&context)?;
            return Ok(Found { address, by: Some(format!("the context {context}")) });
        }
        let sockets = self.sockets();
        let there = sockets.iter().find(|socket| socket.exists());
        // With none there, the first of the system's is waited for.
        let fallback = PathBuf::from("/var/run/docker.sock");
        let socket = there.cloned().unwrap_or(fallback);
        Ok(Found { address: Address::Unix(socket), by: None })
    }

    /// The default sockets, the most special first.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        let mut sockets = Vec::new();
        if self.uid != 0 {
            let runtime = self.runtime.clone();
            let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", self.uid).into());
            sockets.push(runtime.join("docker.sock"));
            sockets.extend(self.home.as_ref().map(|home| home.join(".docker/run/docker.sock")));
            sockets.push("/var/run/docker.sock".into());
            sockets.push(runtime.join("podman/podman.sock"));
        } else {
            sockets.push("/var/run/docker.sock".into());
        }
        sockets.push("/run/podman/podman.sock".into());
        sockets
    }

    fn certificates_folder(&self) -> PathBuf {
        self.certificates.clone().or_else(|| self.config.clone()).unwrap_or_default()
    }

    fn address_of(host: &str, certificates: PathBuf, tls: bool) -> Result<Address, String> {
        let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
        match scheme {
            "unix" => Ok(Address::Unix(rest.into())),
            "tcp" | "http" if !tls => Ok(Address::Tcp(with_port(rest, 2375))),
            "tcp" | "http" | "https" => {
                Ok(Address::Tls { host: with_port(rest, 2376), certificates })
            }
            "ssh" => Err(format!(
                "the engine's address {host} needs ssh, which stigmer does not speak; forward the \
                 socket (`ssh -L /tmp/docker.sock:/var/run/docker.sock HOST`) and set \
                 DOCKER_HOST=unix:///tmp/docker.sock"
            )),
            _ => Err(format!("the engine's address {host} is neither unix:// nor tcp://")),
        }
    }

    fn current_context(&self) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Config {
            current_context: Option<String>,
        }
        let text = fs::read(self.config.as_ref()?.join("config.json")).ok()?;
        serde_json::from_slice::<Config>(&text).ok()?.current_context
    }

    /// A context lies below the SHA-256 of its name.
    fn of_context(&self, name: &str) -> Result<Address, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Meta {
            endpoints: Endpoints,
        }
        #[derive(Deserialize)]
        struct Endpoints {
            docker: Endpoint,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Endpoint {
            host: String,
        }
        let config = self.config.as_deref().unwrap_or(Path::new("/"));
        let digest = hex(&Sha256::digest(name.as_bytes()));
        let meta = config.join("contexts/meta").join(&digest).join("meta.json");
        let text = fs::read_to_string(&meta).map_err(|error| {
            format!(
                "the container engine's context {name} cannot be read: {}: {error}",
                meta.display()
            )
        })?;
        let meta: Meta = serde_json::from_slice(text.as_bytes())
            .map_err(|error| format!("the container engine's context {name}: {error}"))?;
        let certificates = config.join("contexts/tls").join(&digest).join("docker");
        let tls = certificates.join("ca.pem").exists();
        Self::address_of(&meta.endpoints.docker.host, certificates, tls)
    }
}

/// `host:port`, with the port that is usual where none is named.
fn with_port(host: &str, port: u16) -> String {
    let host = host.trim_end_matches('/');
    let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if named { host.to_owned() } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uid: u32) -> Surroundings {
        Surroundings { uid, home: Some("/home/u".into()), ..Surroundings::default() }
    }

    #[test]
    fn the_host_of_the_environment_outranks_all() {
        let with = |host: &str| Surroundings { host: Some(host.into()), ..at(0) };
        let address = |host: &str| with(host).find().map(|found| found.address);
        assert_eq!(address("unix:///run/x.sock"), Ok(Address::Unix("/run/x.sock".into())));
        assert_eq!(address("tcp://10.0.0.1"), Ok(Address::Tcp("10.0.0.1:2375".into())));
        assert_eq!(address("10.0.0.1:99"), Ok(Address::Tcp("10.0.0.1:99".into())));
        assert!(address("ssh://host").unwrap_err().contains("ssh -L"));
        assert!(address("npipe://x").is_err());
        let tls = Surroundings { tls: true, certificates: Some("/c".into()), ..with("tcp://h") };
        let expected = Address::Tls { host: "h:2376".into(), certificates: "/c".into() };
        assert_eq!(tls.find().unwrap().address, expected);
    }

    /// What `printf remote | sha256sum` prints.
    const DIGEST_OF_REMOTE: &str =
        "b71199ebd070b36beab7317920c2c2f1d777df8d05e5527d8458fda57cb17a7a";

    #[test]
    fn a_context_is_looked_up_by_the_digest_of_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let text = r#"{"Name":"remote","Endpoints":{"docker":{"Host":"unix:///r.sock"}}}"#;
        let place = scratch.path().join("contexts/meta").join(DIGEST_OF_REMOTE);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("meta.json"), text).unwrap();
        fs::write(scratch.path().join("config.json"), r#"{"currentContext":"remote"}"#).unwrap();
        let here = Surroundings { config: Some(scratch.path().into()), ..at(0) };
        let found = here.find().unwrap();
        assert_eq!(found.address, Address::Unix("/r.sock".into()));
        assert_eq!(found.by.as_deref(), Some("the context remote"));
        let other = Surroundings { context: Some("nowhere".into()), ..here };
        assert!(other.find().unwrap_err().contains("nowhere"));
    }

    #[test]
    fn an_ordinary_user_prefers_an_engine_of_its_own() {
        let sockets = at(1000).sockets();
        assert_eq!(sockets[0], Path::new("/run/user/1000/docker.sock"));
        assert!(sockets.contains(&PathBuf::from("/run/user/1000/podman/podman.sock")));
        assert_eq!(at(0).sockets()[0], Path::new("/var/run/docker.sock"));
    }
}
