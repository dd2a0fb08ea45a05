//! When to look whether a goal is reached.
//!
//! ```text
//!   look ─▶ pause, by what the look has cost ─▶ what is to end:   at the first change
//!                                            ─▶ what is to start: when a status is due, or time itself decides
//! ```
//!
//! Who waits for a command wants its end as soon as there is one, and the supervisor is to be left to its
//! work. What has ended has ended. What comes up has to prove itself: a program may die of its mistakes just
//! after its probe has passed, and whether three restarts are too often, or what it waits for is coming, is
//! not to be said in its first milliseconds. Pure: the time is given.

use std::time::Duration;

use tokio::time::Instant;

/// Who waits for a goal wants to know soon.
const SHORT_PAUSE: Duration = Duration::from_millis(3);

/// How many times longer than a look the pause after it is.
const SHARE: u32 = 15;

/// The longest pause between two looks: whoever waits has an answer soon after there is one, however many
/// components there are; and before the daemon ends, which stays for 500 ms after its last project.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// When the next look is.
#[derive(Debug)]
pub(super) struct Pace {
    /// A change is looked at as soon as the pause is over.
    is_eager: bool,
    /// The next look comes no sooner.
    not_before: Instant,
    /// Something has changed since the last look.
    has_changed: bool,
    /// The next look comes no later, also if nothing changes.
    at_the_latest: Option<Instant>,
}

impl Pace {
    /// For what is to end, or else for what is to start. The first look is at once.
    pub(super) const fn new(now: Instant, of_ends: bool) -> Self {
        Self { is_eager: of_ends, not_before: now, has_changed: true, at_the_latest: None }
    }

    /// When to look, unless something changes before; `None`: only then.
    pub(super) fn next_look(&self) -> Option<Instant> {
        if self.has_changed { Some(self.not_before) } else { self.at_the_latest }
    }

    pub(super) const fn something_changed(&mut self) {
        self.has_changed = true;
    }

    /// A look that took the supervisor so long is over. There is something to show from `show_at` on, and
    /// time itself decides at `again`.
    pub(super) fn has_looked(
        &mut self,
        now: Instant,
        cost: Duration,
        show_at: Option<Instant>,
        again: Option<Instant>,
    ) {
        let rested = now + pause_after(cost);
        let shown = show_at.map(|at| at.min(rested + LONGEST_PAUSE));
        self.has_changed = false;
        self.at_the_latest = shown.max(again).map(|at| at.max(rested));
        self.not_before = self.at_the_latest.filter(|_| !self.is_eager).unwrap_or(rested);
    }
}

/// How long to leave the supervisor alone after a look that has cost it so much.
fn pause_after(cost: Duration) -> Duration {
    cost.saturating_mul(SHARE).clamp(SHORT_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Duration = Duration::from_millis(1);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A pace whose first look has just ended, and when that was.
    fn after_a_look(
        of_ends: bool,
        show_after: Option<u64>,
        again_after: Option<u64>,
    ) -> (Pace, Instant) {
        let now = Instant::now();
        let mut pace = Pace::new(now, of_ends);
        assert_eq!(pace.next_look(), Some(now));
        let moment = |after: Option<u64>| after.map(|after| now + ms(after));
        pace.has_looked(now, COST, moment(show_after), moment(again_after));
        (pace, now)
    }

    #[test]
    fn an_end_is_looked_at_after_the_pause_and_not_only_when_a_status_is_due() {
        let (mut pace, now) = after_a_look(true, Some(50), None);
        assert_eq!(pace.next_look(), Some(now + ms(50)));
        pace.something_changed();
        assert_eq!(pace.next_look(), Some(now + ms(15)));
    }

    #[test]
    fn what_comes_up_is_not_judged_before_a_status_is_due_and_time_can_have_decided() {
        for (show_after, again_after, expected) in [
            (Some(50), None, 50),
            (Some(50), Some(250), 250),
            (None, Some(250), 250),
            (None, None, 15),
        ] {
            let (mut pace, now) = after_a_look(false, show_after, again_after);
            pace.something_changed();
            assert_eq!(
                pace.next_look(),
                Some(now + ms(expected)),
                "{show_after:?} {again_after:?}"
            );
        }
    }

    #[test]
    fn without_a_change_there_is_a_look_only_for_what_is_to_be_shown_or_what_time_decides() {
        for of_ends in [true, false] {
            assert_eq!(after_a_look(of_ends, None, None).0.next_look(), None);
            for (show_after, again_after, expected) in [
                (Some(50), None, 50),
                // Sooner than the pause allows, and later than anybody wants to wait.
                (Some(1), None, 15),
                (Some(5000), None, 215),
                (None, Some(100), 100),
                (None, Some(1), 15),
                (Some(50), Some(100), 100),
                (Some(100), Some(50), 100),
            ] {
                let (pace, now) = after_a_look(of_ends, show_after, again_after);
                assert_eq!(
                    pace.next_look(),
                    Some(now + ms(expected)),
                    "{show_after:?} {again_after:?}"
                );
            }
        }
    }

    #[test]
    fn the_pause_after_a_look_grows_with_its_cost_and_is_never_long() {
        assert_eq!(pause_after(Duration::ZERO), SHORT_PAUSE);
        assert_eq!(pause_after(ms(5)), ms(75));
        // A supervisor that did not get the processor meanwhile.
        assert_eq!(pause_after(Duration::from_secs(2)), LONGEST_PAUSE);
        assert_eq!(pause_after(Duration::MAX), LONGEST_PAUSE);
    }
}
