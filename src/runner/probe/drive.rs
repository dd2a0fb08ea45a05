//! Drives a connection beside the request that uses it, inside one future.
//!
//! hyper splits a connection into a handle and a future that moves its bytes, and expects that
//! future to be spawned. A spawned task outlives a dropped probe by some time, and holds its socket
//! for as long. Here such futures are companions of the request: they are polled with it, and dropping
//! the one drops the others and closes the socket at once.
//!
//! Failure paths: a companion that ends is forgotten; that its connection broke is told to the request
//! by the handle.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

type Companion = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the futures that hyper wants spawned.
#[derive(Clone, Default)]
pub(super) struct Inbox(Arc<Mutex<Vec<Companion>>>);

impl Inbox {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Vec<Companion> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F> hyper::rt::Executor<F> for Inbox
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(future));
    }
}

/// The futures that run beside a request.
#[derive(Default)]
pub(super) struct Companions {
    inbox: Inbox,
    running: FuturesUnordered<Companion>,
}

impl Companions {
    /// Where to put futures that shall run beside the request.
    pub(super) fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Runs `request` to its end, and the companions beside it. They stay for the next request.
    pub(super) async fn drive<T>(&mut self, request: impl Future<Output = T>) -> T {
        let mut request = pin!(request);
        poll_fn(|context| {
            if let Poll::Ready(answer) = request.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            loop {
                self.running.extend(self.inbox.take());
                let has_ended =
                    matches!(self.running.poll_next_unpin(context), Poll::Ready(Some(())));
                // Behind a companion that has ended others may be able to go on, and one that was
                // polled may have brought another. All the rest have registered their wakers.
                if !has_ended && self.inbox.is_empty() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

impl Drop for Companions {
    /// A companion that waits in the inbox may hold the inbox itself: that circle has to be cut.
    fn drop(&mut self) {
        drop(self.inbox.take());
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn companions_may_bring_companions_and_go_with_the_request() {
        let mut companions = Companions::default();
        let inbox = companions.inbox();
        let (answer, answered) = oneshot::channel();
        let (held, holder) = oneshot::channel::<()>();
        inbox.clone().execute(async move {
            inbox.execute(async move {
                answer.send(7).unwrap();
                holder.await.unwrap();
            });
        });
        assert_eq!(companions.drive(answered).await, Ok(7));
        assert!(!held.is_closed());
        drop(companions);
        assert!(held.is_closed());
    }

    #[test]
    fn a_companion_that_was_never_polled_is_dropped_too() {
        let companions = Companions::default();
        let inbox = companions.inbox();
        let (held, holder) = oneshot::channel::<()>();
        let own = inbox.clone();
        inbox.execute(async move {
            drop(own);
            drop(holder.await);
        });
        drop(inbox);
        drop(companions);
        assert!(held.is_closed());
    }
}
