//! Telling whoever started the daemon that it is ready, or why it is not.
//!
//! The keeper holds the descriptor, so that an engine that dies while it starts does not look like a
//! daemon that has failed: the next engine gets it.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use crate::keeper::KeeperClient;
use crate::keeper::config::READY;
use crate::keeper::wire::ToKeeper;
use crate::supervisor::Acquaintance;

/// What is written when the daemon is ready.
const READY_LINE: &str = "ready\n";

/// Somebody who waits, or nobody.
pub(super) struct Ready {
    out: Option<File>,
    keeper: Arc<KeeperClient>,
}

impl Ready {
    /// Takes the descriptor from what the keeper holds.
    pub(super) fn take(acquaintance: &mut Acquaintance) -> Self {
        let out = acquaintance.held.remove(READY).map(File::from);
        Self { out, keeper: acquaintance.keeper().clone() }
    }

    pub(super) fn say_ready(self) {
        self.say(READY_LINE);
    }

    pub(super) fn say_failed(self, why: &str) {
        self.say(&format!("{why}\n"));
    }

    fn say(self, text: &str) {
        let Some(mut out) = self.out else { return };
        // Who asked may be gone, and an engine without a keeper has other worries.
        let _ = out.write_all(text.as_bytes());
        drop(self.keeper.send(&ToKeeper::Release { name: READY.to_owned() }, &[]));
    }
}
