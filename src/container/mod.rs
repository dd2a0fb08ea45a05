//! Containers: what the engine (Docker, Podman) is asked, and what it says. The only part that knows
//! bollard.
//!
//! ```text
//!   address ─▶ Engine ──────────┬─ image, build ─┐
//!     (where)    │ link: up/down ├─ provide, make ─┼─▶ engine's interface (HTTP)
//!                │               ├─ look, exec ────┤
//!                │               ├─ attach ────────┘   (of the command line, not of the daemon)
//!                │               └─ logs ─▶ NAME.log
//!   watch ───────┘ events ─▶ Notice ─▶ runner::container (one task a run)
//! ```
//!
//! One `Engine` serves the whole daemon. It says whether the engine can be reached (`Link`); who needs it
//! asks, and gets an `EngineError` with words for people when it cannot be reached, does not answer in time,
//! or refuses.
//!
//! Identity. Every container that is made here carries labels: the home folder that it belongs to,
//! project, component, replica, the run, and the digest of its spec. One run is one container: a restart
//! makes a new one, so that a container's identifier is the identity of a run (S34). The name
//! `PROJECT.COMPONENT` is unique in an engine, which makes a second container of an instance impossible
//! even where the answer to a `create` was lost.
//!
//! Failure paths: `error` tells them apart. Nothing here retries by itself but `watch`, which connects
//! again with backoff.
//!
//! Deliberately absent: decisions. When to launch, stop or probe is the machine's; what follows from an
//! answer is `runner::container`'s.

pub mod address;
pub mod attach;
pub mod body;
pub mod build;
pub mod engine;
pub mod error;
pub mod exec;
pub mod identity;
pub mod image;
pub mod logs;
pub mod look;
pub mod make;
pub mod processes;
pub mod provide;
mod raw;
pub mod watch;

pub use engine::{Engine, Link};
pub use error::EngineError;
pub use identity::Identity;
pub use watch::{Notice, What};
