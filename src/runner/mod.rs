//! Performs effects: processes through the keeper, and probes.
//!
//! ```text
//!   Effect ─▶ Runner ─┬─ Launch ───▶ launch::Recipe (environment, user, secrets) ─▶ keeper
//!                     ├─ Terminate, Kill, Forget ─────────────────────────────────▶ keeper
//!                     └─ Probe ────▶ one task a turn ─▶ probe::Prober ─┐
//!   (RunId, Answer) ◀── keeper's messages ◀────────────────────────────┘
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

pub mod helper;
pub mod launch;
pub mod probe;
pub mod process;
