//! This process's standard streams, each served by a thread of its own: they may be files, which no event
//! loop can wait for, and a read or a write that waits must hold up neither the other direction nor a signal.
//!
//! The threads are not waited for: one that reads a terminal ends with the process.

use std::io::{self, Read, Write};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::container::attach::{Channel, Piece};

/// How many pieces may wait for the other side.
const WAITING: usize = 16;

/// The largest piece of the standard input.
const PIECE: usize = 32 * 1024;

/// Pieces of the standard input, until its end.
pub(super) fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            match io::stdin().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let piece = buffer.get(..length).unwrap_or_default().to_vec();
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Such as a terminal that was hung up.
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Writes pieces to the standard output and the standard error.
pub(super) struct Writer {
    pieces: mpsc::Sender<Piece>,
    done: oneshot::Receiver<()>,
}

impl Writer {
    pub(super) fn start() -> Self {
        let (pieces, mut inbox) = mpsc::channel::<Piece>(WAITING);
        let (sender, done) = oneshot::channel();
        thread::spawn(move || {
            while let Some((channel, bytes)) = inbox.blocking_recv() {
                let written = match channel {
                    Channel::Stdout => write(&mut io::stdout().lock(), &bytes),
                    Channel::Stderr => write(&mut io::stderr().lock(), &bytes),
                };
                if written.is_err() {
                    break;
                }
            }
            let _ = sender.send(());
        });
        Self { pieces, done }
    }

    /// Waits for room; `None` if nobody reads the output any more.
    pub(super) async fn room(&self) -> Option<mpsc::Permit<'_, Piece>> {
        self.pieces.reserve().await.ok()
    }

    /// Waits until everything has been written.
    pub(super) async fn finish(self) {
        drop(self.pieces);
        // A thread that has gone has nothing left to write.
        drop(self.done.await);
    }
}

fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}
