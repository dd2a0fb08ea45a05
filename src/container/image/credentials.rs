//! Logins of registries, as `docker login` has left them: in `config.json`, or with a credential helper.
//!
//! Failure paths: whatever cannot be read is as if there was no login, and the registry's refusal tells.
//! A helper that does not answer in time is ended.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use serde::Deserialize;

use crate::container::address::Surroundings;

/// The key of Docker's own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// How long a helper may take.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Login>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Login {
    /// Base64 of `user:password`.
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// The login for the registry of an image, if there is one.
pub(super) async fn of(image: &str) -> Option<DockerCredentials> {
    let config = read(&Surroundings::of_process().config?)?;
    let registry = registry(image).to_owned();
    if let Some(helper) = config.cred_helpers.get(&registry).or(config.creds_store.as_ref()) {
        let asked = tokio::time::timeout(LIMIT, ask(helper.clone(), registry.clone())).await;
        if let Some(helped) = asked.ok().flatten() {
            return Some(DockerCredentials {
                username: Some(helped.username),
                password: Some(helped.secret),
                serveraddress: Some(registry),
                ..DockerCredentials::default()
            });
        }
    }
    let login = config.auths.get(&registry)?.clone();
    Some(DockerCredentials {
        auth: login.auth,
        identitytoken: login.identitytoken,
        serveraddress: Some(registry),
        ..DockerCredentials::default()
    })
}

fn read(folder: &Path) -> Option<Config> {
    let text = std::fs::read(folder.join("config.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The key of an image's registry in the configuration.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) | None => DOCKER_HUB,
    }
}

/// `docker-credential-NAME get`, with the registry on its standard input.
async fn ask(helper: String, registry: String) -> Option<Helped> {
    let asking = crate::blocking::spawn(move || {
        use std::io::Write as _;
        let mut child = std::process::Command::new(format!("docker-credential-{helper}"))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(registry.as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        output.status.success().then_some(output.stdout)
    });
    serde_json::from_slice(&asking.await.ok()??).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_host_of_the_name() {
        assert_eq!(registry("postgres:16"), DOCKER_HUB);
        assert_eq!(registry("library/postgres"), DOCKER_HUB);
        assert_eq!(registry("ghcr.io/a/b:1"), "ghcr.io");
        assert_eq!(registry("localhost/a"), "localhost");
        assert_eq!(registry("host:5000/a"), "host:5000");
    }

    #[test]
    fn logins_are_read_as_docker_writes_them() {
        let scratch = tempfile::tempdir().unwrap();
        let text = r#"{"auths":{"ghcr.io":{"auth":"dTpw"}},"credHelpers":{"x.io":"pass"}}"#;
        std::fs::write(scratch.path().join("config.json"), text).unwrap();
        let config = read(scratch.path()).unwrap();
        assert_eq!(config.auths["ghcr.io"].auth.as_deref(), Some("dTpw"));
        assert_eq!(config.cred_helpers["x.io"], "pass");
        assert!(read(Path::new("/nonexistent")).is_none());
    }
}
