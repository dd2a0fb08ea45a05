//! Short commands on behalf of a component: exec probes, stop commands, commands of secrets.
//!
//! A helper is a run of the keeper's with a group of its own, so that ending it ends everything that
//! it started. It is over when its main process ends; what it leaves behind is killed. Dropping the
//! future of [`Helpers::run`] kills it at once (S10).
//!
//! Launches of helpers under way are bounded, for the keeper has one queue: many exec probes that come due
//! together would else stand before the signals and the launches of components, and be too late themselves
//! by the time they are started. A probe that waits for its slot is late, and not failed: its timeout begins
//! with the slot. A launch that hangs (its folder is on a file server that is down) gives its slot back after
//! a moment, for those that wait.
//!
//! ```text
//!   run() ── Spawn(aux) ─▶ keeper ── Exited ─▶ told() ─▶ the waiting future
//!     │ dropped                                  │ something is left
//!     └──────── KillTree ─▶ keeper ◀─────────────┘   ... Gone ─▶ Ack
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::launch::Recipe;
use super::probe::CommandOutput;
use crate::keeper::client::KeeperClient;
use crate::keeper::explain::{Asked, explain};
use crate::keeper::wire::{FromKeeper, RunPhase, ToKeeper};
use crate::model::{ExitStatus, LaunchError, LaunchStage, Retry, RunId, Time};

/// Runs of helpers have this bit, and those of components do not.
const HELPER: u64 = 1 << 55;

/// How much of a helper's output is kept, in bytes. The rest is read and dropped, for a helper whose
/// pipe is full would hang.
const OUTPUT_KEPT: usize = 4096;

/// Helpers that the keeper is asked to launch and has not launched yet, at most: what a crash waits for that
/// comes behind them is three milliseconds of work.
const LAUNCHING: usize = 8;

/// A launch that takes longer than this hangs, and does not count any more.
const HANGS: Duration = Duration::from_millis(100);

/// A probe that has not asked for its launch by then has something else to do before.
const UNUSED: Duration = Duration::from_millis(5);

tokio::task_local! {
    /// The slot that was waited for before the time of a probe began.
    static SLOT: RefCell<Option<Slot>>;
}

/// The right to ask the keeper for a launch, until it is made.
#[derive(Debug)]
struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    /// Somebody else has got one in its place.
    is_lent: bool,
}

impl Slot {
    fn lend(&mut self) {
        if let Some(permit) = self.permit.as_ref().filter(|_| !self.is_lent) {
            permit.semaphore().add_permits(1);
            self.is_lent = true;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take_if(|_| self.is_lent) {
            permit.forget();
        }
    }
}

/// How a helper ended.
type End = Result<ExitStatus, crate::keeper::wire::LaunchFailure>;

/// Starts helpers and hears of their ends.
#[derive(Clone, Debug)]
pub struct Helpers {
    keeper: Arc<KeeperClient>,
    next: Arc<AtomicU64>,
    waiting: Arc<Mutex<HashMap<RunId, oneshot::Sender<End>>>>,
    slots: Arc<Semaphore>,
    /// Of those that are being launched.
    launching: Arc<Mutex<HashMap<RunId, Slot>>>,
}

impl Helpers {
    /// `now` makes the identifiers differ from those of the engine before: no engine starts a million
    /// helpers a second.
    #[must_use]
    pub fn new(keeper: Arc<KeeperClient>, now: Time) -> Self {
        let first = HELPER | (now.as_nanos() / 1_000);
        Self {
            keeper,
            next: Arc::new(AtomicU64::new(first)),
            waiting: Arc::new(Mutex::new(HashMap::new())),
            slots: Arc::new(Semaphore::new(LAUNCHING)),
            launching: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// Waits until there is a slot, and lets the first helper that `future` runs have it. If it runs none for
    /// a while, because it has something else to do before, somebody else may be launched as well.
    pub async fn with_slot<F: Future>(&self, future: impl FnOnce() -> F) -> F::Output {
        let slot = self.slot().await;
        let with_slot = async {
            let mut future = pin!(future());
            let begun = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
            if let Poll::Ready(output) = begun {
                return output;
            }
            if SLOT.with(|slot| slot.borrow().is_some()) {
                tokio::select! {
                    biased;
                    output = &mut future => return output,
                    () = tokio::time::sleep(UNUSED) => {
                        SLOT.with(|slot| slot.borrow_mut().iter_mut().for_each(Slot::lend));
                    }
                }
            }
            future.await
        };
        SLOT.scope(RefCell::new(slot), with_slot).await
    }

    /// `None` where slots are no longer given out, which does not happen.
    async fn slot(&self) -> Option<Slot> {
        let permit = self.slots.clone().acquire_owned().await.ok()?;
        Some(Slot { permit: Some(permit), is_lent: false })
    }

    /// Whether a run is a helper.
    #[must_use]
    pub const fn is_helper(run: RunId) -> bool {
        run.0 & HELPER != 0
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// Why it could not be started, and whether that says anything of the component.
    pub async fn run(
        &self,
        recipe: &Recipe,
        argv: Vec<String>,
    ) -> Result<CommandOutput, LaunchError> {
        let slot = match SLOT.try_with(RefCell::take).ok().flatten() {
            Some(slot) => Some(slot),
            None => self.slot().await,
        };
        let run = RunId(self.next.fetch_add(1, Ordering::Relaxed));
        let program = argv.first().cloned().unwrap_or_default();
        let (sender, ended) = oneshot::channel();
        let (reader, writer) = output_pipe().map_err(|error| of_daemon("no pipe", &error))?;
        self.waiting().insert(run, sender);
        let guard = Guard { helpers: self, run };
        let spawn = ToKeeper::Spawn(Box::new(recipe.helper(run, argv)));
        let sent = self.keeper.send(&spawn, &[writer.as_fd()]);
        sent.map_err(|error| of_daemon("cannot ask the keeper to start it", &error))?;
        self.launching().extend(slot.map(|slot| (run, slot)));
        // Only the helper and its children hold the writing end now.
        drop(writer);
        let mut collected = pin!(collect(reader, ended));
        let (output, end) = tokio::select! {
            biased;
            collected = &mut collected => collected,
            () = tokio::time::sleep(HANGS) => {
                self.launching().remove(&run);
                collected.await
            }
        };
        guard.disarm();
        match end {
            Ok(status) => Ok(CommandOutput { status, output }),
            Err(Some(failure)) => Err(explain(&failure, &recipe.asked(&program))),
            Err(None) => {
                Err(of_daemon("the daemon is ending", &io::ErrorKind::NotConnected.into()))
            }
        }
    }

    /// Takes the keeper's messages about helpers.
    pub fn told(&self, message: &FromKeeper) {
        match message {
            FromKeeper::Spawned(spawned) => drop(self.launching().remove(&spawned.run)),
            FromKeeper::SpawnFailed(failure) => {
                self.launching().remove(&failure.run);
                self.end(failure.run, Err(failure.clone()));
                self.tell(&ToKeeper::Ack { run: failure.run });
            }
            FromKeeper::Exited(exited) => {
                self.launching().remove(&exited.run);
                self.end(exited.run, Ok(exited.exit.status));
                if exited.empty {
                    self.tell(&ToKeeper::Ack { run: exited.run });
                } else {
                    self.tell(&ToKeeper::KillTree { run: exited.run });
                }
            }
            FromKeeper::Gone { run } => self.tell(&ToKeeper::Ack { run: *run }),
            // Helpers of the engine before: the keeper ends them, and they are acknowledged here.
            FromKeeper::RunState(state) => match &state.phase {
                RunPhase::Ended(exited) if exited.empty => {
                    self.tell(&ToKeeper::Ack { run: state.run });
                }
                RunPhase::Failed(_) => self.tell(&ToKeeper::Ack { run: state.run }),
                RunPhase::Ended(_) | RunPhase::Launching | RunPhase::Running => {
                    self.tell(&ToKeeper::KillTree { run: state.run });
                }
            },
            FromKeeper::Welcome(_)
            | FromKeeper::HeldFd { .. }
            | FromKeeper::ListEnd
            | FromKeeper::Terminate { .. }
            | FromKeeper::ReloadRequested
            | FromKeeper::Estate
            | FromKeeper::NotReplaced { .. } => {}
        }
    }

    fn end(&self, run: RunId, end: End) {
        if let Some(waiting) = self.waiting().remove(&run) {
            // Nobody may be waiting any more; the guard has seen to the rest.
            drop(waiting.send(end));
        }
    }

    /// A keeper that is gone is noticed by the supervisor, which reads from it.
    fn tell(&self, message: &ToKeeper) {
        drop(self.keeper.send(message, &[]));
    }

    fn launching(&self) -> MutexGuard<'_, HashMap<RunId, Slot>> {
        self.launching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<RunId, oneshot::Sender<End>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something of the daemon's own has failed.
fn of_daemon(what: &str, error: &io::Error) -> LaunchError {
    LaunchError {
        stage: LaunchStage::Fork,
        errno: error.raw_os_error(),
        message: format!("{what}: {error}"),
        hint: None,
        retry: Retry::Soon,
    }
}

/// Kills the helper when whoever waits for it stops waiting.
struct Guard<'a> {
    helpers: &'a Helpers,
    run: RunId,
}

impl Guard<'_> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.helpers.waiting().remove(&self.run);
        self.helpers.launching().remove(&self.run);
        self.helpers.tell(&ToKeeper::KillTree { run: self.run });
    }
}

fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(reader)?, writer))
}

/// Reads the output until the helper has ended. Not until the pipe closes: a grandchild may hold it.
async fn collect(
    mut reader: pipe::Receiver,
    mut ended: oneshot::Receiver<End>,
) -> (Vec<u8>, Result<ExitStatus, Option<crate::keeper::wire::LaunchFailure>>) {
    let mut output = Vec::new();
    let mut buffer = [0; OUTPUT_KEPT];
    let mut open = true;
    let end = loop {
        tokio::select! {
            biased;
            end = &mut ended => break end,
            read = reader.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(length) => keep(&mut output, buffer.get(..length).unwrap_or(&[])),
            },
        }
    };
    // What it wrote last may still be in the pipe.
    while output.len() < OUTPUT_KEPT {
        match reader.try_read(&mut buffer) {
            Ok(length) if length > 0 => keep(&mut output, buffer.get(..length).unwrap_or(&[])),
            Ok(_) | Err(_) => break,
        }
    }
    let end = match end {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(failure)) => Err(Some(failure)),
        Err(_) => Err(None),
    };
    (output, end)
}

fn keep(output: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_KEPT.saturating_sub(output.len());
    output.extend(bytes.iter().take(room));
}

impl Recipe {
    /// What an explanation of a failure speaks of.
    pub(super) fn asked<'a>(&'a self, program: &'a str) -> Asked<'a> {
        Asked { program, search_path: self.search_path(), working_dir: self.working_dir() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::{pending, ready};

    use futures_util::future::{Either, join_all, select};

    use super::*;
    use crate::keeper::socket;
    use crate::model::InstanceId;
    use crate::model::spec::{CommandSpec, ProcessSpec};

    /// With the other end of the connection, on which nobody answers.
    fn helpers() -> (Helpers, OwnedFd) {
        let (mine, its) = socket::pair().unwrap();
        let keeper = Arc::new(KeeperClient::from_fd(mine).unwrap());
        (Helpers::new(keeper, Time::ZERO), its)
    }

    async fn recipe(helpers: &Helpers) -> Recipe {
        let spec = ProcessSpec::new(CommandSpec::Exec(vec!["true".into()]), "/");
        let instance = InstanceId::new("shop", "api", 0);
        Recipe::prepare(&instance, &spec, &BTreeMap::new(), helpers).await.unwrap()
    }

    #[tokio::test]
    async fn a_launch_that_hangs_gives_its_slot_back() {
        let (helpers, _keeper) = helpers();
        let recipe = recipe(&helpers).await;
        let hung = join_all((0..=LAUNCHING).map(|_| helpers.run(&recipe, vec!["true".to_owned()])));
        let mut hung = pin!(hung);
        let all_wait = async {
            while helpers.waiting().len() <= LAUNCHING {
                tokio::task::yield_now().await;
            }
        };
        // Of the last one the keeper hears when one of those before it has hung for long enough.
        let Either::Right(_) = select(&mut hung, pin!(all_wait)).await else { panic!() };
        assert!(helpers.launching().len() <= LAUNCHING);
    }

    #[tokio::test]
    async fn who_does_something_else_first_keeps_nobody_waiting() {
        let (helpers, _keeper) = helpers();
        let busy = join_all((0..LAUNCHING).map(|_| helpers.with_slot(pending::<()>)));
        let other = async {
            // All others have their slots by now.
            while helpers.slots.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            helpers.with_slot(|| ready(7)).await
        };
        let other = select(Box::pin(busy), Box::pin(other)).await;
        let Either::Right((7, _)) = other else { panic!() };
        assert!(helpers.slots.available_permits() > 0);
    }
}
