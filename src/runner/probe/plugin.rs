//! A kind of probe that is a program of its own (S37).
//!
//! ```text
//!   stigmer-probe-KIND '{"version":1,"kind":"redis","config":{"port":6379},"pid":4711,"log_file":"/..."}'
//!      └─▶ its last line: {"ok": false, "message": "READONLY"}      or just an exit code
//! ```
//!
//! The one argument is JSON on one line: `version` is 1, `config` what the manifest says below the kind,
//! `pid` the main process or null, `log_file` the component's log. It runs with the component's
//! environment and folder, like an exec probe, and is ended with its whole group at the timeout.
//!
//! It passes if it exits with 0 and does not say `"ok": false`. `message` is what the status shows;
//! without one, the last line stands for it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{CommandOutput, Kind, Run, Target, exec, text};
use crate::model::ExitStatus;

/// The version of what is passed and expected.
const VERSION: u32 = 1;

pub(super) struct Plugin {
    program: PathBuf,
    kind: String,
    config: Value,
}

/// What a plug-in says.
#[derive(Deserialize)]
struct Verdict {
    ok: Option<bool>,
    message: Option<String>,
}

impl Plugin {
    pub(super) fn new(program: &Path, kind: &str, config: &Value) -> Self {
        Self { program: program.to_owned(), kind: kind.to_owned(), config: config.clone() }
    }

    fn argv(&self, target: &Target) -> Vec<String> {
        let order = json!({
            "version": VERSION,
            "kind": self.kind,
            "config": self.config,
            "pid": target.pid,
            "log_file": target.log,
        });
        vec![self.program.to_string_lossy().into_owned(), order.to_string()]
    }
}

impl Kind for Plugin {
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a> {
        Box::pin(async move { Ok(judge(&target.commands.run(self.argv(target)).await?)?) })
    }
}

fn judge(ended: &CommandOutput) -> Result<(), String> {
    let last = text::last_line(&ended.output);
    let verdict = last.and_then(|line| serde_json::from_slice::<Verdict>(line).ok());
    let Some(verdict) = verdict else { return exec::judge(ended) };
    if ended.status == ExitStatus::Code(0) && verdict.ok != Some(false) {
        return Ok(());
    }
    match verdict.message {
        Some(message) => Err(message),
        None if ended.status == ExitStatus::Code(0) => Err("it says that it is not ok".into()),
        None => exec::judge(ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: i32, output: &str) -> Result<(), String> {
        judge(&CommandOutput { status: ExitStatus::Code(code), output: output.as_bytes().to_vec() })
    }

    #[test]
    fn s37_exit_code_and_verdict_decide_together() {
        assert_eq!(judged(0, ""), Ok(()));
        assert_eq!(judged(0, "some words\n"), Ok(()));
        assert_eq!(judged(0, "{\"ok\": true}\n"), Ok(()));
        assert_eq!(
            judged(0, "words\n{\"ok\": false, \"message\": \"full\"}\n"),
            Err("full".into())
        );
        assert_eq!(judged(0, "{\"ok\": false}"), Err("it says that it is not ok".into()));
        assert_eq!(judged(3, "{\"message\": \"READONLY\"}"), Err("READONLY".into()));
        assert_eq!(judged(3, "no luck\n"), Err("exit 3: no luck".into()));
        assert!(judged(3, "{\"ok\": true}").is_err());
    }
}
