//! The head of an index: where its log begins, and the journal of a rotation.
//!
//! ```text
//!   16 words of 64 bits, little-endian:
//!   magic | identity | base | next base | first | step | token | head (3) | stamp | dropped | sealed | making | 0 | check
//! ```
//! `base` is the position of the log file's first byte, `first` that of the oldest byte that a rotated
//! file still holds. `dropped` counts the records that have left the front of the index, so that a
//! record has one number for ever. `sealed` says that the records that follow are compressed, as they
//! are beside a rotated file.
//!
//! The journal. To take the head [base, next base) away from a log that somebody appends to, and to
//! know afterwards whether that was done, whatever died in between:
//!
//! ```text
//!   Rest ──> Copied ──> the log's first bytes are overwritten by a marker ──> Marked ──> the head is removed ──> Rest
//! ```
//! Neither the log's length nor its content would tell: it grows meanwhile, and may repeat itself. But
//! in `Marked` the marker is there exactly as long as the head is. And from the moment at which it is
//! there, readers take the head from its copy: `base` counts as `next base`. `head` holds what the
//! marker has overwritten, so that it can be put back.
//!
//! Failure paths: a header that is not ours or torn is none. Readers read while it is written, so a
//! header whose check does not hold is read again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const MAGIC: u64 = u64::from_le_bytes(*b"stigidx2");

/// The length of a header in bytes.
pub(super) const HEADER: u64 = 128;
const BYTES: usize = 128;
const WORDS: usize = 16;

/// The length of a marker in bytes.
pub(super) const MARKER: usize = 24;

/// Beyond this a position is damage: it is four million terabytes.
pub(super) const SENSELESS: u64 = 1 << 62;

/// How often a header is read that is being written.
const TRIES: usize = 8;

/// How far a rotation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing is under way.
    Rest,
    /// The copy of the head is complete. The log may carry the marker, or not yet.
    Copied,
    /// The log has got the marker. If it is not there any more, the head is gone.
    Marked,
}

/// The head of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) identity: u64,
    pub(super) base: u64,
    pub(super) next_base: u64,
    pub(super) first: u64,
    pub(super) step: Step,
    /// What makes the marker unlike anything that the component may write.
    pub(super) token: u64,
    /// What the marker overwrites.
    pub(super) head: [u8; MARKER],
    /// The last rotated file that was made; 0 for none.
    pub(super) stamp: u64,
    pub(super) dropped: u64,
    pub(super) sealed: bool,
    /// The rotated file that the present rotation makes; 0 for none, if the head is not kept.
    pub(super) making: u64,
}

impl Header {
    pub(super) const fn new(identity: u64, base: u64) -> Self {
        Self {
            identity,
            base,
            next_base: base,
            first: base,
            step: Step::Rest,
            token: 0,
            head: [0; MARKER],
            stamp: 0,
            dropped: 0,
            sealed: false,
            making: 0,
        }
    }

    /// The same with nothing under way.
    pub(super) const fn at_rest(self, base: u64) -> Self {
        let step = Step::Rest;
        Self { base, next_base: base, step, token: 0, head: [0; MARKER], making: 0, ..self }
    }

    /// What the log begins with while its head is about to be removed.
    pub(super) fn marker(&self) -> [u8; MARKER] {
        let mut marker = [0; MARKER];
        marker[..8].copy_from_slice(b"stigmer:");
        for (place, byte) in marker[8..].iter_mut().enumerate() {
            let digit = (self.token >> (60 - 4 * place)) & 15;
            *byte = b"0123456789abcdef"[usize::try_from(digit).unwrap_or(0)];
        }
        marker
    }

    /// Whether a log begins with the marker.
    pub(super) fn marks(&self, log: &File) -> io::Result<bool> {
        let mut head = [0; MARKER];
        match log.read_exact_at(&mut head, 0) {
            Ok(()) => Ok(head == self.marker()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn load(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; BYTES];
        for _ in 0..TRIES {
            match file.read_exact_at(&mut bytes, 0) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(header) = Self::decode(&bytes) {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [magic, identity, base, next_base, first, step, token, a, b, c, stamp, dropped, ..] =
            words;
        let step = match step {
            0 => Step::Rest,
            1 => Step::Copied,
            2 => Step::Marked,
            _ => return None,
        };
        let mut head = [0; MARKER];
        for (bytes, word) in head.as_chunks_mut::<8>().0.iter_mut().zip([a, b, c]) {
            *bytes = word.to_le_bytes();
        }
        let is_sound = magic == MAGIC
            && words[WORDS - 1] == check(&words)
            && first <= base
            && base <= next_base
            && next_base < SENSELESS;
        let sealed = words[12] != 0;
        is_sound.then_some(Self {
            identity,
            base,
            next_base,
            first,
            step,
            token,
            head,
            stamp,
            dropped,
            sealed,
            making: words[13],
        })
    }

    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut words = [0; WORDS];
        let step = match self.step {
            Step::Rest => 0,
            Step::Copied => 1,
            Step::Marked => 2,
        };
        words[..7].copy_from_slice(&[
            MAGIC,
            self.identity,
            self.base,
            self.next_base,
            self.first,
            step,
            self.token,
        ]);
        for (word, bytes) in words[7..10].iter_mut().zip(self.head.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words[10..14].copy_from_slice(&[
            self.stamp,
            self.dropped,
            u64::from(self.sealed),
            self.making,
        ]);
        words[WORDS - 1] = check(&words);
        let mut bytes = [0; BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    pub(super) fn save(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.encode(), 0)
    }
}

/// Tells a header that was read while it was written.
fn check(words: &[u64; WORDS]) -> u64 {
    words[..WORDS - 1].iter().fold(0x9e37_79b9_7f4a_7c15, |sum, word| {
        (sum.rotate_left(23) ^ word).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> impl Strategy<Value = Header> {
        let positions = (0..SENSELESS / 4, 0..SENSELESS / 4, 0..SENSELESS / 4);
        let step = prop_oneof![Just(Step::Rest), Just(Step::Copied), Just(Step::Marked)];
        let rest = (any::<u64>(), any::<u64>(), any::<[u8; MARKER]>(), any::<u64>(), any::<bool>());
        (positions, step, rest).prop_map(|((first, more, yet), step, rest)| Header {
            identity: rest.0,
            base: first + more,
            next_base: first + more + yet,
            first,
            step,
            token: rest.1,
            head: rest.2,
            stamp: rest.3,
            dropped: rest.1 ^ rest.0,
            sealed: rest.4,
            making: rest.3 / 2,
        })
    }

    proptest! {
        #[test]
        fn a_header_survives_the_trip_and_damage_is_seen(header in header(), place in 0..BYTES, bit in 0..8) {
            let mut bytes = header.encode();
            prop_assert_eq!(Header::decode(&bytes), Some(header));
            bytes[place] ^= 1_u8 << bit;
            prop_assert_eq!(Header::decode(&bytes), None);
        }
    }

    #[test]
    fn the_marker_is_text_of_its_token() {
        let header = Header { token: 0x0123_4567_89ab_cdef, ..Header::new(1, 2) };
        assert_eq!(&header.marker(), b"stigmer:0123456789abcdef");
    }
}
