//! The supervisor's part in an upgrade: it alone speaks with the keeper.
//!
//! Both questions may be without an answer for ever: a keeper that does not know them says nothing, and
//! one that replaces the daemon ends this engine. Whoever asks has a limit of their own.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use tokio::sync::oneshot;

use super::round::Round;
use super::{Ending, Supervisor};
use crate::keeper::wire::ToKeeper;

/// The first version of the keeper's protocol that knows of replacing.
const KNOWS_REPLACING: u32 = 2;

/// Who waits for an answer of the keeper.
#[derive(Debug, Default)]
pub(super) struct Succession {
    rehearsing: Option<oneshot::Sender<Result<OwnedFd, String>>>,
    replacing: Option<oneshot::Sender<String>>,
}

impl Succession {
    pub(super) fn shown(&mut self, estate: Option<OwnedFd>) {
        let Some(reply) = self.rehearsing.take() else { return };
        let lost = || "the engine has no descriptor left to receive it with".to_owned();
        // Whoever asked may be gone, here and below.
        drop(reply.send(estate.ok_or_else(lost)));
    }

    pub(super) fn not_replaced(&mut self, why: &str) {
        if let Some(reply) = self.rehearsing.take() {
            drop(reply.send(Err(why.to_owned())));
        }
        if let Some(reply) = self.replacing.take() {
            drop(reply.send(why.to_owned()));
        }
    }
}

impl Supervisor {
    pub(super) fn rehearse(&mut self, reply: oneshot::Sender<Result<OwnedFd, String>>) {
        if let Some(why) = self.cannot_be_replaced() {
            drop(reply.send(Err(why)));
            return;
        }
        self.succession.rehearsing = Some(reply);
        self.ask_keeper(&ToKeeper::Rehearse);
    }

    /// Asked of the keeper once the round is written and carried out.
    pub(super) fn replace(
        &mut self,
        program: PathBuf,
        reply: oneshot::Sender<String>,
        round: &mut Round,
    ) {
        if let Some(why) = self.cannot_be_replaced() {
            drop(reply.send(why));
            return;
        }
        tracing::info!(program = %program.display(), "the daemon is being replaced");
        self.succession.replacing = Some(reply);
        let keeper = self.keeper.clone();
        let order = ToKeeper::Replace { program: program.into_os_string().into_vec() };
        round.replies.push(Box::new(move || drop(keeper.send(&order, &[]))));
    }

    fn cannot_be_replaced(&mut self) -> Option<String> {
        if self.ending == Ending::Stopping {
            return Some("the daemon is ending".to_owned());
        }
        if !self.catch_up_writing() {
            let why = self.store_error.clone().unwrap_or_default();
            return Some(format!("{why}; the next engine would not know what was asked for since"));
        }
        (self.welcome.version < KNOWS_REPLACING).then(|| {
            "its keeper is of a version that cannot be replaced; `stigmer down --all` and a new \
             apply do it, with a restart of everything"
                .to_owned()
        })
    }

    /// A keeper that is gone is noticed by the loop, which reads from it.
    fn ask_keeper(&self, order: &ToKeeper) {
        drop(self.keeper.send(order, &[]));
    }
}
