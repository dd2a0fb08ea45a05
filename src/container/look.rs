//! What a container is doing, from the engine's `inspect`: running or over, how it ended, where it is reached.
//!
//! Codes above 128 are deaths by signal: engines report them as 128 and the number of the signal, and keep
//! nothing that would tell `kill -9` from `exit 137`. A death by signal is never shown as an exit code.
//!
//! Failure paths: a container that is not there is `None`, not an error.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, HealthStatusEnum, PortMap,
};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};

use super::engine::{Engine, QUICK, SLOW};
use super::error::EngineError;
use super::identity::{self, Identity};
use crate::model::{ContainerId, Exit, ExitStatus, InstanceId, RunId};
use crate::runner::probe::Reach;

/// One look at a container.
#[derive(Clone, Debug)]
pub struct Look {
    /// Its identifier.
    pub id: ContainerId,
    /// Whose it is; `None` if it is not stigmer's.
    pub identity: Option<Identity>,
    /// What it is doing.
    pub state: Doing,
    /// Its first process as the engine's machine sees it, while it runs.
    pub pid: Option<u32>,
    /// When it was started, in the engine's words: they change with each start.
    pub started_at: String,
    /// Where it is reached.
    pub reach: Reach,
    /// The signal that it is to be stopped by, as the image or its creation says.
    pub stop_signal: Option<String>,
    /// What its health check said last, if it says that it is not well.
    pub ailment: Option<String>,
}

/// What a container is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doing {
    /// It was made, and never started.
    Created,
    /// It runs.
    Running(Health),
    /// It exists, and nothing of it gets on.
    Halted(Halt),
    /// It is over.
    Exited {
        /// How.
        exit: Exit,
        /// The engine's words, where a start failed.
        error: Option<String>,
        /// When, by the engine's clock.
        finished_at: Option<jiff::Timestamp>,
    },
}

/// Why a container that exists does not run (S34).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halt {
    /// Frozen by somebody.
    Paused,
    /// Being restarted by the engine, which nobody asked for.
    Restarting,
    /// The engine could not remove it.
    Dead,
}

impl Halt {
    /// The engine's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Restarting => "being restarted by the engine",
            Self::Dead => "dead",
        }
    }
}

/// What the engine's own health check says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// There is none.
    #[default]
    None,
    /// Nothing yet.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}

impl Health {
    /// From the engine's word.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "starting" => Self::Starting,
            "healthy" => Self::Healthy,
            "unhealthy" => Self::Unhealthy,
            _ => Self::None,
        }
    }
}

impl Engine {
    /// Looks at a container, by identifier or name; `None` if it is not there.
    pub async fn look(&self, container: &str) -> Result<Option<Look>, EngineError> {
        let found = self
            .ask("inspect", QUICK, async |client| {
                client.inspect_container(container, None::<InspectContainerOptions>).await
            })
            .await;
        match found {
            Ok(found) => Ok(Some(self.read(found))),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, found: ContainerInspectResponse) -> Look {
        let state = found.state.unwrap_or_default();
        let ailment = ailment(&state);
        let config = found.config.unwrap_or_default();
        let id = ContainerId::new(&found.id.unwrap_or_default());
        let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        // Only where its number means the same process here.
        let pid = pid.filter(|pid| self.is_local() && is_of(*pid, &id));
        let networks = found.network_settings.unwrap_or_default();
        let shares_host =
            found.host_config.and_then(|host| host.network_mode).is_some_and(|mode| mode == "host");
        let address = networks
            .networks
            .unwrap_or_default()
            .into_values()
            .find_map(|network| network.ip_address?.parse::<IpAddr>().ok());
        Look {
            id,
            identity: Identity::of(&config.labels.unwrap_or_default()),
            started_at: state.started_at.clone().unwrap_or_default(),
            state: doing(state),
            pid,
            reach: if shares_host {
                Reach::Local
            } else {
                Reach::Container { published: published(networks.ports), address }
            },
            stop_signal: config.stop_signal,
            ailment,
        }
    }

    /// All containers of this home, or of one instance, or of one run.
    pub async fn ours(&self, of: Ours<'_>) -> Result<Vec<(ContainerId, Identity)>, EngineError> {
        let mut labels = vec![format!("{}={}", identity::HOME, self.home())];
        match of {
            Ours::All => {}
            Ours::Instance(instance) => {
                labels.push(format!("{}={}", identity::PROJECT, instance.project));
                labels.push(format!("{}={}", identity::COMPONENT, instance.component));
                labels.push(format!("{}={}", identity::REPLICA, instance.replica));
            }
            Ours::Run(run) => labels.push(format!("{}={run}", identity::RUN)),
            Ours::Ended(project) => labels.push(format!("{}={project}", identity::PROJECT)),
        }
        let mut filters = std::collections::HashMap::from([("label", labels)]);
        if let Ours::Ended(_) = of {
            filters.insert("status", vec!["exited".to_owned()]);
        }
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self
            .ask("list", QUICK, async |client| client.list_containers(Some(options)).await)
            .await?;
        let ours = listed.into_iter().filter_map(|found| {
            let identity = Identity::of(&found.labels?)?;
            Some((ContainerId::new(&found.id?), identity))
        });
        Ok(ours.collect())
    }

    /// Sends a signal to its first process. `false`: it does not run.
    pub async fn signal(&self, id: &ContainerId, signal: &str) -> Result<bool, EngineError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let sent = self
            .ask("kill", QUICK, async |client| {
                client.kill_container(id.as_str(), Some(options)).await
            })
            .await;
        match sent {
            Ok(()) => Ok(true),
            // 409: it is not running; older engines say 500.
            Err(EngineError::Refused { status: 404 | 409, .. }) => Ok(false),
            // Podman has no status of its own for it.
            Err(EngineError::Refused { message, .. })
                if ["is not running", "can only kill running containers"]
                    .iter()
                    .any(|words| message.contains(words)) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets a paused container go on; no error if it is not paused.
    pub async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let done = self
            .ask("unpause", QUICK, async |client| client.unpause_container(id.as_str()).await)
            .await;
        match done {
            Err(error) if error.is_engine() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes a container, whatever it is doing; its volumes stay. No error if it is not there.
    pub async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(false).build();
        let done = self
            .ask("remove", SLOW, async |client| {
                client.remove_container(id.as_str(), Some(options)).await
            })
            .await;
        match done {
            Err(error) if error.is_absence() => Ok(()),
            // Somebody else is removing it: it is gone when that is done.
            Err(error) if error.is_conflict() => self.wait_removed(id).await,
            other => other,
        }
    }

    async fn wait_removed(&self, id: &ContainerId) -> Result<(), EngineError> {
        let patience = tokio::time::Instant::now() + SLOW;
        let mut pause = Duration::from_millis(10);
        while self.look(id.as_str()).await?.is_some() {
            if tokio::time::Instant::now() > patience {
                return Err(EngineError::Silent { what: "remove", limit: SLOW });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Changes the limits of a container that runs.
    pub async fn update(
        &self,
        id: &ContainerId,
        body: bollard::models::ContainerUpdateBody,
    ) -> Result<(), EngineError> {
        self.ask("update", SLOW, async |client| client.update_container(id.as_str(), body).await)
            .await
            .map(drop)
    }
}

/// Which of our containers.
#[derive(Clone, Copy, Debug)]
pub enum Ours<'a> {
    /// Every one of this home.
    All,
    /// Those of one instance, of whatever run.
    Instance(&'a InstanceId),
    /// That of one run.
    Run(RunId),
    /// Those of a project that have ended.
    Ended(&'a str),
}

/// The last words of a health check that fails.
fn ailment(state: &ContainerState) -> Option<String> {
    let health = state.health.as_ref()?;
    let last = health.log.as_ref()?.iter().rev().find(|run| run.exit_code != Some(0))?;
    let output = last.output.as_deref().unwrap_or_default();
    output.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

/// Whether a process is in the cgroup of a container, which carries its identifier.
pub(super) fn is_of(pid: u32, container: &ContainerId) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    groups.is_ok_and(|groups| groups.contains(container.as_str()))
}

fn doing(state: ContainerState) -> Doing {
    let health =
        state.health.and_then(|health| health.status).map_or(Health::None, |status| match status {
            HealthStatusEnum::STARTING => Health::Starting,
            HealthStatusEnum::HEALTHY => Health::Healthy,
            HealthStatusEnum::UNHEALTHY => Health::Unhealthy,
            HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => Health::None,
        });
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => Doing::Created,
        Some(ContainerStateStatusEnum::RUNNING) => Doing::Running(health),
        Some(ContainerStateStatusEnum::PAUSED) => Doing::Halted(Halt::Paused),
        Some(ContainerStateStatusEnum::RESTARTING) => Doing::Halted(Halt::Restarting),
        Some(ContainerStateStatusEnum::DEAD) => Doing::Halted(Halt::Dead),
        // Being removed, it does not run any more.
        _ => Doing::Exited {
            exit: exit_of(state.exit_code, state.oom_killed.unwrap_or_default()),
            error: state.error.filter(|error| !error.is_empty()),
            finished_at: state.finished_at.and_then(|at| at.parse().ok()),
        },
    }
}

/// What an engine's exit code means.
#[must_use]
pub fn exit_of(code: Option<i64>, oom: bool) -> Exit {
    let status = match code.and_then(|code| i32::try_from(code).ok()) {
        Some(code @ 129..=192) => ExitStatus::Signal(code - 128),
        Some(code) => ExitStatus::Code(code),
        None => ExitStatus::Unknown,
    };
    Exit { status, oom: oom && status != ExitStatus::Code(0) }
}

/// Published TCP ports, each with where it is reached from this machine.
fn published(ports: Option<PortMap>) -> BTreeMap<u16, (String, u16)> {
    let mut published = BTreeMap::new();
    for (inside, bindings) in ports.unwrap_or_default() {
        let Some(port) = inside.strip_suffix("/tcp").and_then(|port| port.parse().ok()) else {
            continue;
        };
        let places = bindings.unwrap_or_default().into_iter().filter_map(|binding| {
            let outside = binding.host_port?.parse().ok()?;
            let host = binding.host_ip.unwrap_or_default();
            let any = host.is_empty() || host == "0.0.0.0";
            Some((if any { "127.0.0.1".to_owned() } else { host }, outside))
        });
        // IPv4 first: an engine may name both, and not every image listens on `::`.
        let mut places: Vec<(String, u16)> = places.collect();
        places.sort_by_key(|(host, _)| host.contains(':'));
        if let Some((host, outside)) = places.into_iter().next() {
            let host = if host == "::" { "::1".to_owned() } else { host };
            published.insert(port, (host, outside));
        }
    }
    published
}

#[cfg(test)]
mod tests {
    use bollard::models::PortBinding;

    use super::*;

    #[test]
    fn codes_above_128_are_deaths_by_signal() {
        assert_eq!(exit_of(Some(0), false), Exit::code(0));
        assert_eq!(exit_of(Some(1), false), Exit::code(1));
        assert_eq!(exit_of(Some(137), false), Exit::signal(9));
        assert_eq!(exit_of(Some(143), false), Exit::signal(15));
        assert_eq!(exit_of(Some(255), false), Exit::code(255));
        assert!(exit_of(Some(137), true).oom);
        assert_eq!(exit_of(None, false), Exit::unknown());
    }

    #[test]
    fn s34_only_running_is_running() {
        let of = |status| doing(ContainerState { status: Some(status), ..Default::default() });
        assert_eq!(of(ContainerStateStatusEnum::RUNNING), Doing::Running(Health::None));
        assert_eq!(of(ContainerStateStatusEnum::PAUSED), Doing::Halted(Halt::Paused));
        assert_eq!(of(ContainerStateStatusEnum::RESTARTING), Doing::Halted(Halt::Restarting));
        assert_eq!(of(ContainerStateStatusEnum::DEAD), Doing::Halted(Halt::Dead));
        assert!(matches!(of(ContainerStateStatusEnum::EXITED), Doing::Exited { .. }));
        assert!(matches!(of(ContainerStateStatusEnum::REMOVING), Doing::Exited { .. }));
    }

    #[test]
    fn a_published_port_is_reached_on_this_machine_by_ipv4_first() {
        let binding = |host: &str, port: &str| PortBinding {
            host_ip: Some(host.into()),
            host_port: Some(port.into()),
        };
        let ports = PortMap::from([
            ("80/tcp".into(), Some(vec![binding("::", "81"), binding("0.0.0.0", "8080")])),
            ("53/udp".into(), Some(vec![binding("0.0.0.0", "53")])),
            ("90/tcp".into(), None),
        ]);
        let expected = BTreeMap::from([(80, ("127.0.0.1".to_owned(), 8080))]);
        assert_eq!(published(Some(ports)), expected);
    }
}
