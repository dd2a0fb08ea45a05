//! Children that a supervisor must find: never waited for, forked twice, in sessions of their own.
//!
//! ```text
//! --child       this ──> child                        (a zombie once it ends: nobody waits for it)
//! --grandchild  this ──> middle (setsid, exits) ──> grandchild, whose parent is gone
//! --spawn-through  this, waiting in vfork ──> child, waiting in `open` ──> sleep
//! ```
//!
//! The first two get the same standard output and error, and are executions of this very program, so that the
//! whole family needs no unsafe code.

use std::env;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::stat::Mode;

use crate::options::Options;

/// Starts all children that the flags ask for.
pub(crate) fn start(options: &Options) -> io::Result<()> {
    for arguments in &options.child {
        let child = Command::new(env::current_exe()?)
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .spawn()?;
        // Dropping it neither ends nor reaps it; that nobody reaps it is the trouble made here.
        drop(child);
    }
    if let Some(fifo) = &options.spawn_through {
        spawn_through(fifo)?;
    }
    for arguments in &options.grandchild {
        let status = Command::new(env::current_exe()?)
            .arg(format!("--detach={arguments}"))
            .stdin(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(io::Error::other(format!("the middle process: {status}")));
        }
    }
    Ok(())
}

/// The middle process: leads a session of its own, starts the grandchild, and is gone.
pub(crate) fn detach(arguments: &str) -> io::Result<()> {
    nix::unistd::setsid()?;
    drop(
        Command::new(env::current_exe()?)
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .spawn()?,
    );
    Ok(())
}

/// The C library's `posix_spawn` is a vfork: it comes back when the child has executed its program, which it
/// does once somebody opens the FIFO for writing.
fn spawn_through(fifo: &Path) -> io::Result<()> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(3, fifo, OFlag::O_RDONLY, Mode::empty())?;
    let attributes = PosixSpawnAttr::init()?;
    posix_spawn(c"/bin/sleep", &actions, &attributes, &[c"sleep", c"1000"], &[c""; 0])?;
    Ok(())
}
