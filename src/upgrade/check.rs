//! `stigmer __check FOLDER ARGUMENT...`: the program that is to take over, trying itself out.
//!
//! It does what a keeper and an engine of it would do at their start, with copies in a folder of its
//! own: reads the keeper's arguments and estate, opens the state and brings it into its own layout, and
//! reads every row. It answers with one line of JSON on stdout: who it is, or why it cannot.
//!
//! The answer is read by other versions: its keys keep their meaning for ever.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::{Identity, estate_in, state_in};
use crate::store::{Opened, Store};

/// The one line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    pub(super) identity: Identity,
    /// Why it cannot take over; absent if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
}

/// Tries itself out.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let folder = arguments.next().unwrap_or_default();
    let refused = check(Path::new(&folder), arguments).err();
    let code = if refused.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let answer = Answer { identity: Identity::own(), refused };
    let mut line = serde_json::to_string(&answer).unwrap_or_default();
    line.push('\n');
    // Who asked sees an empty answer if this fails.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
    code
}

fn check(folder: &Path, arguments: impl Iterator<Item = OsString>) -> Result<(), String> {
    let estate = std::fs::read(estate_in(folder))
        .map_err(|error| format!("{}: {error}", estate_in(folder).display()))?;
    crate::keeper::can_take_over(arguments, &estate)?;
    let (store, opened) = Store::open(&state_in(folder)).map_err(|error| error.to_string())?;
    match opened {
        Opened::Existing | Opened::Migrated { .. } => {}
        Opened::Fresh | Opened::Restored { .. } | Opened::Replaced { .. } => {
            return Err("the copy of the state that it was given is not whole".into());
        }
    }
    let snapshot = store.load().map_err(|error| error.to_string())?;
    match &*snapshot.unreadable {
        [] => Ok(()),
        [first, others @ ..] => {
            let more = match others.len() {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            Err(format!("it does not understand the state: {first}{more}"))
        }
    }
}
