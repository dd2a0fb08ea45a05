//! The fleet's next deadline, kept by the kernel.
//!
//! Timers of tokio lie in a wheel: for one that is more than some 60 ms away the loop wakes up where the wheel
//! turns, and once more when it is due. Where a deadline is the only cause to wake up, as with probes, that
//! is twice the price. A timerfd wakes up once, and not a millisecond late.
//!
//! Failure path: where the kernel gives no timerfd (no descriptor is left, or a sandbox forbids it), tokio's
//! timers do it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::{instant_of, now};
use crate::descriptor::register;
use crate::model::Time;

/// One deadline at a time.
pub(super) struct Alarm {
    timer: Option<AsyncFd<OwnedFd>>,
    /// For when it is set.
    set: Option<Time>,
}

impl Alarm {
    /// Must be called inside of a tokio runtime.
    pub(super) fn new() -> Self {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(std::io::Error::from);
        let timer = timer.and_then(|timer| register(timer, Interest::READABLE));
        let timer = timer.inspect_err(|error| {
            tracing::warn!(%error, "no timer of the kernel's; probes wake up more often");
        });
        Self { timer: timer.ok(), set: None }
    }

    /// Waits until then, or for ever. Another call replaces the deadline, also if this one was dropped.
    pub(super) async fn at(&mut self, deadline: Option<Time>) {
        if deadline.is_some_and(|deadline| deadline <= now()) {
            // Others have their turn, however many deadlines are due one after the other.
            return tokio::task::coop::consume_budget().await;
        }
        let mut is_set = self.set(deadline);
        let Some(deadline) = deadline else { return std::future::pending().await };
        // That it is ready may be left of an earlier deadline, for it is never read: to set it is enough.
        while deadline > now() {
            let Some(timer) = self.timer.as_ref().filter(|_| is_set) else {
                return tokio::time::sleep_until(instant_of(deadline)).await;
            };
            match timer.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime ends.
                Err(_) => return std::future::pending().await,
            }
            // It rings once. Did it ring too soon by some clock, it has to be set again.
            self.set = None;
            if deadline > now() {
                is_set = self.set(Some(deadline));
            }
        }
    }

    /// Whether the kernel wakes us up for it.
    fn set(&mut self, deadline: Option<Time>) -> bool {
        let Some(timer) = &self.timer else { return false };
        if self.set == deadline {
            return true;
        }
        // Zero would be none.
        let nanos = deadline.map_or(0, |deadline| deadline.as_nanos().max(1));
        let is_set = Timespec::try_from(Duration::from_nanos(nanos)).is_ok_and(|it_value| {
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once).is_ok()
        });
        self.set = deadline.filter(|_| is_set);
        is_set
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const SOON: Duration = Duration::from_millis(30);
    const NEVER: Duration = Duration::from_secs(3600);

    fn tokios() -> Alarm {
        Alarm { timer: None, set: None }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn it_waits_until_then_and_not_longer_than_a_later_one_asks() {
        for mut alarm in [Alarm::new(), tokios()] {
            // What was set before, and was due or not, does not matter.
            for (before, is_due) in [
                (None, Some(false)),
                (Some(Duration::ZERO), Some(true)),
                (Some(SOON / 2), None),
                (Some(NEVER), Some(false)),
            ] {
                let rings = alarm.at(before.map(|before| now() + before)).now_or_never().is_some();
                // Half of soon may be over by then.
                assert_eq!(rings, is_due.unwrap_or(rings), "{before:?}");
                let until = now() + SOON;
                alarm.at(Some(until)).await;
                assert!(now() >= until);
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_that_rang_while_nobody_waited_does_not_ring_for_the_next() {
        let mut alarm = Alarm::new();
        let first = now() + SOON;
        // A slow machine is there only when it is due.
        let _ = alarm.at(Some(first)).now_or_never();
        tokios().at(Some(first + SOON)).await;
        // The runtime has seen it by now.
        let second = now() + SOON;
        alarm.at(Some(second)).await;
        assert!(now() >= second);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_deadline_the_kernel_has_none_either() {
        let mut alarm = Alarm::new();
        assert!(alarm.at(Some(now() + NEVER)).now_or_never().is_none());
        let left = |alarm: &Alarm| {
            rustix::time::timerfd_gettime(alarm.timer.as_ref().unwrap()).unwrap().it_value.tv_sec
        };
        assert!(left(&alarm) > 0);
        assert!(alarm.at(None).now_or_never().is_none());
        assert_eq!(left(&alarm), 0);
        // What saturated is far away, and no error.
        assert!(alarm.at(Some(Time::from_nanos(u64::MAX))).now_or_never().is_none());
        assert!(left(&alarm) > 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_always_due_lets_others_have_their_turn() {
        let other = tokio::spawn(async {});
        let mut alarm = Alarm::new();
        while !other.is_finished() {
            alarm.at(Some(Time::ZERO)).await;
        }
    }
}
