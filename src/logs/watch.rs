//! Watches logs grow: writes their indexes and wakes those who read them.
//!
//! ```text
//!                 an event                        5 ms later
//!   armed -------------------> resting --------------------------> armed       (each looks at the size)
//!                               ^ | | the file is gone                ^
//!     it grows on and on, 10 ms +-+ v            it came back         |
//!                              missing ------------------------------+
//!   polled: where the kernel has no watch left, a look each second instead
//! ```
//!
//! One task and one inotify descriptor for all logs. A watch is for one event and armed again after
//! `REST`, so the component pays for at most one event in that time and the engine wakes up at most
//! twice. First armed, then looked: a write between the two would go unseen. A log that has grown when
//! its rest is over, and again in the next one, is not armed before it has stood still: it costs no event,
//! and a look each `FLOW`. With nothing written nothing wakes up; a timer runs only while a log rests or
//! has to be polled.
//!
//! Failure paths
//! - Overflow of the kernel's queue: every log is looked at and armed again.
//! - No inotify, or no watches left (`fs.inotify.max_user_watches`): those logs are polled.
//! - The log is moved away or removed: its folder is watched until it is back.
//! - The index cannot be written (disk full): said once; readers are woken all the same.
//!
//! Whether a log is to be rotated is decided at each look. While a rotation has the writer of the index
//! the log is not looked at, and afterwards at once: what came meanwhile gets the time of that.
//!
//! Two logs that are one file (a link made by hand) share one watch of the kernel, and only the one
//! armed last is woken by it.

mod log;
mod task;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::file::Extent;
use super::index::Writer;
use super::problem::Problems;
use super::rotate::{Keep, Rotator};
use crate::model::InstanceId;

/// The wall clock; the only use of it is the time of log lines.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of this machine.
#[must_use]
pub fn system_clock() -> WallClock {
    Arc::new(Timestamp::now)
}

type Subscriptions = Arc<Mutex<HashMap<InstanceId, Subscription>>>;

/// Who wants to know how far a log reaches. Of thousands of logs few are read at a time.
#[derive(Debug, Default)]
struct Subscription {
    extent: Extent,
    /// For those that listen.
    sender: Option<watch::Sender<Extent>>,
}

impl Subscription {
    fn subscribe(&mut self) -> watch::Receiver<Extent> {
        let extent = self.extent;
        self.sender.get_or_insert_with(|| watch::Sender::new(extent)).subscribe()
    }

    fn tell(&mut self, extent: Extent) {
        let is_news = std::mem::replace(&mut self.extent, extent) != extent;
        if is_news && let Some(sender) = &self.sender {
            // An error says that nobody listens any more.
            if sender.send(extent).is_err() {
                self.sender = None;
            }
        }
    }
}

/// What the watching task is told.
#[derive(Debug)]
pub(super) enum Command {
    Watch(InstanceId, PathBuf, Option<Keep>),
    Unwatch(InstanceId),
    /// A rotation needs the writer of the index; nobody else uses it meanwhile.
    Lend {
        instance: InstanceId,
        path: PathBuf,
        done: oneshot::Sender<Option<Writer>>,
    },
    /// The rotation is over. Without a writer the index is opened anew.
    GiveBack {
        path: PathBuf,
        writer: Option<Writer>,
        next: Next,
        /// When the oldest rotated file gets too old.
        expires: Option<Timestamp>,
    },
    /// A log is to be rotated, or its rotated files looked through, if it is still kept.
    Consider(InstanceId),
    /// No rotation begins any more; answered once none is in the middle.
    Close(oneshot::Sender<()>),
}

/// When a log may be rotated again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// At the next look.
    Look,
    /// There was nothing to do: once it has grown by something.
    Growth,
    /// It failed: when somebody says so.
    Reminder,
}

/// The handle of the watching task; the task ends with the last handle.
#[derive(Clone)]
pub struct LogWatcher {
    commands: mpsc::UnboundedSender<Command>,
    subscriptions: Subscriptions,
    problems: Problems,
}

impl fmt::Debug for LogWatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWatcher").field("logs", &self.logs().len()).finish()
    }
}

impl LogWatcher {
    /// Starts the task, and the one that rotates. Must be called inside a tokio runtime with I/O and time.
    #[must_use]
    pub fn start(clock: WallClock) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (jobs, jobs_in) = mpsc::unbounded_channel();
        let subscriptions = Subscriptions::default();
        let problems = Problems::default();
        let (weak, known) = (commands.downgrade(), problems.clone());
        tokio::spawn(Rotator::new(jobs_in, weak, Arc::clone(&clock), known).run());
        let (shared, known) = (Arc::clone(&subscriptions), problems.clone());
        tokio::spawn(task::Task::new(inbox, shared, clock, jobs, known).run());
        Self { commands, subscriptions, problems }
    }

    /// Watches the log of an instance from now on. The file may come later; its folder should be
    /// there, for it is what is watched until then. Watching again with another path moves the watch.
    /// The log is never rotated.
    pub fn watch(&self, instance: InstanceId, path: PathBuf) {
        self.begin(instance, path, None);
    }

    /// The same, and rotates the log. Doing it again changes how it is kept.
    pub fn keep(&self, instance: InstanceId, path: PathBuf, keep: Keep) {
        self.begin(instance, path, Some(keep));
    }

    fn begin(&self, instance: InstanceId, path: PathBuf, keep: Option<Keep>) {
        self.logs().entry(instance.clone()).or_default();
        drop(self.commands.send(Command::Watch(instance, path, keep)));
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
        self.logs().get_mut(instance).map(Subscription::subscribe)
    }

    /// Begins no rotation any more, and waits for those that have begun to remove something: to be
    /// called before the process ends. What is broken off is finished or undone by the next one.
    pub async fn close(&self) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            // Without the task nothing is under way either.
            let _ = answer.await;
        }
    }

    /// What is wrong with the log of an instance: it cannot be rotated, lines have no times.
    #[must_use]
    pub fn problem(&self, instance: &InstanceId) -> Option<String> {
        self.problems.of(instance)
    }

    /// Whether there is any such problem.
    #[must_use]
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<InstanceId, Subscription>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
