//! The output of a command, until its end.
//!
//! ```text
//!   stream ─▶ Frames: cut ─▶ pieces ... ─┬─ end of the stream
//!                                        └─ end of the process, and a pause ─▶ over
//! ```
//!
//! The end is the end of the command: what it leaves running may hold the output open. On this machine the
//! command's process is watched for it; elsewhere only the end of the output tells.
//!
//! Without a terminal the output comes in frames, each with a header that says whose it is; with one it comes
//! as it is.
//!
//! Failure paths: a connection that breaks, and a stream that has lost its frames, are errors.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, ReadHalf};
use tokio::net::unix::pipe;

use crate::container::engine::QUICK;
use crate::container::raw::Raw;

/// How long the output may keep quiet after the end of the command until it counts as ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How much of an engine's excuse is kept, in bytes.
const LONGEST_EXCUSE: usize = 64 * 1024;

/// Where a piece of the output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Also all of a terminal's output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of the output.
pub type Piece = (Channel, Bytes);

/// The output of a command, piece by piece.
#[derive(Debug)]
pub struct Pieces {
    early: VecDeque<Piece>,
    output: Output,
    /// Its main process, where that is seen; readable at its end.
    process: Option<pipe::Receiver>,
    is_over: bool,
}

impl Pieces {
    /// What has come, what comes, and the process whose end is the end.
    pub(super) fn new(
        early: VecDeque<Piece>,
        output: Output,
        process: Option<pipe::Receiver>,
    ) -> Self {
        Self { early, output, process, is_over: false }
    }

    /// The next piece; `None` when the output has ended, or the command has and has nothing more to say.
    /// Nothing is lost when it is cancelled.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> io::Result<Option<Piece>> {
        if let Some(piece) = self.early.pop_front() {
            return Ok(Some(piece));
        }
        loop {
            if self.is_over {
                let rest = tokio::time::timeout(LAST_WORDS, self.output.next()).await;
                return rest.unwrap_or(Ok(None));
            }
            let ended = async {
                match &self.process {
                    Some(process) => drop(process.readable().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                piece = self.output.next() => return piece,
                () = ended => self.is_over = true,
            }
        }
    }
}

/// The stream, cut into pieces.
#[derive(Debug)]
pub(super) struct Output {
    reader: ReadHalf<Raw>,
    buffer: BytesMut,
    frames: Frames,
}

impl Output {
    pub(super) fn new(reader: ReadHalf<Raw>, is_terminal: bool) -> Self {
        let frames = if is_terminal { Frames::None } else { Frames::Header };
        Self { reader, buffer: BytesMut::new(), frames }
    }

    async fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.frames.cut(&mut self.buffer)? {
                return Ok(Some(piece));
            }
            self.buffer.reserve(32 * 1024);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// What there is until the end, or for as long as an engine may take to say it.
    pub(super) async fn rest(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut length = 0;
        let gather = async {
            while let Ok(Some((channel, bytes))) = self.next().await {
                length += bytes.len();
                pieces.push((channel, bytes));
                if length > LONGEST_EXCUSE {
                    break;
                }
            }
        };
        // What has come by then is all there is.
        drop(tokio::time::timeout(QUICK, gather).await);
        pieces
    }
}

/// How far the stream has been understood. Pure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frames {
    /// There are none.
    None,
    /// A header comes next: the channel, three zeros, the length in big-endian order.
    Header,
    /// So many bytes of this channel are left.
    Payload(Channel, usize),
}

/// The length of a header in bytes.
const HEADER: usize = 8;

impl Frames {
    /// Takes the next piece out of the buffer, if there is one. A frame need not be complete for it.
    fn cut(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Piece>> {
        loop {
            match *self {
                Self::None if buffer.is_empty() => return Ok(None),
                Self::None => return Ok(Some((Channel::Stdout, buffer.split().freeze()))),
                Self::Header => {
                    let Some(&[channel, _, _, _, ref length @ ..]) = buffer.first_chunk::<HEADER>()
                    else {
                        return Ok(None);
                    };
                    let channel = match channel {
                        // 0 is the standard input, which no engine sends back.
                        0 | 1 => Channel::Stdout,
                        2 => Channel::Stderr,
                        other => {
                            let why = format!("the engine sends a frame of channel {other}");
                            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                        }
                    };
                    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    buffer.advance(HEADER);
                    *self = Self::Payload(channel, length);
                }
                Self::Payload(_, 0) => *self = Self::Header,
                Self::Payload(_, _) if buffer.is_empty() => return Ok(None),
                Self::Payload(channel, left) => {
                    let bytes = buffer.split_to(left.min(buffer.len())).freeze();
                    *self = Self::Payload(channel, left - bytes.len());
                    return Ok(Some((channel, bytes)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(channel: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[channel, 0, 0, 0], &length[..], bytes].concat()
    }

    /// Feeds a stream in pieces of this length; gives what each channel got.
    fn cut(mut frames: Frames, stream: &[u8], at_once: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut buffer, mut out, mut err) = (BytesMut::new(), Vec::new(), Vec::new());
        for chunk in stream.chunks(at_once) {
            buffer.extend_from_slice(chunk);
            while let Some((channel, bytes)) = frames.cut(&mut buffer).unwrap() {
                match channel {
                    Channel::Stdout => out.extend(bytes),
                    Channel::Stderr => err.extend(bytes),
                }
            }
        }
        (out, err)
    }

    proptest! {
        #[test]
        fn channels_stay_apart_however_the_stream_is_cut(
            frames in prop::collection::vec((1..=2_u8, prop::collection::vec(any::<u8>(), 0..50)), 0..20),
            at_once in 1..200_usize,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(to, bytes)| frame(*to, bytes)).collect();
            let of = |channel| -> Vec<u8> {
                let mine = frames.iter().filter(|(to, _)| *to == channel);
                mine.flat_map(|(_, bytes)| bytes.clone()).collect()
            };
            prop_assert_eq!(cut(Frames::Header, &stream, at_once), (of(1), of(2)));
        }

        #[test]
        fn a_terminal_s_output_is_passed_on_as_it_is(
            stream in prop::collection::vec(any::<u8>(), 0..200),
            at_once in 1..50_usize,
        ) {
            prop_assert_eq!(cut(Frames::None, &stream, at_once), (stream, Vec::new()));
        }
    }

    #[test]
    fn a_stream_that_has_lost_its_frames_is_an_error() {
        let mut buffer = BytesMut::from(&b"hello, world"[..]);
        assert!(Frames::Header.cut(&mut buffer).is_err());
    }
}
