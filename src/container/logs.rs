//! A container's output into its log file: each line once, whatever dies in between.
//!
//! ```text
//!   engine's log ── since S, frames ──▶ skip the first N ──▶ skip B bytes ──▶ NAME.log (appended)
//!                                            ▲                    ▲
//!                     cursor { S, N, position }          end of NAME.log - position
//! ```
//!
//! The engine gives the frames (a line, or a piece of a long one) that are not older than a second S, in the
//! order in which it has them. So "the first N frames since S are in the log up to this position" says
//! exactly where to go on: the same question gets the same frames again. What was written after the cursor
//! was saved is known by the length of the log, and is skipped byte by byte. S is kept two seconds behind the
//! newest frame, because frames of stdout and stderr may be a little out of the order of their times.
//!
//! The cursor is a small file beside the records of runs, replaced by renaming. It may lag; it is never
//! ahead of the log.
//!
//! Failure paths
//! - The engine goes away: the pump waits until it is back, and goes on at its cursor.
//! - This process dies: the next one goes on at the cursor in the file.
//! - The log cannot be written (disk full): tried again, the engine keeps the lines meanwhile.
//! - The engine's log cannot be read: said once, in the log itself, and tried again, unless its driver keeps
//!   none.
//! - The cursor is lost: the pump begins with what is newer than the last write of the log, to the second.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::engine::{Engine, Link};
use super::error::EngineError;
use crate::logs::end_position;
use crate::model::ContainerId;

/// How much is gathered before it is written, in bytes.
const BATCH: usize = 256 * 1024;

/// The cursor is saved at most this often.
const SAVED_EVERY: Duration = Duration::from_millis(250);

/// The pause before the engine's log is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, where the engine refuses.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Seconds by which the question is older than the newest frame.
const OVERLAP: i64 = 2;

/// Where to go on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// Frames of these seconds are in the log: how many of each. The first second is S.
    seconds: BTreeMap<i64, u64>,
    /// Up to this position of the log.
    position: u64,
}

impl Cursor {
    /// The second since which to ask.
    fn since(&self) -> i64 {
        self.seconds.keys().next().copied().unwrap_or(0)
    }

    /// How many frames since then are in the log.
    fn frames(&self) -> u64 {
        self.seconds.values().sum()
    }

    /// A frame of this second is in the log, with so many bytes.
    fn advance(&mut self, second: i64, bytes: u64) {
        *self.seconds.entry(second).or_default() += 1;
        self.position += bytes;
        let newest = self.seconds.keys().next_back().copied().unwrap_or(second);
        let kept = self.seconds.split_off(&(newest - OVERLAP));
        self.seconds = kept;
    }
}

/// What moves the output of one container.
#[derive(Debug)]
pub struct Pump {
    engine: Engine,
    id: ContainerId,
    log: PathBuf,
    /// Where the cursor is kept.
    saved: PathBuf,
    cursor: Cursor,
    /// Bytes of the log behind the cursor: they are the next that the engine gives.
    ahead: u64,
    last_saved: Instant,
    /// Held while something is written: whoever empties the log takes it meanwhile.
    pen: Arc<Mutex<()>>,
}

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The engine has said everything that it has.
    Complete,
    /// It was cut off.
    Cut,
}

impl Pump {
    /// A pump for a container that has just been made: it begins at the end of the log.
    ///
    /// # Errors
    /// The log or the place of the cursor cannot be used.
    pub fn begin(
        engine: Engine,
        id: ContainerId,
        log: PathBuf,
        saved: PathBuf,
        pen: Arc<Mutex<()>>,
    ) -> io::Result<Self> {
        let cursor = Cursor { position: end_position(&log)?, ..Cursor::default() };
        let last_saved = Instant::now();
        let pump = Self { engine, id, log, saved, cursor, ahead: 0, last_saved, pen };
        pump.save()?;
        Ok(pump)
    }

    /// A pump that goes on where the one of a daemon before was.
    ///
    /// # Errors
    /// The log cannot be used.
    pub fn resume(
        engine: Engine,
        id: ContainerId,
        log: PathBuf,
        saved: PathBuf,
        pen: Arc<Mutex<()>>,
    ) -> io::Result<Self> {
        let end = end_position(&log)?;
        let cursor = fs::read(&saved).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let cursor = cursor.unwrap_or_else(|| {
            let written = fs::metadata(&log).and_then(|metadata| metadata.modified()).ok();
            let second = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let second = second.map_or(0, |at| at.as_secs().saturating_add(1));
            let second = i64::try_from(second).unwrap_or(0);
            Cursor { seconds: BTreeMap::from([(second, 0)]), position: end }
        });
        // A log that somebody has shortened by hand holds nothing ahead of the cursor.
        let ahead = end.saturating_sub(cursor.position);
        let last_saved = Instant::now();
        Ok(Self { engine, id, log, saved, cursor, ahead, last_saved, pen })
    }

    /// Nothing of the container is left.
    pub fn discard(self) {
        drop(fs::remove_file(&self.saved));
    }

    /// Moves what comes, until the container is over and everything is in the log.
    pub async fn run(mut self, mut over: watch::Receiver<bool>) {
        let mut link = self.engine.link();
        let (mut pause, mut said) = (PAUSE, false);
        loop {
            // Asked for after the end: what comes then is all there will ever be.
            let was_over = *over.borrow_and_update();
            match self.stream().await {
                Ok(End::Complete) if was_over => break,
                Ok(End::Complete | End::Cut) => pause = PAUSE,
                Err(error) if error.is_engine() => self.engine.suspect(&error),
                Err(error) if error.is_absence() => break,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        self.note(&error.to_string()).await;
                    }
                    if was_over || is_for_good(&error) {
                        break;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if !matches!(&*link.borrow_and_update(), Link::Up(_)) {
                // The sender lives as long as the engine does.
                let _ = link.wait_for(|link| matches!(link, Link::Up(_))).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = over.changed() => {}
            }
        }
        let _ = fs::remove_file(&self.saved);
    }

    /// One stream of the engine's log.
    async fn stream(&mut self) -> Result<End, EngineError> {
        let (client, place) = self.engine.handle()?;
        let since = i32::try_from(self.cursor.since()).unwrap_or(0);
        let options = LogsOptionsBuilder::new()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(since)
            .build();
        let mut stream = Box::pin(client.logs(self.id.as_str(), Some(options)));
        let mut to_skip = self.cursor.frames();
        let mut link = self.engine.link();
        let mut batch = Batch::default();
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                // An engine that hangs keeps its streams open for ever.
                _ = link.wait_for(|link| matches!(link, Link::Down(_))) => return Ok(End::Cut),
            };
            let mut next = Some(next);
            // Whatever else is there belongs to the same write.
            while let Some(news) = next.take() {
                match news {
                    Some(Ok(frame)) => {
                        let frame = frame.into_bytes();
                        if to_skip > 0 {
                            to_skip -= 1;
                        } else if let Some((second, payload)) = split(&frame) {
                            batch.push(second, payload);
                        }
                        if batch.bytes.len() < BATCH {
                            next = stream.next().now_or_never();
                        }
                    }
                    Some(Err(error)) => {
                        self.write(&mut batch).await;
                        return match EngineError::of("logs", &place, &error) {
                            // A stream that breaks off says nothing of the engine.
                            error if error.is_engine() => Ok(End::Cut),
                            error => Err(error),
                        };
                    }
                    None => {
                        self.write(&mut batch).await;
                        self.save_or_say();
                        return Ok(End::Complete);
                    }
                }
            }
            self.write(&mut batch).await;
            if self.last_saved.elapsed() >= SAVED_EVERY {
                self.save_or_say();
            }
        }
    }

    /// Appends a batch, however long that takes, and moves the cursor behind it.
    async fn write(&mut self, batch: &mut Batch) {
        let Batch { bytes, frames } = std::mem::take(batch);
        let skipped = usize::try_from(self.ahead).unwrap_or(usize::MAX).min(bytes.len());
        self.ahead -= skipped as u64;
        self.append(bytes, skipped).await;
        for (second, length) in frames {
            self.cursor.advance(second, length);
        }
    }

    async fn append(&self, bytes: Vec<u8>, from: usize) {
        let mut rest = Some((bytes, from));
        let mut said = false;
        while let Some((bytes, from)) = rest.take().filter(|(bytes, from)| *from < bytes.len()) {
            let (log, pen) = (self.log.clone(), self.pen.clone().lock_owned().await);
            let writing = crate::blocking::spawn(move || {
                let written = open(&log).and_then(|mut log| log.write(&bytes[from..]));
                drop(pen);
                (bytes, written)
            });
            // The daemon is ending: the next one goes on at the cursor.
            let Ok((bytes, written)) = writing.await else { return };
            match written {
                Ok(length) => rest = Some((bytes, from + length)),
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::error!(
                            "cannot write {}: {error}; tried again",
                            self.log.display()
                        );
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    rest = Some((bytes, from));
                }
            }
        }
    }

    /// A line of stigmer's own, where there will be none of the container's.
    async fn note(&mut self, message: &str) {
        tracing::warn!(container = %self.id, "its log cannot be read: {message}");
        let line = format!("stigmer: this container's log cannot be read: {message}\n");
        let length = line.len() as u64;
        self.append(line.into(), 0).await;
        // It is not the engine's, and is not to be skipped for it.
        self.cursor.position += length;
        self.save_or_say();
    }

    fn save_or_say(&mut self) {
        self.last_saved = Instant::now();
        if let Err(error) = self.save() {
            tracing::debug!("cannot write {}: {error}", self.saved.display());
        }
    }

    fn save(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.cursor)?;
        let draft = self.saved.with_extension("draft");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW).open(&draft)?.write_all(&text)?;
        fs::rename(&draft, &self.saved)
    }
}

/// Frames that are not written yet.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Of each, its second and its length.
    frames: Vec<(i64, u64)>,
}

impl Batch {
    fn push(&mut self, second: i64, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.frames.push((second, payload.len() as u64));
    }
}

/// Whether the engine's log is kept by a driver that cannot be read, in the words of Docker and of Podman.
fn is_for_good(error: &EngineError) -> bool {
    let said = error.to_string();
    ["does not support reading", "cannot read logs"].iter().any(|words| said.contains(words))
}

/// A frame's second and its bytes. `None` for what has no time, which no engine sends.
fn split(frame: &[u8]) -> Option<(i64, &[u8])> {
    let space = frame.iter().position(|byte| *byte == b' ')?;
    let (stamp, rest) = frame.split_at(space);
    let stamp: jiff::Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    Some((stamp.as_second(), rest.get(1..).unwrap_or_default()))
}

fn open(log: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(log)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is not a regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_time_and_its_bytes() {
        let frame = b"2026-11-24T14:54:39.413808100Z a b\n";
        assert_eq!(split(frame), Some((1_795_532_079, &b"a b\n"[..])));
        assert_eq!(split(b"2026-11-24T14:54:39.4+01:00 \n").unwrap().1, b"\n");
        assert_eq!(split(b"no time\n"), None);
    }

    #[test]
    fn the_question_stays_behind_the_newest_frame() {
        let mut cursor = Cursor::default();
        for second in [100, 101, 100, 103, 102] {
            cursor.advance(second, 10);
        }
        assert_eq!((cursor.since(), cursor.frames()), (101, 3));
        assert_eq!(cursor.position, 50);
        cursor.advance(200, 1);
        assert_eq!((cursor.since(), cursor.frames()), (200, 1));
    }
}
