//! From a spec to a container that runs.
//!
//! ```text
//!   secrets ─▶ engine there? ─▶ image ─▶ networks, volumes ─┬─▶ leftovers ─▶ create ─▶ connect ─▶ start
//!                    may be withdrawn                       │          is finished in any case
//! ```
//!
//! An answer that is lost does no harm: before anything is made, whatever is left of the instance's earlier
//! runs is removed, and the engine refuses a second container of the name.
//!
//! Failure paths: what is the engine's trouble, or the image's, is tried again with patience and never
//! charged; what is the manifest's (a program that is not in the image, a port that is taken) is a failed
//! start of the component.

use std::sync::Arc;

use super::Place;
use crate::container::body::{self, Order};
use crate::container::error::core_of;
use crate::container::identity::{container_name, digest};
use crate::container::image::{self, ImageError};
use crate::container::look::Ours;
use crate::container::provide::{Wanting, provide};
use crate::container::{EngineError, Identity};
use crate::machine::Answer;
use crate::model::container::ContainerSpec;
use crate::model::spec::{CommandSpec, ProcessSpec};
use crate::model::{ContainerId, LaunchError, LaunchStage, Retry};
use crate::runner::launch::{BaseEnv, Recipe};

/// Everything up to the making of the container.
pub(super) async fn prepare(
    place: &Place,
    spec: &ContainerSpec,
    base_env: &BaseEnv,
) -> Result<Order, LaunchError> {
    let environment = environment(place, spec, base_env).await?;
    let version = place.engine.version().await.map_err(|error| of_engine(&error))?;
    let mut tell = |message: String, event: bool| {
        place.answer(Answer::Preparing { message, event });
    };
    let image = image::ensure(&place.engine, spec, &mut tell).await.map_err(of_image)?;
    provide(&place.engine, &place.instance, spec, &image.volumes).await.map_err(of_wanting)?;
    let identity = Identity {
        home: place.engine.home().to_owned(),
        instance: place.instance.clone(),
        run: place.run,
        digest: digest(spec),
    };
    let spec = with_profiles(spec)?;
    body::order(&spec, &identity, environment, &image.volumes, &version)
        .map_err(|error| of_engine(&error))
}

/// A seccomp profile is named by its file in the manifest, and an engine wants its content.
fn with_profiles(spec: &ContainerSpec) -> Result<ContainerSpec, LaunchError> {
    let mut spec = spec.clone();
    for option in &mut spec.security_opt {
        let Some(file) = option.strip_prefix("seccomp=/") else { continue };
        let profile = std::fs::read_to_string(format!("/{file}"));
        *option =
            profile.map(|profile| format!("seccomp={profile}")).map_err(|error| LaunchError {
                stage: LaunchStage::Prepare,
                errno: error.raw_os_error(),
                message: format!("cannot read the seccomp profile /{file}: {error}"),
                hint: Some("correct `security_opt`".into()),
                retry: Retry::Counted,
            })?;
    }
    Ok(spec)
}

/// The declared variables with their secrets, after those that every component gets.
async fn environment(
    place: &Place,
    spec: &ContainerSpec,
    base_env: &BaseEnv,
) -> Result<Vec<String>, LaunchError> {
    // Only the commands of secrets are run by it.
    let nothing = ProcessSpec::new(CommandSpec::Shell(String::new()), &spec.directory);
    let process = ProcessSpec { env: spec.environment.clone(), ..nothing };
    let recipe = Recipe::prepare(&place.instance, &process, base_env, &place.helpers).await?;
    Ok(recipe.declared())
}

/// Makes the container, once nothing is left of earlier ones.
pub(super) async fn make(
    place: &Place,
    platform: Option<&str>,
    order: &Order,
) -> Result<ContainerId, LaunchError> {
    let engine = &place.engine;
    let left = engine.ours(Ours::Instance(&place.instance)).await.map_err(|e| of_engine(&e))?;
    for (id, _) in left {
        engine.remove(&id).await.map_err(|error| of_engine(&error))?;
    }
    let name = container_name(&place.instance);
    match engine.create(&name, platform, order).await {
        Ok(id) => Ok(id),
        Err(error) if error.is_conflict() => {
            free_name(place, &name, &error).await?;
            engine.create(&name, platform, order).await.map_err(|error| of_engine(&error))
        }
        Err(error) => Err(of_engine(&error)),
    }
}

/// The name is taken: by ourselves, where the answer to an earlier `create` came late, or by somebody else.
async fn free_name(place: &Place, name: &str, taken: &EngineError) -> Result<(), LaunchError> {
    let engine = &place.engine;
    let Some(look) = engine.look(name).await.map_err(|error| of_engine(&error))? else {
        return Ok(());
    };
    let is_ours = look.identity.as_ref().is_some_and(|identity| {
        identity.home == engine.home() && identity.instance == place.instance
    });
    if is_ours {
        return engine.remove(&look.id).await.map_err(|error| of_engine(&error));
    }
    let owner = match &look.identity {
        Some(identity) => {
            format!(
                "the stigmer of another home folder (its project {})",
                identity.instance.project
            )
        }
        None => "somebody else".to_owned(),
    };
    tracing::debug!("{taken}");
    Err(LaunchError {
        stage: LaunchStage::Container,
        errno: None,
        message: format!("the container {} has the name {name} and belongs to {owner}", look.id),
        hint: Some(format!(
            "remove it (`docker rm -f {name}`), or give the project another name (`project:`)"
        )),
        retry: Retry::Counted,
    })
}

/// A failure of the engine's, or a refusal.
pub(super) fn of_engine(error: &EngineError) -> LaunchError {
    let hint = error.hint();
    let (stage, retry, message, hint) = match error {
        EngineError::Unreachable { .. }
        | EngineError::Silent { .. }
        | EngineError::Nonsense { .. } => {
            (LaunchStage::Engine, Retry::Patient, error.to_string(), hint)
        }
        EngineError::TooOld { .. } => {
            (LaunchStage::Container, Retry::Counted, error.to_string(), hint)
        }
        EngineError::Refused { message, .. } => {
            let (message, hint) = explain(message);
            (LaunchStage::Container, Retry::Counted, message, hint)
        }
    };
    LaunchError { stage, errno: None, message, hint, retry }
}

fn of_image(error: ImageError) -> LaunchError {
    match error {
        ImageError::Engine(error) => of_engine(&error),
        ImageError::Image { message, hint } => LaunchError {
            stage: LaunchStage::Image,
            errno: None,
            message,
            hint: Some(hint),
            retry: Retry::Patient,
        },
    }
}

fn of_wanting(wanting: Wanting) -> LaunchError {
    match wanting {
        Wanting::Engine(error) => of_engine(&error),
        Wanting::External { message, hint } => LaunchError {
            stage: LaunchStage::Container,
            errno: None,
            message,
            hint: Some(hint),
            retry: Retry::Patient,
        },
    }
}

/// An engine's refusal without the layers of programs that it came through, and what to do about it.
fn explain(message: &str) -> (String, Option<String>) {
    let core = core_of(message);
    let lower = core.to_lowercase();
    let hint = if lower.contains("executable file not found")
        || (lower.contains("exec") && lower.contains("no such file or directory"))
    {
        Some("the image has no such program: correct `container.command` or `entrypoint`")
    } else if lower.contains("permission denied") && lower.contains("exec") {
        Some("the program in the image cannot be executed by this user: see `ls -l` in the image")
    } else if lower.contains("port is already allocated")
        || lower.contains("address already in use")
    {
        Some("another program has this port of the host: end it, or publish another port")
    } else if lower.contains("bind source path does not exist") {
        Some("make the folder, or write `bind: { create_host_path: true }` at the volume")
    } else if lower.contains("no such image") {
        Some("it was removed after it had been looked for; `pull_policy: missing` fetches it")
    } else {
        None
    };
    (core.to_owned(), hint.map(str::to_owned))
}

/// What a withdrawn launch answers.
pub(super) fn withdrawn() -> LaunchError {
    LaunchError {
        stage: LaunchStage::Prepare,
        errno: None,
        message: "it is not wanted any more".into(),
        hint: None,
        retry: Retry::Counted,
    }
}

/// What a spec says of a container, if it is one.
pub(super) fn container_of(
    spec: &Arc<crate::model::spec::ComponentSpec>,
) -> Option<&ContainerSpec> {
    match &spec.workload {
        crate::model::spec::Workload::Container(container) => Some(container),
        crate::model::spec::Workload::Process(_) | crate::model::spec::Workload::External => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_loses_its_layers_and_gains_advice() {
        let (message, hint) = explain(
            "OCI runtime create failed: container_linux.go:380: starting container process caused: \
             exec: \"nosuch\": executable file not found in $PATH: unknown",
        );
        assert_eq!(message, "exec: \"nosuch\": executable file not found in $PATH");
        assert!(hint.unwrap().contains("container.command"));
        let newer = "failed to create shim task: OCI runtime create failed: runc create failed: unable \
                     to start container process: exec: \"nosuch\": executable file not found in $PATH: \
                     unknown";
        assert_eq!(explain(newer).0, message);
        let (message, hint) = explain(
            "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 \
             failed: port is already allocated",
        );
        assert!(message.contains("0.0.0.0:80"));
        assert!(hint.unwrap().contains("port"));
        assert_eq!(explain("something else"), ("something else".to_owned(), None));
    }
}
