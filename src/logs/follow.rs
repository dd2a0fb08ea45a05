//! Lines as they come: what is there, and then what is written, until nobody wants it any more.
//!
//! ```text
//!   history (on a blocking thread, in batches) --> following: wait for a log to grow --> read it --+
//!                                                     ^                                          |
//!                                                     +------------------------------------------+
//! ```
//!
//! Logs are subscribed to before the history is read, and following begins where the history ended: no
//! line is lost or shown twice between the two. A follower keeps a position, so a restart (which
//! appends), a rotation and a truncation do not disturb it (S49). One that is so slow that lines are
//! rotated away before it comes to them reads them from the rotated files, and where even those are gone
//! it goes on with the first line that is still there.
//!
//! A line is given when it is complete. An open one (a prompt, a progress bar) is given as
//! `continued` when its log has been quiet for `OPEN_LINE`.
//!
//! Invariants: `next` may be dropped at any time without losing a line. Reading happens in turns of at
//! most `TURN` bytes. Nothing wakes up while nothing is written.
//!
//! Failure paths: a log that cannot be read gives an error and is left out from then on. A rotated file
//! that cannot be read gives an error and is passed over.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use regex::bytes::Regex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::file::{Extent, is_passed_over};
use super::lines::{Ending, Lines, PIECE};
use super::read::{Line, LogSource, Merged, Query, ReadError, Rest};
use super::tail::without_return;
use super::times::Times;
use super::watch::LogWatcher;

/// How much a batch of the history holds, in bytes of text.
const BATCH: usize = 256 * 1024;

/// How much of one log is read before others have their turn, in bytes.
const TURN: u64 = 256 * 1024;

/// How long a log must be quiet until its open line is given.
const OPEN_LINE: Duration = Duration::from_millis(500);

type Answer = (Merged, Vec<Result<Line, ReadError>>);
type Changes = watch::Receiver<Extent>;
type Change = Pin<Box<dyn Future<Output = (usize, Option<Changes>)> + Send>>;

/// The lines that a query asks for; ends by itself unless the query follows.
#[derive(Debug)]
pub struct LogStream {
    history: History,
    /// Held for as long as somebody wants lines; a history that is being read stops without it.
    #[expect(dead_code, reason = "it is held, not read")]
    wanted: Arc<()>,
    /// By place; `None` once it could not be read or its log is no longer watched.
    followers: Vec<Option<Follower>>,
    subscriptions: Vec<(crate::model::InstanceId, Changes)>,
    changes: FuturesUnordered<Change>,
    ready: VecDeque<usize>,
    errors: VecDeque<ReadError>,
    grep: Option<Regex>,
    follows: bool,
}

#[derive(Debug)]
enum History {
    Idle(Box<Merged>),
    Reading(crate::blocking::Task<Answer>),
    Done,
}

#[derive(Debug)]
struct Follower {
    rest: Rest,
    times: Times,
    /// An open line, and when it is given if nothing comes.
    open: Option<Instant>,
    is_watched: bool,
}

impl LogStream {
    /// Starts to read. The instances must be watched by `watcher` if the query follows; one that is
    /// not is read once.
    #[must_use]
    pub fn new(sources: Vec<LogSource>, query: &Query, watcher: &LogWatcher) -> Self {
        let follows = query.follows();
        let mut subscriptions = Vec::new();
        if follows {
            for source in sources.iter().filter(|source| source.to.is_none()) {
                subscriptions.extend(
                    watcher.subscribe(&source.instance).map(|log| (source.instance.clone(), log)),
                );
            }
        }
        let wanted = Arc::new(());
        let merged = Starting { sources, query: query.clone(), leave_open: follows };
        let guard = Arc::downgrade(&wanted);
        let reading = crate::blocking::spawn(move || batch(merged.begin(guard)));
        Self {
            history: History::Reading(reading),
            wanted,
            followers: Vec::new(),
            subscriptions,
            changes: FuturesUnordered::new(),
            ready: VecDeque::new(),
            errors: VecDeque::new(),
            grep: query.grep.clone(),
            follows,
        }
    }

    /// The next lines, at least one; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Vec<Line>, ReadError>> {
        loop {
            if let Some(error) = self.errors.pop_front() {
                return Some(Err(error));
            }
            let lines = match &mut self.history {
                History::Done => self.follow().await?,
                _ => self.read_history().await,
            };
            if !lines.is_empty() {
                return Some(Ok(lines));
            }
        }
    }

    async fn read_history(&mut self) -> Vec<Line> {
        if let History::Idle(_) = &self.history
            && let History::Idle(merged) = std::mem::replace(&mut self.history, History::Done)
        {
            self.history = History::Reading(crate::blocking::spawn(|| batch(*merged)));
        }
        let History::Reading(reading) = &mut self.history else { return Vec::new() };
        // A panic of the reader ends the history.
        let answer = reading.await;
        self.history = History::Done;
        let Ok((merged, items)) = answer else { return Vec::new() };
        let is_over = items.is_empty();
        let mut lines = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Ok(line) => lines.push(line),
                Err(error) => self.errors.push_back(error),
            }
        }
        if is_over {
            self.begin_following(merged);
        } else {
            self.history = History::Idle(Box::new(merged));
        }
        lines
    }

    fn begin_following(&mut self, merged: Merged) {
        if !self.follows {
            return;
        }
        for rest in merged.rests() {
            let place = self.followers.len();
            let subscribed = self
                .subscriptions
                .iter()
                .position(|(instance, _)| *instance == rest.instance)
                .map(|found| self.subscriptions.swap_remove(found).1);
            let is_watched = subscribed.is_some();
            if let Some(changes) = subscribed {
                self.changes.push(change(place, changes));
            }
            let times = Times::new(&rest.path);
            self.followers.push(Some(Follower { rest, times, open: None, is_watched }));
            // What came while the history was read.
            self.ready.push_back(place);
        }
        self.subscriptions.clear();
    }

    /// Waits for lines and takes a turn of reading them. `None`: nothing is watched any more.
    async fn follow(&mut self) -> Option<Vec<Line>> {
        if self.ready.is_empty() {
            let open = self.followers.iter().flatten().filter_map(|follower| follower.open).min();
            if self.changes.is_empty() && open.is_none() {
                return None;
            }
            tokio::select! {
                Some(changed) = self.changes.next(), if !self.changes.is_empty() => {
                    self.take_change(changed);
                }
                () = at(open), if open.is_some() => return Some(self.open_lines()),
            }
        } else {
            // Others have their turn between two of ours.
            tokio::task::yield_now().await;
        }
        while let Some(Some(changed)) = self.changes.next().now_or_never() {
            self.take_change(changed);
        }
        let mut lines = Vec::new();
        for _ in 0..self.ready.len() {
            let Some(place) = self.ready.pop_front() else { break };
            if self.read_turn(place, &mut lines) {
                self.ready.push_back(place);
                break;
            }
        }
        Some(by_time(lines))
    }

    fn take_change(&mut self, (place, changes): (usize, Option<Changes>)) {
        match changes {
            Some(changes) => self.changes.push(change(place, changes)),
            None => {
                if let Some(Some(follower)) = self.followers.get_mut(place) {
                    follower.is_watched = false;
                }
            }
        }
        if !self.ready.contains(&place) {
            self.ready.push_back(place);
        }
    }

    /// Reads what a log has to give, at most a turn of it. True: there is more.
    fn read_turn(&mut self, place: usize, lines: &mut Vec<Line>) -> bool {
        let Some(slot) = self.followers.get_mut(place) else { return false };
        let Some(follower) = slot else { return false };
        let path = follower.rest.path.clone();
        let errors = &mut self.errors;
        let mut say = |source| errors.push_back(ReadError { path: path.clone(), source });
        match follower.read(self.grep.as_ref(), lines, &mut say) {
            Ok(true) => return true,
            Ok(false) => {
                if !follower.is_watched {
                    follower.take_open(self.grep.as_ref(), lines);
                    *slot = None;
                }
            }
            Err(source) => {
                say(source);
                *slot = None;
            }
        }
        false
    }

    /// The open lines whose time has come.
    fn open_lines(&mut self) -> Vec<Line> {
        let now = Instant::now();
        let mut lines = Vec::new();
        for follower in self.followers.iter_mut().flatten() {
            if follower.open.is_some_and(|deadline| deadline <= now) {
                follower.take_open(self.grep.as_ref(), &mut lines);
            }
        }
        lines
    }
}

/// What is needed to begin: finding the beginnings is blocking work, too.
struct Starting {
    sources: Vec<LogSource>,
    query: Query,
    leave_open: bool,
}

impl Starting {
    fn begin(self, guard: std::sync::Weak<()>) -> Merged {
        Merged::new(self.sources, &self.query, self.leave_open, Some(guard))
    }
}

fn batch(mut merged: Merged) -> Answer {
    let mut items = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH {
        let Some(item) = merged.next() else { break };
        bytes += item.as_ref().map_or(0, |line| line.text.len() + size_of::<Line>());
        items.push(item);
    }
    (merged, items)
}

impl Follower {
    /// True: it has used its turn, and there may be more. A rotated file that cannot be read is told and
    /// passed over.
    fn read(
        &mut self,
        grep: Option<&Regex>,
        given: &mut Vec<Line>,
        say: &mut dyn FnMut(std::io::Error),
    ) -> std::io::Result<bool> {
        self.open = None;
        let begin = self.rest.position;
        let mut lines = Lines::new(&self.rest.path, begin, u64::MAX, PIECE);
        loop {
            let piece = match lines.next_piece() {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(false),
                Err(error) if is_passed_over(&error) => {
                    say(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if piece.ending == Ending::Open {
                self.rest.position = piece.position;
                self.open = Some(Instant::now() + OPEN_LINE);
                return Ok(false);
            }
            let continued = piece.ending == Ending::Cut;
            if grep.is_none_or(|grep| grep.is_match(without_return(piece.text))) {
                given.push(Line {
                    instance: self.rest.instance.clone(),
                    at: self.times.at(piece.position),
                    text: piece.text.to_vec(),
                    offset: piece.position,
                    continued: continued && grep.is_none(),
                });
            }
            self.rest.position = lines.position();
            if self.rest.position - begin >= TURN {
                return Ok(true);
            }
        }
    }

    /// Gives the open line as it is; what follows on it will be the next piece.
    fn take_open(&mut self, grep: Option<&Regex>, given: &mut Vec<Line>) {
        self.open = None;
        let mut lines = Lines::new(&self.rest.path, self.rest.position, u64::MAX, PIECE);
        let Ok(Some(piece)) = lines.next_piece() else { return };
        // It was completed meanwhile: the watcher says so, and it is read in its turn. With a
        // pattern only whole lines are looked at.
        if piece.ending != Ending::Open || (grep.is_some() && self.is_watched) {
            return;
        }
        if grep.is_none_or(|grep| grep.is_match(without_return(piece.text))) {
            given.push(Line {
                instance: self.rest.instance.clone(),
                at: self.times.at(piece.position),
                text: piece.text.to_vec(),
                offset: piece.position,
                continued: self.is_watched,
            });
        }
        self.rest.position = lines.position();
    }
}

/// Resolves when a log has changed; without a receiver when it is no longer watched.
fn change(place: usize, mut changes: Changes) -> Change {
    Box::pin(async move {
        let is_watched = changes.changed().await.is_ok();
        (place, is_watched.then_some(changes))
    })
}

async fn at(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

/// Orders one turn's lines of several logs; those without a time stay behind their predecessor.
fn by_time(lines: Vec<Line>) -> Vec<Line> {
    let mut last = Timestamp::MIN;
    let mut owner = None;
    let mut keyed: Vec<_> = lines
        .into_iter()
        .map(|line| {
            if owner.as_ref() != Some(&line.instance) {
                owner = Some(line.instance.clone());
                last = Timestamp::MIN;
            }
            // Never back: the lines of one log keep their order.
            last = line.at.map_or(last, |at| at.max(last));
            (last, line)
        })
        .collect();
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, line)| line).collect()
}
