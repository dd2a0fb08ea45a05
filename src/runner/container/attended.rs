//! A container that runs, and what it is to be told.
//!
//! ```text
//!   Terminate, Kill, Reconfigure ─▶ kept ─▶ deliver ─┬─ done: forgotten
//!                                    ▲               ├─ refused, or no answer: again in a second
//!                                    └── link is up ─┴─ the engine is not there: when it is
//! ```
//!
//! What cannot be told now is told later, so that nothing that was asked for is lost with an engine that goes
//! away. A container that is killed is not asked to end any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Place, Shared};
use crate::container::look::{Doing, Health};
use crate::container::{EngineError, Link, body};
use crate::machine::Answer;
use crate::model::exit::signal_word;
use crate::model::spec::{ComponentSpec, Workload};
use crate::model::{ContainerId, ExitStatus};

/// The pause before what was refused is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// A container that runs.
pub(super) struct Attended {
    pub(super) id: ContainerId,
    /// By which it is known that nobody else has restarted it.
    pub(super) started_at: String,
    /// The signal of the image, or of the spec.
    pub(super) stop_signal: Option<String>,
    pub(super) health: Health,
    pub(super) pump: JoinHandle<()>,
    pub(super) over: watch::Sender<bool>,
    pub(super) is_oom: bool,
    /// Whether it has been asked to end, by this daemon.
    pub(super) is_asked: bool,
    /// What is to be told, and has not arrived.
    pub(super) untold: Untold,
    /// The stop command, while it runs, and by what it was declared.
    pub(super) stopping: Option<(Arc<ComponentSpec>, StopCommand)>,
}

/// A stop command that runs; its end says whether it has worked.
pub(super) type StopCommand = JoinHandle<Result<bool, EngineError>>;

/// What has not arrived.
#[derive(Default)]
pub(super) struct Untold {
    end: Option<End>,
    limits: Option<Arc<ComponentSpec>>,
    /// When it is tried again, if not at the engine's return.
    pub(super) again: Option<Instant>,
    /// Whether it was said that the engine does not take it.
    is_said: bool,
    /// Whether that has put the component in doubt.
    is_doubted: bool,
}

/// How a container is ended.
enum End {
    /// By its stop command, or its stop signal.
    Ask(Arc<ComponentSpec>),
    /// By its stop signal: the command has failed.
    Signal(Arc<ComponentSpec>),
    /// Now.
    Kill,
}

impl Untold {
    /// Limits that have changed.
    pub(super) fn reconfigure(&mut self, spec: Arc<ComponentSpec>) {
        self.limits = Some(spec);
    }

    /// The end is to begin.
    pub(super) fn terminate(&mut self, spec: Arc<ComponentSpec>) {
        self.limits = None;
        self.ask(End::Ask(spec));
    }

    /// The end is to come now.
    pub(super) fn kill(&mut self) {
        self.limits = None;
        self.end = Some(End::Kill);
    }

    fn ask(&mut self, end: End) {
        if !matches!(self.end, Some(End::Kill)) {
            self.end = Some(end);
        }
    }
}

impl Attended {
    /// Tells it what it has not been told yet. `false`: the engine says that it does not run.
    pub(super) async fn deliver(&mut self, place: &Place, shared: &Shared) -> bool {
        self.untold.again = None;
        if let Some(spec) = self.untold.limits.take() {
            self.limit(place, spec).await;
        }
        let Some(end) = self.untold.end.take() else { return true };
        // Asked once more by a machine that had not heard of it yet.
        if let End::Ask(_) = end
            && self.is_asked
        {
            place.answer(Answer::Told);
            return true;
        }
        let told = match &end {
            End::Ask(spec) => self.begin_end(place, shared, spec).await,
            End::Signal(spec) => self.signal(place, &self.stop_signal(spec)).await,
            End::Kill => self.kill(place).await,
        };
        let runs = match told {
            Ok(true) => {
                self.arrived(place);
                return true;
            }
            Ok(false) => false,
            Err(error) => {
                self.refused(place, &end, &error);
                true
            }
        };
        self.untold.end = Some(end);
        self.try_again(place);
        runs
    }

    fn arrived(&mut self, place: &Place) {
        self.untold.is_said = false;
        if std::mem::take(&mut self.untold.is_doubted) {
            place.answer(Answer::Doubt(None));
        }
        self.is_asked = true;
        place.answer(Answer::Told);
    }

    /// Says why the container has not been told.
    fn refused(&mut self, place: &Place, end: &End, error: &EngineError) {
        if !std::mem::replace(&mut self.untold.is_said, true) {
            let instance = &place.instance;
            tracing::warn!(%instance, "it could not be told to end, tried again: {error}");
        }
        match end {
            // An engine that refuses this may still do the other: the time until then passes.
            End::Ask(_) | End::Signal(_) if !error.is_engine() => place.answer(Answer::Told),
            End::Ask(_) | End::Signal(_) | End::Kill => {
                self.untold.is_doubted = true;
                place.answer(Answer::Doubt(Some(error.to_string())));
            }
        }
    }

    /// What is left to be told is told in a while; where the engine is not there, when it is.
    fn try_again(&mut self, place: &Place) {
        self.untold.again = (!is_away(place)).then(|| Instant::now() + AGAIN);
    }

    async fn limit(&mut self, place: &Place, spec: Arc<ComponentSpec>) {
        let Workload::Container(container) = &spec.workload else { return };
        let update = body::update(&container.resources);
        match place.engine.update(&self.id, update).await {
            Ok(()) => place.answer(Answer::Reconfigured),
            // That says nothing about the limits.
            Err(error) if error.is_engine() && is_away(place) => self.untold.limits = Some(spec),
            Err(error) => place.answer(Answer::Unchanged { message: error.to_string() }),
        }
    }

    async fn begin_end(
        &mut self,
        place: &Place,
        shared: &Shared,
        spec: &Arc<ComponentSpec>,
    ) -> Result<bool, EngineError> {
        // A frozen container cannot react to anything.
        if shared.doing().is_some_and(|doing| matches!(doing, Doing::Halted(_))) {
            place.engine.unpause(&self.id).await?;
        }
        let Some(command) = &spec.stop.command else {
            return self.signal(place, &self.stop_signal(spec)).await;
        };
        let (begins, begun) = oneshot::channel();
        let (engine, id, argv) = (place.engine.clone(), self.id.clone(), command.argv());
        let instance = place.instance.clone();
        let stopping = tokio::spawn(async move {
            // Whoever waits for it is there.
            let begins = || begins.send(()).unwrap_or_default();
            let outcome = engine.run_telling(&id, argv, begins).await;
            let worked = outcome.map(|output| output.status == ExitStatus::Code(0));
            if !matches!(worked, Ok(true)) {
                tracing::warn!(%instance, ?worked, "the stop command failed");
            }
            worked
        });
        if begun.await.is_ok() {
            self.stopping = Some((spec.clone(), stopping));
            return Ok(true);
        }
        match stopping.await {
            // It is begun when there is an engine again.
            Ok(Err(error)) if error.is_engine() => Err(error),
            Ok(_) | Err(_) => self.signal(place, &self.stop_signal(spec)).await,
        }
    }

    /// Waits for the end of the stop command; for ever, if there is none. Whether it has worked.
    pub(super) async fn stopped(&mut self) -> bool {
        match &mut self.stopping {
            Some((_, stopping)) => matches!(stopping.await, Ok(Ok(true))),
            None => std::future::pending().await,
        }
    }

    /// The stop command is over. One that has failed must not leave the container to the kill alone, and is
    /// not begun twice, for it may have run.
    pub(super) fn after_command(&mut self, worked: bool) {
        let Some((spec, _)) = self.stopping.take() else { return };
        if !worked {
            self.untold.ask(End::Signal(spec));
            self.untold.again = Some(Instant::now());
        }
    }

    fn stop_signal(&self, spec: &ComponentSpec) -> String {
        let declared = match &spec.workload {
            Workload::Container(container) => container.stop_signal.map(signal_word),
            Workload::Process(_) | Workload::External => None,
        };
        let signal = declared.or_else(|| self.stop_signal.clone());
        signal.unwrap_or_else(|| "SIGTERM".to_owned())
    }

    /// Sends a signal to its first process. `false`: it does not run.
    pub(super) async fn signal(&self, place: &Place, signal: &str) -> Result<bool, EngineError> {
        place.engine.signal(&self.id, signal).await
    }

    /// Ends it at once. `false`: it does not run.
    pub(super) async fn kill(&self, place: &Place) -> Result<bool, EngineError> {
        // Engines do not deliver a signal to what they have frozen.
        place.engine.unpause(&self.id).await?;
        self.signal(place, "SIGKILL").await
    }
}

/// Whether the engine is known not to be there. When it is, everything is looked at, and told, anew.
fn is_away(place: &Place) -> bool {
    matches!(&*place.engine.link().borrow(), Link::Down(_))
}
