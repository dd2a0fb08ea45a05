//! One turn of a probe, in a task of its own unless it is over at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Report;
use super::container::probe::Probed;
use super::effects::Runner;
use super::needs::needs;
use super::probe::{Failure, Prober};
use crate::machine::Answer;
use crate::machine::phase::probe_spec;
use crate::model::event::human_duration;
use crate::model::spec::{Check, ComponentSpec};
use crate::model::{ProbeRole, RunId, Time};

/// A timeout that is noticed this late was over while this process stood still. A busy machine is not
/// that slow, and where it is, a turn more does no harm.
const LATE: Duration = Duration::from_millis(500);

/// Between two looks for a descriptor.
const TRY_AGAIN: Duration = Duration::from_millis(100);

impl Runner {
    pub(super) fn probe(
        &mut self,
        run: RunId,
        pid: Option<u32>,
        launched_at: Time,
        role: ProbeRole,
        sequence: u64,
        spec: &Arc<ComponentSpec>,
    ) {
        let reports = self.reports.clone();
        let answer = move |outcome| {
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(Failure::Failed(message)) => Err(message),
                Err(Failure::Void(message)) => {
                    tracing::debug!(%run, "the {role} probe was not performed: {message}");
                    let unprobed = Answer::Unprobed { role, sequence };
                    return drop(reports.send(Report::Answer(run, unprobed)));
                }
            };
            let probed = Answer::Probed { role, sequence, outcome };
            drop(reports.send(Report::Answer(run, probed)));
        };
        let Some(declared) = probe_spec(&spec.probes, role) else {
            return answer(Err("the probe is no longer declared".into()));
        };
        let container = self
            .containers
            .shared(run)
            .map(|shared| Probed { engine: self.containers.engine().clone(), shared });
        // Where it is reached is not known before it was looked at; what has ended needs no probe.
        if container.as_ref().is_some_and(|container| !container.shared.can_be_probed()) {
            return answer(Err(Failure::Void("the container is not known to run".into())));
        }
        let engine = container.as_ref().map(|container| container.engine.clone());
        let is_process = container.is_none();
        let Some(active) = self.runs.get_mut(&run) else { return };
        let slot = match active.slot(role, spec, declared, pid, launched_at, container) {
            Ok(slot) => slot,
            Err(message) => return answer(Err(message.into())),
        };
        let prober = slot.prober.clone();
        let timeout = declared.timeout;
        let asked = needs(&declared.check).engine.then_some(engine).flatten();
        // In a container it is the engine that runs commands.
        let slots = (is_process && needs(&declared.check).program).then(|| self.helpers.clone());
        let turn = async move {
            let began = Instant::now();
            loop {
                let looked = || in_time(timeout, &prober);
                let outcome = match &slots {
                    Some(helpers) => helpers.with_slot(looked).await,
                    None => looked().await,
                };
                match outcome {
                    Turn::Answered(Err(_)) if out_of_descriptors() => {
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                    Turn::Answered(outcome) => return answer(outcome),
                    Turn::StoodStill => {}
                    Turn::Silent => {
                        let late = format!("no answer within {}", human_duration(timeout));
                        return answer(Err(match asked {
                            // An engine that hangs says nothing about what it runs.
                            Some(engine) if !engine.has_spoken_since(began) => {
                                engine.check();
                                Failure::Void(late)
                            }
                            Some(_) | None => late.into(),
                        }));
                    }
                }
            }
        };
        slot.abort();
        let mut turn = Box::pin(turn);
        // Who listens on this machine has accepted a connection as soon as it is asked for: that needs no task.
        let is_over =
            matches!(declared.check, Check::Tcp { .. }) && turn.as_mut().now_or_never().is_some();
        slot.turn = (!is_over).then(|| (sequence, tokio::spawn(turn).abort_handle()));
    }

    /// The turn of a probe is over.
    pub fn probed(&mut self, run: RunId, role: ProbeRole, sequence: u64) {
        let slots = self.runs.get_mut(&run).into_iter().flat_map(|active| &mut active.probes);
        for slot in slots.filter(|slot| slot.role == role) {
            slot.turn.take_if(|(number, _)| *number == sequence);
        }
    }
}

/// What came of a turn of a probe.
enum Turn {
    /// It has a result.
    Answered(Result<(), Failure>),
    /// There was none within the timeout.
    Silent,
    /// This process was not running when the timeout was over, so that nobody can say what there was.
    StoodStill,
}

/// Performs a probe once, within its timeout. A process that was stopped, or a machine that was
/// suspended, finds the timeout over long ago when it goes on; that is no failure of the component's.
async fn in_time(timeout: Duration, prober: &Mutex<Prober>) -> Turn {
    let until = Instant::now() + timeout;
    match tokio::time::timeout_at(until, async { prober.lock().await.probe().await }).await {
        Ok(outcome) => Turn::Answered(outcome),
        Err(_) if until.elapsed() > LATE => Turn::StoodStill,
        Err(_) => Turn::Silent,
    }
}

/// Whether a probe may have failed for want of a descriptor, which says nothing of the component.
fn out_of_descriptors() -> bool {
    std::fs::File::open("/dev/null")
        .is_err_and(|error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)))
}
