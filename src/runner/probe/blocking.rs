//! Calls that the kernel or the C library cannot cancel, one at a time.
//!
//! A name server or a network file system that is gone makes a thread hang for as long as it likes.
//! Dropping a probe cannot end that thread; without a bound a probe each second would leave thirty of
//! them behind. So a prober remembers the call that it abandoned, and waits for that one before it
//! makes another: at most one thread for each prober, whatever hangs.

use crate::blocking::Task;

/// At most one blocking call at a time.
pub(super) struct OneAtATime<T>(Option<Task<T>>);

impl<T> Default for OneAtATime<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> OneAtATime<T> {
    /// Performs `work` on a blocking thread. Cancel-safe: an abandoned call is awaited by the next
    /// one, and its answer is dropped, for it is about the past.
    ///
    /// # Errors
    /// The work panicked.
    pub(super) async fn run(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if let Some(abandoned) = &mut self.0 {
            drop(abandoned.await);
        }
        let answer = self.0.insert(crate::blocking::spawn(work)).await;
        self.0 = None;
        answer.map_err(|error| format!("the check itself was ended: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_abandoned_call_is_awaited_before_the_next() {
        let (release, held) = mpsc::channel::<()>();
        let mut calls = OneAtATime::default();
        assert_eq!(calls.run(move || held.recv().is_ok()).now_or_never(), None);
        assert_eq!(calls.run(|| true).now_or_never(), None, "it waits for the first");
        release.send(()).unwrap();
        assert_eq!(calls.run(|| false).await, Ok(false));
    }
}
