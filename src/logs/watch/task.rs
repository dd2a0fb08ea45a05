//! The watching task: its state, and an answer to each thing that can happen to a log.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::log::{Log, Waiting};
use super::{Command, Next, Subscriptions, WallClock};
use crate::logs::index::Writer;
use crate::logs::inotify::{Event, Inotify};
use crate::logs::problem::{Problems, Trouble};
use crate::logs::rotate::{Job, Keep};
use crate::logs::rotated::Listing;
use crate::model::InstanceId;

/// How long a log is left alone after an event.
const REST: Duration = Duration::from_millis(5);

/// How often a log is looked at that grows on and on: half the work, for times that are as much less exact.
const FLOW: Duration = Duration::from_millis(10);

/// How often a log is looked at for which there is no watch.
const POLL: Duration = Duration::from_secs(1);

/// Logs that are looked at before other tasks have their turn.
const TURN: usize = 64;

/// A folder in which logs are missing.
struct Folder {
    watch: i32,
    /// By the names of their files, which events tell.
    missing: HashMap<OsString, InstanceId>,
}

pub(super) struct Task {
    inbox: mpsc::UnboundedReceiver<Command>,
    subscriptions: Subscriptions,
    clock: WallClock,
    inotify: Option<Inotify>,
    /// Boxed, because a part of the map is empty.
    logs: HashMap<InstanceId, Box<Log>>,
    armed: HashMap<i32, InstanceId>,
    folders: HashMap<PathBuf, Folder>,
    /// Ends of rests; an entry counts only if its log still waits until then.
    due: BinaryHeap<Reverse<(Instant, InstanceId)>>,
    /// For logs that are to be rotated.
    jobs: mpsc::UnboundedSender<Job>,
    /// Logs that are being rotated, also if they are forgotten, or known again, meanwhile; and whether it was
    /// asked for once more since.
    rotating: HashMap<PathBuf, bool>,
    /// Those with whose index it is busy.
    lent: HashSet<PathBuf>,
    /// Nothing is rotated any more, and who waits until nothing is.
    is_closed: bool,
    closing: Vec<oneshot::Sender<()>>,
    problems: Problems,
    listing: Listing,
}

/// What happened.
enum Happened {
    Told(Option<Box<Command>>),
    Events(io::Result<Vec<Event>>),
    Due,
}

impl Task {
    pub(super) fn new(
        inbox: mpsc::UnboundedReceiver<Command>,
        subscriptions: Subscriptions,
        clock: WallClock,
        jobs: mpsc::UnboundedSender<Job>,
        problems: Problems,
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
            jobs,
            rotating: HashMap::new(),
            lent: HashSet::new(),
            is_closed: false,
            closing: Vec::new(),
            problems,
            listing: Listing::default(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.wait().await {
                Happened::Told(None) => return,
                Happened::Told(Some(command)) => self.obey(*command),
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
            command = self.inbox.recv() => Happened::Told(command.map(Box::new)),
            events = events => Happened::Events(events),
            () = due => Happened::Due,
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Watch(instance, path, keep) => self.watch(&instance, path, keep),
            Command::Unwatch(instance) => {
                self.forget(&instance);
                self.problems.forget(&instance);
            }
            Command::Lend { instance, path, done } => {
                drop(done.send(self.lend(&instance, &path)));
            }
            Command::GiveBack { path, writer, next, expires } => {
                self.take_back(&path, writer, next, expires);
            }
            Command::Consider(instance) => self.ask(&instance),
            Command::Close(done) => {
                self.is_closed = true;
                if self.lent.is_empty() {
                    // Who asked may have given up waiting.
                    let _ = done.send(());
                } else {
                    self.closing.push(done);
                }
            }
        }
    }

    fn watch(&mut self, instance: &InstanceId, path: PathBuf, keep: Option<Keep>) {
        if let Some(log) = self.logs.get_mut(instance)
            && log.path == path
        {
            let spec = |keep: &Option<Keep>| keep.as_ref().map(|keep| keep.spec.clone());
            let is_other = spec(&log.keep) != spec(&keep);
            log.keep = keep;
            if is_other {
                self.ask(instance);
            }
            return;
        }
        self.forget(instance);
        self.logs.insert(instance.clone(), Box::new(Log::new(path, keep)));
        self.arm(instance);
        // What was rotated once may have become too old since.
        if self.logs.get(instance).is_some_and(|log| log.has_old_files()) {
            self.ask(instance);
        }
    }

    fn lend(&mut self, instance: &InstanceId, path: &Path) -> Option<Writer> {
        let log = self.logs.get_mut(instance).filter(|log| log.path == path && !self.is_closed)?;
        let writer = log.index.take()?;
        self.lent.insert(log.path.clone());
        Some(writer)
    }

    fn take_back(
        &mut self,
        path: &Path,
        writer: Option<Writer>,
        next: Next,
        expires: Option<Timestamp>,
    ) {
        let was_lent = self.lent.remove(path);
        if self.lent.is_empty() {
            for done in self.closing.drain(..) {
                let _ = done.send(());
            }
        }
        let again = self.rotating.remove(path).unwrap_or_default();
        let found = self.logs.iter_mut().find(|(_, log)| log.path == path);
        let Some((instance, log)) = found else { return };
        if was_lent {
            log.index = writer;
        }
        log.end_rotation(next, expires);
        let instance = instance.clone();
        self.look(&instance);
        if again {
            self.ask(&instance);
        }
    }

    /// Asks for a rotation. There is one at a time, whoever knows the log meanwhile: a second one would be in
    /// the way of the first.
    fn ask(&mut self, instance: &InstanceId) {
        let Some(log) = self.logs.get(instance) else { return };
        let Some(keep) = log.keep.clone() else { return };
        match self.rotating.entry(log.path.clone()) {
            Entry::Occupied(mut under_way) => drop(under_way.insert(true)),
            Entry::Vacant(place) => {
                let (instance, path) = (instance.clone(), place.key().clone());
                place.insert(false);
                drop(self.jobs.send(Job { instance, path, keep }));
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
                }
            }
            Event::Arrived(watch, name) => self.welcome(watch, &name),
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
                self.end_rest(&instance);
                turn += 1;
            }
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// A log that grew during its last rest, and during this one too, has no need of an event.
    fn end_rest(&mut self, instance: &InstanceId) {
        let is_flowing = self.logs.get(instance).is_some_and(|log| log.is_flowing);
        if is_flowing && self.look(instance) {
            self.rest(instance, FLOW);
        } else {
            self.arm(instance);
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
        let has_grown = self.look(instance);
        if let Some(log) = self.logs.get_mut(instance) {
            log.is_flowing = has_grown && matches!(log.waiting, Waiting::Armed(_));
        }
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
        let name = log.path.file_name().unwrap_or_default().to_owned();
        let watch = match &self.inotify {
            Some(inotify) => inotify.watch_folder(&folder),
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        // No folder, or no watch left: nothing to wait for but time.
        let Ok(watch) = watch else { return self.rest(instance, POLL) };
        log.waiting = Waiting::Missing;
        let is_back = log.path.exists();
        let missing = HashMap::new();
        let entry = self.folders.entry(folder).or_insert(Folder { watch, missing });
        entry.watch = watch;
        entry.missing.insert(name.clone(), instance.clone());
        if is_back {
            self.welcome(watch, &name);
        }
    }

    /// A file has come into a folder in which logs are missing.
    fn welcome(&mut self, watch: i32, name: &OsStr) {
        let here = self.folders.iter().find(|(_, folder)| folder.watch == watch);
        let Some((path, folder)) = here else { return };
        let Some(instance) = folder.missing.get(name).cloned() else { return };
        let path = path.clone();
        self.found(&path, name);
        self.rest(&instance, Duration::ZERO);
    }

    /// Takes a log out of the missing ones; a folder without any is not watched.
    fn found(&mut self, folder: &Path, name: &OsStr) {
        let Some(here) = self.folders.get_mut(folder) else { return };
        here.missing.remove(name);
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
                self.found(folder, log.path.file_name().unwrap_or_default());
            }
            Waiting::Until(_) => {}
        }
    }

    /// Looks at the size of a log: records it, and wakes who reads. True: it has grown.
    fn look(&mut self, instance: &InstanceId) -> bool {
        let Some(log) = self.logs.get_mut(instance).filter(|log| !self.lent.contains(&log.path))
        else {
            return false;
        };
        let known = log.index.as_ref().map(Writer::known_end);
        let (extent, written) = match log.observe(&self.clock, &mut self.listing) {
            Ok(Some(observed)) => observed,
            Ok(None) => return false,
            // Without an index there are no times, but there is a file that grows.
            Err(error) => {
                let extent = crate::logs::extent(&log.path).unwrap_or_default();
                (extent, Err(error))
            }
        };
        match written {
            Ok(()) => {
                if self.problems.solve(instance, Trouble::Index) {
                    tracing::info!(%instance, "lines of its log have times again");
                }
            }
            Err(error) => {
                let problem = format!("lines of its log have no times: {error}");
                if self.problems.note(instance, Trouble::Index, &problem) {
                    tracing::warn!(%instance, "{problem}");
                }
            }
        }
        let is_rotating = self.rotating.contains_key(&log.path);
        let is_due = !is_rotating && log.is_due(extent, (self.clock)());
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subscription) = subscriptions.get_mut(instance) {
            subscription.tell(extent);
        }
        drop(subscriptions);
        if is_due {
            self.ask(instance);
        }
        known.is_some_and(|known| extent.end > known)
    }
}
