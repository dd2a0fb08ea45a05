//! Who is meant: projects, components, their replicas, and single runs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ContainerId;

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

impl RunId {
    /// A place between 0 and 1 for the `nth` activity of a run: those of runs with successive numbers are
    /// spread evenly, however many they are (multiples of the golden ratio).
    #[must_use]
    pub fn place(self, nth: u64) -> f64 {
        let mixed = self.0.wrapping_add(nth << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // 53 bits are what a double holds.
        #[expect(clippy::cast_precision_loss, reason = "it has at most 53 bits")]
        let (place, whole) = ((mixed >> 11) as f64, (1_u64 << 53) as f64);
        place / whole
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a run is made of: by this it is shown, probed and found again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A process of this machine, and whatever it starts.
    Process {
        /// The main process.
        pid: u32,
    },
    /// A container.
    Container {
        /// Its identifier.
        id: ContainerId,
        /// Its first process as this machine sees it, where the engine runs on this machine.
        pid: Option<u32>,
    },
    /// Others started it, and it is only watched.
    External,
    /// It was launched and was over before anybody could look.
    Unseen,
}

impl Body {
    /// The main process, where there is one on this machine.
    #[must_use]
    pub const fn pid(&self) -> Option<u32> {
        match self {
            Self::Process { pid } => Some(*pid),
            Self::Container { pid, .. } => *pid,
            Self::External | Self::Unseen => None,
        }
    }

    /// The container, if it is one.
    #[must_use]
    pub const fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Container { id, .. } => Some(id),
            Self::Process { .. } | Self::External | Self::Unseen => None,
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid } => write!(f, "process {pid}"),
            Self::Container { id, .. } => write!(f, "container {id}"),
            Self::External => f.write_str("something that others run"),
            Self::Unseen => f.write_str("a process that is gone"),
        }
    }
}

/// Bytes in lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
