//! The end of a log, found backwards without reading the whole.

use std::io;
use std::path::Path;

use regex::bytes::Regex;

use super::file::{Log, extent, is_passed_over};
use super::lines::{Ending, Lines, PIECE};

/// How much of a log is searched at a time when only matching lines count.
const WINDOW: u64 = 1024 * 1024;

/// Lines that `tail` gives at most, and characters of each: they go into messages.
const TAIL_LINES: usize = 1000;
const TAIL_CHARACTERS: usize = 2000;

/// Where the last lines begin, and how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    pub(super) position: u64,
    pub(super) lines: usize,
}

/// Where the last `wanted` lines between two positions begin; fewer if there are fewer.
pub(super) fn last_lines(log: &Path, from: u64, to: u64, wanted: usize) -> io::Result<Start> {
    if wanted == 0 || from >= to {
        return Ok(Start { position: to, lines: 0 });
    }
    let mut buffer = vec![0; PIECE];
    let mut reader = Log::new(log);
    let mut behind = to;
    // The newline at the very end ends the last line; it does not begin another.
    let mut ends = 0;
    while behind > from {
        let length = (behind - from).min(PIECE as u64);
        let held = match before(&mut reader, behind, &mut buffer, length) {
            // Whoever reads on from here is told.
            Err(error) if is_passed_over(&error) => continue,
            held => held?,
        };
        let Some((position, held)) = held else { break };
        for (place, byte) in held.iter().enumerate().rev() {
            let after = position + place as u64 + 1;
            if *byte == b'\n' && after < to {
                ends += 1;
                if ends == wanted {
                    return Ok(Start { position: after, lines: wanted });
                }
            }
        }
        behind = position;
    }
    Ok(Start { position: behind, lines: ends + 1 })
}

/// Where the last `wanted` lines that match begin.
pub(super) fn last_matches(
    log: &Path,
    from: u64,
    to: u64,
    wanted: usize,
    pattern: &Regex,
) -> io::Result<Start> {
    let mut found = Start { position: to, lines: 0 };
    let mut behind = to;
    while found.lines < wanted && behind > from {
        let ahead = behind.saturating_sub(WINDOW).max(from);
        let window = if ahead == from { from } else { line_start_before(log, from, ahead)? };
        let mut matches = Vec::new();
        let mut lines = Lines::new(log, window, behind, PIECE);
        while let Some(piece) = lines.next_readable()? {
            if pattern.is_match(without_return(piece.text)) {
                matches.push(piece.position);
            }
        }
        let missing = wanted - found.lines;
        let taken = missing.min(matches.len());
        if let Some(first) = matches.get(matches.len() - taken) {
            found = Start { position: *first, lines: found.lines + taken };
        }
        behind = window;
    }
    Ok(found)
}

/// The first beginning of a line at or behind a position.
pub(super) fn line_start_from(log: &Path, from: u64, position: u64, to: u64) -> io::Result<u64> {
    if position <= from || position >= to {
        return Ok(position.clamp(from, to));
    }
    // From the byte before: if it is a newline, the position itself begins a line.
    let mut lines = Lines::new(log, position - 1, to, PIECE);
    while let Some(piece) = lines.next_readable()? {
        if piece.ending == Ending::Newline {
            break;
        }
    }
    Ok(lines.position().min(to))
}

/// The beginning of the line that holds the byte before a position.
fn line_start_before(log: &Path, from: u64, position: u64) -> io::Result<u64> {
    last_lines(log, from, position, 1).map(|start| start.position)
}

/// The bytes right before a position: `length` of them, or as many as there are behind a gap; `None` if
/// they are gone. With the position of the first one.
fn before<'a>(
    log: &mut Log,
    behind: u64,
    buffer: &'a mut [u8],
    length: u64,
) -> io::Result<Option<(u64, &'a [u8])>> {
    let mut begin = behind.saturating_sub(length);
    let (mut position, mut held) = (begin, 0);
    while position < behind {
        let Some(free) = buffer.get_mut(held..) else { return Ok(None) };
        let wanted = usize::try_from(behind - position).unwrap_or(usize::MAX).min(free.len());
        let block = log.read_at(position, &mut free[..wanted])?;
        if block.length == 0 || block.position >= behind {
            return Ok(None);
        }
        if block.position > position {
            // What lies before the gap is not what comes right before the position.
            buffer.copy_within(held..held + block.length, 0);
            begin = block.position;
            held = 0;
        }
        held += block.length;
        position = block.position + block.length as u64;
    }
    // Behind a gap more may have been read than was asked for.
    let asked = usize::try_from(behind - begin).unwrap_or(usize::MAX);
    Ok(buffer.get(..held.min(asked)).map(|bytes| (begin, bytes)))
}

/// Patterns are about the text: the carriage return of a line that ends with both is none of it.
pub(super) fn without_return(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// The last `lines` lines of a log as text for an error report; invalid UTF-8 is replaced, and long
/// lines are cut. Empty if there is no log or it cannot be read: the report is about something else.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    try_tail(log, lines.min(TAIL_LINES)).unwrap_or_default()
}

fn try_tail(log: &Path, wanted: usize) -> io::Result<Vec<String>> {
    let extent = extent(log)?;
    let start = last_lines(log, extent.first, extent.end, wanted)?;
    let mut lines = Lines::new(log, start.position, extent.end, PIECE);
    let mut texts: Vec<String> = Vec::new();
    let mut goes_on = false;
    while let Some(piece) = lines.next_readable()? {
        if !goes_on {
            let text = String::from_utf8_lossy(without_return(piece.text));
            let short: String = text.chars().take(TAIL_CHARACTERS).collect();
            texts.push(if short.len() < text.len() { short + "…" } else { short });
        }
        goes_on = piece.ending == Ending::Cut;
    }
    Ok(texts)
}
