//! The history: the newest events are kept, the oldest go.

use rusqlite::{Connection, ToSql, params};

use super::{Store, StoreError};
use crate::model::{InstanceId, Severity};

/// How many events are kept. Old ones go in portions, so that not every event costs a deletion: each time
/// that a number is reached which can be divided by that of a portion.
const KEPT: i64 = 10_000;
const PORTION: i64 = 500;

/// An event to be written.
#[derive(Clone, PartialEq, Debug)]
pub struct NewEvent {
    /// Unix nanoseconds.
    pub at: i64,
    /// Whom it happened to: a project, with an instance or without.
    pub project: String,
    /// Empty for an event of the whole project.
    pub component: String,
    /// 0 for an event of the whole project.
    pub replica: u32,
    /// The stable word.
    pub kind: String,
    /// How loudly it is told.
    pub severity: Severity,
    /// In plain words.
    pub message: String,
}

/// An event that was written.
#[derive(Clone, PartialEq, Debug)]
pub struct EventRecord {
    /// Counted up, never used twice.
    pub id: u64,
    /// The event.
    pub event: NewEvent,
}

/// Which events are asked for. Everything that is absent does not filter.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct EventFilter {
    /// Only those of this project.
    pub project: Option<String>,
    /// Only those of this instance.
    pub instance: Option<InstanceId>,
    /// Only those with this word.
    pub kind: Option<String>,
    /// Only those after this id.
    pub after: Option<u64>,
    /// Only those that are not older than this, in Unix nanoseconds.
    pub since: Option<i64>,
    /// The last so many.
    pub limit: Option<u32>,
}

pub(super) fn write(connection: &Connection, events: &[NewEvent]) -> rusqlite::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO events (at, project, component, replica, kind, severity, message)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for event in events {
        statement.execute(params![
            event.at,
            event.project,
            event.component,
            event.replica,
            event.kind,
            severity_word(event.severity),
            event.message,
        ])?;
    }
    let newest = connection.last_insert_rowid();
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    if newest % PORTION < count {
        connection
            .prepare_cached("DELETE FROM events WHERE id <= ?1")?
            .execute(params![newest - KEPT])?;
    }
    Ok(())
}

impl Store {
    /// The events that a filter lets through, oldest first.
    pub fn events(&self, filter: &EventFilter) -> Result<Vec<EventRecord>, StoreError> {
        self.query_events(filter).map_err(StoreError::Read)
    }

    fn query_events(&self, filter: &EventFilter) -> rusqlite::Result<Vec<EventRecord>> {
        let mut conditions = vec!["1"];
        let mut values: Vec<(&str, &dyn ToSql)> = Vec::new();
        let after = filter.after.map(|id| i64::try_from(id).unwrap_or(i64::MAX));
        let limit = filter.limit.map_or(-1, i64::from);
        let names = filter.instance.as_ref().map(|instance| {
            (instance.project.to_string(), instance.component.to_string(), instance.replica)
        });
        if let Some(project) = &filter.project {
            conditions.push("project = :project");
            values.push((":project", project));
        }
        if let Some((project, component, replica)) = &names {
            conditions.push("project = :owner AND component = :component AND replica = :replica");
            values.push((":owner", project));
            values.push((":component", component));
            values.push((":replica", replica));
        }
        if let Some(kind) = &filter.kind {
            conditions.push("kind = :kind");
            values.push((":kind", kind));
        }
        if let Some(after) = &after {
            conditions.push("id > :after");
            values.push((":after", after));
        }
        if let Some(since) = &filter.since {
            conditions.push("at >= :since");
            values.push((":since", since));
        }
        values.push((":limit", &limit));
        let query = format!(
            "SELECT id, at, project, component, replica, kind, severity, message FROM events
             WHERE {} ORDER BY id DESC LIMIT :limit",
            conditions.join(" AND ")
        );
        let mut statement = self.connection.prepare_cached(&query)?;
        let mut found = statement
            .query_map(&*values, |row| {
                let severity: String = row.get(6)?;
                Ok(EventRecord {
                    id: row.get::<_, i64>(0)?.unsigned_abs(),
                    event: NewEvent {
                        at: row.get(1)?,
                        project: row.get(2)?,
                        component: row.get(3)?,
                        replica: row.get(4)?,
                        kind: row.get(5)?,
                        severity: severity_of(&severity),
                        message: row.get(7)?,
                    },
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        found.reverse();
        Ok(found)
    }
}

/// The word in the database and in the JSON output.
const fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// A word that is not known is told as loudly as can be, rather than hidden.
fn severity_of(word: &str) -> Severity {
    match word {
        "info" => Severity::Info,
        "warning" => Severity::Warning,
        _ => Severity::Error,
    }
}
