//! This very process becomes a program, the way that a child of the keeper does: for commands that are run
//! by hand in the place of a component.
//!
//! ```text
//!   nice, umask, limits ─ groups, group, user ─ working directory ─ signals ─ exec
//! ```
//!
//! Terminal, standard input and outputs, session, process group and parent stay as they are: the program is
//! the caller's, not the daemon's, and no record is made of it. Signals that the caller ignores are ignored by
//! the program as well (`nohup`), but for SIGPIPE, which the standard library ignores on its own.
//!
//! Failure paths: the failure is that of a launch, for `explain`. What was changed of this process before
//! stays changed; the caller has nothing left to do but to say so and end.
#![expect(
    clippy::result_large_err,
    reason = "a failure is that of a child, which may take no memory"
)]

use std::ffi::CString;

use super::child::{self, Failure, Strings, Subject};
use super::spawn::candidates;
use super::wire::{Credentials, Detail, LaunchFailure};
use super::{raw, sys};
use crate::model::spec::{LimitSpec, Rlimit};
use crate::model::{LaunchStage, RunId};

/// A program, and how it is to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Where it starts; absolute.
    pub working_dir: Vec<u8>,
    /// Whom it runs as; `None` leaves that as it is.
    pub user: Option<Credentials>,
    /// File mode mask; `None` leaves it as it is.
    pub umask: Option<u32>,
    /// -20 to 19; `None` leaves it as it is.
    pub nice: Option<i32>,
    /// Resource limits.
    pub rlimits: Vec<(Rlimit, LimitSpec)>,
}

/// Becomes the program. Comes back only with the reason why not.
#[must_use]
pub fn become_program(program: Program) -> LaunchFailure {
    let failure = attempt(program).unwrap_or_else(|failure| failure);
    let Failure { stage, errno, detail, subject } = failure;
    // A run that no keeper knows.
    let (errno, subject) = (errno.raw_os_error(), subject.bytes().to_vec());
    LaunchFailure { run: RunId(0), stage, errno, detail, subject }
}

fn attempt(program: Program) -> Result<Failure, Failure> {
    let Program { argv, env, working_dir, user, umask, nice, rlimits } = program;
    let missing = |name: &[u8]| Failure {
        stage: LaunchStage::Exec,
        errno: rustix::io::Errno::NOENT,
        detail: Detail::None,
        subject: Subject::new(name),
    };
    let name = argv.first().cloned().unwrap_or_default();
    // As in a shell, no program has an empty name.
    if name.is_empty() {
        return Err(missing(&name));
    }
    let candidates = texts(candidates(&name, &env))?;
    let (argv, env, working_dir) = (texts(argv)?, texts(env)?, text(working_dir)?);
    // Made now, because afterwards a limit on memory may apply.
    let (argv, env) = (Strings::new(argv), Strings::new(env));

    child::set_priority_and_mask(nice, umask)?;
    child::set_limits(&rlimits)?;
    if let Some(user) = &user {
        child::become_user(user)?;
    }
    child::enter(&working_dir)?;
    sys::set_signal(libc::SIGPIPE, false);
    raw::unblock_signals().map_err(Failure::at(LaunchStage::Exec))?;
    let failure = child::execute(&candidates, &argv, &env, || {});
    Ok(failure.unwrap_or_else(|| missing(&name)))
}

fn texts(list: Vec<Vec<u8>>) -> Result<Vec<CString>, Failure> {
    list.into_iter().map(text).collect()
}

fn text(bytes: Vec<u8>) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::at(LaunchStage::Prepare)(rustix::io::Errno::INVAL))
}
