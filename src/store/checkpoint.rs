//! What the log of the database holds is brought into the database while nobody waits for it.
//!
//! ```text
//!   commit ─▶ so many pages are in the log ─▶ a second ─▶ another thread: checkpoint
//! ```
//!
//! By itself SQLite does that as part of a commit, which then waits for the disk twice: some hundredths of a
//! second, in the middle of a storm of crashes as likely as not. Another connection does it instead, and commits go
//! on meanwhile. Once all of it was brought in, the next commit begins the log anew.
//!
//! Failure paths: where it fails or cannot go to the end, because a copy is being made, it is tried again
//! after the next commit. Where commits never pause, or fill the log faster than it is copied, one of them brings it in
//! itself, and waits.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

use super::StoreError;
use super::backup::Committed;

/// Pages in the log from which on it is brought in: what SQLite takes by itself, 4 MiB.
const MANY: u32 = 1_000;

/// Pages at which a commit does it itself, 16 MiB: while there is no end of commits, another one always comes after the
/// copy, and the log goes on. What was copied already is not copied again.
const MOST: i32 = 4_000;

/// How often in a row it is brought in, as long as something was added meanwhile.
const PASSES: u32 = 3;

/// Whoever has filled the log is to be done with it first, unless that fills it once more.
const DELAY: Duration = Duration::from_secs(1);

thread_local! {
    /// Pages in the log after the last commit of this thread: SQLite's hook has no place of its own.
    static PAGES: Cell<u32> = const { Cell::new(0) };
}

/// From now on commits of this connection leave the log as it is, and note its length.
pub(super) fn watch(connection: &Connection) {
    connection.wal_hook(Some(|log, pages| {
        PAGES.set(u32::try_from(pages).unwrap_or(0));
        if pages >= MOST {
            // A failure is met again by the next commit; this one is made.
            let _ = log.checkpoint();
        }
        Ok(())
    }));
}

/// How many pages were in the log after the last commit of this thread.
pub(super) fn pages() -> u32 {
    PAGES.get()
}

/// Keeps the log of the database at `path` short until the store is gone.
pub async fn keep(path: PathBuf, mut committed: watch::Receiver<Committed>) {
    let file = identity(&path).ok();
    let mut has_failed = false;
    while committed.changed().await.is_ok() {
        if committed.borrow_and_update().log_pages < MANY {
            continue;
        }
        let is_longer = committed.wait_for(|committed| committed.log_pages >= 2 * MANY);
        let _ = tokio::time::timeout(DELAY, is_longer).await;
        // What was committed meanwhile is brought in as well.
        committed.mark_unchanged();
        let database = path.clone();
        let Ok(made) = crate::blocking::spawn(move || make(&database, file)).await else { return };
        if let Err(error) = &made
            && !has_failed
        {
            tracing::warn!("the log of the state grows: {error}");
        }
        has_failed = made.is_err();
    }
}

/// Which file has this name.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Brings as much of the log into the database as nobody needs there, and waits for the disk. Another file that
/// somebody has put in the place of the one that is open is left alone: the log is not its own.
pub(super) fn make(path: &Path, file: Option<(u64, u64)>) -> Result<(), StoreError> {
    let is_same = |found| {
        if Some(found) == file { Ok(()) } else { Err(io::Error::other("another file is there")) }
    };
    identity(path).and_then(is_same).map_err(|source| StoreError::File {
        what: "write to the database",
        path: path.to_owned(),
        source,
    })?;
    connect(path).and_then(|connection| bring_in(&connection)).map_err(StoreError::Write)
}

/// Another connection to a database that is there.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

fn bring_in(connection: &Connection) -> rusqlite::Result<()> {
    let mut length = None;
    for _ in 0..PASSES {
        // Whether somebody was in its way, pages in the log, pages that were brought in.
        let now: i64 =
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
        if length.replace(now) == Some(now) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;
    use crate::store::{Batch, NewEvent, Store};

    fn event() -> NewEvent {
        NewEvent {
            at: 0,
            project: "p".into(),
            component: "api".into(),
            replica: 0,
            kind: "ready".into(),
            severity: Severity::Info,
            message: "x".repeat(4_000),
        }
    }

    /// Commits until the log is long; gives how many pages are in it.
    fn fill(store: &mut Store) -> u32 {
        let events = vec![event(); 100];
        for _ in 0..100 {
            let mut batch = Batch::default();
            batch.events(&events);
            store.commit(&batch).unwrap();
            let pages = store.committed().borrow().log_pages;
            if pages >= MANY {
                return pages;
            }
        }
        panic!("the log stays short: {:?}", store.committed().borrow());
    }

    #[test]
    fn a_commit_leaves_the_log_and_it_begins_anew_once_it_was_brought_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(fill(&mut store) < 2 * MANY);
        assert_eq!(fs::read(&path).unwrap(), before, "no commit has touched the database");
        make(&path, identity(&path).ok()).unwrap();
        assert_ne!(fs::read(&path).unwrap(), before);
        let events = [event()];
        let mut batch = Batch::default();
        batch.events(&events);
        store.commit(&batch).unwrap();
        let pages = store.committed().borrow().log_pages;
        assert!((1..20).contains(&pages), "{pages} pages");
    }

    #[test]
    fn commits_go_on_while_the_log_is_brought_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path).unwrap();
        let writer = std::thread::spawn(move || {
            let events = vec![event(); 100];
            for _ in 0..60 {
                let mut batch = Batch::default();
                batch.events(&events);
                store.commit(&batch).unwrap();
            }
            store
        });
        while !writer.is_finished() {
            make(&path, identity(&path).ok()).unwrap();
        }
        let store = writer.join().unwrap();
        let kept = store.events(&crate::store::EventFilter::default()).unwrap();
        assert!(kept.windows(2).all(|pair| pair[0].id + 1 == pair[1].id), "none is lost");
        assert_eq!(kept.len(), 60 * 100);
        // All of it is in the file as well.
        drop(store);
        assert!(!crate::home::beside(&path, "-wal").exists());
        let (store, opened) = Store::open(&path).unwrap();
        assert_eq!(opened, crate::store::Opened::Existing);
        assert_eq!(store.events(&crate::store::EventFilter::default()).unwrap(), kept);
    }

    #[test]
    fn another_file_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path).unwrap();
        let file = identity(&path).ok();
        fill(&mut store);
        let other = folder.path().join("other");
        super::super::copy(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
        let before = fs::read(&path).unwrap();
        let refused = make(&path, file).unwrap_err().to_string();
        assert!(refused.contains("another file is there"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[tokio::test]
    async fn a_long_log_is_brought_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path).unwrap();
        let kept = tokio::spawn(keep(path.clone(), store.committed()));
        let before = fs::read(&path).unwrap();
        fill(&mut store);
        let brought_in = async {
            while fs::read(&path).unwrap() == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), brought_in).await.unwrap();
        drop(store);
        kept.await.unwrap();
    }
}
