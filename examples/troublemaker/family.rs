//! Children that a supervisor must find: never waited for, forked twice, in sessions of their own.
//!
//! ```text
//! --child       this ──> child                        (a zombie once it ends: nobody waits for it)
//! --grandchild  this ──> middle (setsid, exits) ──> grandchild, whose parent is gone
//! ```
//!
//! Both get the same standard output and error. Everything is an execution of this very program, so
//! that the whole family needs no unsafe code.

use std::env;
use std::io;
use std::process::{Command, Stdio};

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
