//! Ends of many at a time, which are worked off when it is calm.
//!
//! ```text
//!   an end that was asked for, of many, from which nothing follows ─► waits
//!        all that were told to end have ended ──────┐
//!        the first has waited for long enough ──────┼─► portion by portion; others are heard in between
//!        a request, or the deadline of a component ─┘   (all at once)
//! ```
//!
//! Thousands that are told to end keep all processors busy with dying. To write down and tell of each end takes
//! half of what the engine does in a stop, changes nothing for anybody, and would only make it take longer.
//!
//! Invariants: what waits is not acknowledged, so that the keeper tells the next engine of it, and heard of when the
//! keeper is gone; nothing that is asked for is decided, and nobody killed for being late, before what waits is
//! heard. Where few are ending, or something waits for an end, as in an ordered stop or a restart, nothing
//! is put off.

use std::collections::VecDeque;
use std::time::Duration;

use super::Supervisor;
use super::round::{PORTION, Round};
use crate::clock::now;
use crate::keeper::wire::{Exited, FromKeeper};
use crate::model::Time;

/// How long an end waits for the others.
const PATIENCE: Duration = Duration::from_millis(100);

/// Ends that wait.
#[derive(Debug, Default)]
pub(super) struct Ends {
    waiting: VecDeque<(Time, Exited)>,
}

impl Ends {
    /// This one can wait.
    pub(super) fn put(&mut self, at: Time, exited: Exited) {
        self.waiting.push_back((at, exited));
    }

    /// The next one to be heard of.
    pub(super) fn next(&mut self) -> Option<Exited> {
        self.waiting.pop_front().map(|(_, exited)| exited)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the first has waited for long enough.
    pub(super) fn due(&self) -> Option<Time> {
        self.waiting.front().map(|(since, _)| *since + PATIENCE)
    }

    /// Whether no other is to come, of so many that are ending.
    pub(super) fn are_complete(&self, ending: usize) -> bool {
        !self.is_empty() && self.waiting.len() >= ending
    }

    /// How many are to be heard of now.
    pub(super) fn ripe(&self, now: Time, ending: usize) -> usize {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due || self.are_complete(ending) { PORTION } else { 0 }
    }
}

impl Supervisor {
    /// Whether this end can wait for others.
    pub(super) fn can_wait(&self, exited: &Exited) -> bool {
        exited.empty && self.fleet.ending() > PORTION && self.fleet.nothing_follows(exited.run)
    }

    /// Hears of some of the ends that have waited.
    pub(super) fn hear_ends(&mut self, at: Time, most: usize, round: &mut Round) {
        for _ in 0..most {
            let Some(exited) = self.ends.next() else { return };
            self.heard(at, &FromKeeper::Exited(exited), None, round);
        }
    }

    /// Hears of all of them when the keeper is gone, and writes them down.
    pub(super) fn hear_all_ends(&mut self) {
        let mut round = Round::default();
        self.hear_ends(now(), usize::MAX, &mut round);
        round.act_on_nothing();
        self.finish(round);
        self.catch_up_writing();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Exit, RunId};

    fn end(run: u64) -> Exited {
        let (exit, at, cpu) = (Exit::code(0), Time::ZERO, Duration::ZERO);
        Exited { run: RunId(run), exit, at, empty: true, cpu }
    }

    #[test]
    fn what_waits_is_heard_of_once_all_have_ended_or_the_first_has_waited_long() {
        let begun = Time::from_secs(9);
        let mut ends = Ends::default();
        assert_eq!((ends.due(), ends.ripe(begun, 0)), (None, 0));
        assert!(!ends.are_complete(0), "nothing waits");
        for run in 0..3 {
            ends.put(begun + Duration::from_millis(run), end(run));
        }
        for (ending, later, ripe) in [
            (4, Duration::ZERO, 0),
            (4, PATIENCE / 2, 0),
            (4, PATIENCE, PORTION),
            (3, Duration::ZERO, PORTION),
            // Those that were told to end meanwhile are heard of at once.
            (2, Duration::ZERO, PORTION),
        ] {
            assert_eq!(ends.ripe(begun + later, ending), ripe, "{ending} are ending, {later:?}");
        }
        let heard: Vec<u64> = std::iter::from_fn(|| ends.next()).map(|end| end.run.0).collect();
        assert_eq!(heard, [0, 1, 2], "in their order");
        assert_eq!(ends.due(), None);
    }
}
