//! Messages over a `SOCK_SEQPACKET` socket, with descriptors beside them.
//!
//! ```text
//!   short message:  packet [message]                          descriptors [of the message]
//!   long message:   packet [0x7f]    memfd holds the message  descriptors [memfd, of the message]
//! ```
//!
//! Nothing here ever blocks. A long message travels as a sealed memfd, so that the sender cannot
//! change it under the reader, and its size is known before a byte is read.
//!
//! Failure paths: a full socket is [`Sent::Full`]; the other side being gone is an error when sending
//! and [`Received::End`] when receiving; a packet that breaks the rules is [`Received::Garbage`] and
//! costs nothing but itself.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::wire::{MAX_MESSAGE, MAX_PACKET};

/// The only packet of this kind: the message is in the first descriptor.
const LONG: u8 = 0x7f;

/// The most descriptors that come with a packet.
const MAX_DESCRIPTORS: usize = 4;

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Sent {
    /// The kernel has it.
    Done,
    /// The socket is full; try again when it is writable.
    Full,
}

/// What was there to receive.
#[derive(Debug)]
pub enum Received {
    /// A message: the first so many bytes of the buffer.
    Short(usize),
    /// A message too long for the buffer.
    Long(Vec<u8>),
    /// A packet that is no message, and why.
    Garbage(&'static str),
    /// Nothing for now.
    Nothing,
    /// The other side is gone.
    End,
}

/// A message ready to be sent, perhaps more than once.
#[derive(Debug)]
pub struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Packet {
    /// Packs a message. Fails if it is longer than [`MAX_MESSAGE`] or no memfd can be made for a
    /// long one.
    pub fn new(message: Vec<u8>, mut descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        if message.len() > MAX_MESSAGE || descriptors.len() >= MAX_DESCRIPTORS {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        if message.len() <= MAX_PACKET {
            return Ok(Self { bytes: message, descriptors });
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = File::from(rustix::fs::memfd_create(c"stigmer-message", flags)?);
        memory.write_all_at(&message, 0)?;
        rustix::fs::fcntl_add_seals(&memory, SEALS)?;
        descriptors.insert(0, memory.into());
        Ok(Self { bytes: vec![LONG], descriptors })
    }

    /// Sends it.
    pub fn send(&self, socket: BorrowedFd<'_>) -> io::Result<Sent> {
        let mut borrowed = [socket; MAX_DESCRIPTORS];
        for (slot, descriptor) in borrowed.iter_mut().zip(&self.descriptors) {
            *slot = descriptor.as_fd();
        }
        send_short(socket, &self.bytes, &borrowed[..self.descriptors.len()])
    }
}

/// Sends a message that fits a packet.
pub fn send_short(
    socket: BorrowedFd<'_>,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Sent> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, flags) {
            Ok(_) => return Ok(Sent::Done),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => return Ok(Sent::Full),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message into `buffer`, which should hold at least [`MAX_PACKET`] bytes, and its
/// descriptors, all close-on-exec, into `descriptors`.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    descriptors.clear();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut is_reset = false;
    let message = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, flags) {
            Ok(message) => break message,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
            // The other end is gone and has not read everything. That is told once, before what it had sent itself.
            Err(rustix::io::Errno::CONNRESET) if !is_reset => is_reset = true,
            Err(rustix::io::Errno::CONNRESET) => return Ok(Received::End),
            Err(error) => return Err(error.into()),
        }
    };
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Received::Garbage("a packet is too long"));
    }
    // Cut-off descriptors (too many of them, or none left to receive them with) are not an error
    // here: the message that needs one will find it missing and say so about its own run.
    if message.bytes == 0 {
        return Ok(Received::End);
    }
    if buffer.first() != Some(&LONG) || message.bytes != 1 {
        return Ok(Received::Short(message.bytes));
    }
    if descriptors.is_empty() {
        return Ok(Received::Garbage("a long message came without its memory"));
    }
    let memory = descriptors.remove(0);
    Ok(read_long(memory).map_or_else(Received::Garbage, Received::Long))
}

fn read_long(memory: OwnedFd) -> Result<Vec<u8>, &'static str> {
    let seals = rustix::fs::fcntl_get_seals(&memory).unwrap_or(SealFlags::empty());
    if !seals.contains(SEALS) {
        return Err("the memory of a long message is not sealed");
    }
    let memory = File::from(memory);
    let length = memory.metadata().map_or(u64::MAX, |metadata| metadata.len());
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err("a message is too long");
    }
    let mut bytes = vec![0; length];
    memory.read_exact_at(&mut bytes, 0).map_err(|_| "a long message cannot be read")?;
    Ok(bytes)
}

/// Makes a connected pair of sockets, close-on-exec and non-blocking.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn receive_one(socket: &OwnedFd) -> (Received, Vec<u8>, Vec<OwnedFd>) {
        let mut buffer = vec![0; 64 * 1024];
        let mut descriptors = Vec::new();
        let received = receive(socket.as_fd(), &mut buffer, &mut descriptors).unwrap();
        (received, buffer, descriptors)
    }

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        let (left, right) = pair().unwrap();
        for length in [1, 100, MAX_PACKET, MAX_PACKET + 1, 1_000_000, MAX_MESSAGE] {
            let message = vec![7; length];
            let (reader, writer) = io::pipe().unwrap();
            let packet = Packet::new(message.clone(), vec![writer.into()]).unwrap();
            assert_eq!(packet.send(left.as_fd()).unwrap(), Sent::Done);
            drop(packet);
            let (received, buffer, descriptors) = receive_one(&right);
            let got = match received {
                Received::Short(length) => buffer[..length].to_vec(),
                Received::Long(bytes) => bytes,
                other => panic!("{other:?}"),
            };
            assert_eq!(got, message);
            assert_eq!(descriptors.len(), 1);
            File::from(descriptors.into_iter().next().unwrap()).write_all(b"through").unwrap();
            assert_eq!(io::read_to_string(reader).unwrap(), "through");
        }
        assert!(Packet::new(vec![0; MAX_MESSAGE + 1], Vec::new()).is_err());
    }

    #[test]
    fn an_unsealed_memory_or_none_at_all_is_garbage() {
        let (left, right) = pair().unwrap();
        assert_eq!(send_short(left.as_fd(), &[LONG], &[]).unwrap(), Sent::Done);
        assert!(matches!(receive_one(&right).0, Received::Garbage(_)));
        let memory = rustix::fs::memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(send_short(left.as_fd(), &[LONG], &[memory.as_fd()]).unwrap(), Sent::Done);
        assert!(matches!(receive_one(&right).0, Received::Garbage(_)));
        let pipe = io::pipe().unwrap().0;
        assert_eq!(send_short(left.as_fd(), &[LONG], &[pipe.as_fd()]).unwrap(), Sent::Done);
        assert!(matches!(receive_one(&right).0, Received::Garbage(_)));
    }

    #[test]
    fn a_full_socket_says_so_and_an_end_is_seen() {
        let (left, right) = pair().unwrap();
        let mut count = 0_usize;
        while send_short(left.as_fd(), &[1; 100], &[]).unwrap() == Sent::Done {
            count += 1;
        }
        assert!(count > 10);
        for _ in 0..count {
            assert!(matches!(receive_one(&right).0, Received::Short(100)));
        }
        assert!(matches!(receive_one(&right).0, Received::Nothing));
        drop(left);
        assert!(matches!(receive_one(&right).0, Received::End));
    }
}
