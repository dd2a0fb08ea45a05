//! Replacing the running daemon by another program, with everything running.
//!
//! ```text
//!   stigmer upgrade ─► engine: try it out ── PROGRAM __check FOLDER ──► reads a copy of the state and
//!                        │ refused: said, nothing touched               the keeper's estate, and says who it is
//!                        ▼
//!                      keeper: executes the program in its own place, which replaces the engine
//! ```
//!
//! Invariants: nothing of the running daemon is touched before a program has shown that it can read all
//! that it will be handed. What it does meanwhile, it does to copies. One upgrade at a time.
//!
//! Failure paths: a program that is missing, not executable, no stigmer, too old, too new or broken is
//! refused with the reason, before anything happens. What goes wrong afterwards is the keeper's to mend
//! (see `keeper::succession`).

pub mod check;
mod trial;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, oneshot};

use crate::home::Home;
use crate::supervisor::{Handle, Input, Request};

/// Tells builds of one version apart: a digest of the sources and of how they were compiled.
pub const BUILD: &str = env!("STIGMER_BUILD");

/// How long the keeper may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who a program says it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Its version.
    pub version: String,
    /// Its build.
    pub build: String,
}

impl Identity {
    /// This program.
    #[must_use]
    pub fn own() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").into(), build: BUILD.into() }
    }
}

/// Why the daemon was not replaced.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpgradeError {
    /// Another one is under way.
    #[error("another upgrade is under way")]
    Busy,
    /// The program cannot be used.
    #[error("{} cannot take over: {why}", program.display())]
    Refused {
        /// The program.
        program: PathBuf,
        /// In plain words.
        why: String,
    },
    /// The daemon cannot be replaced, whatever the program.
    #[error("the daemon cannot be replaced: {0}")]
    Impossible(String),
}

/// Tries programs out and orders the replacement.
#[derive(Clone, Debug)]
pub struct Upgrader {
    handle: Handle,
    home: Home,
    busy: Arc<Mutex<()>>,
}

impl Upgrader {
    /// For the daemon of a home.
    #[must_use]
    pub fn new(handle: Handle, home: Home) -> Self {
        Self { handle, home, busy: Arc::default() }
    }

    /// Tries a program out.
    pub async fn try_out(&self, program: PathBuf) -> Result<Fit, UpgradeError> {
        let turn = self.busy.clone().try_lock_owned().map_err(|_| UpgradeError::Busy)?;
        let estate = self.estate().await?;
        let home = self.home.clone();
        let trying = move || trial::run(&program, &home, &estate).map(|tried| (program, tried));
        let (program, tried) = crate::blocking::spawn(trying)
            .await
            .map_err(|error| UpgradeError::Impossible(error.to_string()))??;
        Ok(Fit { identity: tried.identity, program, file: tried.file, _turn: turn })
    }

    /// Replaces the daemon. Comes back only if it was not replaced.
    pub async fn replace(&self, fit: Fit) -> UpgradeError {
        let Fit { program, file, .. } = &fit;
        if trial::fingerprint(program).ok().as_ref() != Some(file) {
            let why = "it was changed while it was tried out; try again".to_owned();
            return UpgradeError::Refused { program: program.clone(), why };
        }
        let (reply, answer) = oneshot::channel();
        let request = Request::Replace { program: program.clone(), reply };
        match self.ask(request, answer).await {
            Ok(why) => UpgradeError::Refused { program: program.clone(), why },
            Err(error) => error,
        }
    }

    async fn estate(&self) -> Result<OwnedFd, UpgradeError> {
        let (reply, answer) = oneshot::channel();
        let answer = self.ask(Request::Rehearse { reply }, answer).await?;
        answer.map_err(UpgradeError::Impossible)
    }

    async fn ask<T>(
        &self,
        request: Request,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, UpgradeError> {
        let ending = || UpgradeError::Impossible("it is ending".to_owned());
        self.handle.inputs.send(Input::Request(request)).map_err(|_| ending())?;
        let Ok(answer) = tokio::time::timeout(PATIENCE, answer).await else {
            let limit = PATIENCE.as_secs();
            let why = format!("its keeper gave no answer within {limit} s");
            return Err(UpgradeError::Impossible(why));
        };
        answer.map_err(|_| ending())
    }
}

/// A program that has shown that it can take over.
#[derive(Debug)]
pub struct Fit {
    /// Who it says it is.
    pub identity: Identity,
    program: PathBuf,
    file: trial::Fingerprint,
    /// Until this is dropped, nobody else tries.
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

/// The folder in which a program is tried out, for it alone.
fn folder(home: &Home) -> PathBuf {
    home.run.join("upgrade")
}

/// The copy of the state in it.
fn state_in(folder: &Path) -> PathBuf {
    folder.join("state.db")
}

/// The estate in it.
fn estate_in(folder: &Path) -> PathBuf {
    folder.join("estate")
}
