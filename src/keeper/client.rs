//! The engine's end of the connection.
//!
//! ```text
//!   send ──► socket, or ──► queue ──┐ flushed by recv as the socket takes it
//!   recv ◄── socket ◄───────────────┘
//! ```
//!
//! `send` never waits: the supervisor's loop calls it. What the socket does not take at once is queued,
//! and whoever waits in `recv` sends it on. Order is kept.
//!
//! What is sent while messages are gathered, and is short, goes in packets of many: a thousand signals are
//! one, so that the last is sent before the keeper is busy with the ends that come of the first. The keeper
//! tells of ends in the same way.
//!
//! Failure paths: the end of the connection means that the keeper is gone; `recv` says `None`, and so
//! does every later call. A message that cannot be understood is an error of that message alone; the
//! next call goes on with the next one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::socket::{self, Packet, Received, Sent};
use super::wire::{self, FromKeeper, SHORT, Several, ToKeeper, WireError};
use crate::crash;
use crate::descriptor::register;

/// The number of the descriptor that the keeper starts the engine with.
pub const ENGINE_FD: i32 = 3;

/// A packet of gathered messages is not longer than this by much.
const PACKET: usize = 16 * 1024;

/// How long a keeper that takes none of the last words is waited for.
const DEAF: Duration = Duration::from_secs(10);

/// By what a socket tells that it takes something again.
type Room = Arc<AsyncFd<OwnedFd>>;

/// How long until another descriptor is asked for.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// A connection to the keeper.
#[derive(Debug)]
pub struct KeeperClient {
    /// For reading alone: were its being writable waited for as well, each message that the keeper takes would
    /// wake up the engine.
    socket: AsyncFd<OwnedFd>,
    /// The same socket, for writing, while something is queued.
    room: Mutex<Option<Room>>,
    queue: Mutex<VecDeque<Packet>>,
    /// What came in one packet with a message that was taken already.
    heard: Mutex<VecDeque<Result<FromKeeper, WireError>>>,
    /// Short messages that will go together, while they are gathered.
    gathered: Mutex<Option<Several>>,
    /// Wakes a waiting `recv` when something is queued.
    queued: Notify,
}

impl KeeperClient {
    /// Takes over the engine's end of the connection. Must be called inside of a tokio runtime.
    pub fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self {
            socket: register(socket, Interest::READABLE)?,
            room: Mutex::new(None),
            queue: Mutex::new(VecDeque::new()),
            heard: Mutex::new(VecDeque::new()),
            gathered: Mutex::new(None),
            queued: Notify::new(),
        })
    }

    /// Takes over the connection that this process was started with.
    pub fn inherited() -> io::Result<Self> {
        Self::from_fd(super::sys::adopt_descriptor(ENGINE_FD)?)
    }

    /// The next message, with its descriptor if it has one; `None` once the keeper is gone. Also sends
    /// what is queued. May be dropped at any time without losing a message.
    pub async fn recv(&self) -> io::Result<Option<(FromKeeper, Option<OwnedFd>)>> {
        loop {
            if let Some(message) = lock(&self.heard).pop_front() {
                crash::point("heard the keeper");
                return message.map(|message| Some((message, None))).map_err(io::Error::other);
            }
            let mut guard = tokio::select! {
                guard = self.socket.readable() => guard?,
                sent = self.send_on() => {
                    if let Err(error) = sent {
                        use io::ErrorKind::{BrokenPipe, ConnectionReset};
                        if !matches!(error.kind(), BrokenPipe | ConnectionReset) {
                            return Err(error);
                        }
                        // Nobody is there any more who takes it. What was said before is still to be heard.
                        self.queue().clear();
                    }
                    continue;
                }
                () = self.queued.notified() => continue,
            };
            let mut buffer = [0; 4096];
            let mut descriptors = Vec::new();
            let socket = self.socket.get_ref().as_fd();
            let long;
            let packet = match socket::receive(socket, &mut buffer, &mut descriptors)? {
                Received::Short(length) => buffer.get(..length).unwrap_or(&[]),
                Received::Long(bytes) => {
                    long = bytes;
                    long.as_slice()
                }
                Received::Garbage(why) => return Err(io::Error::other(why)),
                Received::Nothing => {
                    guard.clear_ready();
                    continue;
                }
                Received::End => return Ok(None),
            };
            let mut messages = wire::messages(packet, FromKeeper::decode);
            // A packet of none says nothing.
            let Some(first) = messages.next() else { continue };
            lock(&self.heard).extend(messages);
            let message = first.map_err(io::Error::other)?;
            crash::point("heard the keeper");
            return Ok(Some((message, descriptors.into_iter().next())));
        }
    }

    /// Sends a message, at once or as soon as the socket takes it. The descriptors are copied, so that
    /// the caller may close its own. Fails if the message is too long, a descriptor cannot be copied,
    /// or the keeper is gone.
    pub fn send(&self, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        if descriptors.is_empty() && bytes.len() <= SHORT {
            let is_gathered = lock(&self.gathered).as_mut().map(|gathered| {
                gathered.add(&bytes);
                gathered.length() >= PACKET
            });
            return match is_gathered {
                None => self.put(bytes, Vec::new()),
                Some(true) => self.put_gathered(),
                Some(false) => Ok(()),
            };
        }
        // Order is kept.
        self.put_gathered()?;
        let copies = descriptors.iter().map(BorrowedFd::try_clone_to_owned);
        self.put(bytes, copies.collect::<io::Result<_>>()?)
    }

    /// From now on short messages are gathered, to go together.
    pub fn gather(&self) {
        lock(&self.gathered).get_or_insert_default();
    }

    /// Sends what was gathered, and gathers no more. Fails if the keeper is gone.
    pub fn release(&self) -> io::Result<()> {
        let sent = self.put_gathered();
        *lock(&self.gathered) = None;
        sent
    }

    fn put_gathered(&self) -> io::Result<()> {
        let gathered = lock(&self.gathered).as_mut().map(std::mem::take);
        match gathered.filter(|gathered| !gathered.is_empty()) {
            Some(gathered) => self.put(gathered.into_bytes(), Vec::new()),
            None => Ok(()),
        }
    }

    fn put(&self, bytes: Vec<u8>, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let packet = Packet::new(bytes, descriptors)?;
        let is_first = {
            let mut queue = self.queue();
            queue.push_back(packet);
            queue.len() == 1
        };
        // Behind others it waits for its turn: who receives sends them on once the socket takes more.
        if is_first && self.flush()? == Sent::Full {
            self.queued.notify_one();
        }
        crash::point("told the keeper");
        Ok(())
    }

    /// Messages that the socket has not taken yet.
    pub fn backlog(&self) -> usize {
        self.queue().len()
    }

    /// Waits until the socket has taken everything: for the last words of an engine, which would be lost
    /// with it. Gives up on a keeper that takes nothing for a while. One that takes its time, because ten
    /// thousand acknowledgements are ten thousand records to remove, is waited for.
    pub async fn sent(&self) {
        self.sent_unless_deaf(DEAF).await;
    }

    async fn sent_unless_deaf(&self, patience: Duration) {
        while self.backlog() > 0 {
            // Or it is gone, and so is whatever it should have heard.
            let Ok(Ok(())) = tokio::time::timeout(patience, self.send_on()).await else { return };
        }
    }

    /// Sends some of what is queued once the socket has room for it. Waits for ever while nothing is.
    async fn send_on(&self) -> io::Result<()> {
        if self.queue().is_empty() {
            return std::future::pending().await;
        }
        let Ok(room) = self.room() else {
            // No descriptor is left, and nobody tells when there is one again.
            let before = self.backlog();
            while self.flush()? == Sent::Full && self.backlog() == before {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            return Ok(());
        };
        let mut guard = room.writable().await?;
        match self.flush()? {
            Sent::Full => guard.clear_ready(),
            Sent::Done => *lock(&self.room) = None,
        }
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        let mut room = lock(&self.room);
        if let Some(room) = &*room {
            return Ok(room.clone());
        }
        let socket = self.socket.get_ref().try_clone()?;
        Ok(room.insert(Arc::new(register(socket, Interest::WRITABLE)?)).clone())
    }

    fn flush(&self) -> io::Result<Sent> {
        let mut queue = self.queue();
        while let Some(packet) = queue.front() {
            if packet.send(self.socket.get_ref().as_fd())? == Sent::Full {
                return Ok(Sent::Full);
            }
            queue.pop_front();
        }
        Ok(Sent::Done)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Packet>> {
        lock(&self.queue)
    }
}

/// A panic elsewhere leaves it as it was: there is nothing that could be half done.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;

    fn drain(socket: &OwnedFd, messages: &mut Vec<ToKeeper>) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match socket::receive(socket.as_fd(), &mut buffer, &mut Vec::new()).unwrap() {
                Received::Short(length) => {
                    messages.push(ToKeeper::decode(&buffer[..length]).unwrap());
                }
                Received::Nothing => return true,
                Received::End => return false,
                other => panic!("{other:?}"),
            }
        }
    }

    /// A keeper that is killed leaves unread what it was asked, and told what it had to tell.
    #[tokio::test(flavor = "current_thread")]
    async fn what_a_dead_keeper_has_told_is_heard_whatever_it_has_left_unread() {
        for asked in [0, 1, 5_000] {
            let (mine, theirs) = socket::pair().unwrap();
            let client = KeeperClient::from_fd(mine).unwrap();
            for run in 0..asked {
                client.send(&ToKeeper::Ack { run: RunId(run) }, &[]).unwrap();
            }
            assert_eq!(client.backlog() > 0, asked == 5_000);
            for run in 0..3 {
                let mut bytes = Vec::new();
                FromKeeper::Gone { run: RunId(run) }.encode(&mut bytes);
                assert_eq!(socket::send_short(theirs.as_fd(), &bytes, &[]).unwrap(), Sent::Done);
            }
            drop(theirs);
            for run in 0..3 {
                let heard = client.recv().await.unwrap().map(|(message, _)| message);
                assert_eq!(heard, Some(FromKeeper::Gone { run: RunId(run) }), "{asked} unread");
            }
            assert!(client.recv().await.unwrap().is_none());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn last_words_are_waited_for() {
        let (mine, theirs) = socket::pair().unwrap();
        let client = KeeperClient::from_fd(mine).unwrap();
        for run in 0..5_000 {
            client.send(&ToKeeper::Ack { run: RunId(run) }, &[]).unwrap();
        }
        client.send(&ToKeeper::Shutdown, &[]).unwrap();
        assert!(client.backlog() > 0);
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            while received.last() != Some(&ToKeeper::Shutdown) {
                drain(&theirs, &mut received);
                tokio::task::yield_now().await;
            }
            received.len()
        });
        client.sent().await;
        assert_eq!(client.backlog(), 0);
        // What was taken is there, also when the engine is not.
        drop(client);
        assert_eq!(reader.await.unwrap(), 5_001);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_slow_keeper_hears_the_last_words_and_a_deaf_one_is_given_up() {
        const DEAF: Duration = Duration::from_millis(500);
        let (mine, theirs) = socket::pair().unwrap();
        let client = KeeperClient::from_fd(mine).unwrap();
        for run in 0..5_000 {
            client.send(&ToKeeper::Ack { run: RunId(run) }, &[]).unwrap();
        }
        client.send(&ToKeeper::Shutdown, &[]).unwrap();
        let began = tokio::time::Instant::now();
        let slow = tokio::spawn(async move {
            let mut received = Vec::new();
            // Longer in all than one that takes nothing is waited for.
            // A socket is writable again once most of it has been taken.
            while began.elapsed() < DEAF * 2 {
                for _ in 0..10 {
                    let mut buffer = [0; 64];
                    let taken = socket::receive(theirs.as_fd(), &mut buffer, &mut Vec::new());
                    if let Received::Short(length) = taken.unwrap() {
                        received.push(ToKeeper::decode(&buffer[..length]).unwrap());
                    }
                }
                tokio::time::sleep(DEAF / 100).await;
            }
            while received.last() != Some(&ToKeeper::Shutdown) {
                drain(&theirs, &mut received);
                tokio::task::yield_now().await;
            }
            theirs
        });
        client.sent_unless_deaf(DEAF).await;
        assert_eq!(client.backlog(), 0);
        assert!(began.elapsed() > DEAF);
        let _deaf = slow.await.unwrap();
        while client.backlog() == 0 {
            client.send(&ToKeeper::List, &[]).unwrap();
        }
        client.sent_unless_deaf(DEAF / 10).await;
        assert!(client.backlog() > 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_comes_together_is_heard_one_by_one() {
        let (mine, theirs) = socket::pair().unwrap();
        let client = KeeperClient::from_fd(mine).unwrap();
        let mut several = Several::default();
        for message in [FromKeeper::Gone { run: RunId(1) }, FromKeeper::ListEnd] {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            several.add(&bytes);
            several.add(&[99]);
        }
        let nothing = Several::default().into_bytes();
        for packet in [nothing, several.into_bytes()] {
            let sent = socket::send_short(theirs.as_fd(), &packet, &[]).unwrap();
            assert_eq!(sent, Sent::Done);
        }
        drop(theirs);
        let heard = client.recv().await.unwrap().unwrap().0;
        assert_eq!(heard, FromKeeper::Gone { run: RunId(1) });
        // One that is of no use costs itself alone.
        assert!(client.recv().await.is_err());
        assert_eq!(client.recv().await.unwrap().unwrap().0, FromKeeper::ListEnd);
        assert!(client.recv().await.is_err());
        assert!(client.recv().await.unwrap().is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_gathered_goes_together_and_in_order() {
        let (mine, theirs) = socket::pair().unwrap();
        let client = KeeperClient::from_fd(mine).unwrap();
        let packets = || {
            let mut packets: Vec<Vec<ToKeeper>> = Vec::new();
            let mut buffer = vec![0; 64 * 1024];
            while let Received::Short(length) =
                socket::receive(theirs.as_fd(), &mut buffer, &mut Vec::new()).unwrap()
            {
                let messages = wire::messages(&buffer[..length], ToKeeper::decode);
                packets.push(messages.collect::<Result<_, _>>().unwrap());
            }
            packets
        };
        let ack = |run| ToKeeper::Ack { run: RunId(run) };
        let long = ToKeeper::Hold { name: "x".repeat(SHORT) };
        client.gather();
        client.send(&ack(1), &[]).unwrap();
        assert!(packets().is_empty());
        client.send(&long, &[]).unwrap();
        for run in 2..=4 {
            client.send(&ack(run), &[]).unwrap();
        }
        client.release().unwrap();
        client.send(&ack(5), &[]).unwrap();
        client.gather();
        client.release().unwrap();
        let sent = packets();
        assert_eq!(sent, [vec![ack(1)], vec![long], vec![ack(2), ack(3), ack(4)], vec![ack(5)]]);
        client.gather();
        let many: Vec<_> = (0..5_000).map(ack).collect();
        for message in &many {
            client.send(message, &[]).unwrap();
        }
        client.release().unwrap();
        let sent = packets();
        assert!((2..10).contains(&sent.len()), "{}", sent.len());
        assert_eq!(sent.concat(), many);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_does_not_fit_is_sent_later_and_in_order() {
        let (mine, theirs) = socket::pair().unwrap();
        let client = std::sync::Arc::new(KeeperClient::from_fd(mine).unwrap());
        let waiting = tokio::spawn({
            let client = std::sync::Arc::clone(&client);
            async move { client.recv().await }
        });
        tokio::task::yield_now().await;
        let sent: Vec<_> = (0..5_000).map(|run| ToKeeper::Ack { run: RunId(run) }).collect();
        for message in &sent {
            client.send(message, &[]).unwrap();
        }
        assert!(client.backlog() > 0);
        let mut received = Vec::new();
        while received.len() < sent.len() {
            drain(&theirs, &mut received);
            tokio::task::yield_now().await;
        }
        assert_eq!(received, sent);
        assert_eq!(client.backlog(), 0);
        let mut bytes = Vec::new();
        FromKeeper::ListEnd.encode(&mut bytes);
        let pipe = io::pipe().unwrap().0;
        assert_eq!(
            socket::send_short(theirs.as_fd(), &bytes, &[pipe.as_fd()]).unwrap(),
            Sent::Done
        );
        let (message, descriptor) = waiting.await.unwrap().unwrap().unwrap();
        assert_eq!(message, FromKeeper::ListEnd);
        assert!(descriptor.is_some());
        // Garbage costs itself alone; the end is the end.
        assert_eq!(socket::send_short(theirs.as_fd(), &[99], &[]).unwrap(), Sent::Done);
        assert!(client.recv().await.is_err());
        drop(theirs);
        assert!(client.recv().await.unwrap().is_none());
        assert!(client.recv().await.unwrap().is_none());
        assert!(client.send(&ToKeeper::List, &[]).is_err());
    }
}
