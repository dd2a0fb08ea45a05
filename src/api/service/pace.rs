//! When to look whether a goal is reached.
//!
//! ```text
//!   look ─▶ pause, by what the look has cost ─▶ at the first change
//!                                            ─▶ without one: when a status is due, or time itself decides
//! ```
//!
//! Who waits for a command wants its end as soon as there is one, and the supervisor is to be left to its
//! work. Pure: the time is given.

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
    /// The next look comes no sooner.
    not_before: Instant,
    /// Something has changed since the last look.
    has_changed: bool,
    /// The next look comes no later, also if nothing changes.
    at_the_latest: Option<Instant>,
}

impl Pace {
    /// The first look is at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self { not_before: now, has_changed: true, at_the_latest: None }
    }

    /// When to look, unless something changes before; `None`: only then.
    pub(super) fn next_look(&self) -> Option<Instant> {
        if self.has_changed { Some(self.not_before) } else { self.at_the_latest }
    }

    pub(super) const fn something_changed(&mut self) {
        self.has_changed = true;
    }

    /// A look that took the supervisor so long is over. There is something to show from `show_at` on, and
    /// before `again` there is no use in looking, but then there is.
    pub(super) fn has_looked(
        &mut self,
        now: Instant,
        cost: Duration,
        show_at: Option<Instant>,
        again: Option<Instant>,
    ) {
        let rested = now + pause_after(cost);
        self.has_changed = false;
        self.not_before = again.map_or(rested, |again| again.max(rested));
        let shown = show_at.map(|at| at.min(rested + LONGEST_PAUSE));
        self.at_the_latest = shown.max(again).map(|at| at.max(self.not_before));
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
    fn after_a_look(show_after: Option<u64>, again_after: Option<u64>) -> (Pace, Instant) {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.next_look(), Some(now));
        pace.has_looked(
            now,
            COST,
            show_after.map(|at| now + ms(at)),
            again_after.map(|at| now + ms(at)),
        );
        (pace, now)
    }

    #[test]
    fn a_change_is_looked_at_after_the_pause_and_not_only_when_a_status_is_due() {
        let (mut pace, now) = after_a_look(Some(50), None);
        assert_eq!(pace.next_look(), Some(now + ms(50)));
        pace.something_changed();
        assert_eq!(pace.next_look(), Some(now + ms(15)));
    }

    #[test]
    fn without_a_change_there_is_a_look_only_for_what_is_to_be_shown_or_what_time_decides() {
        assert_eq!(after_a_look(None, None).0.next_look(), None);
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
            let (pace, now) = after_a_look(show_after, again_after);
            assert_eq!(
                pace.next_look(),
                Some(now + ms(expected)),
                "{show_after:?} {again_after:?}"
            );
        }
    }

    #[test]
    fn there_is_no_look_before_time_can_have_decided() {
        let (mut pace, now) = after_a_look(Some(50), Some(250));
        pace.something_changed();
        assert_eq!(pace.next_look(), Some(now + ms(250)));
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
