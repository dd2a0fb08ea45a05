//! A component is held still while a socket is open, whoever dies, and never longer.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use stigmer::keeper::freezer::FROZEN;
use stigmer::keeper::wire::{Containment, Scope, Spawned, ToKeeper};
use stigmer::model::RunId;

use crate::bench::{
    Bench, is_alive, signal, state_of, until, wait_dead, wait_number, wait_readable,
};

/// Writes all the time, with a child that does the same and one that leads a session of its own.
const RESTLESS: &str = "(while :; do echo child; sleep 0.005; done) & echo $! >child
    setsid sh -c 'echo $$ >far; while :; do echo far; sleep 0.005; done' &
    while :; do echo main; sleep 0.005; done";

/// One that is contained by a cgroup, where there are some, and one that is not.
fn both() -> Vec<Bench> {
    let contained = Bench::new();
    let best_effort = Bench::best_effort();
    if contained.welcome.containment == Containment::BestEffort {
        return vec![best_effort];
    }
    vec![contained, best_effort]
}

impl Bench {
    fn restless(&mut self) -> Spawned {
        let mut spawn = self.shell(RESTLESS);
        spawn.key = "shop/api.0".into();
        let spawned = self.spawn(spawn);
        wait_number(&self.path("far"));
        spawned
    }

    /// Asks for the component to be held still; the answer is still to come.
    fn ask_to_freeze(&self) -> UnixStream {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let request = ToKeeper::Freeze { key: "shop/api.0".into() };
        self.engine.send(&request, vec![OwnedFd::from(theirs)]);
        mine
    }

    fn freeze(&self) -> UnixStream {
        let mine = self.ask_to_freeze();
        assert_eq!(answer(&mine), Some(FROZEN));
        mine
    }

    /// Nothing of it moves: neither does its log.
    #[track_caller]
    fn assert_still(&self, spawned: &Spawned) {
        match self.record(spawned.run).unwrap().cgroup {
            Some(group) => {
                let events = fs::read_to_string(group.join("cgroup.events")).unwrap();
                assert!(events.contains("frozen 1"), "{events}");
            }
            None => {
                for pid in [spawned.pid, self.number("child"), self.number("far")] {
                    assert!(is_still(pid), "{pid}: {:?}", state_of(pid));
                }
            }
        }
        let before = self.log().len();
        // Time enough for hundreds of lines.
        for _ in 0..20 {
            self.list();
        }
        assert_eq!(self.log().len(), before);
    }

    fn number(&self, name: &str) -> u32 {
        wait_number(&self.path(name))
    }

    /// All of them write again.
    #[track_caller]
    fn wait_moving(&self) {
        let before = self.log().len();
        until("everybody writes again", || {
            let log = self.log();
            let since = &log[before.min(log.len())..];
            ["main", "child", "far"].iter().all(|who| since.contains(who)).then_some(())
        });
        until("the mark is gone", || {
            let mut entries = fs::read_dir(&self.config.records).unwrap().flatten();
            let is_mark = |path: &std::path::Path| path.extension() == Some("still".as_ref());
            (!entries.any(|entry| is_mark(&entry.path()))).then_some(())
        });
    }

    /// The freezers of this keeper, or those that it has left behind.
    fn freezers(&self) -> Vec<u32> {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            name == "stigmer-freezer\n" && line.contains(&self.config.tag) && is_alive(*pid)
        })
        .collect()
    }
}

/// Stopped; or in the middle of a vfork, where a process waits for its child, and that one is stopped.
fn is_still(pid: u32) -> bool {
    let is_stopped_child = |child: u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.next() == Some("T") && fields.next() == Some(&pid.to_string())
    };
    let mut all = fs::read_dir("/proc").unwrap().flatten();
    match state_of(pid) {
        Some('T') => true,
        Some('D') => all.any(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                .is_some_and(is_stopped_child)
        }),
        _ => false,
    }
}

/// What is said through the socket; `None` at its end.
fn answer(mut socket: &UnixStream) -> Option<u8> {
    wait_readable(socket.as_fd(), "the freezer answers");
    let mut byte = [0];
    (socket.read(&mut byte).unwrap() == 1).then_some(byte[0])
}

#[test]
fn everything_of_a_component_stands_still_until_the_socket_is_closed() {
    for mut bench in both() {
        let spawned = bench.restless();
        let other = bench.spawn_shell("exec sleep 1000");
        for _ in 0..3 {
            let held = bench.freeze();
            bench.assert_still(&spawned);
            assert_ne!(state_of(other.pid), Some('T'), "others are not meant");
            drop(held);
            bench.wait_moving();
        }
        bench.kill_tree(spawned.run);
        bench.kill_tree(other.run);
        assert_eq!(answer(&bench.ask_to_freeze()), Some(FROZEN), "nothing is left to be frozen");
        until("no freezer is left", || bench.freezers().is_empty().then_some(()));
    }
}

#[test]
fn a_dead_keeper_thaws_nothing_too_early_and_nothing_too_late() {
    for mut bench in both() {
        let spawned = bench.restless();
        let record = bench.record(spawned.run).unwrap();
        let held = bench.freeze();
        bench.replace_keeper();
        // The freezer lives, and so nothing moves, also when the next keeper looks after it.
        bench.adopt(&record);
        bench.assert_still(&spawned);
        drop(held);
        bench.wait_moving();
        // Nobody is there any more who could do it later.
        let held = bench.freeze();
        bench.keeper.kill().unwrap();
        bench.keeper.wait().unwrap();
        drop(held);
        bench.wait_moving();
        bench.start_another_keeper();
        bench.adopt(&record);
        bench.kill_tree(spawned.run);
    }
}

#[test]
fn a_freezer_that_is_killed_is_made_up_for_by_this_keeper_or_the_next() {
    for mut bench in both() {
        let spawned = bench.restless();
        let record = bench.record(spawned.run).unwrap();
        let held = bench.freeze();
        signal(bench.freezers()[0], Signal::KILL);
        bench.wait_moving();
        drop(held);
        let held = bench.freeze();
        let freezer = bench.freezers()[0];
        bench.keeper.kill().unwrap();
        bench.keeper.wait().unwrap();
        signal(freezer, Signal::KILL);
        wait_dead(freezer);
        drop(held);
        bench.start_another_keeper();
        bench.adopt(&record);
        bench.wait_moving();
        bench.kill_tree(spawned.run);
    }
}

#[test]
fn a_signal_waits_until_its_receiver_moves_again_and_a_kill_does_not() {
    for mut bench in both() {
        let mut spawn =
            bench.shell("trap 'echo got it; exit 5' TERM; echo up; while :; do sleep 0.01; done");
        spawn.key = "shop/api.0".into();
        let spawned = bench.spawn(spawn);
        until("it is ready", || (bench.log() == "up\n").then_some(()));
        let held = bench.freeze();
        let (run, signal) = (spawned.run, libc::SIGTERM);
        bench.send(&ToKeeper::Signal { run, signal, scope: Scope::Main, resume: true });
        for _ in 0..20 {
            bench.list();
        }
        assert_eq!(bench.log(), "up\n", "it was not set going");
        drop(held);
        bench.exited(spawned.run);
        assert_eq!(bench.log(), "up\ngot it\n");
        bench.send(&ToKeeper::Ack { run });
        let spawned = bench.restless();
        let held = bench.freeze();
        bench.kill_tree(spawned.run);
        assert!(!is_alive(spawned.pid));
        drop(held);
        until("the freezer ends", || bench.freezers().is_empty().then_some(()));
    }
}

#[test]
fn what_somebody_has_stopped_stays_stopped() {
    let mut bench = Bench::best_effort();
    let spawned = bench.restless();
    let child = bench.number("child");
    signal(child, Signal::STOP);
    until("the child is stopped", || (state_of(child) == Some('T')).then_some(()));
    let held = bench.freeze();
    drop(held);
    until("the freezer ends", || bench.freezers().is_empty().then_some(()));
    assert_eq!(state_of(child), Some('T'));
    let is_stopped = |pid| state_of(pid) == Some('T');
    until("the others go on", || (!is_stopped(spawned.pid)).then_some(()));
    signal(child, Signal::CONT);
    bench.wait_moving();
    bench.kill_tree(spawned.run);
}

#[test]
fn an_engine_that_holds_still_for_ever_is_replaced() {
    let mut bench = Bench::new();
    let spawned = bench.restless();
    let held = bench.freeze();
    let before = bench.engine.pid;
    bench.next_engine();
    assert!(!is_alive(before));
    // In its stead the test still has the socket; a real one would have let go of it by dying.
    bench.assert_still(&spawned);
    drop(held);
    bench.wait_moving();
    let said = fs::read_to_string(bench.path("keeper.err")).unwrap();
    assert!(said.contains("holds a component still for too long"), "{said}");
    bench.kill_tree(spawned.run);
}

#[test]
fn two_at_once_is_one_too_many_and_a_request_without_a_socket_is_ignored() {
    for mut bench in both() {
        let spawned = bench.restless();
        bench.send(&ToKeeper::Freeze { key: "shop/api.0".into() });
        let held = bench.freeze();
        assert_eq!(answer(&bench.ask_to_freeze()), None, "somebody holds it already");
        bench.assert_still(&spawned);
        drop(held);
        bench.wait_moving();
        bench.kill_tree(spawned.run);
        assert_ne!(spawned.run, RunId(0));
    }
}

#[test]
fn who_waits_for_a_child_to_execute_something_stands_still_with_it() {
    let troublemaker =
        Path::new(env!("CARGO_BIN_EXE_stigmer")).with_file_name("examples/troublemaker");
    assert!(troublemaker.is_file(), "`cargo build --examples` makes it");
    for mut bench in both() {
        let fifo = bench.path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flag = format!("--spawn-through={}", fifo.display());
        let mut spawn = bench.program(&[troublemaker.to_str().unwrap(), &flag]);
        spawn.key = "shop/api.0".into();
        let main = bench.spawn(spawn);
        let child = until("the child waits in open, the parent in vfork", || {
            let path = format!("/proc/{0}/task/{0}/children", main.pid);
            let child = fs::read_to_string(path).ok()?.trim().parse::<u32>().ok()?;
            (state_of(child) == Some('S') && state_of(main.pid) == Some('D')).then_some(child)
        });
        let name = || fs::read_to_string(format!("/proc/{child}/comm")).unwrap();
        assert_eq!(name(), "troublemaker\n");

        let held = bench.freeze();
        // Nothing but the freezer keeps it from going on now.
        let writer = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        for _ in 0..20 {
            bench.list();
        }
        assert_eq!(name(), "troublemaker\n");
        drop(held);
        until("the child executes its program", || (name() == "sleep\n").then_some(()));
        until("the parent goes on", || (state_of(main.pid) == Some('S')).then_some(()));
        drop(writer);
        bench.kill_tree(main.run);
    }
}
