//! Who is meant: projects, components, their replicas, and single runs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a project: one manifest, unique within a daemon.
pub type ProjectName = Arc<str>;

/// The name of a component, unique within its project.
pub type ComponentName = Arc<str>;

/// One replica of one component of one project: what a state machine stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InstanceId {
    /// The project that declares the component.
    pub project: ProjectName,
    /// The component's name in its manifest.
    pub component: ComponentName,
    /// Counted from 0.
    pub replica: u32,
}

impl InstanceId {
    /// The instance `component.replica` of `project`.
    #[must_use]
    pub fn new(project: &str, component: &str, replica: u32) -> Self {
        Self { project: project.into(), component: component.into(), replica }
    }

    /// The name that people see inside a project: `api`, and `api.1` for the second replica.
    #[must_use]
    pub fn display_name(&self) -> String {
        if self.replica == 0 {
            self.component.to_string()
        } else {
            format!("{}.{}", self.component, self.replica)
        }
    }
}

impl fmt::Display for InstanceId {
    /// `project/component.replica`, the form that tags processes and that logs of the daemon use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.project, self.component, self.replica)
    }
}

/// One run of one instance: from the launch of a process to its end. Never used twice within a
/// home folder, so that an answer about an old run can be told from one about the present.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
