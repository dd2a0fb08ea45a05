//! Performs effects: processes through the keeper, and probes.
//!
//! ```text
//!   Effect ─▶ Runner ─┬─ Launch ───▶ launch::Recipe (environment, user, secrets), sockets ─▶ keeper
//!                     │          └─▶ container::Task ─▶ container engine
//!                     ├─ Terminate, Kill, Forget ─▶ keeper, or the container's task
//!                     └─ Probe ────▶ one task a turn ─▶ probe::Prober ─┐
//!   Report ◀── keeper's messages, containers' tasks ◀──────────────────┘
//! ```
//!
//! Invariants: every answer names its run; a probe's task is aborted with the run that it belongs to; a
//! helper (exec probe, stop command, secret command) is a run of the keeper's as well, so that it can
//! be ended with everything that it started, and is, when whoever waits for it no longer does.
//!
//! Failure paths: what cannot be prepared (a secret, a user) is a launch that failed, with the reason.
//! A keeper that is gone ends the engine, which is the supervisor's to notice.
//!
//! Deliberately absent: decisions. When to launch, probe or kill is the machine's.

mod active;
pub mod container;
mod context;
pub mod effects;
mod found;
pub mod helper;
pub mod launch;
mod listener;
mod needs;
pub mod probe;
pub mod sockets;
mod still;
mod turn;

use crate::machine::Answer;
use crate::model::RunId;

/// What the runner has to say.
#[derive(Debug)]
pub enum Report {
    /// About a run.
    Answer(RunId, Answer),
    /// What launches of containers have waited for is there (again).
    Provided,
    /// Nothing is left of what was made for the containers of a project, but for what is told.
    Cleared {
        /// The project.
        project: String,
        /// Why something is left.
        left: Option<String>,
    },
}
