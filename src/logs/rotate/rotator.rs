//! The task that rotates: which log is next, and what becomes of those that fail.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::job::{self, Prepared, Ways};
use super::{Held, Keep};
use crate::logs::index::Writer;
use crate::logs::problem::{Problems, Trouble};
use crate::logs::watch::{Command, Next, WallClock};
use crate::memory::give_back;
use crate::model::InstanceId;

/// How many logs are rotated at a time.
const AT_A_TIME: usize = 2;

/// How soon a rotation is tried again that has failed: at first, and at the latest.
const AGAIN: Duration = Duration::from_secs(1);
const AT_LATEST: Duration = Duration::from_secs(60);

/// Memory is given back once nothing has been rotated for this long.
const QUIET: Duration = Duration::from_secs(1);

/// What a copying thread needs.
const STACK: usize = 512 * 1024;

/// A log that is to be rotated, or whose rotated files are to be looked through.
#[derive(Debug)]
pub(in crate::logs) struct Job {
    pub(in crate::logs) instance: InstanceId,
    pub(in crate::logs) path: PathBuf,
    pub(in crate::logs) keep: Keep,
}

/// What came of it.
struct Outcome {
    instance: InstanceId,
    /// When the oldest file gets too old, from now.
    expires: Option<Duration>,
    failed: Option<io::Error>,
}

/// The rotating task.
pub(in crate::logs) struct Rotator {
    inbox: mpsc::UnboundedReceiver<Job>,
    /// Not to keep the watcher alive.
    watcher: mpsc::WeakUnboundedSender<Command>,
    clock: WallClock,
    ways: Arc<Ways>,
    problems: Problems,
    queue: VecDeque<Job>,
    /// How often in a row it has failed.
    failures: HashMap<InstanceId, u32>,
    /// When a log is to be considered although it does not grow.
    due: BinaryHeap<Reverse<(Instant, InstanceId)>>,
    /// When memory is given back.
    tidy: Option<Instant>,
}

impl Rotator {
    pub(in crate::logs) fn new(
        inbox: mpsc::UnboundedReceiver<Job>,
        watcher: mpsc::WeakUnboundedSender<Command>,
        clock: WallClock,
        problems: Problems,
    ) -> Self {
        Self {
            inbox,
            watcher,
            clock,
            ways: Arc::default(),
            problems,
            queue: VecDeque::new(),
            failures: HashMap::new(),
            due: BinaryHeap::new(),
            tidy: None,
        }
    }

    /// Rotates until the watcher is gone.
    pub(in crate::logs) async fn run(mut self) {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < AT_A_TIME
                && let Some(job) = self.queue.pop_front()
            {
                let (watcher, clock) = (self.watcher.clone(), Arc::clone(&self.clock));
                running.push(carry_out(job, watcher, clock, Arc::clone(&self.ways)));
            }
            let next = self.due.peek().map(|Reverse((at, _))| *at);
            let due = sleep_until(next);
            let tidy = sleep_until(self.tidy.filter(|_| running.is_empty()));
            tokio::select! {
                job = self.inbox.recv() => match job {
                    Some(job) => self.queue.push_back(job),
                    None => return,
                },
                Some(outcome) = running.next(), if !running.is_empty() => self.take(outcome),
                () = due => self.remind(),
                () = tidy => {
                    self.tidy = None;
                    give_back();
                }
            }
        }
    }

    fn take(&mut self, outcome: Outcome) {
        self.tidy = Some(Instant::now() + QUIET);
        let Outcome { instance, expires, failed } = outcome;
        let Some(error) = failed else {
            if self.failures.remove(&instance).is_some() {
                tracing::info!(%instance, "its log is rotated again");
            }
            self.problems.solve(&instance, Trouble::Rotation);
            if let Some(expires) = expires {
                self.due.push(Reverse((Instant::now() + expires, instance)));
            }
            return;
        };
        let failures = self.failures.entry(instance.clone()).or_default();
        let delay = (AGAIN * 2_u32.saturating_pow(*failures)).min(AT_LATEST);
        *failures = failures.saturating_add(1);
        let problem = format!("its log cannot be rotated: {error}");
        if self.problems.note(&instance, Trouble::Rotation, &problem) {
            tracing::warn!(%instance, "{problem}; it is tried again");
        }
        self.due.push(Reverse((Instant::now() + delay, instance)));
    }

    /// Asks the watcher to consider the logs whose time has come; it knows what is kept of them now.
    fn remind(&mut self) {
        let Some(watcher) = self.watcher.upgrade() else { return };
        let now = Instant::now();
        while let Some(Reverse((at, _))) = self.due.peek()
            && *at <= now
            && let Some(Reverse((_, instance))) = self.due.pop()
        {
            drop(watcher.send(Command::Consider(instance)));
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn carry_out(
    job: Job,
    watcher: mpsc::WeakUnboundedSender<Command>,
    clock: WallClock,
    ways: Arc<Ways>,
) -> Outcome {
    let (instance, path) = (job.instance.clone(), job.path.clone());
    let (writer, done) = rotate(job, &watcher, &clock, ways).await;
    let next = match &done {
        Ok(Done { removed: true, .. }) => Next::Look,
        Ok(Done { removed: false, .. }) => Next::Growth,
        Err(_) => Next::Reminder,
    };
    let expires = done.as_ref().ok().and_then(|done| done.expires);
    if let Some(watcher) = watcher.upgrade() {
        drop(watcher.send(Command::GiveBack { path, writer, next, expires }));
    }
    match done {
        Ok(Done { .. }) => {
            let left = expires.map(|expires| expires.duration_since(clock()));
            let expires = left.map(|left| Duration::try_from(left).unwrap_or_default());
            Outcome { instance, expires, failed: None }
        }
        Err(error) => Outcome { instance, expires: None, failed: Some(error) },
    }
}

struct Done {
    removed: bool,
    expires: Option<Timestamp>,
}

/// The writer of the index comes back only from what went well: what is in the file decides otherwise.
async fn rotate(
    job: Job,
    watcher: &mpsc::WeakUnboundedSender<Command>,
    clock: &WallClock,
    ways: Arc<Ways>,
) -> (Option<Writer>, io::Result<Done>) {
    let Job { instance, path, keep: Keep { spec, writers } } = job;
    let prepared = {
        let (path, spec) = (path.clone(), spec.clone());
        let (clock, ways) = (Arc::clone(clock), Arc::clone(&ways));
        match beside(move || job::prepare(&path, &spec, &clock, &ways)).await {
            Ok(prepared) => prepared,
            Err(error) => return (None, Err(error)),
        }
    };
    let Some(writer) = borrow(watcher, &instance, &path).await else {
        // It is no longer declared, the daemon ends, or its index cannot be written, which is said
        // elsewhere.
        let discarded = prepared.discard(&path);
        return (None, discarded.map(|()| Done { removed: false, expires: None }));
    };
    let held: Option<Held> = match &prepared {
        Prepared::Empty { .. } => match writers.hold(&instance).await {
            Ok(held) => Some(held),
            Err(error) => return (Some(writer), prepared.discard(&path).and(Err(error))),
        },
        Prepared::Nothing | Prepared::Cut { .. } => None,
    };
    let clock = Arc::clone(clock);
    let carried_out = crate::blocking::spawn(move || {
        let mut writer = writer;
        let removed = match (prepared, held) {
            (Prepared::Nothing, _) | (Prepared::Empty { .. }, None) => Ok(false),
            (Prepared::Cut { file, end, copy }, _) => {
                job::cut(&path, file, &mut writer, end, copy, &ways).map(|()| true)
            }
            (Prepared::Empty { file, copier }, Some(held)) => {
                job::empty(&path, file, &mut writer, copier, &clock, held).map(|()| true)
            }
        };
        let done = removed.and_then(|removed| {
            let expires = job::tidy(&path, &mut writer, &spec, clock())?;
            Ok(Done { removed, expires })
        });
        (done.is_ok().then_some(writer), done)
    });
    carried_out.await.unwrap_or_else(|error| (None, Err(io::Error::other(error))))
}

async fn borrow(
    watcher: &mpsc::WeakUnboundedSender<Command>,
    instance: &InstanceId,
    path: &Path,
) -> Option<Writer> {
    let (done, answer) = oneshot::channel();
    let (instance, path) = (instance.clone(), path.to_owned());
    watcher.upgrade()?.send(Command::Lend { instance, path, done }).ok()?;
    answer.await.ok()?
}

/// Runs something long on a thread of its own that stands back for everybody else.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, answer) = oneshot::channel();
    std::thread::Builder::new().name("rotation".into()).stack_size(STACK).spawn(move || {
        // Of this thread alone. A kernel that refuses it lets it run as all others do.
        let _ = rustix::process::setpriority_process(None, 19);
        drop(done.send(work()));
    })?;
    answer.await.unwrap_or_else(|_| Err(io::Error::other("the copying thread ended")))
}
