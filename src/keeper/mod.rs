//! The keeper: the small parent of all components.
//!
//! ```text
//!   stigmer __keeper ──fork/exec──► components      (stdout and stderr straight into their log)
//!        │  ▲
//!        │  └── SOCK_SEQPACKET, fd 3 of the engine ─► client
//!        └──fork/exec──► engine      (started again when it dies)
//!
//!   event_loop ── waits            reaping ──── who has ended     requests ── what the engine asks
//!   lifecycle ─── from fork to the last grandchild
//!   telling ──── what it is told   table ────── what is known     engine ──── the engine's process
//!   spawn, child ─ clone to exec   cgroup, tree ─ what belongs to a run
//!   lend ───────── memory that a child borrows until it executes
//!   ahead ──────── what the next launch needs
//!   oom ────────── who was killed for want of memory
//!   freezer ────── a component that is held still for a moment
//!   wire, socket ─ messages        record ────── what a later daemon finds
//!   succession ─── becoming another program      estate ─ what that is handed
//!   limits ─────── how many processes and descriptors there can be
//!   here ──────── not the keeper's: what `stigmer exec` shares with `child`
//! ```
//!
//! What it is for: to start processes fast whatever size the engine is, to be there when they end, and
//! to remember how they ended until the engine has said that it knows. An engine that is killed or
//! replaced costs no component, no exit code and no socket.
//!
//! Invariants
//!
//! * One thread, and no waiting but for the next event. With nothing to do it does not wake up.
//! * Whatever the engine does, dies of or sends, the keeper lives on.
//! * An end is remembered until it is acknowledged; one of which nothing is known is told as unknown,
//!   never as success.
//! * The record of a run is complete before the run's program starts (S38), and no run is started twice.
//! * A signal goes to a child that has not been reaped, to a pidfd, or to a cgroup; never to a number
//!   that may be another's.
//! * A tree counts as empty only if it was looked at and nothing was there.
//!
//! Failure paths
//!
//! * The engine dies: its helpers are ended, it is started again, it asks for everything.
//! * The keeper dies: children that have not executed their program die with it, all others live on. The
//!   engine sees the end of its connection and executes a new keeper, or the next `stigmer daemon` does;
//!   its engine reads the records and asks for each survivor to be adopted.
//! * The program is upgraded: the keeper executes the new one in its own place, see `succession`.
//! * No cgroups, or none to be had for a run: containment by best effort, and it says so.
//!
//! Deliberately absent: restarts, timers of components, names of users, manifests, logs that pass
//! through, a queue of messages, an async runtime.

mod ahead;
mod cgroup;
mod child;
pub mod client;
mod clock;
pub mod config;
mod console;
mod engine;
mod estate;
mod event_loop;
pub mod explain;
pub mod freezer;
pub mod here;
pub mod identity;
mod lend;
mod lifecycle;
pub mod limits;
pub mod lock;
mod oom;
mod poller;
mod raw;
mod reaping;
pub mod record;
mod requests;
pub mod socket;
mod spare;
mod spawn;
mod succession;
mod sys;
mod table;
mod telling;
mod tree;
pub mod wire;

use std::process::ExitCode;

pub use client::KeeperClient;
pub use config::KeeperConfig;
pub use event_loop::KeeperError;

use crate::crash;
use console::say;

/// `stigmer __keeper ...`: reads the arguments of this process and lives as a keeper.
#[must_use]
pub fn main() -> ExitCode {
    match KeeperConfig::from_arguments(std::env::args_os().skip(2)) {
        Ok(config) => run(&config),
        Err(error) => {
            say(format_args!("{error}"));
            ExitCode::from(2)
        }
    }
}

/// Lives as a keeper until the daemon ends: 0 if it ended in order, 1 if not. Must be called from a
/// process with one thread.
#[must_use]
pub fn run(config: &KeeperConfig) -> ExitCode {
    let is_successor = config.estate_fd.is_some();
    crash::begin(if is_successor { crash::Role::Successor } else { crash::Role::Keeper });
    match event_loop::Keeper::set_up(config.clone()) {
        Ok(keeper) => keeper.live(),
        Err(error) => {
            say(format_args!("{error}"));
            if let KeeperError::Estate(_) = error {
                succession::go_back(config);
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether a keeper of this program could take over: understands these arguments, and an estate as a
/// running keeper shows it. An error is in plain words.
pub fn can_take_over(
    arguments: impl Iterator<Item = std::ffi::OsString>,
    estate: &[u8],
) -> Result<(), String> {
    KeeperConfig::from_arguments(arguments).map_err(|error| error.to_string())?;
    let stderr = std::io::stderr();
    succession::can_read(estate, std::os::fd::AsFd::as_fd(&stderr))
        .map_err(|error| error.to_string())
}
