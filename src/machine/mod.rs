//! The state machine of a component, and of the fleet of all components. Pure: no clock, no I/O, no
//! randomness of its own.
//!
//! ```text
//!                 start                     launched
//!   Stopped ───────────────▶ Waiting ──▶ Launching ──▶ Alive(starting ─▶ running ⇄ unhealthy¹)
//!      ▲  ▲                     ▲  deps hold   │             │ exit, probe failure, stop, restart
//!      │  │                     │              │ error       ▼
//!      │  └── asked / done ─────┼──────────────┼───────── Ending ── nothing of it is left
//!      │                        │              ▼             │
//!      │                        └─ Backoff ◀── restart? ◀────┘
//!      └───── asked ── Failed ◀────────────────┘ limit, or policy
//!
//!   ¹ stays unhealthy only where nothing may restart it: policy `never`, or external.
//! ```
//!
//! `Component` is one instance: `step(now, input) -> Step { effects, events }`, and `next_deadline()`.
//! `Fleet` owns all components, the dependencies between them, the order of stopping and the rolling
//! of replicas. Timers are data: whoever drives the fleet sleeps until the earliest deadline and
//! sends a tick.
//!
//! Invariants, held by the simulation (`tests/simulation.rs`):
//! - at most one run of an instance is alive; a launch is asked for only when nothing is left of the
//!   run before;
//! - only the transitions of [`crate::model::State::may_become`] happen;
//! - every answer carries its run, and a stale one changes nothing;
//! - a component that is wanted is running, on its way there, waiting for a dependency, or failed
//!   with a reason; one that is not wanted ends.
//!
//! Failure paths: a launch that fails is a failed start; a runner that never answers a launch keeps
//! the component in `starting (launching)`, visibly, because a second copy would be worse.
//!
//! Deliberately absent: wall-clock time, identifiers of processes beyond showing them, and any
//! knowledge of how a launch, a probe or a signal is performed.

pub mod component;
pub mod fleet;
pub mod phase;
pub mod probe;
pub mod restart;
pub mod view;

pub use component::{Answer, Component, Effect, Input, Step};
pub use fleet::{Action, Change, Fleet, FleetInput, FleetStep};
pub use phase::{Means, Phase, Run, Wish};
pub use view::View;
