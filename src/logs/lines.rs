//! Lines of one log, forwards, in bounded memory, out of its rotated files and on into the log itself.
//!
//! A line is what ends with a newline. One that is longer than `PIECE` comes in pieces, for a component
//! may write 100 MB without a newline (fault 32); the last one may be open, for a component may be in
//! the middle of it, or have died there (fault 35).

use std::io;
use std::ops::Range;
use std::path::Path;

use super::file::{Log, is_passed_over};

/// The longest piece of a line, in bytes.
pub const PIECE: usize = 64 * 1024;

/// How a piece ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With its newline, which is not part of the text.
    Newline,
    /// The line is too long and goes on with the next piece.
    Cut,
    /// It is the end of what is there, or of what was asked for.
    Open,
}

/// A line or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    /// The position of its first byte.
    pub position: u64,
    /// Its bytes, without the newline.
    pub text: &'a [u8],
    /// How it ends.
    pub ending: Ending,
}

/// A piece, as a part of the buffer.
struct Found {
    position: u64,
    text: Range<usize>,
    ending: Ending,
}

/// Reads the lines of one log between two positions. Blocking, in blocks.
#[derive(Debug)]
pub struct Lines {
    log: Log,
    /// Where to stop.
    to: u64,
    block: usize,
    buffer: Vec<u8>,
    /// The part of the buffer that is not handed out yet, and the position of its first byte.
    start: usize,
    position: u64,
    /// How far the part has been searched for a newline already.
    searched: usize,
}

impl Lines {
    /// The lines from position `from` up to position `to`, read in blocks of `block` bytes.
    #[must_use]
    pub fn new(log: &Path, from: u64, to: u64, block: usize) -> Self {
        let block = block.clamp(4096, PIECE);
        let log = Log::new(log);
        Self { log, to, block, buffer: Vec::new(), start: 0, position: from, searched: 0 }
    }

    /// The position of what comes next.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next line or piece; `None` at the end. After an open piece the end is reached, and reading
    /// goes on behind it if the log has grown and `to` allows.
    ///
    /// # Errors
    /// The log cannot be read, or a rotated file of it: see [`super::is_passed_over`].
    pub fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
        let found = self.find()?;
        Ok(found.map(|found| self.show(found)))
    }

    /// The same, but what cannot be read of rotated files is passed over in silence.
    pub(super) fn next_readable(&mut self) -> io::Result<Option<Piece<'_>>> {
        let found = loop {
            match self.find() {
                Err(error) if is_passed_over(&error) => {}
                found => break found?,
            }
        };
        Ok(found.map(|found| self.show(found)))
    }

    fn show(&self, found: Found) -> Piece<'_> {
        let Found { position, text, ending } = found;
        Piece { position, text: self.buffer.get(text).unwrap_or_default(), ending }
    }

    fn find(&mut self) -> io::Result<Option<Found>> {
        loop {
            let rest = &self.buffer[self.start..];
            let found = rest[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(more) = found {
                let length = self.searched + more;
                if length <= PIECE {
                    return Ok(Some(self.hand_out(length, Ending::Newline)));
                }
                return Ok(Some(self.hand_out(PIECE, Ending::Cut)));
            }
            self.searched = rest.len();
            // One byte more than a piece: a newline right behind it still belongs to the line.
            if rest.len() > PIECE {
                return Ok(Some(self.hand_out(PIECE, Ending::Cut)));
            }
            if !self.fill()? {
                let length = self.buffer.len() - self.start;
                return Ok((length > 0).then(|| self.hand_out(length, Ending::Open)));
            }
        }
    }

    fn hand_out(&mut self, length: usize, ending: Ending) -> Found {
        let (start, position) = (self.start, self.position);
        let taken = length + usize::from(ending == Ending::Newline);
        self.start += taken;
        self.position += taken as u64;
        self.searched = 0;
        Found { position, text: start..start + length, ending }
    }

    /// Reads one more block behind what is there. False: there is nothing more.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let held = self.buffer.len();
        let behind = self.position + held as u64;
        let wanted = self.to.saturating_sub(behind).min(self.block as u64);
        let Ok(wanted) = usize::try_from(wanted) else { return Ok(false) };
        if wanted == 0 {
            return Ok(false);
        }
        self.buffer.resize(held + wanted, 0);
        let read = self.log.read_at(behind, &mut self.buffer[held..]);
        let block = match read {
            Ok(block) => block,
            Err(error) => {
                self.buffer.truncate(held);
                return Err(error);
            }
        };
        self.buffer.truncate(held + block.length);
        if block.position == behind {
            return Ok(block.length > 0);
        }
        // What was to be read is gone. A line that has lost its middle is handed out as far as it
        // goes; the bytes behind the gap are read again by the next call.
        if held > 0 {
            self.buffer.truncate(held);
            return Ok(false);
        }
        self.position = block.position;
        let allowed = usize::try_from(self.to.saturating_sub(block.position)).unwrap_or(usize::MAX);
        self.buffer.truncate(allowed.min(block.length));
        Ok(!self.buffer.is_empty())
    }
}
