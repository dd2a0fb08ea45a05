//! What must outlive the engine: projects, specs, states and history, in one SQLite file.
//!
//! The database is in write-ahead mode with `synchronous = NORMAL`: a commit is a plain write to the
//! log, without an fsync. It survives the kill of any of our processes, which is what matters, since
//! after a loss of power nothing of what is recorded here runs any more; and a file that was torn by
//! one is still consistent (ADR 0002).
//!
//! ```text
//!   supervisor ── Batch (everything that one round of inputs changed) ──▶ one transaction ──▶ effects
//! ```
//!
//! Invariants: a batch is committed whole or not at all, and before its effects are performed, so that
//! what runs is never unknown to the store (S38). Times of the monotonic clock are only valid together
//! with the boot id that is stored beside them. Secrets are stored as references (S39).
//!
//! Failure paths: a file that is no database, or is damaged, is moved aside and said to be so, and an
//! empty one takes its place. A schema that is newer than this program is refused untouched. A write
//! that fails (disk full) leaves the old state intact and is the caller's to report.
//!
//! Deliberately absent: threads, caches, and any interpretation of what is stored.

mod events;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::machine::Component;
use crate::model::InstanceId;
use crate::model::spec::ComponentSpec;

pub use events::{EventFilter, EventRecord, NewEvent};

/// The layout that this program reads and writes.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
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
    CREATE INDEX events_of ON events (project, component, id);
";

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened.
    #[error("cannot open the state {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A damaged file could not be moved aside.
    #[error("the state {path} is damaged and cannot be moved aside: {source}")]
    MoveAside {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was written by a newer stigmer.
    #[error(
        "the state {path} has layout {found}, newer than this stigmer's {SCHEMA_VERSION}; use the newer stigmer"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// Reading failed.
    #[error("cannot read the state: {0}")]
    Read(#[source] rusqlite::Error),
    /// Writing failed; nothing was changed.
    #[error("cannot write the state: {0}")]
    Write(#[source] rusqlite::Error),
    /// A value could not be turned into text.
    #[error("cannot store a value: {0}")]
    Encode(#[source] serde_json::Error),
}

/// How the store was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// As it was left.
    Existing,
    /// It was damaged; an empty one has taken its place, and the damaged one is kept here.
    Replaced {
        /// Where the damaged file is now.
        kept: PathBuf,
    },
}

/// What is remembered of a project besides its components.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ProjectRecord {
    /// The manifest's absolute path.
    pub manifest: PathBuf,
    /// The variables of the apply that the manifest names.
    pub variables: BTreeMap<String, String>,
    /// PATH, LANG and TZ of the apply.
    pub base_env: BTreeMap<String, String>,
    /// The profiles of the apply.
    pub profiles: Vec<String>,
    /// The project name that the apply gave instead of the manifest's.
    pub name_override: Option<String>,
    /// Files whose change means another load.
    pub watched: Vec<PathBuf>,
    /// Digest of the manifest and its env files as they were loaded.
    pub sha256: String,
    /// How often the manifest was loaded with success.
    pub generation: u64,
    /// Unix nanoseconds of the last load with success.
    pub loaded_at: i64,
    /// Information lines for the status.
    pub info: Vec<(String, String)>,
}

/// Everything that is read when an engine starts.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The boot that the states' times belong to; `None` in an empty store.
    pub boot_id: Option<String>,
    /// The first run identifier that was never handed out.
    pub next_run: u64,
    /// By name.
    pub projects: BTreeMap<String, ProjectRecord>,
    /// Each instance with its spec and its state.
    pub components: Vec<(InstanceId, Arc<ComponentSpec>, Component)>,
    /// Rows that could not be understood, in words; they are left where they are.
    pub unreadable: Vec<String>,
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the store at `path`, or makes it.
    pub fn open(path: &Path) -> Result<(Self, Opened), StoreError> {
        let fresh = !path.exists();
        match Self::connect(path) {
            Ok(store) => Ok((store, if fresh { Opened::Fresh } else { Opened::Existing })),
            Err(StoreError::Open { source, .. }) if is_damage(&source) => {
                let kept = move_aside(path)?;
                Ok((Self::connect(path)?, Opened::Replaced { kept }))
            }
            Err(error) => Err(error),
        }
    }

    fn connect(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(open)?;
        // A small page cache: the tables are read once, and written to.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -256;
                 PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 1048576;",
            )
            .map_err(open)?;
        let check: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(open)?;
        if check != "ok" {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(open(rusqlite::Error::SqliteFailure(corrupt, Some(check))));
        }
        let found: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(open)?;
        match found {
            0 => {
                let transaction = connection.transaction().map_err(open)?;
                transaction.execute_batch(SCHEMA).map_err(open)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(open)?;
                transaction.commit().map_err(open)?;
            }
            SCHEMA_VERSION => {}
            found => return Err(StoreError::Newer { path: path.to_owned(), found }),
        }
        Ok(Self { connection })
    }

    /// Reads everything that an engine needs at its start.
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot {
            boot_id: self.meta("boot_id")?,
            next_run: self.meta("next_run")?.and_then(|text| text.parse().ok()).unwrap_or(1),
            ..Snapshot::default()
        };
        self.load_projects(&mut snapshot).map_err(StoreError::Read)?;
        self.load_components(&mut snapshot).map_err(StoreError::Read)?;
        Ok(snapshot)
    }

    fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(StoreError::Read)
    }

    fn load_projects(&self, snapshot: &mut Snapshot) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare("SELECT name, data FROM projects")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, data): (String, String) = (row.get(0)?, row.get(1)?);
            match serde_json::from_str(&data) {
                Ok(project) => {
                    snapshot.projects.insert(name, project);
                }
                Err(error) => snapshot.unreadable.push(format!("project {name}: {error}")),
            }
        }
        Ok(())
    }

    fn load_components(&self, snapshot: &mut Snapshot) -> rusqlite::Result<()> {
        let mut statement = self
            .connection
            .prepare("SELECT project, component, replica, spec, state FROM components")?;
        let mut rows = statement.query([])?;
        // Replicas of one component share their spec, as they did before.
        let mut last: Option<(String, Arc<ComponentSpec>)> = None;
        while let Some(row) = rows.next()? {
            let (project, component): (String, String) = (row.get(0)?, row.get(1)?);
            let instance = InstanceId::new(&project, &component, row.get(2)?);
            let (spec, state): (String, String) = (row.get(3)?, row.get(4)?);
            let shared = last.take().filter(|(text, _)| *text == spec).map(|(_, shared)| shared);
            let decoded = match shared {
                Some(shared) => Ok(shared),
                None => serde_json::from_str(&spec).map(Arc::new),
            }
            .and_then(|known| Ok((known, serde_json::from_str::<Component>(&state)?)));
            match decoded {
                Ok((known, component)) => {
                    last = Some((spec, known.clone()));
                    snapshot.components.push((instance, known, component));
                }
                Err(error) => snapshot.unreadable.push(format!("component {instance}: {error}")),
            }
        }
        Ok(())
    }

    /// Commits a batch: all of it, or nothing. Answers with the identifiers of its events.
    pub fn commit(&mut self, batch: &Batch) -> Result<std::ops::Range<u64>, StoreError> {
        if batch.is_empty() {
            return Ok(0..0);
        }
        let transaction = self.connection.transaction().map_err(StoreError::Write)?;
        batch.write(&transaction).map_err(StoreError::Write)?;
        let end = transaction.last_insert_rowid().unsigned_abs() + 1;
        transaction.commit().map_err(StoreError::Write)?;
        Ok(end - batch.events.len() as u64..end)
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Moves a damaged database away, with its log, to the first name that is free.
fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let kept = (1_u32..1_000)
        .map(|number| with(&format!(".damaged-{number}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| with(".damaged"));
    std::fs::rename(path, &kept)
        .map_err(|source| StoreError::MoveAside { path: path.to_owned(), source })?;
    for suffix in ["-wal", "-shm"] {
        let beside = with(suffix);
        if beside.exists() {
            std::fs::remove_file(&beside)
                .map_err(|source| StoreError::MoveAside { path: beside, source })?;
        }
    }
    Ok(kept)
}

/// Everything that one round of inputs changed, already in the form in which it is written.
#[derive(Debug, Default)]
pub struct Batch {
    meta: Vec<(&'static str, String)>,
    projects: Vec<(String, Option<String>)>,
    components: Vec<(InstanceId, Row)>,
    events: Vec<NewEvent>,
}

/// What happens to a component's row.
#[derive(Debug)]
enum Row {
    Put { spec: String, state: String },
    State(String),
    Remove,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
            && self.projects.is_empty()
            && self.components.is_empty()
            && self.events.is_empty()
    }

    /// The boot that the states of this batch belong to.
    pub fn boot_id(&mut self, boot_id: &str) {
        self.meta.push(("boot_id", boot_id.to_owned()));
    }

    /// Run identifiers below this one were handed out.
    pub fn next_run(&mut self, next_run: u64) {
        self.meta.push(("next_run", next_run.to_string()));
    }

    /// A project was applied or loaded again.
    pub fn put_project(&mut self, name: &str, record: &ProjectRecord) -> Result<(), StoreError> {
        let data = serde_json::to_string(record).map_err(StoreError::Encode)?;
        self.projects.push((name.to_owned(), Some(data)));
        Ok(())
    }

    /// A project is gone.
    pub fn remove_project(&mut self, name: &str) {
        self.projects.push((name.to_owned(), None));
    }

    /// A component is new, or has a new spec.
    pub fn put_component(
        &mut self,
        instance: &InstanceId,
        component: &Component,
    ) -> Result<(), StoreError> {
        let spec = serde_json::to_string(&**component.spec()).map_err(StoreError::Encode)?;
        let state = serde_json::to_string(component).map_err(StoreError::Encode)?;
        self.components.push((instance.clone(), Row::Put { spec, state }));
        Ok(())
    }

    /// A component that is known has changed its state.
    pub fn put_state(
        &mut self,
        instance: &InstanceId,
        component: &Component,
    ) -> Result<(), StoreError> {
        let state = serde_json::to_string(component).map_err(StoreError::Encode)?;
        self.components.push((instance.clone(), Row::State(state)));
        Ok(())
    }

    /// A component is gone.
    pub fn remove_component(&mut self, instance: &InstanceId) {
        self.components.push((instance.clone(), Row::Remove));
    }

    /// Something happened.
    pub fn event(&mut self, event: NewEvent) {
        self.events.push(event);
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        for (key, value) in &self.meta {
            connection
                .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
                .execute(params![key, value])?;
        }
        for (name, data) in &self.projects {
            match data {
                Some(data) => connection
                    .prepare_cached("INSERT OR REPLACE INTO projects VALUES (?1, ?2)")?
                    .execute(params![name, data])?,
                None => connection
                    .prepare_cached("DELETE FROM projects WHERE name = ?1")?
                    .execute(params![name])?,
            };
        }
        for (instance, row) in &self.components {
            let (project, component) = (&*instance.project, &*instance.component);
            let replica = instance.replica;
            match row {
                Row::Put { spec, state } => connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO components VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![project, component, replica, spec, state])?,
                Row::State(state) => connection
                    .prepare_cached(
                        "UPDATE components SET state = ?4
                         WHERE project = ?1 AND component = ?2 AND replica = ?3",
                    )?
                    .execute(params![project, component, replica, state])?,
                Row::Remove => connection
                    .prepare_cached(
                        "DELETE FROM components
                         WHERE project = ?1 AND component = ?2 AND replica = ?3",
                    )?
                    .execute(params![project, component, replica])?,
            };
        }
        events::write(connection, &self.events)
    }
}

#[cfg(test)]
mod tests;
