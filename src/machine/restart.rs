//! How often, and after which delay: the two counters of S19.
//!
//! The backoff's exponent counts failed starts in a row and is reset by a stable run. The window
//! counts restarts and is aged by time alone, so that a component that crashes every 15 seconds,
//! always "stable", cannot loop for ever.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::is_default;
use crate::model::Time;
use crate::model::spec::{BackoffSpec, RestartSpec};

/// The restart history of one instance.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Failed starts in a row: the exponent of the next delay.
    #[serde(default, skip_serializing_if = "is_default")]
    streak: u32,
    /// When restarts were made, oldest first; at most as many as the limit, or as fit the window.
    #[serde(default, skip_serializing_if = "is_default")]
    made: VecDeque<Time>,
    /// Automatic restarts since the component was applied.
    #[serde(default, skip_serializing_if = "is_default")]
    total: u64,
    /// The last automatic restart and why.
    #[serde(default, skip_serializing_if = "is_default")]
    last: Option<(Time, String)>,
    /// State of the generator of jitter.
    seed: u64,
    /// Launches in a row that failed for want of something that others provide.
    #[serde(default, skip_serializing_if = "is_default")]
    wants: u32,
}

/// Unlimited components would otherwise remember every restart of the window.
const REMEMBERED: usize = 1_000;

impl Ledger {
    /// An empty history; `seed` feeds the jitter.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The delay before the next restart, or `None` where the limit is reached (S20). Counts as one
    /// more failed start.
    pub fn next_delay(&mut self, now: Time, spec: &RestartSpec) -> Option<Duration> {
        if let Some(limit) = spec.max_restarts
            && self.in_window(now, spec) >= limit
        {
            return None;
        }
        let delay = delay(&spec.backoff, self.streak);
        self.streak = self.streak.saturating_add(1);
        Some(self.jittered(delay, spec.backoff.jitter))
    }

    /// The delay before the next launch, after one that failed for want of something that others
    /// provide: 1, 2, 4 ... 60 s, whatever the component's own backoff is.
    pub fn next_want(&mut self) -> Duration {
        let delay = delay(&BackoffSpec::default(), self.wants);
        self.wants = self.wants.saturating_add(1);
        delay
    }

    /// Launches in a row that failed for want of something that others provide.
    pub const fn wants(&self) -> u32 {
        self.wants
    }

    /// Nothing is wanting any more.
    pub const fn provided(&mut self) {
        self.wants = 0;
    }

    /// A restart is being made now.
    pub fn record(&mut self, now: Time, reason: String) {
        self.total += 1;
        if self.made.len() == REMEMBERED {
            self.made.pop_front();
        }
        self.made.push_back(now);
        self.last = Some((now, reason));
    }

    /// The run was stable: the next delay is the first one again (S18).
    pub const fn stable(&mut self) {
        self.streak = 0;
    }

    /// A person, or a changed spec, gives it a new chance (S22).
    pub fn clear(&mut self) {
        self.streak = 0;
        self.wants = 0;
        self.made.clear();
    }

    /// Restarts that were made within the window that ends now.
    pub fn in_window(&self, now: Time, spec: &RestartSpec) -> u32 {
        let count = self.made.iter().filter(|made| now.since(**made) < spec.window).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Forgets what has left the window.
    pub fn prune(&mut self, now: Time, spec: &RestartSpec) {
        while self.made.front().is_some_and(|made| now.since(*made) >= spec.window) {
            self.made.pop_front();
        }
    }

    /// Automatic restarts since the component was applied.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The last automatic restart and its reason.
    pub fn last(&self) -> Option<(Time, &str)> {
        self.last.as_ref().map(|(at, reason)| (*at, reason.as_str()))
    }

    /// Varies a delay by up to `share` of it. The generator is a splitmix64, so that a seed replays.
    fn jittered(&mut self, delay: Duration, share: f64) -> Duration {
        if share <= 0.0 || delay.is_zero() {
            return delay;
        }
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a unit float holds")]
        let unit = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
        delay.mul_f64(1.0 + share.min(1.0) * (2.0 * unit - 1.0))
    }
}

/// `initial * multiplier ^ streak`, at most `max`.
fn delay(spec: &BackoffSpec, streak: u32) -> Duration {
    // Zero times infinity is not a number, and zero means at once (S30).
    if spec.initial.is_zero() {
        return Duration::ZERO;
    }
    let exponent = i32::try_from(streak).unwrap_or(i32::MAX);
    let seconds = spec.initial.as_secs_f64() * spec.multiplier.powi(exponent);
    Duration::try_from_secs_f64(seconds).map_or(spec.max, |delay| delay.min(spec.max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn defaults() -> RestartSpec {
        RestartSpec::default()
    }

    #[test]
    fn s17_delays_double_and_the_seventh_is_sixty() {
        let mut ledger = Ledger::new(0);
        let spec = RestartSpec { max_restarts: None, ..defaults() };
        let delays: Vec<u64> = (0..9)
            .map(|_| ledger.next_delay(Time::ZERO, &spec).expect("unlimited").as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn s30_zero_initial_delay_stays_zero() {
        let mut spec = RestartSpec { max_restarts: None, ..defaults() };
        spec.backoff.initial = Duration::ZERO;
        let mut ledger = Ledger::new(0);
        for _ in 0..100 {
            assert_eq!(ledger.next_delay(Time::ZERO, &spec), Some(Duration::ZERO));
        }
    }

    #[test]
    fn s20_the_window_slides() {
        let spec = defaults();
        let mut ledger = Ledger::new(0);
        for second in 0..10 {
            assert!(ledger.next_delay(Time::from_secs(second), &spec).is_some());
            ledger.record(Time::from_secs(second), "exit 1".into());
        }
        assert_eq!(ledger.next_delay(Time::from_secs(599), &spec), None);
        assert!(ledger.next_delay(Time::from_secs(600), &spec).is_some());
    }

    proptest! {
        #[test]
        fn s30_jitter_stays_within_its_share(seed: u64, share in 0.0_f64..=1.0, streak in 0_u32..12) {
            let mut spec = RestartSpec { max_restarts: None, ..defaults() };
            let exact = delay(&spec.backoff, streak).as_secs_f64();
            spec.backoff.jitter = share;
            let mut ledger = Ledger { streak, ..Ledger::new(seed) };
            let varied = ledger.next_delay(Time::ZERO, &spec).expect("unlimited").as_secs_f64();
            prop_assert!(varied >= exact * (1.0 - share) - 1e-6);
            prop_assert!(varied <= exact * (1.0 + share) + 1e-6);
        }

        #[test]
        fn delays_never_exceed_the_cap(initial in 0_u64..100, multiplier in 1.0_f64..10.0, streak: u32) {
            let spec = BackoffSpec {
                initial: Duration::from_secs(initial),
                multiplier,
                max: Duration::from_secs(60),
                jitter: 0.0,
            };
            prop_assert!(delay(&spec, streak) <= Duration::from_secs(60));
        }
    }
}
