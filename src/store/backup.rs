//! Whole copies of the database, for the day on which it is found damaged.
//!
//! ```text
//!   commit ─▶ told what it changed ─▶ a calm moment ─▶ copy ─▶ backup-1 ─▶ backup-2
//! ```
//!
//! A copy is made soon after something was declared: what a person has ordered is in one before long.
//! States change all the time, and what runs is known to the keeper and by its records; so for them a
//! copy now and then is enough. Where nothing is committed nothing is copied: an idle daemon sleeps.
//!
//! Invariants: a copy is complete before it has its name. The one before is kept, so that there is
//! always a whole one.
//!
//! Failure paths: a copy that cannot be made is told, and the old ones stay. One that is damaged itself
//! is passed over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};
use tokio::sync::watch;

use super::StoreError;
use super::open::{check, is_damage, layout};
use crate::clock::{instant_of, now};
use crate::crash;
use crate::home::{beside, own_file};
use crate::model::Time;

/// Nothing was declared for this long: a calm moment.
const CALM: Duration = Duration::from_secs(1);
/// And at the latest after this, where something is declared all the time.
const LATEST: Duration = Duration::from_secs(10);
/// Between two copies that only states are the reason for.
const NOW_AND_THEN: Duration = Duration::from_secs(600);

/// How many copies are kept.
const KEPT: u32 = 2;

/// What was committed so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Committed {
    /// Batches of any kind.
    pub batches: u64,
    /// Those that declared something: a project or a component is new, changed or gone.
    pub declarations: u64,
    /// Pages in the log after the last one.
    pub log_pages: u32,
}

/// When the next copy is made. Pure.
#[derive(Debug, Default)]
struct Plan {
    known: Committed,
    copied: Option<Time>,
    /// The first thing that is in no copy yet, and the last declaration.
    uncopied: Option<(Time, Time)>,
}

impl Plan {
    /// So much is committed by now.
    fn note(&mut self, now: Time, committed: Committed) {
        let is_declaration = committed.declarations != self.known.declarations;
        let is_time = self.copied.is_none_or(|at| now.since(at) >= NOW_AND_THEN);
        self.known = committed;
        self.uncopied = match self.uncopied {
            Some((first, _)) if is_declaration => Some((first, now)),
            None if is_declaration || is_time => Some((now, now)),
            as_before => as_before,
        };
    }

    /// When a copy is to be made, unless something is committed before.
    fn due(&self) -> Option<Time> {
        self.uncopied.map(|(first, last)| (last + CALM).min(first + LATEST))
    }

    /// A copy was made, or tried.
    fn copied(&mut self, now: Time) {
        self.copied = Some(now);
        self.uncopied = None;
    }
}

/// Keeps copies of the database at `path` until the store is gone.
pub async fn keep(path: PathBuf, mut committed: watch::Receiver<Committed>) {
    let mut plan = Plan::default();
    loop {
        let due = plan.due();
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(instant_of(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            alive = committed.changed() => {
                if alive.is_err() {
                    return;
                }
                plan.note(now(), *committed.borrow_and_update());
            }
            () = wait => {
                let database = path.clone();
                let Ok(made) = crate::blocking::spawn(move || make(&database)).await else {
                    return;
                };
                if let Err(error) = made {
                    tracing::warn!("no backup of the state was made: {error}");
                }
                plan.copied(now());
            }
        }
    }
}

/// Makes a copy, and keeps the one before.
pub fn make(path: &Path) -> Result<(), StoreError> {
    let draft = beside(path, ".backup-draft");
    copy(path, &draft)?;
    let failed = |source: io::Error| StoreError::File {
        what: "keep a backup of the state as",
        path: name(path, 1),
        source,
    };
    // On disk before it takes the place of a good one.
    fs::File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
    for number in (1..KEPT).rev() {
        match fs::rename(name(path, number), name(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    crash::point("backup made");
    fs::rename(&draft, name(path, 1)).map_err(failed)
}

/// Copies the database as it is now, log included, while it is in use. What is at `to` is replaced.
pub fn copy(path: &Path, to: &Path) -> Result<(), StoreError> {
    own_file(to)?;
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::File { what: "replace", path: to.to_owned(), source: error });
        }
        _ => {}
    }
    let failed = |source| StoreError::Copy { path: to.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    connection.pragma_update(None, "cache_size", -256).map_err(failed)?;
    // Made with the mask of the process, which lets nobody else read it.
    let text = to.to_string_lossy();
    let copied = connection.execute("VACUUM INTO ?1", params![text]);
    copied.map(drop).map_err(|source| {
        // Half a copy is of no use, and the disk may be full.
        let _ = fs::remove_file(to);
        failed(source)
    })
}

/// Puts the newest copy that is whole in the place of the database, which is not there; says which.
pub(super) fn restore(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    remove_log(path)?;
    for candidate in (1..=KEPT).map(|number| name(path, number)) {
        own_file(&candidate)?;
        if !candidate.exists() || !is_whole(&candidate)? {
            continue;
        }
        let failed = |source: io::Error| StoreError::File {
            what: "restore the state from",
            path: candidate.clone(),
            source,
        };
        let draft = beside(path, ".restored");
        fs::copy(&candidate, &draft).map_err(failed)?;
        fs::File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, path).map_err(failed)?;
        return Ok(Some(candidate));
    }
    Ok(None)
}

/// Whether a copy can be used. One of a newer layout is as good as any, and refused for that.
fn is_whole(copy: &Path) -> Result<bool, StoreError> {
    match layout(copy) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(StoreError::Open { source, .. }) if is_damage(&source) => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(Connection::open(copy).and_then(|connection| check(&connection)).is_ok())
}

/// Removes the write-ahead log of a database that is not there: it would be taken for the log of
/// whatever comes in its place.
pub(super) fn remove_log(path: &Path) -> Result<(), StoreError> {
    for suffix in ["-wal", "-shm"] {
        let log = beside(path, suffix);
        match fs::remove_file(&log) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::File { what: "remove", path: log, source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn name(path: &Path, number: u32) -> PathBuf {
    beside(path, &format!(".backup-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_secs(1_000 + seconds)
    }

    #[test]
    fn a_copy_is_made_once_it_is_calm_and_not_much_later() {
        let mut plan = Plan::default();
        assert_eq!(plan.due(), None);
        let mut committed = Committed { batches: 1, declarations: 1, log_pages: 0 };
        plan.note(at(0), committed);
        assert_eq!(plan.due(), Some(at(1)));
        plan.copied(at(1));
        assert_eq!(plan.due(), None, "with nothing committed nothing is due, ever");
        // States alone are no reason, for some time.
        committed.batches += 1;
        plan.note(at(300), committed);
        assert_eq!(plan.due(), None);
        committed.batches += 1;
        plan.note(at(601), committed);
        assert_eq!(plan.due(), Some(at(602)));
        // What is declared meanwhile is waited for, but not for ever.
        for second in 601..615 {
            committed.declarations += 1;
            plan.note(at(second), committed);
            assert_eq!(plan.due(), Some(at((second + 1).min(611))));
        }
        plan.copied(at(616));
        committed.declarations += 1;
        plan.note(at(617), committed);
        committed.batches += 1;
        plan.note(at(617), committed);
        assert_eq!(plan.due(), Some(at(618)), "a state does not put it off");
    }
}
