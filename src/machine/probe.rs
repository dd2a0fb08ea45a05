//! One probe of one run: its timer, its counts, its verdict.
//!
//! ```text
//!            due                 answer
//!   Idle ────────▶ Running ───────────────▶ Idle (due: start + interval, never in the past)
//! ```
//!
//! A probe never overlaps itself: it is either idle or running. Missed turns are skipped rather than
//! made up for, so that a daemon that was suspended does not probe in a burst.

use serde::{Deserialize, Serialize};

use crate::model::Time;
use crate::model::spec::ProbeSpec;

/// The state of one probe.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProbeRun {
    /// Waiting for its turn, or being performed.
    pub turn: Turn,
    /// What the thresholds make of the results so far.
    pub verdict: Verdict,
    /// The run of equal results that the last one belongs to.
    pub streak: Streak,
    /// The last result.
    pub last: Option<ProbeResult>,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// Performed next at this time.
    Idle {
        /// When.
        due: Time,
    },
    /// Being performed.
    Running {
        /// Tells the answer to this turn from answers to older ones.
        sequence: u64,
        /// When it began.
        since: Time,
    },
    /// Done for good: a startup probe that has passed.
    Done,
}

/// What the thresholds make of the results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Neither threshold was reached yet.
    Unknown,
    /// `success_threshold` successes in a row.
    Passing,
    /// `failure_threshold` failures in a row.
    Failing,
}

/// Equal results in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streak {
    /// So many successes.
    Successes(u32),
    /// So many failures.
    Failures(u32),
}

impl Streak {
    /// The length of the streak.
    pub const fn count(self) -> u32 {
        match self {
            Self::Successes(count) | Self::Failures(count) => count,
        }
    }
}

/// The result of one turn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProbeResult {
    /// `Err` holds the failure in plain words.
    pub outcome: Result<(), String>,
    /// When the turn began.
    pub started: Time,
    /// When it ended.
    pub ended: Time,
}

impl ProbeRun {
    /// A probe whose first turn is at `due`.
    pub const fn new(due: Time) -> Self {
        Self {
            turn: Turn::Idle { due },
            verdict: Verdict::Unknown,
            streak: Streak::Successes(0),
            last: None,
        }
    }

    /// When the probe wants to be performed.
    pub const fn deadline(&self) -> Option<Time> {
        match self.turn {
            Turn::Idle { due } => Some(due),
            Turn::Running { .. } | Turn::Done => None,
        }
    }

    /// Begins a turn if it is due; true if the runner must perform it.
    pub fn begin(&mut self, now: Time, sequence: u64) -> bool {
        match self.turn {
            Turn::Idle { due } if due <= now => {
                self.turn = Turn::Running { sequence, since: now };
                true
            }
            Turn::Idle { .. } | Turn::Running { .. } | Turn::Done => false,
        }
    }

    /// Takes the answer to a turn; true if the verdict has changed. An answer to another turn is
    /// stale and changes nothing.
    pub fn answer(
        &mut self,
        now: Time,
        sequence: u64,
        outcome: Result<(), String>,
        spec: &ProbeSpec,
    ) -> Option<Verdict> {
        let Turn::Running { sequence: current, since } = self.turn else { return None };
        if current != sequence {
            return None;
        }
        self.turn = Turn::Idle { due: (since + spec.interval).max(now) };
        self.streak = match (&outcome, self.streak) {
            (Ok(()), Streak::Successes(count)) => Streak::Successes(count.saturating_add(1)),
            (Ok(()), Streak::Failures(_)) => Streak::Successes(1),
            (Err(_), Streak::Failures(count)) => Streak::Failures(count.saturating_add(1)),
            (Err(_), Streak::Successes(_)) => Streak::Failures(1),
        };
        self.last = Some(ProbeResult { outcome, started: since, ended: now });
        match self.streak {
            Streak::Successes(count) if count >= spec.success_threshold => {
                self.verdict = Verdict::Passing;
            }
            Streak::Failures(count) if count >= spec.failure_threshold => {
                self.verdict = Verdict::Failing;
            }
            Streak::Successes(_) | Streak::Failures(_) => {}
        }
        Some(self.verdict)
    }

    /// The turn could not be performed, for a reason that says nothing of the component: it counts for
    /// nothing, and the next one is as if this one had passed.
    pub fn void(&mut self, now: Time, sequence: u64, spec: &ProbeSpec) {
        let Turn::Running { sequence: current, since } = self.turn else { return };
        if current == sequence {
            self.turn = Turn::Idle { due: (since + spec.interval).max(now) };
        }
    }

    /// A new engine took over: what was being performed is performed again, and counted once.
    pub fn resume(&mut self, now: Time) {
        if let Turn::Running { .. } = self.turn {
            self.turn = Turn::Idle { due: now };
        }
    }

    /// `GET /healthz 503 (3/3)`: the last failure, with its count.
    pub fn failure_message(&self, spec: &ProbeSpec) -> Option<String> {
        let failure = self.last.as_ref()?.outcome.as_ref().err()?;
        // What goes on failing has still failed often enough, and no more than that.
        let count = self.streak.count().min(spec.failure_threshold);
        Some(format!("{failure} ({count}/{})", spec.failure_threshold))
    }
}
