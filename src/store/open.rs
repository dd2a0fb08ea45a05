//! Opening the database: finding it whole, or mending what can be mended.
//!
//! ```text
//!   state.db ─┬─ whole ──────────┬─ our layout ───────────────────────────────▶ open
//!             │                  ├─ older ── copy to state.db.layout-N, steps ─▶ open
//!             │                  └─ newer ── refused, untouched
//!             └─ damaged, empty, gone ── aside ── last good copy, or empty ──▶ open
//! ```
//!
//! Layouts. [`STEPS`] lead from each layout to the next; a step is never changed once it was released.
//! `user_version` is the layout, and the table `meta` (key, value) keeps its shape in all of them, so
//! that a program that is too old can still say by whom a state was written.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use tokio::sync::watch;

use super::backup::{remove_log, restore};
use super::{Store, StoreError};
use crate::home::{beside, own_file};

/// The layout that this program writes. Older ones are brought up to it, one step for each.
pub const LAYOUT: i64 = 6;

const _: () = assert!(STEPS.len() == 6, "a step for each layout");

/// How each layout is made from the one before it; the first from nothing.
const STEPS: [&str; 6] = [
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
     CREATE TABLE projects (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
     CREATE TABLE components (
         project TEXT NOT NULL, component TEXT NOT NULL, replica INTEGER NOT NULL,
         spec TEXT NOT NULL, state TEXT NOT NULL,
         PRIMARY KEY (project, component, replica)
     ) WITHOUT ROWID;
     CREATE TABLE events (
         id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL,
         project TEXT NOT NULL, component TEXT NOT NULL, replica INTEGER NOT NULL,
         kind TEXT NOT NULL, severity TEXT NOT NULL, message TEXT NOT NULL
     );
     CREATE INDEX events_of ON events (project, component, id);",
    // From here on a state says by whom it was written, for programs that are too old for it.
    "INSERT INTO meta VALUES ('written_by', 'a stigmer of layout 1');",
    // A run is no longer a process or nothing: it has a body. All launches were the keeper's.
    "UPDATE components SET state = json_remove(json_set(state, '$.phase.alive.run.body',
         json(CASE WHEN json_extract(state, '$.phase.alive.run.pid') IS NULL THEN '\"external\"'
              ELSE json_object('process', json_object('pid', json_extract(state, '$.phase.alive.run.pid')))
              END)), '$.phase.alive.run.pid')
         WHERE json_type(state, '$.phase.alive.run') IS NOT NULL;
     UPDATE components SET state = json_remove(json_set(state, '$.phase.ending.run.body',
         json(CASE WHEN json_extract(state, '$.phase.ending.run.pid') IS NULL THEN '\"unseen\"'
              ELSE json_object('process', json_object('pid', json_extract(state, '$.phase.ending.run.pid')))
              END)), '$.phase.ending.run.pid')
         WHERE json_type(state, '$.phase.ending.run') IS NOT NULL;
     UPDATE components SET state = json_set(state, '$.phase.launching.means', 'keeper')
         WHERE json_type(state, '$.phase.launching') IS NOT NULL;",
    // A state changes often and its spec does not, so each has a place of its own: a change writes one
    // page, where it wrote all of both. The numbers of events never run out and the newest one is never
    // removed, so nobody has to keep the highest.
    "CREATE TABLE specs (
         id INTEGER PRIMARY KEY,
         project TEXT NOT NULL, component TEXT NOT NULL, replica INTEGER NOT NULL, spec TEXT NOT NULL,
         UNIQUE (project, component, replica)
     );
     CREATE TABLE states (id INTEGER PRIMARY KEY REFERENCES specs ON DELETE CASCADE, state TEXT NOT NULL);
     INSERT INTO specs (project, component, replica, spec)
         SELECT project, component, replica, spec FROM components;
     INSERT INTO states SELECT id, state FROM specs JOIN components USING (project, component, replica);
     DROP TABLE components;
     CREATE TABLE history (
         id INTEGER PRIMARY KEY, at INTEGER NOT NULL,
         project TEXT NOT NULL, component TEXT NOT NULL, replica INTEGER NOT NULL,
         kind TEXT NOT NULL, severity TEXT NOT NULL, message TEXT NOT NULL
     );
     INSERT INTO history SELECT * FROM events;
     DROP TABLE events;
     ALTER TABLE history RENAME TO events;
     CREATE INDEX events_of ON events (project, component, id);",
    // States are written without what is as in a new component, which older programs miss. Those that are
    // there are understood as before.
    "",
    // Each event was written into the index at another place, so into a page more. Who asks for the events of
    // one component has all that are kept looked through, which takes a few milliseconds.
    "DROP INDEX events_of;",
];

/// How the store was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// As it was left.
    Existing,
    /// It was of an older layout, and has been brought up to date.
    Migrated {
        /// The layout that it had.
        from: i64,
        /// A copy of it as it was.
        kept: PathBuf,
    },
    /// It was damaged or gone; the last good copy has taken its place.
    Restored {
        /// Which copy.
        from: PathBuf,
        /// Where the damaged file is now, if there was one.
        kept: Option<PathBuf>,
    },
    /// It was damaged, and no good copy is there; an empty one has taken its place.
    Replaced {
        /// Where the damaged file is now.
        kept: PathBuf,
    },
}

impl Store {
    /// Opens the store at `path`, or makes it.
    pub fn open(path: &Path) -> Result<(Self, Opened), StoreError> {
        own_file(path)?;
        for name in ["-wal", "-shm"] {
            own_file(&beside(path, name))?;
        }
        // One without a layout is new, or has lost all that was in it: then there is a copy.
        let damage = match layout(path).and_then(|found| match found {
            0 => Ok(None),
            _ => Self::connect(path).map(Some),
        }) {
            Ok(Some(whole)) => return Ok(whole),
            Ok(None) => false,
            Err(StoreError::Open { source, .. }) if is_damage(&source) => true,
            Err(error) => return Err(error),
        };
        let kept = if damage { Some(move_aside(path)?) } else { None };
        let restored = restore(path)?;
        let (store, opened) = Self::connect(path)?;
        Ok((
            store,
            match (restored, kept) {
                (Some(from), kept) => Opened::Restored { from, kept },
                (None, Some(kept)) => Opened::Replaced { kept },
                (None, None) => opened,
            },
        ))
    }

    fn connect(path: &Path) -> Result<(Self, Opened), StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        // Looked at before anything is written, for a newer one is to be left as it is.
        let found = layout(path)?;
        make_private(path);
        let mut connection = Connection::open(path).map_err(open)?;
        // A small page cache: the tables are read once, and written to.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -256;
                 PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 1048576;",
            )
            .map_err(open)?;
        super::checkpoint::watch(&connection);
        check(&connection).map_err(open)?;
        let opened = match found {
            0 => Opened::Fresh,
            LAYOUT => Opened::Existing,
            from => {
                let kept = beside(path, &format!(".layout-{from}"));
                super::copy(path, &kept)?;
                Opened::Migrated { from, kept }
            }
        };
        bring_up_to_date(&mut connection, found).map_err(open)?;
        // SQLite cannot close a second descriptor of a file while a first one holds locks, so it keeps it for the
        // next copy, or the next checkpoint. Were it taken by the first of these, that might be the last
        // descriptor there is, for ever.
        layout(path)?;
        super::checkpoint::connect(path).map(drop).map_err(open)?;
        Ok((Self { connection, committed: watch::Sender::default() }, opened))
    }
}

/// The layout of a database, 0 of none; refused if this program does not know it.
pub(super) fn layout(path: &Path) -> Result<i64, StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    if !path.exists() {
        return Ok(0);
    }
    // One that may write would tidy up at its end.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(open)?;
    let found = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(open)?;
    if (0..=LAYOUT).contains(&found) {
        return Ok(found);
    }
    let writer = connection
        .query_row("SELECT value FROM meta WHERE key = 'written_by'", [], |row| row.get(0))
        .optional();
    let writer = writer.ok().flatten().unwrap_or_else(|| "an unknown program".to_owned());
    Err(StoreError::Newer { path: path.to_owned(), found, writer })
}

/// Whether all of it is in order.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(corrupt, Some(found)))
}

/// Takes all steps that are missing, or none.
fn bring_up_to_date(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let writer = format!("stigmer {}", env!("CARGO_PKG_VERSION"));
    let known: Option<String> = if found == LAYOUT {
        connection
            .query_row("SELECT value FROM meta WHERE key = 'written_by'", [], |row| row.get(0))
            .optional()?
    } else {
        None
    };
    if known.as_ref() == Some(&writer) {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(STEPS.len())) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction
        .execute("INSERT OR REPLACE INTO meta VALUES ('written_by', ?1)", params![writer])?;
    transaction.commit()
}

/// Makes the empty file, for SQLite would let others read it; its log gets the same mode. What goes
/// wrong here, SQLite meets again and says.
fn make_private(path: &Path) {
    drop(fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path));
}

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Moves a damaged database away, with its log, to the first name that is free.
fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source: io::Error| StoreError::File {
        what: "move aside the damaged state",
        path: path.to_owned(),
        source,
    };
    let kept = (1_u32..1_000)
        .map(|number| beside(path, &format!(".damaged-{number}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| beside(path, ".damaged"));
    fs::rename(path, &kept).map_err(failed)?;
    // Its log belongs to it, and to nothing that takes its place.
    let log = beside(path, "-wal");
    if log.exists() {
        fs::rename(&log, beside(&kept, "-wal")).map_err(failed)?;
    }
    remove_log(path)?;
    Ok(kept)
}
