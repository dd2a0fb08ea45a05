//! Watches the engine: connects, lists what is ours, follows the event stream, connects again.
//!
//! ```text
//!          ┌────────── backoff 0.1 s ... 5 s ◀──────────┐
//!          ▼                                            │
//!   connect ─▶ clock ─▶ events since then ─▶ list ─▶ Up ─┴─ stream ended, or the link went down ─▶ Down
//! ```
//!
//! The list comes after the beginning of the stream, so that nothing falls between the two; what is told
//! twice does no harm. With the link up nothing wakes up but events: whether an engine that keeps quiet is
//! still there is found out by whoever needs it (`Engine::ask`, `Engine::ping`).
//!
//! Failure paths: an engine that is not there is tried again with backoff; one that hangs is noticed by
//! the first request that gets no answer, and the stream is given up.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::engine::{Engine, Link, QUICK};
use super::error::EngineError;
use super::identity::{self, Identity};
use super::look::{Health, Ours};
use crate::model::{ContainerId, RunId};

/// The pause after the first failure to connect; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The events that are asked for. Podman asks and tells by words of its own: `died`, `remove`, `exec_died`.
const EVENTS: [&str; 11] = [
    "start",
    "die",
    "died",
    "oom",
    "pause",
    "unpause",
    "health_status",
    "destroy",
    "remove",
    "exec_die",
    "exec_died",
];

/// What there is to be told.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The engine is there, and these are its containers of this home: everything is to be looked at anew.
    Up(Vec<(ContainerId, Identity)>),
    /// It is not.
    Down(EngineError),
    /// Something happened to a container of this home.
    Event {
        /// Its run.
        run: RunId,
        /// The container.
        id: ContainerId,
        /// What.
        what: What,
    },
}

/// What happens to a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// It was started.
    Started,
    /// Its first process has ended, with this code.
    Died(Option<i64>),
    /// Something in it was killed because its memory was used up.
    OutOfMemory,
    /// It was frozen.
    Paused,
    /// It goes on.
    Unpaused,
    /// Its health has changed.
    Health(Health),
    /// It was removed.
    Removed,
}

/// Watches until nobody listens to the notices any more.
pub async fn watch(engine: Engine, notices: mpsc::UnboundedSender<Notice>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = tokio::select! {
            ended = follow(&engine, &notices, &mut pause) => ended,
            () = notices.closed() => return,
        };
        tracing::warn!("{ended}");
        if notices.send(Notice::Down(ended)).is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = notices.closed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection, until its end.
async fn follow(
    engine: &Engine,
    notices: &mpsc::UnboundedSender<Notice>,
    pause: &mut Duration,
) -> EngineError {
    match connected(engine, notices, pause).await {
        Ok(error) | Err(error) => {
            // Also where only the stream has ended: nobody is to rely on what is known.
            engine.suspect(&error);
            error
        }
    }
}

async fn connected(
    engine: &Engine,
    notices: &mpsc::UnboundedSender<Notice>,
    pause: &mut Duration,
) -> Result<EngineError, EngineError> {
    let version = engine.connect().await?;
    let mut link = engine.link();
    link.mark_unchanged();
    let since = clock(engine).await?;
    let (client, place) = engine.handle()?;
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![format!("{}={}", identity::HOME, engine.home())]),
        ("event", EVENTS.map(str::to_owned).into()),
    ]);
    let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
    let mut stream = Box::pin(client.events(Some(options)));
    // The first look at the stream sends the request.
    let mut early = Vec::new();
    let listed = {
        let mut listing = std::pin::pin!(engine.ours(Ours::All));
        loop {
            tokio::select! {
                listed = &mut listing => break listed?,
                event = stream.next() => match event {
                    Some(Ok(event)) => early.push(event),
                    Some(Err(error)) => return Err(EngineError::of("events", &place, &error)),
                    None => return Ok(gone(&place)),
                },
            }
        }
    };
    tracing::info!("connected to the container engine: {} at {place}", version.name);
    *pause = FIRST_PAUSE;
    // Whoever listens may be gone; `watch` notices.
    drop(notices.send(Notice::Up(listed)));
    for event in early {
        tell(engine, notices, event);
    }
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(event)) => {
                    engine.heard();
                    tell(engine, notices, event);
                }
                Some(Err(error)) => return Err(EngineError::of("events", &place, &error)),
                None => return Ok(gone(&place)),
            },
            _ = link.changed() => {
                if let Link::Down(error) = &*link.borrow_and_update() {
                    return Err(error.clone());
                }
            }
        }
    }
}

fn gone(place: &str) -> EngineError {
    EngineError::unreachable(&format!("{place}: it has closed the connection"))
}

/// The engine's own time, from which on events are asked for.
async fn clock(engine: &Engine) -> Result<String, EngineError> {
    let info = engine.ask("info", QUICK, async |client| client.info().await).await?;
    let now = info.system_time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    // Without a clock, that of this machine, and some seconds that may be told twice.
    let since = now.unwrap_or_else(|| {
        jiff::Timestamp::now().saturating_sub(Duration::from_secs(10)).unwrap_or_default()
    });
    Ok(format!("{}.{:09}", since.as_second(), since.subsec_nanosecond()))
}

fn tell(engine: &Engine, notices: &mpsc::UnboundedSender<Notice>, event: EventMessage) {
    let Some(actor) = event.actor else { return };
    let attributes = actor.attributes.unwrap_or_default();
    let action = event.action.unwrap_or_default();
    let code = ["exitCode", "containerExitCode"].iter().find_map(|key| attributes.get(*key));
    let code = code.and_then(|code| code.parse().ok());
    if matches!(&*action, "exec_die" | "exec_died") {
        match (attributes.get("execID"), code) {
            (Some(exec), Some(code)) => engine.commands().ended(exec, code),
            _ => engine.commands().some_ended(),
        }
        return;
    }
    let (Some(id), Some(identity)) = (actor.id, Identity::of(&attributes)) else { return };
    let (run, id) = (identity.run, ContainerId::new(&id));
    let Some(what) = what(&action, code) else { return };
    drop(notices.send(Notice::Event { run, id, what }));
}

fn what(action: &str, code: Option<i64>) -> Option<What> {
    if let Some(health) = action.strip_prefix("health_status: ") {
        return Some(What::Health(Health::of(health)));
    }
    match action {
        "start" => Some(What::Started),
        "die" | "died" => Some(What::Died(code)),
        "oom" => Some(What::OutOfMemory),
        "pause" => Some(What::Paused),
        "unpause" => Some(What::Unpaused),
        "destroy" | "remove" => Some(What::Removed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_what_they_mean() {
        assert_eq!(what("die", Some(137)), Some(What::Died(Some(137))));
        assert_eq!(what("health_status: healthy", None), Some(What::Health(Health::Healthy)));
        assert_eq!(what("health_status: unhealthy", None), Some(What::Health(Health::Unhealthy)));
        assert_eq!(what("exec_create: sh", None), None);
        assert_eq!(what("destroy", None), Some(What::Removed));
        // Podman's words.
        assert_eq!(what("died", Some(0)), Some(What::Died(Some(0))));
        assert_eq!(what("remove", None), Some(What::Removed));
    }
}
