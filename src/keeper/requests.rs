//! What the engine asks for.
//!
//! Invariants: every request is answered by what it leads to, or ignored; none can end the keeper. A
//! run that is known is never started a second time. A connection that says nothing sensible costs the
//! engine its own life and nobody else's.

use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use super::ahead::Made;
use super::console::say;
use super::event_loop::{Ending, Keeper, Matter};
use super::identity::{self, Fate, Identity};
use super::poller::Source;
use super::record::{self, Record};
use super::socket::{self, Received};
use super::spawn::{Launch, MAX_RUN};
use super::table::{Handle, News, Origin, Phase, Run, Tree};
use super::wire::{self, Adopt, LaunchFailure, MAX_NAME, Scope, Spawn, TAKES_SEVERAL, ToKeeper};
use super::{cgroup, clock, sys, tree};
use crate::crash;
use crate::model::{Exit, RunId};

/// Requests that are taken in a row before other events have their turn.
const TURN: u32 = 32;
/// The same, of an engine that has ended.
const LAST_TURN: u32 = 4096;

/// Descriptors that are held at most.
const MAX_HELD: usize = 16 * 1024;

/// Nonsense of one engine that is mentioned; more is passed over in silence.
const MENTIONED_GARBAGE: u32 = 10;

impl Keeper {
    /// The engine's socket is ready, or the engine has ended.
    pub(super) fn handle_engine(&mut self) {
        if mem::take(&mut self.outbox.blocked)
            && let Some(engine) = self.engine.socket()
        {
            self.poller.change(engine, Source::Engine, EventFlags::IN);
        }
        let mut descriptors = Vec::new();
        // Borrowed from the keeper for the time being, so that handling a message may use all of it.
        let mut buffer = mem::take(&mut self.buffer);
        // The last words of an engine that has been reaped are taken all at once.
        let turn = if self.engine.pid().is_some() { TURN } else { LAST_TURN };
        for _ in 0..turn {
            let Some(engine) = self.engine.socket() else { break };
            let long;
            let packet = match socket::receive(engine.as_fd(), &mut buffer, &mut descriptors) {
                Ok(Received::Short(length)) => &buffer[..length.min(buffer.len())],
                Ok(Received::Long(bytes)) => {
                    long = bytes;
                    long.as_slice()
                }
                Ok(Received::Garbage(why)) => {
                    self.mention_garbage(&why);
                    continue;
                }
                Ok(Received::Nothing) => break,
                Ok(Received::End) | Err(_) => {
                    self.engine_hung_up();
                    break;
                }
            };
            let mut descriptor = descriptors.drain(..).next();
            for message in wire::messages(packet, ToKeeper::decode) {
                match message {
                    Ok(message) => {
                        crash::point("a request is there");
                        self.handle_request(message, descriptor.take());
                        crash::point("a request is carried out");
                    }
                    Err(error) => self.mention_garbage(&error),
                }
            }
        }
        self.buffer = buffer;
    }

    fn mention_garbage(&mut self, why: &dyn std::fmt::Display) {
        self.garbage = self.garbage.saturating_add(1);
        if self.garbage <= MENTIONED_GARBAGE {
            say(format_args!("a message of the engine is of no use: {why}"));
        }
    }

    /// An engine that closed its connection can do nothing any more. One that is about to end with the
    /// daemon is given the time to do so.
    fn engine_hung_up(&mut self) {
        self.disconnect_engine();
        if !matches!(self.ending, Ending::Done(_)) {
            self.kill_engine();
        }
    }

    fn handle_request(&mut self, message: ToKeeper, descriptor: Option<OwnedFd>) {
        match message {
            ToKeeper::Hello { version } => {
                self.outbox.greeted = true;
                self.outbox.takes_several = version >= TAKES_SEVERAL;
                self.outbox.matters.insert(Matter::Welcome);
                // What the start needed is not needed again; nothing is waiting yet.
                crate::memory::give_back();
            }
            ToKeeper::Spawn(spawn) => self.spawn(*spawn, descriptor),
            ToKeeper::Signal { run, signal, scope, resume } => {
                self.signal(run, signal, scope, resume);
            }
            ToKeeper::KillTree { run } => self.kill_tree(run),
            ToKeeper::Ack { run } => {
                if self.table.get(run).is_some_and(Run::is_over) {
                    self.forget(run);
                }
            }
            ToKeeper::Adopt(adopt) => self.adopt(&adopt),
            ToKeeper::List => self.list(),
            ToKeeper::Freeze { key } => match descriptor {
                Some(channel) => self.freeze(&key, &channel),
                None => self.mention_garbage(&"a request to freeze without its descriptor"),
            },
            ToKeeper::Hold { name } => self.hold(name, descriptor),
            ToKeeper::Release { name } => {
                self.held.remove(&name);
            }
            ToKeeper::Rehearse => self.rehearse(),
            ToKeeper::Replace { program } => self.replace(program),
            ToKeeper::AtWork => self.settle_in(),
            ToKeeper::Shutdown => {
                self.ending = match self.ending {
                    Ending::NotAsked => Ending::Done(None),
                    Ending::Asked(signal) => Ending::Done(Some(signal)),
                    Ending::Done(asked) => Ending::Done(asked),
                }
            }
        }
    }

    fn list(&mut self) {
        for run in self.table.select(|_| true) {
            self.table.announce(run, News::State);
        }
        self.outbox.held = self.held.keys().rev().cloned().collect();
        self.outbox.matters.extend([Matter::Held, Matter::ListEnd]);
    }

    fn hold(&mut self, name: String, descriptor: Option<OwnedFd>) {
        let is_full = self.held.len() >= MAX_HELD && !self.held.contains_key(&name);
        match descriptor {
            Some(descriptor) if name.len() <= MAX_NAME && !is_full => {
                self.held.insert(name, descriptor);
            }
            _ => self.mention_garbage(&"a descriptor to hold is missing or one too many"),
        }
    }

    fn spawn(&mut self, spawn: Spawn, passed: Option<OwnedFd>) {
        let id = spawn.run;
        if self.table.get(id).is_some() {
            self.table.announce(id, News::State);
            return;
        }
        if id.0 >= MAX_RUN {
            self.mention_garbage(&"the number of a run is too high");
            return;
        }
        let (own_group, aux) = (spawn.own_group, spawn.aux);
        let key = spawn.key.get(..MAX_NAME).unwrap_or(&spawn.key).to_owned();
        let mut made = self.take_ahead(id, aux);
        let launched = Launch::prepare(spawn, passed, &self.held, &self.ground)
            .and_then(|launch| self.launch(launch, own_group, &mut made));
        if let Some((group, _)) = made.and_then(|unused| unused.group) {
            cgroup::remove(&group);
        }
        let run = launched.unwrap_or_else(|failure| Run::new(&key, aux, Phase::Failed(failure)));
        let has_failed = matches!(run.phase, Phase::Failed(_));
        self.count_launch();
        if has_failed {
            self.table.insert(id, run);
            self.settle(id);
        } else {
            self.table.insert_child(id, run);
        }
    }

    fn launch(
        &mut self,
        mut launch: Launch,
        own_group: bool,
        made: &mut Option<Made>,
    ) -> Result<Run, LaunchFailure> {
        let id = launch.run;
        launch.record = made.as_mut().and_then(|made| made.record.take());
        // Where a group cannot be had for this run, it is contained by best effort rather than not
        // started.
        let groups = self.groups.as_ref().filter(|_| own_group);
        let group = groups.and_then(|groups| {
            if let Some(group) = made.as_mut().and_then(|made| made.group.take()) {
                return Some(group);
            }
            groups
                .create(id)
                .inspect_err(|error| say(format_args!("no cgroup for {}: {error}", launch.key)))
                .ok()
        });
        launch.cgroup = group.as_ref().map(|(path, _)| path.clone());
        // Taken before the program can do anything: a busy keeper hears of the exec long after the program
        // has written its first lines, which are lines of this run.
        let spawned_at = clock::now();
        let (key, aux) = (launch.key.clone(), launch.aux);
        let (cgroup, folder) = group.unzip();
        let folder = folder.as_ref().map(AsFd::as_fd);
        let started = launch.start(spawned_at, folder, &self.ground, &mut self.stacks);
        let (pid, barrier) = started.inspect_err(|_| {
            if let Some(path) = &cgroup {
                cgroup::remove(path);
            }
        })?;
        let watched = self.poller.watch(&barrier, Source::Barrier(id), EventFlags::IN);
        if let Err(errno) = watched {
            // The kernel has no memory for one more watch. The child is ended before it gets
            // anywhere; how it ended is told when it is reaped.
            say(format_args!("cannot watch the launch of {key}: {errno}"));
            let _ = sys::signal_child(pid, libc::SIGKILL);
        }
        let mut run = Run::new(&key, aux, Phase::Launching(barrier));
        run.pid = pid;
        run.spawned_at = spawned_at;
        run.origin = Origin::Child;
        run.group = cgroup.map(Into::into);
        if aux {
            run.end = self.watch_end(id, pid);
        }
        Ok(run)
    }

    pub(super) fn signal(&mut self, run: RunId, signal: i32, scope: Scope, resume: bool) {
        if self.hold_back(run, signal, scope, resume) {
            return;
        }
        let resume = resume.then_some(libc::SIGCONT);
        for signal in [Some(signal), resume].into_iter().flatten() {
            match scope {
                Scope::Main => self.signal_main(run, signal),
                Scope::Tree => self.signal_tree(run, signal),
            }
        }
    }

    /// Takes over a process that a former keeper started, if it is the one that the record tells of.
    fn adopt(&mut self, adopt: &Adopt) {
        let id = adopt.run;
        if self.table.get(id).is_none() && id.0 < MAX_RUN && adopt.key.len() <= MAX_NAME {
            let record = self.read_record(adopt);
            let run = self.survivor(adopt, record);
            self.table.insert(id, run);
            self.thaw_abandoned(id);
            self.settle(id);
        }
        self.table.announce(id, News::State);
    }

    fn read_record(&self, adopt: &Adopt) -> Option<Record> {
        let path = self.config.records.join(record::file_name(adopt.run));
        let record = record::read(&path).ok().flatten()?;
        let Adopt { pid, inode, start_ticks, .. } = *adopt;
        let matches = record.run == adopt.run
            && record.boot_id == self.ground.boot_id
            && record.identity == Identity { pid, inode, start_ticks };
        matches.then_some(record)
    }

    fn survivor(&self, adopt: &Adopt, record: Option<Record>) -> Run {
        let id = adopt.run;
        let unknown = Phase::Ended { exit: Exit::unknown(), at: clock::now(), cpu: Duration::ZERO };
        let mut run = Run::new(&adopt.key, false, unknown);
        run.pid = adopt.pid;
        run.inode = adopt.inode;
        let Some(record) = record else {
            // Without a record of this boot there is nothing that could be looked for.
            run.tree = Tree::Empty;
            return run;
        };
        run.aux = record.aux;
        run.spawned_at = record.started;
        let is_group = |path: &Path| cgroup::is_group_of(path, &self.ground.tag, id);
        run.group = record.cgroup.filter(|path| is_group(path)).map(Into::into);
        let tag = self.ground.variable(id);
        let pidfd = identity::open_exactly(&record.identity, |pid| tree::is_tagged(pid, &tag));
        let Some(pidfd) = pidfd else { return run };
        run.origin = Origin::Survivor;
        let fate = match identity::fate(pidfd.as_fd(), adopt.pid) {
            // Edge-triggered: a zombie that its new parent has not reaped would report itself for
            // ever. Its being reaped is another edge.
            Fate::Alive | Fate::Pending => {
                let flags = EventFlags::IN | EventFlags::ET;
                self.poller.watch(&pidfd, Source::Survivor(id), flags).map_err(|errno| {
                    say(format_args!("cannot watch {}: {errno}", adopt.key));
                })
            }
            Fate::Ended(status) => {
                let exit = Exit { status, oom: false };
                run.phase = Phase::Ended { exit, at: clock::now(), cpu: Duration::ZERO };
                return run;
            }
        };
        if fate.is_ok() {
            run.phase = Phase::Running(Handle::Survivor(pidfd));
        }
        run
    }
}
