//! A command that exits with 0.
//!
//! The command is a child of the keeper, run by the `CommandRunner`, which ends its whole group when
//! the probe is dropped (S10, fault 45). Here its end is judged and put into words: what it printed
//! last is what a person wants to read.

use super::{CommandOutput, Kind, Run, Target, text};
use crate::model::spec::CommandSpec;
use crate::model::{Exit, ExitStatus};

pub(super) struct Exec {
    argv: Vec<String>,
}

impl Exec {
    pub(super) fn new(command: &CommandSpec) -> Self {
        Self { argv: command.argv() }
    }
}

pub(super) fn describe(command: &CommandSpec) -> String {
    match command {
        CommandSpec::Exec(argv) => format!("exec {}", argv.join(" ")),
        CommandSpec::Shell(line) => format!("exec {line}"),
    }
}

impl Kind for Exec {
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a> {
        Box::pin(async move { Ok(judge(&target.commands.run(self.argv.clone()).await?)?) })
    }
}

pub(super) fn judge(ended: &CommandOutput) -> Result<(), String> {
    if ended.status == ExitStatus::Code(0) {
        return Ok(());
    }
    let how = Exit { status: ended.status, oom: false };
    Err(match text::last_line(&ended.output) {
        Some(line) => format!("{how}: {}", text::quotation(line)),
        None => how.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: ExitStatus, output: &[u8]) -> Result<(), String> {
        judge(&CommandOutput { status, output: output.to_vec() })
    }

    #[test]
    fn the_end_and_the_last_line_are_told() {
        assert_eq!(judged(ExitStatus::Code(0), b"anything"), Ok(()));
        let failed = judged(ExitStatus::Code(3), b"first\n\x1b[1mno database\n\n");
        assert_eq!(failed, Err("exit 3: \\u{1b}[1mno database".to_owned()));
        assert_eq!(judged(ExitStatus::Code(1), b""), Err("exit 1".to_owned()));
        assert_eq!(judged(ExitStatus::Signal(9), b"\n"), Err("SIGKILL".to_owned()));
    }

    #[test]
    fn an_unknown_end_is_no_success() {
        assert!(judged(ExitStatus::Unknown, b"").is_err());
    }
}
