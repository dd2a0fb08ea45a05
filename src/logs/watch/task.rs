//! The watching task: its state, and an answer to each thing that can happen to a log.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Command, Remove, Subscriptions, WallClock};
use crate::logs::index::{self, Writer};
use crate::logs::inotify::{Event, Inotify};
use crate::model::InstanceId;

/// How long a log is left alone after an event.
const REST: Duration = Duration::from_millis(5);

/// How often a log is looked at for which there is no watch.
const POLL: Duration = Duration::from_secs(1);

/// Logs that are looked at before other tasks have their turn.
const TURN: usize = 64;

/// What a log waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    /// An event of this watch.
    Armed(i32),
    /// The end of its rest, or of its polling interval.
    Until(Instant),
    /// A file of its name in its folder.
    Missing,
}

struct Log {
    path: PathBuf,
    waiting: Waiting,
    /// Opened once the log is there.
    index: Option<Writer>,
    /// What was said about the index already.
    said: Option<io::ErrorKind>,
}

/// A folder in which logs are missing.
struct Folder {
    watch: i32,
    missing: HashSet<InstanceId>,
}

pub(super) struct Task {
    inbox: mpsc::UnboundedReceiver<Command>,
    subscriptions: Subscriptions,
    clock: WallClock,
    inotify: Option<Inotify>,
    logs: HashMap<InstanceId, Log>,
    armed: HashMap<i32, InstanceId>,
    folders: HashMap<PathBuf, Folder>,
    /// Ends of rests; an entry counts only if its log still waits until then.
    due: BinaryHeap<Reverse<(Instant, InstanceId)>>,
}

/// What happened.
enum Happened {
    Told(Option<Command>),
    Events(io::Result<Vec<Event>>),
    Due,
}

impl Task {
    pub(super) fn new(
        inbox: mpsc::UnboundedReceiver<Command>,
        subscriptions: Subscriptions,
        clock: WallClock,
    ) -> Self {
        let inotify = Inotify::new()
            .inspect_err(|error| tracing::warn!("no inotify, logs are polled: {error}"))
            .ok();
        Self {
            inbox,
            subscriptions,
            clock,
            inotify,
            logs: HashMap::new(),
            armed: HashMap::new(),
            folders: HashMap::new(),
            due: BinaryHeap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.wait().await {
                Happened::Told(None) => return,
                Happened::Told(Some(command)) => self.obey(command),
                Happened::Events(Ok(events)) => {
                    for event in events {
                        self.take(event);
                    }
                }
                Happened::Events(Err(error)) => {
                    tracing::warn!("inotify is broken, logs are polled: {error}");
                    self.inotify = None;
                    self.rescan();
                }
                Happened::Due => self.wake().await,
            }
        }
    }

    async fn wait(&mut self) -> Happened {
        let next = self.due.peek().map(|Reverse((at, _))| *at);
        let events = async {
            match &self.inotify {
                Some(inotify) => inotify.events().await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = self.inbox.recv() => Happened::Told(command),
            events = events => Happened::Events(events),
            () = due => Happened::Due,
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Watch(instance, path) => {
                if self.logs.get(&instance).is_some_and(|log| log.path == path) {
                    return;
                }
                self.forget(&instance);
                let waiting = Waiting::Until(Instant::now());
                let log = Log { path, waiting, index: None, said: None };
                self.logs.insert(instance.clone(), log);
                self.arm(&instance);
            }
            Command::Unwatch(instance) => self.forget(&instance),
            Command::Shorten { instance, bytes, remove, done } => {
                drop(done.send(self.shorten(&instance, bytes, remove)));
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Overflow => self.rescan(),
            Event::Touched(watch) => {
                if let Some(instance) = self.armed.remove(&watch) {
                    self.look(&instance);
                    self.rest(&instance, REST);
                } else {
                    self.look_for_missing(watch);
                }
            }
        }
    }

    /// Ends the rests that are over.
    async fn wake(&mut self) {
        let mut turn = 0;
        let now = Instant::now();
        while let Some(Reverse((at, _))) = self.due.peek()
            && *at <= now
            && let Some(Reverse((at, instance))) = self.due.pop()
        {
            if self.logs.get(&instance).is_some_and(|log| log.waiting == Waiting::Until(at)) {
                self.arm(&instance);
                turn += 1;
            }
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits for the next event of a log, and looks at it afterwards.
    fn arm(&mut self, instance: &InstanceId) {
        let Some(log) = self.logs.get_mut(instance) else { return };
        let armed = match &self.inotify {
            Some(inotify) => inotify.arm(&log.path),
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        match armed {
            Ok(watch) => {
                log.waiting = Waiting::Armed(watch);
                self.armed.insert(watch, instance.clone());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.miss(instance),
            Err(_) => self.rest(instance, POLL),
        }
        self.look(instance);
    }

    fn rest(&mut self, instance: &InstanceId, duration: Duration) {
        if let Some(log) = self.logs.get_mut(instance) {
            let until = Instant::now() + duration;
            log.waiting = Waiting::Until(until);
            self.due.push(Reverse((until, instance.clone())));
        }
    }

    /// The log is not there: its folder is watched until it is.
    fn miss(&mut self, instance: &InstanceId) {
        let Some(log) = self.logs.get_mut(instance) else { return };
        let folder = log.path.parent().unwrap_or(Path::new("/")).to_owned();
        let watch = match &self.inotify {
            Some(inotify) => inotify.watch_folder(&folder),
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        // No folder, or no watch left: nothing to wait for but time.
        let Ok(watch) = watch else { return self.rest(instance, POLL) };
        log.waiting = Waiting::Missing;
        let is_back = log.path.exists();
        let missing = HashSet::new();
        let entry = self.folders.entry(folder).or_insert(Folder { watch, missing });
        entry.watch = watch;
        entry.missing.insert(instance.clone());
        if is_back {
            self.look_for_missing(watch);
        }
    }

    fn look_for_missing(&mut self, watch: i32) {
        let here = self.folders.iter().find(|(_, folder)| folder.watch == watch);
        let Some(folder) = here.map(|(path, _)| path.clone()) else { return };
        let waiting: Vec<_> = self
            .folders
            .get(&folder)
            .map_or_else(Vec::new, |here| here.missing.iter().cloned().collect());
        for instance in waiting {
            if self.logs.get(&instance).is_some_and(|log| log.path.exists()) {
                self.found(&folder, &instance);
                self.rest(&instance, Duration::ZERO);
            }
        }
    }

    /// Takes a log out of the missing ones; a folder without any is not watched.
    fn found(&mut self, folder: &Path, instance: &InstanceId) {
        let Some(here) = self.folders.get_mut(folder) else { return };
        here.missing.remove(instance);
        if here.missing.is_empty()
            && let Some(here) = self.folders.remove(folder)
            && let Some(inotify) = &self.inotify
        {
            inotify.disarm(here.watch);
        }
    }

    /// Everything is looked at and armed anew.
    fn rescan(&mut self) {
        self.armed.clear();
        let folders = std::mem::take(&mut self.folders);
        if let Some(inotify) = &self.inotify {
            for folder in folders.values() {
                inotify.disarm(folder.watch);
            }
        }
        let all: Vec<_> = self.logs.keys().cloned().collect();
        for instance in all {
            self.rest(&instance, Duration::ZERO);
        }
    }

    fn forget(&mut self, instance: &InstanceId) {
        let Some(log) = self.logs.remove(instance) else { return };
        match log.waiting {
            Waiting::Armed(watch) => {
                self.armed.remove(&watch);
                if let Some(inotify) = &self.inotify {
                    inotify.disarm(watch);
                }
            }
            Waiting::Missing => {
                let folder = log.path.parent().unwrap_or(Path::new("/"));
                self.found(folder, instance);
            }
            Waiting::Until(_) => {}
        }
    }

    /// Looks at the size of a log: records it, and wakes who reads.
    fn look(&mut self, instance: &InstanceId) {
        let Some(log) = self.logs.get_mut(instance) else { return };
        let Ok(metadata) = std::fs::metadata(&log.path) else { return };
        if !metadata.is_file() {
            return;
        }
        let now = (self.clock)();
        let (extent, written) = match log.observe(&metadata, now) {
            Ok(observed) => observed,
            // Without an index there are no times, but there is a file that grows.
            Err(error) => {
                let extent = crate::logs::extent(&log.path).unwrap_or_default();
                (extent, Err(error))
            }
        };
        log.say(written);
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = subscriptions.get(instance) {
            sender.send_if_modified(|known| std::mem::replace(known, extent) != extent);
        }
    }

    fn shorten(&mut self, instance: &InstanceId, bytes: u64, remove: Remove) -> io::Result<()> {
        let Some(log) = self.logs.get_mut(instance) else {
            return Err(io::Error::other("the log is not watched"));
        };
        let metadata = std::fs::metadata(&log.path)?;
        let (_, written) = log.observe(&metadata, (self.clock)())?;
        written?;
        let Some(index) = &mut log.index else { return Ok(()) };
        let length = metadata.len();
        if bytes > length {
            return Err(io::Error::other("the log is not that long"));
        }
        index.begin_shortening(bytes, length)?;
        if let Err(error) = remove() {
            index.abandon_shortening()?;
            return Err(error);
        }
        index.finish_shortening()?;
        self.look(instance);
        Ok(())
    }
}

type Observed = (crate::logs::Extent, io::Result<()>);

impl Log {
    /// What was written before the index was opened is as old as the file says; what comes while it is
    /// watched is as old as now.
    fn observe(&mut self, metadata: &Metadata, now: Timestamp) -> io::Result<Observed> {
        let (identity, length) = (index::identity(metadata), metadata.len());
        if let Some(index) = &mut self.index {
            return Ok(index.observe(identity, length, nanos(now)));
        }
        let mut index = Writer::open(&self.path, identity, length)?;
        let at = match metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()) {
            Some(modified) if index.is_behind(identity, length) => modified.min(now),
            _ => now,
        };
        let observed = index.observe(identity, length, nanos(at));
        self.index = Some(index);
        Ok(observed)
    }

    /// Tells a failure of the index once, not with each line.
    fn say(&mut self, written: io::Result<()>) {
        let kind = written.as_ref().err().map(io::Error::kind);
        if let Err(error) = written
            && self.said != kind
        {
            let log = self.path.display();
            tracing::warn!("lines of {log} have no times, its index cannot be written: {error}");
        }
        self.said = kind;
    }
}

/// Times that do not fit (after 2262, before 1970) are those of the nearest that do.
fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX).max(1)
}
