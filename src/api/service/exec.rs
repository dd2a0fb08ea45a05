//! Where and how a command runs that a client runs beside a component, or in its container.
//!
//! ```text
//!   request ─▶ look: who is meant ─┬─ process ───▶ Recipe (secrets, user) ─▶ environment, user, folder ...
//!              (in the loop)       ├─ container ─▶ its identifier, the engine's address
//!                                  └─ external, several, not running ─▶ refused
//! ```
//!
//! Only the look is inside of the supervisor's loop. A secret that is a command may take a minute, for
//! which nobody waits but the client; a client that goes away ends that command.
//!
//! Failure paths: see the statuses in the proto. What cannot be prepared is told in the words of a launch.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use tonic::Status;

use super::Service;
use super::ask::Chosen;
use crate::api::v1::{
    ContainerPlace, ExecRequest, ExecResponse, ProcessLimit, ProcessPlace, ProcessUser,
};
use crate::container::address::Address;
use crate::machine::Component;
use crate::model::spec::{LimitSpec, ProcessSpec, Workload};
use crate::model::{Body, InstanceId, LaunchError};
use crate::runner::helper::Helpers;
use crate::runner::launch::Recipe;
use crate::supervisor::World;

/// How many names are told where one was to be meant.
const NAMES_TOLD: usize = 10;

/// `exec NAME`.
pub(super) async fn exec(service: &Service, request: ExecRequest) -> Result<ExecResponse, Status> {
    let selector = request.selector.unwrap_or_default();
    let found = service.look(move |world, _| {
        let instances = Chosen::new(&selector, world)?.instances;
        find(&instances, world)
    });
    let Found { instance, place } = found.await??;
    let mut response = ExecResponse {
        project: instance.project.to_string(),
        component: instance.component.to_string(),
        replica: instance.replica,
        ..ExecResponse::default()
    };
    match place {
        Place::Process(process) => {
            response.process = Some(process.resolve(&instance, &request.user).await?);
            // Secrets may have left the daemon: that is worth a line.
            tracing::info!("{instance}: a command is run in its environment by hand");
        }
        Place::Container(container) => response.container = Some(container),
    }
    Ok(response)
}

/// Who is meant, and where its commands run.
struct Found {
    instance: InstanceId,
    place: Place,
}

enum Place {
    Process(Process),
    Container(ContainerPlace),
}

/// What it takes to resolve a process component.
struct Process {
    spec: ProcessSpec,
    base_env: BTreeMap<String, String>,
    helpers: Helpers,
    keeper: u32,
}

fn find(instances: &[InstanceId], world: &World<'_>) -> Result<Found, Status> {
    let instance = match instances {
        [instance] => instance,
        [] => return Err(Status::not_found("no component is declared")),
        several => return Err(Status::invalid_argument(ambiguous(several))),
    };
    let Some(component) = world.fleet.get(instance) else {
        return Err(Status::not_found(format!("{instance} is not declared any more")));
    };
    let place = match &component.spec().workload {
        Workload::Process(spec) => {
            let project = world.projects.get(&*instance.project);
            Place::Process(Process {
                spec: spec.clone(),
                base_env: project.map(|one| one.record.base_env.clone()).unwrap_or_default(),
                helpers: world.runner.helpers().clone(),
                keeper: world.keeper.keeper_pid,
            })
        }
        Workload::Container(_) => Place::Container(container(instance, component, world)?),
        Workload::External => {
            return Err(Status::invalid_argument(format!(
                "{} is external: others run it, and stigmer knows neither its environment nor a \
                 container of it",
                instance.display_name()
            )));
        }
    };
    Ok(Found { instance: instance.clone(), place })
}

/// Several are meant where a command runs in one.
fn ambiguous(instances: &[InstanceId]) -> String {
    let is_one_project = instances.windows(2).all(|pair| pair[0].project == pair[1].project);
    let name = |instance: &InstanceId| {
        let InstanceId { project, component, replica } = instance;
        if is_one_project {
            format!("{component}.{replica}")
        } else {
            format!("{project}/{component}.{replica}")
        }
    };
    let mut names: Vec<String> = instances.iter().take(NAMES_TOLD).map(name).collect();
    if let Some(more) = instances.len().checked_sub(NAMES_TOLD).filter(|more| *more > 0) {
        names.push(format!("and {more} more"));
    }
    let project = if is_one_project { "" } else { ", and its project with --project" };
    format!(
        "a command runs in one component, and this means {}: {}; name one{project}",
        instances.len(),
        names.join(", ")
    )
}

/// The container of a component that runs.
fn container(
    instance: &InstanceId,
    component: &Component,
    world: &World<'_>,
) -> Result<ContainerPlace, Status> {
    let name = instance.display_name();
    let view = component.view(world.now);
    let Some(id) = view.body.and_then(Body::container) else {
        let state = view.state.as_str();
        let reason = view.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        return Err(Status::failed_precondition(format!(
            "{name} is {state}{reason}, and has no container to run anything in; `stigmer start {name}` \
             starts it, `stigmer why {name}` says what holds it up"
        )));
    };
    let Some(engine) = world.runner.engine().place() else {
        let doubt = view.doubt.unwrap_or("the container engine has not been found yet");
        return Err(Status::failed_precondition(format!("{name} cannot be reached: {doubt}")));
    };
    let certificates = match &engine.address {
        Address::Tls { certificates, .. } => certificates.to_string_lossy().into_owned(),
        Address::Unix(_) | Address::Tcp(_) => String::new(),
    };
    let engine = engine.address.as_url();
    Ok(ContainerPlace { id: id.as_str().to_owned(), engine, certificates })
}

impl Process {
    /// Resolves everything that a launch would.
    async fn resolve(&self, instance: &InstanceId, user: &str) -> Result<ProcessPlace, Status> {
        let Self { spec, base_env, helpers, keeper } = self;
        let recipe = Recipe::prepare(instance, spec, base_env, helpers).await;
        let mut recipe = recipe.map_err(|error| unprepared(&error))?;
        if !user.is_empty() {
            let (user, group) = match user.split_once(':') {
                Some((user, group)) => (user, Some(group)),
                None => (user, None),
            };
            let other = recipe.as_user(user, group);
            recipe = other.map_err(|error| Status::invalid_argument(error.message))?;
        }
        Ok(ProcessPlace {
            env: recipe.environment().clone(),
            working_dir: recipe.working_dir().as_os_str().as_bytes().to_vec(),
            user: Some(recipe.user().map_or_else(own_user, |user| ProcessUser {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups.clone(),
            })),
            umask: spec.umask.or_else(|| umask_of(*keeper)),
            nice: spec.nice,
            rlimits: limits(spec),
        })
    }
}

/// A launch would have failed like this.
fn unprepared(error: &LaunchError) -> Status {
    let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    Status::aborted(format!("{}{hint}", error.message))
}

/// The user of the daemon, and so of every component that declares none.
fn own_user() -> ProcessUser {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    // The call cannot fail: the kernel says how many there are.
    let groups = nix::unistd::getgroups().unwrap_or_default();
    ProcessUser { uid, gid, groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect() }
}

/// The mask that components inherit from the keeper. Files that a command makes shall be as theirs.
fn umask_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok()
}

fn limits(spec: &ProcessSpec) -> Vec<ProcessLimit> {
    let limit = |(name, limit): (&_, &LimitSpec)| {
        let name = serde_json::to_value(name).ok()?.as_str()?.to_owned();
        Some(ProcessLimit { name, soft: limit.soft, hard: limit.hard })
    };
    spec.rlimits.iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_meant_besides_is_named_as_it_is_to_be_typed() {
        let of = |project: &str, replica| InstanceId::new(project, "api", replica);
        let text = ambiguous(&[of("shop", 0), of("shop", 1)]);
        assert!(text.ends_with("means 2: api.0, api.1; name one"), "{text}");
        let text = ambiguous(&[of("shop", 0), of("blog", 0)]);
        assert!(text.contains("shop/api.0, blog/api.0; name one, and its project"), "{text}");
        let many: Vec<_> = (0..12).map(|replica| of("shop", replica)).collect();
        assert!(ambiguous(&many).contains("api.9, and 2 more"));
    }

    #[test]
    fn the_mask_of_this_process_is_found() {
        assert!(umask_of(std::process::id()).is_some_and(|mask| mask <= 0o777));
        assert_eq!(umask_of(u32::MAX), None);
    }

    #[test]
    fn limits_have_the_names_of_the_manifest() {
        use crate::model::spec::{CommandSpec, Rlimit};
        let limit = LimitSpec { soft: Some(7), hard: None };
        let spec = ProcessSpec {
            rlimits: [(Rlimit::Nofile, limit)].into(),
            ..ProcessSpec::new(CommandSpec::Shell(String::new()), "/")
        };
        let expected = ProcessLimit { name: "nofile".into(), soft: Some(7), hard: None };
        assert_eq!(limits(&spec), [expected]);
    }
}
