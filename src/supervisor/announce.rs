//! Telling events to whoever listens. Nothing is kept for those who might come later.
//!
//! A listener that does not read loses events rather than the daemon its memory: at most [`BUFFERED`]
//! wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::store::EventRecord;

/// How many events a listener may lag behind before it misses some.
const BUFFERED: usize = 16_384;

/// One listener's end.
pub type Events = mpsc::Receiver<Arc<EventRecord>>;

/// Everybody who listens; `None` once there is nothing more to be told.
type Listeners = Option<Vec<mpsc::Sender<Arc<EventRecord>>>>;

/// Where events are told.
#[derive(Clone, Debug)]
pub struct Announcer(Arc<Mutex<Listeners>>);

impl Default for Announcer {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl Announcer {
    /// Listens to all events from now on. Ends with the supervisor.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        let (sender, receiver) = mpsc::channel(BUFFERED);
        if let Some(listeners) = &mut *self.listeners() {
            listeners.retain(|listener| !listener.is_closed());
            listeners.push(sender);
        }
        receiver
    }

    pub(super) fn tell(&self, record: EventRecord) {
        let mut listeners = self.listeners();
        let Some(listeners) = &mut *listeners else { return };
        if listeners.is_empty() {
            return;
        }
        let record = Arc::new(record);
        listeners.retain(|listener| match listener.try_send(record.clone()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// Nothing more will be told: those who listen come to the end.
    pub(super) fn close(&self) {
        *self.listeners() = None;
    }

    /// A panic elsewhere leaves the list as it was.
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;
    use crate::store::NewEvent;

    fn record(id: u64) -> EventRecord {
        let event = NewEvent {
            at: 0,
            project: String::new(),
            component: String::new(),
            replica: 0,
            kind: String::new(),
            severity: Severity::Info,
            message: String::new(),
        };
        EventRecord { id, event }
    }

    #[test]
    fn everybody_hears_everything_from_then_on_and_the_end() {
        let announcer = Announcer::default();
        announcer.tell(record(1));
        let (mut one, two) = (announcer.subscribe(), announcer.subscribe());
        drop(two);
        announcer.tell(record(2));
        assert_eq!(one.try_recv().unwrap().id, 2);
        assert_eq!(announcer.listeners().as_ref().unwrap().len(), 1);
        announcer.close();
        announcer.tell(record(3));
        assert_eq!(one.blocking_recv(), None);
        assert_eq!(announcer.subscribe().blocking_recv(), None);
    }

    #[test]
    fn who_does_not_read_misses_some() {
        let announcer = Announcer::default();
        let mut lazy = announcer.subscribe();
        for id in 0..BUFFERED as u64 + 10 {
            announcer.tell(record(id));
        }
        announcer.close();
        let mut heard = 0;
        while lazy.blocking_recv().is_some() {
            heard += 1;
        }
        assert_eq!(heard, BUFFERED);
    }
}
