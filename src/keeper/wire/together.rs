//! Messages that go together, in one packet.
//!
//! ```text
//!   [15] ( [length u32] [message] )*
//! ```
//!
//! Each packet costs both sides a system call and a wake-up; of a thousand short messages in a row that is
//! most of what they cost. None of them has a descriptor.

use super::WireError;
use super::codec::{Reader, Writer};

/// In place of the kind of a single message, of either side.
const SEVERAL: u8 = 15;

/// Longer messages go alone.
pub const SHORT: usize = 64;

/// Messages that go together.
#[derive(Debug)]
pub struct Several(Vec<u8>);

impl Default for Several {
    fn default() -> Self {
        Self(vec![SEVERAL])
    }
}

impl Several {
    /// Adds a message that is encoded.
    pub fn add(&mut self, message: &[u8]) {
        Writer(&mut self.0).bytes(message);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// The length of the packet so far, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// The packet.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The messages of a packet, in their order: one, or several that go together.
pub fn messages<T>(
    packet: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
) -> impl Iterator<Item = Result<T, WireError>> {
    let (mut single, mut rest) = match packet.split_first() {
        Some((&SEVERAL, rest)) => (None, rest),
        Some(_) | None => (Some(packet), [].as_slice()),
    };
    std::iter::from_fn(move || {
        if let Some(message) = single.take() {
            return Some(decode(message));
        }
        if rest.is_empty() {
            return None;
        }
        let mut input = Reader(rest);
        let message = input.bytes();
        // What is cut short ends the packet.
        rest = if message.is_ok() { input.0 } else { &[] };
        Some(message.and_then(&decode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::wire::ToKeeper;
    use crate::model::RunId;

    #[test]
    fn messages_that_go_together_come_apart_in_their_order() {
        let acks: Vec<_> = (0..3).map(|run| ToKeeper::Ack { run: RunId(run) }).collect();
        let mut several = Several::default();
        assert!(several.is_empty());
        for ack in &acks {
            let mut bytes = Vec::new();
            ack.encode(&mut bytes);
            let alone: Vec<_> =
                messages(&bytes, ToKeeper::decode).collect::<Result<_, _>>().unwrap();
            assert_eq!(alone.as_slice(), std::slice::from_ref(ack));
            several.add(&bytes);
        }
        let packet = several.into_bytes();
        let together: Vec<_> =
            messages(&packet, ToKeeper::decode).collect::<Result<_, _>>().unwrap();
        assert_eq!(together, acks);
        // One that is of no use costs itself alone, and one that is cut short the rest.
        let mut several = Several::default();
        several.add(&[99]);
        let mut list = Vec::new();
        ToKeeper::List.encode(&mut list);
        several.add(&list);
        let packet = several.into_bytes();
        let mixed: Vec<_> = messages(&packet, ToKeeper::decode).collect();
        assert_eq!(mixed, [Err(WireError::Kind(99)), Ok(ToKeeper::List)]);
        for length in 1..packet.len() {
            assert!(messages(&packet[..length], ToKeeper::decode).count() <= 2);
        }
        assert_eq!(messages(&[SEVERAL], ToKeeper::decode).count(), 0);
        assert_eq!(messages(&[], ToKeeper::decode).collect::<Vec<_>>(), [Err(WireError::Short)]);
    }
}
