//! What one round of inputs changed, as rows.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::events::{self, NewEvent};
use super::{ProjectRecord, StoreError};
use crate::machine::Component;
use crate::model::InstanceId;

/// Everything that one round of inputs changed. What is large is borrowed and made into text row by row:
/// a start of thousands would else need all of their text at one time.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    meta: Vec<(&'static str, String)>,
    projects: Vec<(&'a str, Option<&'a ProjectRecord>)>,
    components: Vec<(&'a InstanceId, Row<'a>)>,
    pub(super) events: &'a [NewEvent],
}

/// Where the store has a component; the same for as long as the component is declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowId(i64);

/// What happens to a component's rows.
#[derive(Debug)]
enum Row<'a> {
    Put(&'a Component),
    State(RowId, &'a Component),
    Remove,
}

impl<'a> Batch<'a> {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
            && self.projects.is_empty()
            && self.components.is_empty()
            && self.events.is_empty()
    }

    /// Whether something was declared: a project or a component is new, changed or gone.
    pub(super) fn declares(&self) -> bool {
        let is_declaration = |row: &Row<'_>| match row {
            Row::Put(_) | Row::Remove => true,
            Row::State(..) => false,
        };
        !self.projects.is_empty() || self.components.iter().any(|(_, row)| is_declaration(row))
    }

    /// The boot that the states of this batch belong to.
    pub fn boot_id(&mut self, boot_id: &str) {
        self.meta.push(("boot_id", boot_id.to_owned()));
    }

    /// Run identifiers below this one were handed out.
    pub fn next_run(&mut self, next_run: u64) {
        self.meta.push(("next_run", next_run.to_string()));
    }

    /// A project has another record.
    pub fn put_project(&mut self, name: &'a str, record: &'a ProjectRecord) {
        self.projects.push((name, Some(record)));
    }

    /// A project is gone.
    pub fn remove_project(&mut self, name: &'a str) {
        self.projects.push((name, None));
    }

    /// A component is new, or has a new spec.
    pub fn put_component(&mut self, instance: &'a InstanceId, component: &'a Component) {
        self.components.push((instance, Row::Put(component)));
    }

    /// A component that is known has changed its state: the one in this row.
    pub fn put_state(&mut self, instance: &'a InstanceId, row: RowId, component: &'a Component) {
        self.components.push((instance, Row::State(row, component)));
    }

    /// A component is gone.
    pub fn remove_component(&mut self, instance: &'a InstanceId) {
        self.components.push((instance, Row::Remove));
    }

    /// Something happened, in this order.
    pub fn events(&mut self, events: &'a [NewEvent]) {
        self.events = events;
    }

    /// Gives the rows of those that were put whole, in their order.
    pub(super) fn write(&self, connection: &Connection) -> Result<Vec<RowId>, StoreError> {
        self.write_meta(connection).map_err(StoreError::Write)?;
        for (name, record) in &self.projects {
            let data = record.map(serde_json::to_string).transpose().map_err(StoreError::Encode)?;
            write_project(connection, name, data.as_deref()).map_err(StoreError::Write)?;
        }
        let (mut spec, mut state) = (Vec::new(), Vec::new());
        let mut rows = Vec::new();
        for (instance, row) in &self.components {
            if let Row::Put(component) | Row::State(_, component) = row {
                encode(component, &mut state)?;
            }
            if let Row::Put(component) = row {
                encode(&**component.spec(), &mut spec)?;
            }
            let written = write_row(connection, instance, row, &spec, &state);
            rows.extend(written.map_err(StoreError::Write)?);
        }
        events::write(connection, self.events).map_err(StoreError::Write)?;
        Ok(rows)
    }

    fn write_meta(&self, connection: &Connection) -> rusqlite::Result<()> {
        for (key, value) in &self.meta {
            connection
                .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
                .execute(params![key, value])?;
        }
        Ok(())
    }
}

fn write_project(connection: &Connection, name: &str, data: Option<&str>) -> rusqlite::Result<()> {
    match data {
        Some(data) => connection
            .prepare_cached("INSERT OR REPLACE INTO projects VALUES (?1, ?2)")?
            .execute(params![name, data])?,
        None => connection
            .prepare_cached("DELETE FROM projects WHERE name = ?1")?
            .execute(params![name])?,
    };
    Ok(())
}

fn encode(value: &impl Serialize, text: &mut Vec<u8>) -> Result<(), StoreError> {
    text.clear();
    serde_json::to_writer(text, value).map_err(StoreError::Encode)
}

/// Gives the row of what was put whole.
fn write_row(
    connection: &Connection,
    instance: &InstanceId,
    row: &Row<'_>,
    spec: &[u8],
    state: &[u8],
) -> rusqlite::Result<Option<RowId>> {
    // JSON is always UTF-8.
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let (project, component) = (&*instance.project, &*instance.component);
    let replica = instance.replica;
    match row {
        Row::Put(_) => {
            let id: i64 = connection
                .prepare_cached(
                    "INSERT INTO specs (project, component, replica, spec) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET spec = excluded.spec RETURNING id",
                )?
                .query_row(params![project, component, replica, text(spec)], |row| row.get(0))?;
            connection
                .prepare_cached(
                    "INSERT INTO states VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET state = excluded.state",
                )?
                .execute(params![id, text(state)])?;
            return Ok(Some(RowId(id)));
        }
        Row::State(RowId(id), _) => {
            connection
                .prepare_cached("UPDATE states SET state = ?2 WHERE id = ?1")?
                .execute(params![id, text(state)])?;
        }
        Row::Remove => {
            connection
                .prepare_cached(
                    "DELETE FROM specs WHERE project = ?1 AND component = ?2 AND replica = ?3",
                )?
                .execute(params![project, component, replica])?;
        }
    }
    Ok(None)
}
