//! What the engine is told.
//!
//! Messages are made when the socket takes them, from what is true then. When it is full the rest waits
//! as flags, and the next attempt is made when the socket is writable again.

use std::os::fd::AsFd;

use rustix::event::epoll::EventFlags;

use super::event_loop::{Ending, Keeper, Matter};
use super::poller::Source;
use super::socket::{self, Sent};
use super::table::News;
use super::wire::{FromKeeper, SHORT, Several, VERSION, Welcome};
use crate::crash;
use crate::model::RunId;

/// A packet of several messages is not longer than this by much: the engine's buffer is of a page.
const PACKET: usize = 3 * 1024;

/// What a message was about, to take the right flag back once it is sent.
enum Topic {
    Matter(Matter),
    Run(RunId, News),
}

impl Keeper {
    /// Tells the engine as much as it takes.
    pub(super) fn tell(&mut self) {
        while self.outbox.greeted && !self.outbox.blocked && self.engine.socket().is_some() {
            if self.outbox.takes_several && self.tell_together() {
                continue;
            }
            let Some((topic, message)) = self.next_message() else { return };
            self.outgoing.clear();
            message.encode(&mut self.outgoing);
            if self.send(Some(&message)) {
                self.told(&topic);
            }
        }
    }

    /// Tells short news of runs, as many as go into one packet: ends come in storms. False if what is to be
    /// told next is something else, or nothing.
    fn tell_together(&mut self) -> bool {
        let mut packet = Several::default();
        let mut told = Vec::new();
        while packet.length() < PACKET
            && let Some((Topic::Run(run, news), message)) = self.next_message()
        {
            self.outgoing.clear();
            message.encode(&mut self.outgoing);
            if self.outgoing.len() > SHORT {
                break;
            }
            packet.add(&self.outgoing);
            self.table.told(run, news);
            told.push((run, news));
        }
        if packet.is_empty() {
            return false;
        }
        self.outgoing = packet.into_bytes();
        if !self.send(None) {
            for (run, news) in told {
                self.table.announce(run, news);
            }
        }
        true
    }

    /// Sends what is in `outgoing`, with the descriptor of this message if it has one. Whether the socket
    /// has taken it.
    fn send(&mut self, message: Option<&FromKeeper>) -> bool {
        let Some(engine) = self.engine.socket() else { return false };
        let held = match message {
            Some(FromKeeper::HeldFd { name }) => self.held.get(name).map(AsFd::as_fd),
            Some(FromKeeper::Estate) => self.outbox.estate.as_ref().map(AsFd::as_fd),
            _ => None,
        };
        match socket::send_short(engine.as_fd(), &self.outgoing, held.as_slice()) {
            Ok(Sent::Done) => {
                crash::point("told the engine");
                return true;
            }
            Ok(Sent::Full) => {
                self.outbox.blocked = true;
                self.poller.change(engine, Source::Engine, EventFlags::IN | EventFlags::OUT);
            }
            // The engine is gone; what it has not been told, the next one asks for.
            Err(_) => self.disconnect_engine(),
        }
        false
    }

    fn next_message(&mut self) -> Option<(Topic, FromKeeper)> {
        let urgent = self.outbox.matters.first().filter(|matter| **matter <= Matter::Reload);
        if urgent.is_none()
            && let Some((run, news, message)) = self.table.next_news()
        {
            return Some((Topic::Run(run, news), message));
        }
        loop {
            let matter = *self.outbox.matters.first()?;
            let message = match (matter, self.ending) {
                (Matter::Welcome, _) => FromKeeper::Welcome(self.welcome()),
                (Matter::Terminate, Ending::Asked(signal)) => FromKeeper::Terminate { signal },
                (Matter::Reload, _) => FromKeeper::ReloadRequested,
                (Matter::ListEnd, _) => FromKeeper::ListEnd,
                (Matter::Estate, _) => FromKeeper::Estate,
                (Matter::NotReplaced, _) => {
                    let why = self.outbox.refusal.clone().unwrap_or_default();
                    FromKeeper::NotReplaced { why }
                }
                (Matter::Held, _) if self.next_held().is_some() => {
                    FromKeeper::HeldFd { name: self.next_held().cloned()? }
                }
                (Matter::Held | Matter::Terminate, _) => {
                    self.outbox.matters.remove(&matter);
                    continue;
                }
            };
            return Some((Topic::Matter(matter), message));
        }
    }

    /// The next held descriptor to tell of; those that were released in the meantime are passed over.
    fn next_held(&mut self) -> Option<&String> {
        while self.outbox.held.last().is_some_and(|name| !self.held.contains_key(name)) {
            self.outbox.held.pop();
        }
        self.outbox.held.last()
    }

    fn told(&mut self, topic: &Topic) {
        match topic {
            Topic::Run(run, news) => self.table.told(*run, *news),
            Topic::Matter(Matter::Held) => {
                self.outbox.held.pop();
            }
            Topic::Matter(matter) => {
                self.outbox.matters.remove(matter);
                match matter {
                    Matter::Estate => self.outbox.estate = None,
                    Matter::NotReplaced => self.outbox.refusal = None,
                    Matter::Welcome
                    | Matter::Terminate
                    | Matter::Reload
                    | Matter::Held
                    | Matter::ListEnd => {}
                }
            }
        }
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            version: VERSION,
            keeper_pid: self.ground.keeper,
            started_at: self.started_at,
            boot_id: self.ground.boot_id.clone(),
            containment: self.containment(),
        }
    }
}
