//! Watches logs grow: writes their indexes and wakes those who read them.
//!
//! ```text
//!                 an event                        5 ms later
//!   armed -------------------> resting --------------------------> armed       (each looks at the size)
//!                                 | the file is gone                 ^
//!                                 v            it came back          |
//!                              missing ------------------------------+
//!   polled: where the kernel has no watch left, a look each second instead
//! ```
//!
//! One task and one inotify descriptor for all logs. A watch is for one event and armed again after
//! `REST`, so the component pays for at most one event in that time and the engine wakes up at most
//! twice. First armed, then looked: a write between the two would go unseen. With nothing written
//! nothing wakes up; a timer runs only while a log rests or has to be polled.
//!
//! Failure paths
//! - Overflow of the kernel's queue: every log is looked at and armed again.
//! - No inotify, or no watches left (`fs.inotify.max_user_watches`): those logs are polled.
//! - The log is moved away or removed: its folder is watched until it is back.
//! - The index cannot be written (disk full): said once; readers are woken all the same.
//!
//! Two logs that are one file (a link made by hand) share one watch of the kernel, and only the one
//! armed last is woken by it.

mod task;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::file::Extent;
use crate::model::InstanceId;

/// The wall clock; the only use of it is the time of log lines.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of this machine.
#[must_use]
pub fn system_clock() -> WallClock {
    Arc::new(Timestamp::now)
}

type Subscriptions = Arc<Mutex<HashMap<InstanceId, watch::Sender<Extent>>>>;

enum Command {
    Watch(InstanceId, PathBuf),
    Unwatch(InstanceId),
    Shorten {
        instance: InstanceId,
        bytes: u64,
        remove: Remove,
        done: oneshot::Sender<io::Result<()>>,
    },
}

type Remove = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// The handle of the watching task; the task ends with the last handle.
#[derive(Clone)]
pub struct LogWatcher {
    commands: mpsc::UnboundedSender<Command>,
    subscriptions: Subscriptions,
}

impl fmt::Debug for LogWatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWatcher").field("logs", &self.logs().len()).finish()
    }
}

impl LogWatcher {
    /// Starts the task. Must be called inside a tokio runtime with I/O and time.
    #[must_use]
    pub fn start(clock: WallClock) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let subscriptions = Subscriptions::default();
        let task = task::Task::new(inbox, Arc::clone(&subscriptions), clock);
        tokio::spawn(task.run());
        Self { commands, subscriptions }
    }

    /// Watches the log of an instance from now on. The file may come later; its folder should be
    /// there, for it is what is watched until then. Watching again with another path moves the watch.
    pub fn watch(&self, instance: InstanceId, path: PathBuf) {
        self.logs().entry(instance.clone()).or_insert_with(|| watch::channel(Extent::default()).0);
        drop(self.commands.send(Command::Watch(instance, path)));
    }

    /// Ends the watch. Subscribers see the end of their subscription.
    pub fn unwatch(&self, instance: &InstanceId) {
        self.logs().remove(instance);
        drop(self.commands.send(Command::Unwatch(instance.clone())));
    }

    /// How far the log of an instance reaches, and a wake-up whenever that changes. `None` if it is not
    /// watched.
    #[must_use]
    pub fn subscribe(&self, instance: &InstanceId) -> Option<watch::Receiver<Extent>> {
        self.logs().get(instance).map(watch::Sender::subscribe)
    }

    /// Removes the first `bytes` bytes of a log by calling `remove`, without a reader or a follower
    /// losing its place: for rotation, by `FALLOC_FL_COLLAPSE_RANGE` or by truncating. `remove` runs on
    /// the watching task and must be short; copy what has to be kept before.
    ///
    /// # Errors
    /// What `remove` returned; the log is unchanged then. Or the index could not be written, or the log
    /// is not watched; then `remove` is not called.
    pub async fn shorten(
        &self,
        instance: &InstanceId,
        bytes: u64,
        remove: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let instance = instance.clone();
        let command = Command::Shorten { instance, bytes, remove: Box::new(remove), done };
        let ended = || io::Error::other("the log is not watched");
        self.commands.send(command).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<InstanceId, watch::Sender<Extent>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
