//! The end of whole projects: what is left to do once their last component is gone, also by the next engine.

use super::Supervisor;
use super::round::Round;
use super::telling::of_project;
use crate::machine::{Action, FleetInput};
use crate::model::{InstanceId, Severity, Time};
use crate::store::Departure;

/// What is left to do for a project once its last component is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    /// Nothing.
    Plain,
    /// The networks that were made for its containers are to be removed, and perhaps the volumes.
    Containers {
        /// Whether the volumes as well.
        volumes: bool,
    },
    /// They are being removed.
    Clearing,
}

impl Supervisor {
    /// From now on a project waits for its last component. The next engine is to know it, too.
    pub(super) fn leave(&mut self, name: String, volumes: bool, round: &mut Round) {
        let leaving = self.leaving_of(&name, volumes);
        if let Some(project) = self.projects.get_mut(&name) {
            project.record.leaving = match leaving {
                Leaving::Plain => Some(Departure::default()),
                Leaving::Containers { volumes } => Some(Departure { containers: true, volumes }),
                // It is noted.
                Leaving::Clearing => project.record.leaving,
            };
            round.projects.insert(name.clone());
        }
        self.leaving.insert(name, leaving);
    }

    /// Goes on with what the last engine has begun: the end of whole projects.
    pub(super) fn go_on_leaving(&mut self, at: Time, round: &mut Round) {
        for (name, project) in &self.projects {
            let Some(Departure { containers, volumes }) = project.record.leaving else { continue };
            let leaving = if containers { Leaving::Containers { volumes } } else { Leaving::Plain };
            self.leaving.insert(name.clone(), leaving);
        }
        let theirs: Vec<InstanceId> = self
            .fleet
            .iter()
            .filter(|(instance, _)| self.leaving.contains_key(&*instance.project))
            .map(|(instance, _)| instance.clone())
            .collect();
        self.feed(at, FleetInput::Control(Action::Remove, theirs), round);
    }

    /// What has to be done for a project besides ending its components.
    fn leaving_of(&self, name: &str, volumes: bool) -> Leaving {
        let has_containers = self.containers().iter().any(|instance| *instance.project == *name);
        match self.leaving.get(name) {
            // Asked for once more: what is under way is not begun again.
            Some(Leaving::Clearing) => Leaving::Clearing,
            // Its containers may be gone by now.
            Some(Leaving::Containers { volumes: before }) => {
                Leaving::Containers { volumes: volumes || *before }
            }
            Some(Leaving::Plain) | None if has_containers || volumes => {
                Leaving::Containers { volumes }
            }
            Some(Leaving::Plain) | None => Leaving::Plain,
        }
    }

    /// What was made for its containers is gone, or stays because of something that is told.
    pub(super) fn cleared(&mut self, project: &str, left: Option<String>, round: &mut Round) {
        let Some(leaving @ Leaving::Clearing) = self.leaving.get_mut(project) else { return };
        *leaving = Leaving::Plain;
        if let Some(why) = left {
            let message = format!(
                "what was made for its containers (networks, volumes) may be left: {why}; once the engine is \
                 there, `stigmer apply` and then `stigmer down`, or `down --volumes`, remove it"
            );
            tracing::warn!(project, "{message}");
            round.events.push(of_project(project, "left_behind", Severity::Warning, message));
        }
    }

    /// A project whose last component is gone is forgotten, if that was asked for.
    pub(super) fn forget_projects(&mut self, round: &mut Round) {
        let gone: Vec<(String, Leaving)> = self
            .leaving
            .iter()
            .filter(|(name, _)| !self.fleet.iter().any(|(id, _)| *id.project == ***name))
            .map(|(name, leaving)| (name.clone(), *leaving))
            .collect();
        for (name, leaving) in gone {
            match leaving {
                Leaving::Plain => {}
                Leaving::Containers { volumes } => {
                    self.runner.clear(&name, volumes);
                    self.leaving.insert(name, Leaving::Clearing);
                    continue;
                }
                Leaving::Clearing => continue,
            }
            self.leaving.remove(&name);
            self.projects.remove(&name);
            self.base_envs.remove(name.as_str());
            round.projects_changed = true;
            round.projects.insert(name);
        }
    }
}
