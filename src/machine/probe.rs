//! One probe of one run: its timer, its counts, its verdict.
//!
//! ```text
//!            due                 answer
//!   Idle ────────▶ Running ───────────────▶ Idle (due: start + interval, never in the past)
//! ```
//!
//! A probe that passes has times of its own, an interval apart, by which all probes are spread over it. To get
//! there one turn comes early: after the start, and again if the daemon was held up and all turns were due at
//! once, which would else be a burst for ever.
//!
//! Each of these times may be that of several probes: a thousand probes wake the daemon a few times a second
//! rather than a hundred times.
//!
//! A probe never overlaps itself: it is either idle or running. Missed turns are skipped rather than
//! made up for, so that a daemon that was suspended does not probe in a burst.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Time;
use crate::model::spec::ProbeSpec;

/// Probes with at least this interval are spread over it; the others come often enough.
const SPREAD: Duration = Duration::from_secs(1);

/// Into so many parts an interval is divided; a turn begins with one of them. 100 ms of 10 s: nobody sees it,
/// and even with ten thousand probes few come at one time.
const PARTS: u32 = 100;

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
    /// Whether the last turn could not be performed.
    #[serde(skip)]
    is_missed: bool,
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
            is_missed: false,
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
                self.is_missed = false;
                true
            }
            Turn::Idle { .. } | Turn::Running { .. } | Turn::Done => false,
        }
    }

    /// Takes the answer to a turn; true if the verdict has changed. An answer to another turn is
    /// stale and changes nothing.
    ///
    /// `place` is that of the probe among all others, from 0 to 1: the share of the interval by which its times
    /// come after those of the first. What fails, or failed and does not pass yet, is counted in whole intervals
    /// from its own begin.
    pub fn answer(
        &mut self,
        now: Time,
        sequence: u64,
        outcome: Result<(), String>,
        spec: &ProbeSpec,
        place: f64,
    ) -> Option<Verdict> {
        let Turn::Running { sequence: current, since } = self.turn else { return None };
        if current != sequence {
            return None;
        }
        let passes = outcome.is_ok();
        let is_first = self.last.is_none();
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
        let due = since + spec.interval;
        let may_be_early = is_first || self.verdict == Verdict::Passing;
        let is_spread = passes && may_be_early && spec.interval >= SPREAD;
        let due = if is_spread { own_time(due, spec.interval, place) } else { due };
        self.turn = Turn::Idle { due: due.max(now) };
        Some(self.verdict)
    }

    /// The turn could not be performed, for a reason that says nothing of the component: it counts for
    /// nothing, and the next one is as if this one had passed.
    pub fn void(&mut self, now: Time, sequence: u64, spec: &ProbeSpec) {
        let Turn::Running { sequence: current, since } = self.turn else { return };
        if current == sequence {
            self.turn = Turn::Idle { due: (since + spec.interval).max(now) };
            self.is_missed = true;
        }
    }

    /// What could not be performed now can: who waits for a first result does not wait an interval for it.
    pub const fn make_up(&mut self, now: Time) {
        if self.is_missed
            && self.last.is_none()
            && let Turn::Idle { due } = &mut self.turn
        {
            *due = now;
        }
    }

    /// A new engine took over: what was being performed is performed again, and counted once. What came
    /// due meanwhile, or was performed without being written down, goes on in its old rhythm: all at once
    /// would be a burst.
    pub fn resume(&mut self, now: Time, interval: Duration) {
        match self.turn {
            Turn::Running { .. } => self.turn = Turn::Idle { due: now },
            Turn::Idle { due } if due < now && self.last.is_some() && interval >= SPREAD => {
                let missed = now.since(due).as_nanos().div_ceil(interval.as_nanos());
                let missed = u32::try_from(missed).unwrap_or(u32::MAX);
                self.turn = Turn::Idle { due: due + interval.saturating_mul(missed) };
            }
            Turn::Idle { .. } | Turn::Done => {}
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

/// The last of the probe's own times that is not after this one.
fn own_time(latest: Time, interval: Duration, place: f64) -> Time {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1);
    let offset = nanos(interval.mul_f64(place.clamp(0.0, 1.0)));
    let (part, interval) = (nanos(interval / PARTS), nanos(interval));
    let offset = offset / part * part;
    let latest = latest.as_nanos();
    Time::from_nanos(latest.saturating_sub(latest.saturating_sub(offset) % interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use crate::model::spec::Check;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn spec(interval: Duration) -> ProbeSpec {
        ProbeSpec {
            check: Check::Process,
            interval,
            timeout: Duration::from_secs(3),
            failure_threshold: 3,
            success_threshold: 1,
            initial_delay: Duration::ZERO,
        }
    }

    /// A turn that takes no time.
    fn turn(probe: &mut ProbeRun, now: Time, passes: bool, spec: &ProbeSpec, place: f64) -> Time {
        assert!(probe.begin(now, 1));
        let outcome = if passes { Ok(()) } else { Err("no".to_owned()) };
        probe.answer(now, 1, outcome, spec, place).unwrap();
        probe.deadline().unwrap()
    }

    #[test]
    fn a_turn_comes_early_to_get_to_its_own_times_and_the_others_at_the_interval() {
        let begin = Time::from_secs(101);
        let spec = spec(INTERVAL);
        let mut probe = ProbeRun::new(begin);
        let second = turn(&mut probe, begin, true, &spec, 0.25);
        assert_eq!(second, Time::from_nanos(102_500_000_000));
        // Begun a little late, as turns are.
        let late = Duration::from_micros(300);
        let third = turn(&mut probe, second + late, true, &spec, 0.25);
        assert_eq!(third, second + INTERVAL);
        // A failure is no reason to come early for the next one.
        let fourth = turn(&mut probe, third + late, false, &spec, 0.25);
        assert_eq!(fourth, third + late + INTERVAL);
        // What fails from the start is not hurried on to its threshold.
        let mut probe = ProbeRun::new(begin);
        assert_eq!(turn(&mut probe, begin, false, &spec, 0.25), begin + INTERVAL);
        // Short intervals are what they are.
        let short = Duration::from_millis(999);
        let mut probe = ProbeRun::new(begin);
        let spec = ProbeSpec { interval: short, ..spec };
        assert_eq!(turn(&mut probe, begin, true, &spec, 0.25), begin + short);
    }

    #[test]
    fn what_failed_passes_again_after_whole_intervals() {
        let begin = Time::from_secs(101);
        let spec = ProbeSpec { success_threshold: 2, ..spec(INTERVAL) };
        let mut probe = ProbeRun::new(begin);
        // Who starts need not wait longer than necessary.
        let second = turn(&mut probe, begin, true, &spec, 0.25);
        assert_eq!(second, Time::from_nanos(102_500_000_000));
        let mut at = turn(&mut probe, second, true, &spec, 0.25);
        for _ in 0..spec.failure_threshold {
            at = turn(&mut probe, at + Duration::from_secs(1), false, &spec, 0.25);
        }
        assert_eq!(probe.verdict, Verdict::Failing);
        let next = turn(&mut probe, at, true, &spec, 0.25);
        assert_eq!(next, at + INTERVAL);
        // Then it goes back to its own times.
        let last = turn(&mut probe, next, true, &spec, 0.25);
        assert_eq!(probe.verdict, Verdict::Passing);
        assert!(last < next + INTERVAL);
        assert!(last.since(second).as_nanos().is_multiple_of(INTERVAL.as_nanos()));
    }

    /// How many of these times are in each tenth of the interval.
    fn tenths(times: impl Iterator<Item = Time>) -> [u64; 10] {
        let mut tenths = [0; 10];
        for time in times {
            let share = time.as_nanos() % u64::try_from(INTERVAL.as_nanos()).unwrap();
            tenths[usize::try_from(share / 1_000_000_000).unwrap()] += 1;
        }
        tenths
    }

    #[test]
    fn probes_of_runs_that_began_together_are_spread_over_the_interval() {
        let begin = Time::from_secs(100);
        for count in [10_u64, 100, 1_000, 10_000] {
            let second = |run| {
                let mut probe = ProbeRun::new(begin);
                let second = turn(&mut probe, begin, true, &spec(INTERVAL), run_place(run));
                assert!(second > begin && second <= begin + INTERVAL, "{second:?}");
                second
            };
            let tenths = tenths((0..count).map(second));
            let fair = count / 10;
            assert!(tenths.iter().all(|all| all.abs_diff(fair) <= fair / 10 + 1), "{tenths:?}");
        }
    }

    fn run_place(run: u64) -> f64 {
        RunId(7_000 + run).place(1)
    }

    #[test]
    fn probes_that_were_held_up_together_are_spread_again() {
        let begin = Time::from_secs(100);
        let resumed = begin + Duration::from_secs(40);
        let after = |run| {
            let mut probe = ProbeRun::new(begin);
            let second = turn(&mut probe, begin, true, &spec(INTERVAL), run_place(run));
            assert!(second < resumed);
            turn(&mut probe, resumed, true, &spec(INTERVAL), run_place(run))
        };
        let tenths = tenths((0..1_000).map(after));
        assert!(tenths.iter().all(|all| all.abs_diff(100) <= 11), "{tenths:?}");
    }

    #[test]
    fn turns_share_their_times() {
        let begin = Time::from_nanos(100_123_456_789);
        let second =
            |run| turn(&mut ProbeRun::new(begin), begin, true, &spec(INTERVAL), run_place(run));
        let times: std::collections::BTreeSet<Time> = (0..1_000).map(second).collect();
        assert!(times.iter().all(|time| time.as_nanos().is_multiple_of(100_000_000)), "{times:?}");
        assert_eq!(times.len(), 100);
    }

    #[test]
    fn after_a_takeover_it_keeps_its_rhythm() {
        let begin = Time::from_secs(100);
        let mut probe = ProbeRun::new(begin);
        turn(&mut probe, begin, true, &spec(INTERVAL), 0.25);
        // The turns at 102.5, 112.5 and 122.5 were not written down.
        probe.resume(begin + Duration::from_secs(30), INTERVAL);
        assert_eq!(probe.deadline(), Some(begin + Duration::from_millis(32_500)));
        // What was under way is performed again at once, and what was never performed as well.
        let now = begin + Duration::from_secs(40);
        assert!(probe.begin(now, 2));
        probe.resume(now, INTERVAL);
        assert_eq!(probe.deadline(), Some(now));
        let mut fresh = ProbeRun::new(begin);
        fresh.resume(now, INTERVAL);
        assert_eq!(fresh.deadline(), Some(begin));
    }
}
