//! Rotation: a log does not grow for ever, and nothing of it is lost.
//!
//! ```text
//!   watcher ── a log has grown beyond its limit ──> rotator (at most two at a time)
//!                                                     │ copy the head, compressed, beside the writers
//!   watcher ── lends the writer of the index ────────>│
//!                                                     │ mark, confirm, remove the head, fresh index
//!   watcher <─ gets it back, and looks ───────────────┘ remove what is too old or too much
//! ```
//! Components append to their logs themselves, and go on while that happens. On ext4 and xfs the head
//! is taken out of the file (`FALLOC_FL_COLLAPSE_RANGE`). Elsewhere the file is emptied once all of it is
//! copied, and for the last piece of that the writers are held still (`Stillness`).
//!
//! Invariants
//! - Every byte is in the log or in a rotated file, and in one of them only, for those who read by
//!   position, at every moment and whoever dies: see `removal` for the steps, `recover` for the way back.
//! - Nothing is polled. A log that does not grow is not looked at, but for rotated files that get too
//!   old at a known time, and for a rotation that failed and is tried again.
//! - The event loop waits for nothing of it; copying has the lowest priority.
//! - Names of rotated files go up and never change; their content never changes.
//!
//! Failure paths
//! - No room: the oldest file that would go anyway goes first; else it is said, and tried again later.
//! - The writers cannot be held still: said, and tried again later.
//!
//! Deliberately absent: logs of components that are no longer declared. They stay as they are.

mod copy;
mod decide;
mod job;
mod recover;
mod removal;
mod retain;
mod rotator;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

pub(super) use decide::is_due;
pub(super) use job::age_of;
pub(super) use recover::open;
pub(super) use rotator::{Job, Rotator};

use crate::model::InstanceId;
use crate::model::spec::LogSpec;

/// As long as it lives, nobody writes.
pub type Held = Box<dyn Any + Send>;

/// The time until nobody writes.
pub type Holding = Pin<Box<dyn Future<Output = io::Result<Held>> + Send>>;

/// Makes whoever writes to a log hold still for a moment, where its file system demands it. Components
/// are frozen; a writer of our own just waits.
pub trait Stillness: Send + Sync {
    /// Nobody writes to the log of this instance, nor begins to, from when this is done until what it
    /// gives is dropped. The end of this process must be the end of it as well.
    fn hold(&self, instance: &InstanceId) -> Holding;
}

/// How the log of an instance is kept.
#[derive(Clone)]
pub struct Keep {
    /// What the manifest says.
    pub spec: LogSpec,
    /// Who writes to it.
    pub writers: Arc<dyn Stillness>,
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keep").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
