//! Probes of a container: what is known of it, and commands inside of it.
//!
//! What the event stream has told is enough, as long as the engine gives signs of life: it is asked for one
//! where there was none lately. Without one the probe is void, for an engine that hangs says nothing about
//! the container.

use crate::container::look::{Doing, Halt, Health};
use crate::container::{Engine, EngineError};
use crate::runner::probe::{CommandFuture, CommandRunner, ContainerLook, Failure, LookFuture};

use super::Shared;

/// A run's container, for its probes.
#[derive(Clone, Debug)]
pub(in crate::runner) struct Probed {
    pub(in crate::runner) engine: Engine,
    pub(in crate::runner) shared: Shared,
}

impl ContainerLook for Probed {
    fn look(&self, health: bool) -> LookFuture {
        let Self { engine, shared } = self.clone();
        Box::pin(async move {
            engine.vouch().await.map_err(|error| Failure::Void(error.to_string()))?;
            match shared.doing() {
                Some(Doing::Running(Health::Unhealthy)) if health => {
                    Err(Failure::Failed(ailment(&engine, &shared).await))
                }
                // Neither a success nor a failure: the engine's own thresholds are not reached yet.
                Some(Doing::Running(Health::Starting)) if health => {
                    Err(Failure::Void("its health check says nothing yet".into()))
                }
                Some(Doing::Running(_)) => Ok(()),
                Some(Doing::Halted(halt)) => {
                    let what = match halt {
                        Halt::Paused | Halt::Restarting | Halt::Dead => halt.as_str(),
                    };
                    Err(Failure::Failed(format!("the container is {what}")))
                }
                // It was not looked at yet, or its end is being told.
                Some(Doing::Created | Doing::Exited { .. }) | None => {
                    Err(Failure::Void("the container does not run".into()))
                }
            }
        })
    }
}

/// What the engine's health check says.
async fn ailment(engine: &Engine, shared: &Shared) -> String {
    let said = match shared.id() {
        Some(id) => engine.look(id.as_str()).await.ok().flatten().and_then(|look| look.ailment),
        None => None,
    };
    said.map_or_else(
        || "the engine says that it is unhealthy".into(),
        |said| format!("the engine says that it is unhealthy: {said}"),
    )
}

impl CommandRunner for Probed {
    fn run(&self, argv: Vec<String>) -> CommandFuture {
        let Self { engine, shared } = self.clone();
        Box::pin(async move {
            let id = shared.id().ok_or(Failure::Void("there is no container yet".into()))?;
            engine.run(&id, argv).await.map_err(|error| failure(&error))
        })
    }
}

fn failure(error: &EngineError) -> Failure {
    if error.is_engine() {
        Failure::Void(error.to_string())
    } else {
        Failure::Failed(error.to_string())
    }
}
