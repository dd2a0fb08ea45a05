//! A line of the present run's log matches a regular expression.
//!
//! ```text
//!   run 1: |lines lines op|       run 2: |en line, lines|        matched: stays so for the run
//!          ^log_start    ^remembered     ^goes on here
//! ```
//!
//! Only what is new is read, in blocks, giving way to others between them; a prober remembers a
//! position, which survives rotation and truncation (see `logs`). The line before `log_start` belongs
//! to another run and does not count.
//!
//! A line without its newline counts only if it has not grown since the last run of the probe: until
//! then `listening on 80` may be on its way to `listening on 8080`. A prompt that never ends its line
//! is so found one interval later.
//!
//! Failure paths: no log, or one that cannot be read; nothing matches yet.

use std::io;

use regex::bytes::Regex;

use super::{Kind, Run, Target, text};
use crate::logs::{Ending, Lines, extent, is_passed_over};

/// How much is read before other tasks have their turn, in bytes.
const TURN: u64 = 64 * 1024;

pub(super) struct Log {
    pattern: Regex,
    progress: Progress,
}

enum Progress {
    /// Nothing was read yet.
    New,
    /// Everything before `position` was looked at; `open` is where an open line ended.
    At { position: u64, open: Option<u64> },
    /// A line matched.
    Matched,
}

impl Log {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        Ok(Self { pattern: text::expression(pattern)?, progress: Progress::New })
    }

    async fn search(&mut self, target: &Target) -> io::Result<bool> {
        // The end is fixed here: a component that floods its log cannot keep the probe busy.
        let here = extent(&target.log)?;
        let (start, open_before) = match self.progress {
            Progress::Matched => return Ok(true),
            // A start behind the end speaks of a log whose index was lost.
            Progress::New if target.log_start > here.end => (here.base, None),
            Progress::New => (target.log_start, None),
            Progress::At { position, open } if position <= here.end => (position, open),
            Progress::At { .. } => (here.base, None),
        };
        let mut turn = start;
        let mut lines = Lines::new(&target.log, start, here.end, 64 * 1024);
        let mut open = None;
        loop {
            let piece = match lines.next_piece() {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(false),
                // What was rotated away and cannot be read any more does not match.
                Err(error) if is_passed_over(&error) => continue,
                Err(error) => return Err(error),
            };
            let end = piece.position + piece.text.len() as u64;
            let line = piece.text.strip_suffix(b"\r").unwrap_or(piece.text);
            let is_settled = piece.ending != Ending::Open || open_before == Some(end);
            if is_settled && self.pattern.is_match(line) {
                self.progress = Progress::Matched;
                return Ok(true);
            }
            let next = if piece.ending == Ending::Open {
                open = Some(end);
                piece.position
            } else {
                lines.position()
            };
            self.progress = Progress::At { position: next, open };
            if next - turn >= TURN {
                turn = next;
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Kind for Log {
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a> {
        Box::pin(async move {
            match self.search(target).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(format!("no line matches /{}/ yet", self.pattern.as_str()).into()),
                Err(error) => {
                    let log = target.log.display();
                    Err(format!("cannot read the log {log}: {}", text::io_error(&error)).into())
                }
            }
        })
    }
}
