//! The task of one run that is a container.
//!
//! ```text
//!   launch ─▶ prepare ─▶ make ─▶ start ─┐                    ┌─ died, removed, restarted by others
//!                                       ├─▶ attend ──────────┤
//!   adopt ──▶ what has become of it? ───┘      ▲  │ orders   ▼
//!                                              └──┘       finish: exit ─▶ log to its end ─▶ remove ─▶ Gone
//! ```
//!
//! Answers come in the order of the machine's: `Launched`, `Exited`, `Gone`. `Exited` says that something is
//! left, namely the container itself, and `Gone` follows when it is removed; so a stop is over, and a
//! replacement is made, only when nothing of it is left.
//!
//! Failure paths: with the engine gone, the component is in doubt and everything waits; when it is back, the
//! container is looked at and what was being done is done again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::attended::{AGAIN, Attended, Untold};
use super::launch::{self, of_engine};
use super::{Order, Place, Shared, cursor};
use crate::clock::now;
use crate::container::logs::Pump;
use crate::container::look::{Doing, Health, Look, Ours, exit_of};
use crate::container::{EngineError, Link, What};
use crate::machine::Answer;
use crate::model::event::human_duration;
use crate::model::exit::signal_word;
use crate::model::spec::ComponentSpec;
use crate::model::{Body, ContainerId, Exit, ExitStatus, LaunchError, LaunchStage, Retry, Time};
use crate::runner::launch::BaseEnv;

/// How long the end of the log is waited for, after the end of the container.
const LAST_LINES: Duration = Duration::from_secs(30);

/// An engine that is well answers a new daemon within this; nothing is known before it does.
const AT_ONCE: Duration = Duration::from_millis(250);

/// The task.
pub(super) struct Task {
    place: Place,
    orders: mpsc::UnboundedReceiver<Order>,
    shared: Shared,
}

/// How it became known that a container is over.
enum Ended {
    /// An event said so, with this code.
    Told(Option<i64>),
    /// A look at it did; `None`: it is not there any more.
    Seen(Option<Doing>),
}

impl Task {
    pub(super) const fn new(
        place: Place,
        orders: mpsc::UnboundedReceiver<Order>,
        shared: Shared,
    ) -> Self {
        Self { place, orders, shared }
    }

    // ---- beginnings ----------------------------------------------------------------------------

    /// Launches a container and lives with it.
    pub(super) async fn launch(mut self, spec: Arc<ComponentSpec>, base_env: BaseEnv) {
        // What a launch takes is not kept for the long life after it.
        match Box::pin(self.begin(&spec, &base_env)).await {
            Ok(Some((look, pump))) => {
                self.live(look, |over| tokio::spawn(pump.run(over))).await;
            }
            Ok(None) => self.until_forgotten().await,
            Err(error) => self.place.answer(Answer::LaunchFailed(error)),
        }
    }

    /// Makes the container and starts it. `None`: there is nothing to attend to.
    async fn begin(
        &mut self,
        spec: &Arc<ComponentSpec>,
        base_env: &BaseEnv,
    ) -> Result<Option<(Look, Pump)>, LaunchError> {
        let Some(container) = launch::container_of(spec) else {
            return Err(log_error("its spec is no container's"));
        };
        let place = self.place.clone();
        let order = {
            let mut preparing = std::pin::pin!(launch::prepare(&place, container, base_env));
            loop {
                tokio::select! {
                    prepared = &mut preparing => break prepared?,
                    order = self.orders.recv() => match order {
                        Some(Order::Withdraw) => return Err(launch::withdrawn()),
                        None | Some(Order::Forget) => return Ok(None),
                        Some(
                            Order::Happened(..) | Order::Look | Order::Gone(_) | Order::Terminate(_)
                            | Order::Kill | Order::Signal(_) | Order::Reconfigure(_),
                        ) => {}
                    },
                }
            }
        };
        let saved = cursor(&place.home, place.run).map_err(|e| log_error(&e.to_string()))?;
        // From here on it is finished, and ended if it is not wanted any more.
        let id = launch::make(&place, container.platform.as_deref(), &order).await?;
        let log = place.home.component_log(&place.instance);
        let pump =
            match Pump::begin(place.engine.clone(), id.clone(), log, saved, place.pen.clone()) {
                Ok(pump) => pump,
                Err(error) => {
                    drop(place.engine.remove(&id).await);
                    return Err(log_error(&format!("cannot use its log: {error}")));
                }
            };
        match place.engine.start(&id, &order).await {
            Ok(()) => {}
            // Whether it was started is seen when the engine is back.
            Err(error) if error.is_engine() => self.doubt(&error),
            Err(error) => {
                pump.discard();
                drop(place.engine.remove(&id).await);
                return Err(of_engine(&error));
            }
        }
        match self.look_until_known(&id).await {
            Some(look) if look.state != Doing::Created => Ok(Some((look, pump))),
            Some(_) => {
                pump.discard();
                drop(place.engine.remove(&id).await);
                Err(of_engine(&EngineError::unreachable("it was lost during the start")))
            }
            None => {
                pump.discard();
                self.place.answer(Answer::Launched {
                    body: Body::Container { id, pid: None },
                    at: now(),
                });
                self.place.answer(Answer::Exited { exit: Exit::unknown(), at: now(), empty: true });
                Ok(None)
            }
        }
    }

    /// Sees what has become of a run of the daemon before.
    pub(super) async fn adopt(mut self) {
        let mut link = self.place.engine.link();
        let answered = link.wait_for(|link| !matches!(link, Link::Unknown));
        if tokio::time::timeout(AT_ONCE, answered).await.is_err() {
            let message = "the container engine has not answered yet".to_owned();
            self.place.answer(Answer::Doubt(Some(message)));
        }
        let found = loop {
            match self.place.engine.ours(Ours::Run(self.place.run)).await {
                Ok(found) => break found.into_iter().next(),
                Err(error) => self.wait_out(&error).await,
            }
        };
        let look = match found {
            Some((id, _)) => self.look_until_known(&id).await,
            None => None,
        };
        let Some(look) = look else {
            self.place.answer(Answer::Lost);
            return self.until_forgotten().await;
        };
        if look.state == Doing::Created {
            drop(self.place.engine.remove(&look.id).await);
            self.place.answer(Answer::Lost);
            return self.until_forgotten().await;
        }
        let (place, id) = (self.place.clone(), look.id.clone());
        self.live(look, |over| tokio::spawn(resume(place, id, over))).await;
    }

    /// It was started, or found: from here on it is attended to.
    async fn live(
        &mut self,
        look: Look,
        pump: impl FnOnce(watch::Receiver<bool>) -> JoinHandle<()>,
    ) {
        let (over, is_over) = watch::channel(false);
        let mut attended = Attended {
            id: look.id.clone(),
            started_at: look.started_at.clone(),
            stop_signal: look.stop_signal.clone(),
            health: match look.state {
                Doing::Running(health) => health,
                Doing::Created | Doing::Halted(_) | Doing::Exited { .. } => Health::None,
            },
            pump: pump(is_over),
            over,
            is_oom: false,
            is_asked: false,
            untold: Untold::default(),
            stopping: None,
        };
        self.shared.note(&look);
        let body = Body::Container { id: look.id.clone(), pid: look.pid };
        let at = at(look.started_at.parse().ok());
        self.place.answer(Answer::Launched { body, at });
        let ended = if let Doing::Exited { .. } = look.state {
            Ended::Seen(Some(look.state))
        } else {
            self.place.answer(Answer::Doubt(None));
            let Some(ended) = self.attend(&mut attended).await else { return };
            ended
        };
        self.finish(attended, ended).await;
    }

    // ---- life ----------------------------------------------------------------------------------

    /// Follows orders until the container is over. `None`: the daemon ends, or nothing of it matters any
    /// more.
    async fn attend(&mut self, attended: &mut Attended) -> Option<Ended> {
        loop {
            let again = attended.untold.again;
            let ended = tokio::select! {
                order = self.orders.recv() => match order {
                    None | Some(Order::Forget) => return None,
                    Some(order) => self.obey(attended, order).await,
                },
                worked = attended.stopped() => {
                    attended.after_command(worked);
                    None
                }
                () = at_last(again) => self.deliver(attended).await,
            };
            if ended.is_some() {
                return ended;
            }
        }
    }

    /// Follows an order. How the container has ended, if it turns out that it has.
    async fn obey(&mut self, attended: &mut Attended, order: Order) -> Option<Ended> {
        match order {
            Order::Happened(id, _) if id != attended.id => {}
            Order::Happened(_, what) => match what {
                What::Died(code) => return Some(self.is_over(code)),
                What::Removed => return Some(self.is_over(None)),
                What::OutOfMemory => attended.is_oom = true,
                What::Paused => self.shared.freeze(true, attended.health),
                What::Unpaused => self.shared.freeze(false, attended.health),
                What::Health(health) => {
                    attended.health = health;
                    self.shared.health(health);
                }
                // By us; whoever else starts it has ended it before.
                What::Started => {}
            },
            Order::Look => {
                let ended = self.has_ended(attended).await;
                return match ended {
                    Some(ended) => Some(ended),
                    None => self.deliver(attended).await,
                };
            }
            Order::Gone(error) => self.doubt(&error),
            Order::Terminate(spec) => {
                attended.untold.terminate(spec);
                return self.deliver(attended).await;
            }
            Order::Kill => {
                attended.untold.kill();
                return self.deliver(attended).await;
            }
            Order::Signal(signal) => {
                let signal = signal_word(signal);
                if let Err(error) = attended.signal(&self.place, &signal).await {
                    let instance = &self.place.instance;
                    tracing::warn!(%instance, "{signal} was not sent: {error}");
                }
            }
            Order::Reconfigure(spec) => {
                attended.untold.reconfigure(spec);
                return self.deliver(attended).await;
            }
            // It came too late; the machine ends what was launched.
            Order::Withdraw | Order::Forget => {}
        }
        None
    }

    /// It has ended: nobody is to rely on it while the engine is asked how.
    fn is_over(&self, code: Option<i64>) -> Ended {
        self.shared.end();
        self.place.answer(Answer::Over);
        Ended::Told(code)
    }

    /// Tells the container what it has not been told yet. How it has ended, if that turns out.
    async fn deliver(&mut self, attended: &mut Attended) -> Option<Ended> {
        if attended.deliver(&self.place, &self.shared).await {
            return None;
        }
        self.has_ended(attended).await
    }

    /// Looks whether it is still the container that was launched, and runs. Only then is the doubt over:
    /// nobody is to rely on it while its end is being told.
    async fn has_ended(&mut self, attended: &mut Attended) -> Option<Ended> {
        let Some(look) = self.look_until_known(&attended.id).await else {
            return Some(Ended::Seen(None));
        };
        self.shared.note(&look);
        let is_over = matches!(look.state, Doing::Exited { .. } | Doing::Created);
        // Somebody else has restarted it: that is another run, which nobody asked for.
        if is_over || look.started_at != attended.started_at {
            return Some(Ended::Seen(Some(look.state)));
        }
        if let Doing::Running(health) = look.state {
            attended.health = health;
        }
        self.place.answer(Answer::Doubt(None));
        None
    }

    // ---- ends ----------------------------------------------------------------------------------

    /// It is over: how, the rest of its log, and then it is removed.
    async fn finish(&mut self, attended: Attended, ended: Ended) {
        if let Some((_, stopping)) = &attended.stopping {
            stopping.abort();
        }
        let (doing, code) = match ended {
            Ended::Told(code) => {
                let look = self.look_until_known(&attended.id).await;
                (look.map(|look| look.state), code)
            }
            Ended::Seen(doing) => (doing, None),
        };
        let lives_again = matches!(doing, Some(Doing::Running(_) | Doing::Halted(_)));
        let (exit, finished_at) = match doing {
            Some(Doing::Exited { exit, error: _, finished_at }) => {
                (Exit { oom: exit.oom || (attended.is_oom && is_kill(exit)), ..exit }, finished_at)
            }
            // Restarted or removed by somebody: what the event said is all that is known.
            Some(Doing::Created | Doing::Running(_) | Doing::Halted(_)) | None => {
                (exit_of(code, attended.is_oom), None)
            }
        };
        self.place.answer(Answer::Exited { exit, at: at(finished_at), empty: false });
        if lives_again {
            // Somebody has restarted it, and its log would never end.
            drop(attended.kill(&self.place).await);
        }
        attended.over.send_replace(true);
        let id = attended.id.clone();
        self.last_lines(attended).await;
        self.remove(&id).await;
        self.place.answer(Answer::Gone);
        self.until_forgotten().await;
    }

    /// Waits until the log is read to its end. While the engine is away there is nothing to be read, and
    /// nothing can be removed either.
    async fn last_lines(&mut self, mut attended: Attended) {
        let mut link = self.place.engine.link();
        let mut until = Instant::now() + LAST_LINES;
        loop {
            let is_there = matches!(&*link.borrow_and_update(), Link::Up(_));
            tokio::select! {
                _ = &mut attended.pump => return,
                () = tokio::time::sleep_until(until), if is_there => break,
                // The sender lives as long as the engine does.
                _ = link.changed() => until = Instant::now() + LAST_LINES,
                order = self.orders.recv() => match order {
                    // `docker restart` ends it and starts it again: its log would go on and on.
                    Some(Order::Happened(id, What::Started)) if id == attended.id => {
                        drop(attended.kill(&self.place).await);
                    }
                    Some(Order::Gone(error)) => self.doubt(&error),
                    Some(Order::Look) => self.place.answer(Answer::Doubt(None)),
                    None => return,
                    Some(
                        Order::Happened(..) | Order::Withdraw | Order::Terminate(_) | Order::Kill
                        | Order::Signal(_) | Order::Reconfigure(_) | Order::Forget,
                    ) => {}
                },
            }
        }
        let (instance, limit) = (&self.place.instance, human_duration(LAST_LINES));
        tracing::warn!(%instance, "its log is not whole: it was not read, or written, in {limit}");
        attended.pump.abort();
        if let Ok(saved) = cursor(&self.place.home, self.place.run) {
            drop(std::fs::remove_file(saved));
        }
    }

    /// Removes the container, however long that takes.
    async fn remove(&mut self, id: &ContainerId) {
        loop {
            match self.place.engine.remove(id).await {
                Ok(()) => return,
                Err(error) if error.is_engine() => self.wait_out(&error).await,
                Err(error) => {
                    let message = format!("its container cannot be removed: {error}");
                    self.place.answer(Answer::Doubt(Some(message)));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn until_forgotten(&mut self) {
        while let Some(order) = self.orders.recv().await {
            if let Order::Forget = order {
                return;
            }
        }
    }

    // ---- an engine that is not there -------------------------------------------------------------

    /// A look at a container, which waits for the engine where it has to.
    async fn look_until_known(&mut self, id: &ContainerId) -> Option<Look> {
        loop {
            match self.place.engine.look(id.as_str()).await {
                Ok(look) => return look,
                Err(error) => self.wait_out(&error).await,
            }
        }
    }

    fn doubt(&self, error: &EngineError) {
        self.place.answer(Answer::Doubt(Some(error.to_string())));
    }

    /// Says that nothing is known, and waits until the engine is there again.
    async fn wait_out(&mut self, error: &EngineError) {
        let mut link = self.place.engine.link();
        // Nobody has asked it anything yet: that is no reason for a doubt.
        if !matches!(&*link.borrow_and_update(), Link::Unknown) {
            self.doubt(error);
        }
        if !error.is_engine() {
            tokio::time::sleep(AGAIN).await;
        }
        let _ = link.wait_for(|link| matches!(link, Link::Up(_))).await;
    }
}

/// Goes on with the log of a container of the daemon before. It is better supervised without a log than not
/// at all: one that cannot be used is tried again.
async fn resume(place: Place, id: ContainerId, over: watch::Receiver<bool>) {
    let mut said = false;
    loop {
        let (engine, pen) = (place.engine.clone(), place.pen.clone());
        let log = place.home.component_log(&place.instance);
        let pump = cursor(&place.home, place.run)
            .and_then(|saved| Pump::resume(engine, id.clone(), log, saved, pen));
        match pump {
            Ok(pump) => return pump.run(over).await,
            Err(error) if !std::mem::replace(&mut said, true) => {
                let instance = &place.instance;
                tracing::error!(%instance, "its log cannot be written: {error}; tried again");
            }
            Err(_) => {}
        }
        if *over.borrow() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Waits for a time; for ever, if there is none.
async fn at_last(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn is_kill(exit: Exit) -> bool {
    exit.status == ExitStatus::Signal(libc::SIGKILL)
}

fn log_error(message: &str) -> LaunchError {
    LaunchError {
        stage: LaunchStage::Log,
        errno: None,
        message: message.to_owned(),
        hint: None,
        retry: Retry::Counted,
    }
}

/// A time of the engine's clock on the monotonic one; never in the future.
fn at(wall: Option<jiff::Timestamp>) -> Time {
    let present = now();
    let ago =
        wall.and_then(|wall| Duration::try_from(jiff::Timestamp::now().duration_since(wall)).ok());
    present - ago.unwrap_or_default()
}
