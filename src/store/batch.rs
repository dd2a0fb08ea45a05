//! What one round of inputs changed, as rows.

use rusqlite::{Connection, params};

use super::events::{self, NewEvent};
use super::{ProjectRecord, StoreError};
use crate::machine::Component;
use crate::model::InstanceId;

/// Everything that one round of inputs changed, already in the form in which it is written.
#[derive(Debug, Default)]
pub struct Batch {
    meta: Vec<(&'static str, String)>,
    projects: Vec<(String, Option<String>)>,
    components: Vec<(InstanceId, Row)>,
    pub(super) events: Vec<NewEvent>,
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

    /// Whether something was declared: a project or a component is new, changed or gone.
    pub(super) fn declares(&self) -> bool {
        let is_declaration = |row: &Row| match row {
            Row::Put { .. } | Row::Remove => true,
            Row::State(_) => false,
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

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
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
