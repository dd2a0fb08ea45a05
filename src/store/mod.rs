//! What must outlive the engine: projects, specs, states and history, in one SQLite file.
//!
//! The database is in write-ahead mode with `synchronous = NORMAL`: a commit is a plain write to the
//! log, without an fsync. It survives the kill of any of our processes, which is what matters, since
//! after a loss of power nothing of what is recorded here runs any more; and a file that was torn by
//! one is still consistent (ADR 0002).
//!
//! ```text
//!   supervisor ── Batch (everything that one round of inputs changed) ──▶ one transaction ──▶ effects
//!                                                                              │ at calm moments
//!   state.db.backup-1, -2 ◀── a whole copy ────────────────────────────────────┤
//!   state.db              ◀── what is in the log, when it is long ─────────────┘
//! ```
//!
//! Invariants: a batch is committed whole or not at all, and before its effects are performed, so that
//! what runs is never unknown to the store (S38). Times of the monotonic clock are only valid together
//! with the boot id that is stored beside them. Secrets are stored as references (S39).
//!
//! Failure paths: a file that is no database, is damaged or cut short is moved aside and said to be so,
//! and the last good copy takes its place (see `backup`), an empty one if there is none. A layout that
//! is newer than this program is refused untouched, an older one is brought up to date (see `open`). A
//! write that fails (disk full) leaves the old state intact and is the caller's to report.
//!
//! Deliberately absent: caches, and any interpretation of what is stored. What waits for the disk is done elsewhere,
//! as long as that keeps up (see `checkpoint`).

pub mod backup;
mod batch;
pub mod checkpoint;
mod events;
mod open;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::crash;
use crate::home::HomeError;
use crate::machine::Component;
use crate::model::InstanceId;
use crate::model::spec::ComponentSpec;
use backup::Committed;

pub use backup::copy;
pub use batch::{Batch, RowId};
pub use events::{EventFilter, EventRecord, NewEvent};
pub use open::{LAYOUT, Opened};

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
    /// Something in its place is not to be used.
    #[error(transparent)]
    Unsafe(#[from] HomeError),
    /// A file beside it could not be moved, copied or removed.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be copied.
    #[error("cannot copy the state to {path}: {source}")]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It was written by a newer stigmer. It is untouched.
    #[error(
        "the state {path} has layout {found}, written by {writer}; this is stigmer {}, which knows \
         layouts up to {LAYOUT}. Nothing was touched: install the newer stigmer again, or put a copy \
         of the older state ({path}.layout-N) in its place",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The stigmer that wrote it.
        writer: String,
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
    /// Components of it are yet to be forgotten, or replicas to be replaced: the next engine has to look at the
    /// manifest for what was begun, though it has not changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_transit: bool,
    /// Somebody has asked for its end, and it is forgotten with its last component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Departure>,
}

/// What goes with the last component of a project.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Departure {
    /// It had containers, so the networks that were made for them go as well.
    pub containers: bool,
    /// The volumes as well.
    pub volumes: bool,
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

/// What a batch has become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The identifiers of its events.
    pub events: std::ops::Range<u64>,
    /// The rows of the components that were put whole, in their order.
    pub rows: Vec<RowId>,
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    committed: watch::Sender<Committed>,
}

impl Store {
    /// Tells what is committed, until the store is gone.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Committed> {
        self.committed.subscribe()
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
            match serde_json::from_slice(data.as_bytes()) {
                Ok(project) => {
                    snapshot.projects.insert(name, project);
                }
                Err(error) => snapshot.unreadable.push(format!("project {name}: {error}")),
            }
        }
        Ok(())
    }

    fn load_components(&self, snapshot: &mut Snapshot) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT project, component, replica, spec, state FROM specs JOIN states USING (id)
                 ORDER BY project, component, replica",
        )?;
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
                None => serde_json::from_slice(spec.as_bytes()).map(Arc::new),
            }
            .and_then(|known| Ok((known, serde_json::from_slice::<Component>(state.as_bytes())?)));
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

    /// Commits a batch: all of it, or nothing.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<Written, StoreError> {
        if batch.is_empty() {
            return Ok(Written { events: 0..0, rows: Vec::new() });
        }
        let transaction = self.connection.transaction().map_err(StoreError::Write)?;
        let rows = batch.write(&transaction)?;
        crash::point("written and not committed");
        let end = transaction.last_insert_rowid().unsigned_abs() + 1;
        transaction.commit().map_err(StoreError::Write)?;
        crash::point("committed");
        self.committed.send_modify(|committed| {
            committed.batches += 1;
            committed.declarations += u64::from(batch.declares());
            committed.log_pages = checkpoint::pages();
        });
        Ok(Written { events: end - batch.events.len() as u64..end, rows })
    }
}

#[cfg(test)]
mod tests;
