//! The shared words of stigmer: identifiers, time, specs, states, exits and events.
//!
//! Everything here is plain data. Nothing in this module reads a clock, a file, the environment
//! or a socket, so that every other module, pure or not, may use it.
//!
//! ```text
//!   ids ── who        spec, container, socket ── what is wanted      state ── what is shown
//!   time ── when      exit ── how a run ended                event ── what happened
//! ```

pub mod container;
mod embedded;
pub mod event;
pub mod exit;
pub mod id;
pub mod socket;
pub mod spec;
pub mod state;
pub mod time;

pub use container::ContainerId;
pub use event::{Event, EventKind, Severity};
pub use exit::{Exit, ExitStatus, LaunchError, LaunchStage, Retry};
pub use id::{Body, ComponentName, InstanceId, ProjectName, RunId};
pub use state::{ProbeRole, State, StopReason, Wanted};
pub use time::Time;
