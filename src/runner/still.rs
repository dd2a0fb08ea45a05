//! Holding a component still while its log is emptied: see `logs::Stillness`.
//!
//! ```text
//!   hold ── close the gate ── Freeze ─▶ keeper ── freezer ── "F" ─▶ held ── dropped: thawed, gate open
//!   launch ── waits at the gate ── Spawn
//! ```
//! A launch that has been sent to the keeper is there before the request to freeze, and so is frozen
//! with the rest. One that has not waits at the gate: it is a matter of milliseconds.
//!
//! Failure paths: a keeper of an older version closes the socket without a word, and so does one that
//! cannot freeze.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::keeper::client::KeeperClient;
use crate::keeper::freezer::FROZEN;
use crate::keeper::wire::ToKeeper;
use crate::logs::{Held, Holding, Stillness};
use crate::model::InstanceId;

/// The keeper gives up before.
const PATIENCE: Duration = Duration::from_secs(10);

/// Components are held still by the keeper.
#[derive(Clone, Debug)]
pub(super) struct Still {
    keeper: Arc<KeeperClient>,
    gates: Gates,
}

impl Still {
    /// Through this keeper.
    #[must_use]
    pub(super) fn new(keeper: Arc<KeeperClient>) -> Self {
        Self { keeper, gates: Gates::default() }
    }

    /// Waits until an instance may be launched.
    pub(super) async fn pass(&self, instance: &InstanceId) {
        self.gates.pass(instance).await;
    }
}

impl Stillness for Still {
    fn hold(&self, instance: &InstanceId) -> Holding {
        let (still, instance) = (self.clone(), instance.clone());
        Box::pin(async move {
            let gate = still.gates.close(&instance).await;
            let (mut mine, theirs) = UnixStream::pair()?;
            let request = ToKeeper::Freeze { key: instance.to_string() };
            still.keeper.send(&request, &[theirs.as_fd()])?;
            drop(theirs);
            let mut answer = [0];
            let read = tokio::time::timeout(PATIENCE, mine.read(&mut answer)).await;
            match read {
                Ok(Ok(1)) if answer == [FROZEN] => {}
                Ok(Ok(_)) | Err(_) => {
                    return Err(io::Error::other("its processes cannot be held still"));
                }
                Ok(Err(error)) => return Err(error),
            }
            // In this order: what waits at the gate goes on once everything is thawed.
            Ok(Box::new((mine.into_std()?, gate)) as Held)
        })
    }
}

/// Instances that may not be launched for the moment.
#[derive(Clone, Debug, Default)]
struct Gates(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    closed: Mutex<HashSet<InstanceId>>,
    opened: Notify,
}

impl Inner {
    /// A panic elsewhere leaves the set as it was.
    fn closed(&self) -> MutexGuard<'_, HashSet<InstanceId>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gate that is closed as long as this lives.
#[derive(Debug)]
struct Gate {
    inner: Arc<Inner>,
    instance: InstanceId,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.inner.closed().remove(&self.instance);
        self.inner.opened.notify_waiters();
    }
}

impl Gates {
    async fn pass(&self, instance: &InstanceId) {
        loop {
            let opened = self.0.opened.notified();
            if !self.0.closed().contains(instance) {
                return;
            }
            opened.await;
        }
    }

    async fn close(&self, instance: &InstanceId) -> Gate {
        loop {
            let opened = self.0.opened.notified();
            if self.0.closed().insert(instance.clone()) {
                return Gate { inner: Arc::clone(&self.0), instance: instance.clone() };
            }
            opened.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_launch_waits_while_its_gate_is_closed_and_only_then() {
        let gates = Gates::default();
        let (api, db) = (InstanceId::new("shop", "api", 0), InstanceId::new("shop", "db", 0));
        gates.pass(&api).await;
        let gate = gates.close(&api).await;
        gates.pass(&db).await;
        let mut waiting = tokio_test(gates.pass(&api));
        let mut second = tokio_test(gates.close(&api));
        assert!(!is_ready(&mut waiting) && !is_ready(&mut second));
        drop(gate);
        assert!(is_ready(&mut second), "one of them closes it again");
        assert!(!is_ready(&mut waiting));
    }

    type Boxed<'a> = std::pin::Pin<Box<dyn Future<Output = bool> + 'a>>;

    fn tokio_test<'a, T>(future: impl Future<Output = T> + 'a) -> Boxed<'a>
    where
        T: 'a,
    {
        Box::pin(async move {
            // What comes of it is kept: a gate that is dropped is open again.
            std::mem::forget(future.await);
            true
        })
    }

    fn is_ready(future: &mut Boxed<'_>) -> bool {
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut nobody).is_ready()
    }
}
