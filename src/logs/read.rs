//! Reading what logs hold: the last lines, a span of time, what matches; several logs merged by time.
//!
//! ```text
//!   LogSource(s) of one instance -> stretches [from, to) -> Cursor --+
//!   LogSource(s) of another      -> stretches            -> Cursor --+-- heap by time --> Merged
//! ```
//!
//! The end of each log is fixed when reading begins, so that a flood cannot make the reading endless.
//! Lines of one instance keep their order whatever the clock did. A line without a known time goes
//! where its predecessor went; at equal times the order of the sources decides, so the merge is stable.
//! The pieces of one long line stay together.
//!
//! Failure paths: a log that is not there holds nothing. One that cannot be read gives an error in its
//! place; the others go on. A rotated file that cannot be read gives an error, and its log goes on behind it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use jiff::Timestamp;
use regex::bytes::Regex;

use super::file::{Extent, extent, is_passed_over};
use super::lines::{Ending, Lines, PIECE};
use super::tail::{last_lines, last_matches, line_start_from, without_return};
use super::times::Times;
use crate::model::InstanceId;

/// Memory for the blocks of all sources together, in bytes.
const BLOCKS: usize = 8 * 1024 * 1024;

/// A part of the log of one instance, with what was rotated away from it. Several of one instance are
/// read one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSource {
    /// Whose log it is.
    pub instance: InstanceId,
    /// The file.
    pub path: PathBuf,
    /// The position where to begin, such as the beginning of a run; its first byte if absent.
    pub from: Option<u64>,
    /// The position where to stop, such as the end of a run; if absent, its end.
    pub to: Option<u64>,
}

/// What is wanted of the logs.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The last so many (matching) lines of each instance; all if absent.
    pub lines: Option<usize>,
    /// Only lines from this time on. Lines of unknown time are shown.
    pub since: Option<Timestamp>,
    /// Only lines up to this time.
    pub until: Option<Timestamp>,
    /// Only lines that match. Pieces of a line longer than `PIECE` are looked at one by one.
    pub grep: Option<Regex>,
    /// Go on with new lines (see `LogStream`); has no effect together with `until`.
    pub follow: bool,
}

impl Query {
    pub(super) fn follows(&self) -> bool {
        self.follow && self.until.is_none()
    }
}

/// One line, or a piece of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Who wrote it.
    pub instance: InstanceId,
    /// When its first byte was seen in the file; `None` if that is not known.
    pub at: Option<Timestamp>,
    /// Its bytes without the newline.
    pub text: Vec<u8>,
    /// The position of its first byte.
    pub offset: u64,
    /// The line goes on: the next item of this instance belongs to it.
    pub continued: bool,
}

/// A log that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {path}: {source}")]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// Reads what is there now, merged by time. Blocking: call it, and the iterator, off the event loop.
///
/// # Errors
/// Whether a log can be read shows in the iterator.
#[must_use]
pub fn read(sources: Vec<LogSource>, query: &Query) -> Merged {
    Merged::new(sources, query, false, None)
}

/// A stretch of one file.
#[derive(Debug)]
struct Stretch {
    path: PathBuf,
    from: u64,
    to: u64,
}

/// Where a follower of an instance goes on.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) instance: InstanceId,
    pub(super) path: PathBuf,
    pub(super) position: u64,
}

/// The lines of one instance.
#[derive(Debug)]
struct Cursor {
    instance: InstanceId,
    stretches: VecDeque<Stretch>,
    open: Option<(Lines, Times)>,
    grep: Option<Regex>,
    block: usize,
    /// Leave the open line at the very end to a follower.
    leave_open: bool,
    failed: VecDeque<ReadError>,
    rest: Option<(PathBuf, u64)>,
    /// The time of the line before, for those that have none.
    last: i128,
}

/// Lines of several logs in the order of their times.
#[derive(Debug)]
pub struct Merged {
    cursors: Vec<Cursor>,
    /// The next line of each cursor, and the order of those.
    heads: Vec<Option<Line>>,
    order: BinaryHeap<Reverse<(i128, usize)>>,
    /// The cursor in the middle of a long line.
    inside: Option<usize>,
    errors: VecDeque<ReadError>,
    started: bool,
    wanted_by: Option<Weak<()>>,
}

impl Merged {
    pub(super) fn new(
        sources: Vec<LogSource>,
        query: &Query,
        leave_open: bool,
        wanted_by: Option<Weak<()>>,
    ) -> Self {
        let mut groups: Vec<(InstanceId, Vec<LogSource>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for source in sources {
            let place = *places.entry(source.instance.clone()).or_insert(groups.len());
            if place == groups.len() {
                groups.push((source.instance.clone(), Vec::new()));
            }
            groups[place].1.push(source);
        }
        let block = (BLOCKS / groups.len().max(1)).min(PIECE);
        let cursors: Vec<_> = groups
            .into_iter()
            .map(|(instance, sources)| Cursor::new(instance, sources, query, block, leave_open))
            .collect();
        let heads = cursors.iter().map(|_| None).collect();
        Self {
            cursors,
            heads,
            order: BinaryHeap::new(),
            inside: None,
            errors: VecDeque::new(),
            started: false,
            wanted_by,
        }
    }

    /// Where each instance's reading ended.
    pub(super) fn rests(self) -> Vec<Rest> {
        let rest = |cursor: Cursor| {
            let (path, position) = cursor.rest?;
            Some(Rest { instance: cursor.instance, path, position })
        };
        self.cursors.into_iter().filter_map(rest).collect()
    }

    /// Fetches the next line of a cursor and puts it in order.
    fn advance(&mut self, place: usize) {
        let cursor = &mut self.cursors[place];
        let line = cursor.next(self.wanted_by.as_ref());
        if let Some(line) = &line {
            cursor.last = line.at.map_or(cursor.last, Timestamp::as_nanosecond);
            self.order.push(Reverse((cursor.last, place)));
        }
        self.errors.append(&mut cursor.failed);
        self.heads[place] = line;
    }

    /// The place of the cursor whose line comes next.
    fn pick(&mut self) -> Option<usize> {
        let Some(inside) = self.inside.take().filter(|inside| self.heads[*inside].is_some()) else {
            return self.order.pop().map(|Reverse((_, place))| place);
        };
        self.order.retain(|Reverse((_, place))| *place != inside);
        Some(inside)
    }
}

impl Iterator for Merged {
    type Item = Result<Line, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.started {
            self.started = true;
            (0..self.cursors.len()).for_each(|place| self.advance(place));
        }
        if let Some(error) = self.errors.pop_front() {
            return Some(Err(error));
        }
        let place = self.pick()?;
        let line = self.heads[place].take()?;
        self.advance(place);
        if line.continued {
            self.inside = Some(place);
        }
        Some(Ok(line))
    }
}

impl Cursor {
    fn new(
        instance: InstanceId,
        sources: Vec<LogSource>,
        query: &Query,
        block: usize,
        leave_open: bool,
    ) -> Self {
        let mut cursor = Self {
            instance,
            stretches: VecDeque::new(),
            open: None,
            grep: query.grep.clone(),
            block,
            leave_open,
            failed: VecDeque::new(),
            rest: None,
            last: i128::MIN,
        };
        // Backwards, for the last lines are counted from the end of the newest file.
        let mut wanted = query.lines;
        for source in sources.into_iter().rev() {
            let LogSource { path, from, to, .. } = source;
            let goes_on = to.is_none() && cursor.rest.is_none();
            match stretch(&path, from, to, query, &mut wanted) {
                Ok(stretch) => {
                    if goes_on {
                        cursor.rest = Some((path, stretch.to));
                    }
                    cursor.stretches.push_front(stretch);
                }
                Err(source) => cursor.failed.push_back(ReadError { path, source }),
            }
        }
        cursor
    }

    fn next(&mut self, wanted_by: Option<&Weak<()>>) -> Option<Line> {
        loop {
            if wanted_by.is_some_and(|reader| reader.strong_count() == 0) {
                return None;
            }
            let stretch = self.stretches.front()?;
            let (lines, times) = self.open.get_or_insert_with(|| {
                let lines = Lines::new(&stretch.path, stretch.from, stretch.to, self.block);
                (lines, Times::new(&stretch.path))
            });
            let is_last = self.stretches.len() == 1;
            match lines.next_piece() {
                Ok(Some(piece)) if is_last && self.leave_open && piece.ending == Ending::Open => {
                    if let Some((_, position)) = &mut self.rest {
                        *position = piece.position;
                    }
                    self.end_stretch();
                }
                Ok(Some(piece)) => {
                    if let Some(grep) = &self.grep
                        && !grep.is_match(without_return(piece.text))
                    {
                        continue;
                    }
                    return Some(Line {
                        instance: self.instance.clone(),
                        at: times.at(piece.position),
                        text: piece.text.to_vec(),
                        offset: piece.position,
                        // With a pattern the next item may be of another line.
                        continued: piece.ending == Ending::Cut && self.grep.is_none(),
                    });
                }
                Ok(None) => self.end_stretch(),
                Err(source) => {
                    let path = stretch.path.clone();
                    let goes_on = is_passed_over(&source);
                    self.failed.push_back(ReadError { path, source });
                    if !goes_on {
                        self.end_stretch();
                    }
                }
            }
        }
    }

    fn end_stretch(&mut self) {
        self.stretches.pop_front();
        self.open = None;
    }
}

/// Which bytes of a file are wanted; counts the lines that it contributes.
fn stretch(
    path: &Path,
    from: Option<u64>,
    to: Option<u64>,
    query: &Query,
    wanted: &mut Option<usize>,
) -> io::Result<Stretch> {
    let Extent { first, end, .. } = extent(path)?;
    // A beginning behind the end speaks of an index that was lost since: rather too much than nothing.
    let from = from.filter(|from| *from <= end).unwrap_or(first).max(first);
    let to = to.unwrap_or(end).min(end).max(from);
    let mut times = Times::new(path);
    let begin = match query.since.and_then(|since| times.before(since)) {
        Some(position) => line_start_from(path, from, position, to)?,
        None => from,
    };
    let stop = match query.until.and_then(|until| times.until(until)) {
        Some(position) => line_start_from(path, from, position, to)?,
        None => to,
    };
    let begin = match (wanted.as_mut(), &query.grep) {
        (None, _) => begin,
        (Some(left), grep) => {
            let start = match grep {
                None => last_lines(path, begin, stop, *left)?,
                Some(pattern) => last_matches(path, begin, stop, *left, pattern)?,
            };
            *left -= start.lines.min(*left);
            start.position
        }
    };
    Ok(Stretch { path: path.to_owned(), from: begin, to: stop })
}
