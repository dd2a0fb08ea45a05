//! Engines and keepers die; components and what is known of them do not.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use stigmer::keeper::record;
use stigmer::keeper::socket::{self, Sent};
use stigmer::keeper::wire::{FromKeeper, RunPhase, ToKeeper};
use stigmer::model::ExitStatus;

use crate::ahead::next;
use crate::bench::{
    Bench, code, ended, group_base, is_alive, signal, tagged_processes, until, wait_dead,
    wait_number,
};

#[test]
fn f01_an_engine_that_is_killed_is_replaced_and_components_live_on() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("exec sleep 1000");
    for _ in 0..3 {
        bench.replace_engine();
        let state = bench.state(spawned.run);
        assert_eq!(state.phase, RunPhase::Running);
        assert_eq!((state.pid, state.inode), (spawned.pid, spawned.inode));
        assert_eq!(state.spawned_at, spawned.at);
        assert_eq!(state.key, "test/component.1");
    }
    bench.kill_tree(spawned.run);
}

#[test]
fn f08_an_exit_while_the_engine_is_away_is_remembered() {
    let mut bench = Bench::new();
    let gate = bench.gate("gate");
    let spawned = bench.spawn_shell("read x < gate; exit 42");
    let failing = bench.program(&["/no/such/program"]);
    let failing_run = failing.run;
    // This engine hears neither of them: it is killed with both untold.
    signal(bench.engine.pid, Signal::STOP);
    bench.send(&ToKeeper::Spawn(Box::new(failing)));
    gate.open();
    wait_dead(spawned.pid);
    bench.replace_engine();
    for _ in 0..2 {
        let exited = until("the exit is known", || match bench.state(spawned.run).phase {
            RunPhase::Ended(exited) => Some(exited),
            _ => None,
        });
        assert_eq!(code(&exited), ExitStatus::Code(42));
        until("the failure is known", || {
            matches!(bench.state(failing_run).phase, RunPhase::Failed(_)).then_some(())
        });
        // Not acknowledged, so the next engine hears of it again.
        bench.replace_engine();
    }
    bench.send(&ToKeeper::Ack { run: spawned.run });
    bench.send(&ToKeeper::Ack { run: failing_run });
    assert!(bench.list().is_empty());
}

#[test]
fn a_slow_engine_misses_nothing() {
    const HELD: usize = 500;
    let mut bench = Bench::new();
    // More packets than the socket holds, and nobody reads them until the end: what follows meets a full
    // one again and again.
    let (theirs, _mine) = std::io::pipe().unwrap();
    for number in 0..HELD {
        let hold = ToKeeper::Hold { name: format!("held {number}") };
        bench.engine.send(&hold, vec![theirs.try_clone().unwrap().into()]);
    }
    bench.send(&ToKeeper::List);
    let count = 600;
    let mut runs = Vec::new();
    for _ in 0..count {
        let spawn = bench.program(&["/bin/true"]);
        runs.push(spawn.run);
        bench.send(&ToKeeper::Spawn(Box::new(spawn)));
    }
    until("all of them have ended", || {
        let tag = format!("STIGMER_RUN={}:", bench.config.tag);
        let records = record::read_all(&bench.config.records).unwrap().complete.len();
        (records == count && tagged_processes(&tag).is_empty()).then_some(())
    });
    let (mut told, mut held) = (std::collections::BTreeMap::new(), 0);
    while held < HELD || told.values().filter(|seen| **seen == 2).count() < count {
        match bench.engine.receive().0 {
            FromKeeper::Spawned(spawned) => {
                assert_eq!(told.insert(spawned.run, 1), None);
            }
            FromKeeper::Exited(exited) => {
                assert_eq!(told.insert(exited.run, 2), Some(1));
                assert_eq!(code(&exited), ExitStatus::Code(0));
            }
            FromKeeper::HeldFd { .. } => held += 1,
            FromKeeper::Gone { .. } | FromKeeper::ListEnd => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told.into_keys().collect::<Vec<_>>(), runs);
}

#[test]
fn held_descriptors_survive_the_engine() {
    let mut bench = Bench::new();
    let (mut mine, theirs) = UnixStream::pair().unwrap();
    let hold = ToKeeper::Hold { name: "web".into() };
    bench.engine.send(&hold, vec![OwnedFd::from(theirs)]);
    let other = ToKeeper::Hold { name: "other".into() };
    bench.engine.send(&other, vec![std::io::pipe().unwrap().0.into()]);
    bench.send(&ToKeeper::Release { name: "other".into() });
    bench.replace_engine();
    bench.send(&ToKeeper::List);
    let (name, descriptor) = loop {
        if let (FromKeeper::HeldFd { name }, descriptor) = bench.engine.receive() {
            break (name, descriptor);
        }
    };
    assert_eq!(name, "web");
    assert_eq!(bench.engine.receive().0, FromKeeper::ListEnd);
    let mut theirs = UnixStream::from(descriptor.unwrap());
    theirs.write_all(b"still here").unwrap();
    drop(theirs);
    bench.send(&ToKeeper::Release { name: "web".into() });
    let mut text = String::new();
    // The end of file says that the keeper has let go of it.
    mine.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
}

#[test]
fn garbage_does_not_end_the_keeper() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("exec sleep 1000");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for length in 1..200_usize {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Not the number of `Shutdown`, which would not be garbage.
                seed.to_le_bytes()[0] | 0x80
            })
            .collect();
        until("the keeper takes it", || {
            let sent = socket::send_short(bench.engine.socket.as_fd(), &bytes, &[]).unwrap();
            (sent == Sent::Done).then_some(())
        });
    }
    assert_eq!(bench.state(spawned.run).phase, RunPhase::Running);
    // An empty packet looks like the end of the connection: another engine is started.
    assert_eq!(socket::send_short(bench.engine.socket.as_fd(), &[], &[]).unwrap(), Sent::Done);
    bench.next_engine();
    assert_eq!(bench.state(spawned.run).pid, spawned.pid);
    bench.kill_tree(spawned.run);
}

#[test]
fn an_engine_that_cannot_be_executed_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        stigmer::keeper::KeeperConfig::for_home(&stigmer::home::Home::at(folder.path()));
    fs::create_dir_all(&config.run).unwrap();
    config.engine = vec!["/no/such/engine".into()];
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_stigmer"))
        .args(config.to_arguments())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(keeper.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("starting it again in 200ms") {
        assert!(std::io::BufRead::read_line(&mut said, &mut seen).unwrap() > 0, "{seen}");
    }
    assert!(seen.contains("cannot execute the engine /no/such/engine"), "{seen}");
    // Asked to end, it does not try for ever.
    signal(keeper.id(), Signal::TERM);
    assert_eq!(keeper.wait().unwrap().code(), Some(1));
}

#[test]
fn signals_to_the_daemon_are_passed_on_and_the_engine_ends_it() {
    let mut bench = Bench::new();
    signal(bench.keeper.id(), Signal::HUP);
    bench.engine.wait(|message| (message == FromKeeper::ReloadRequested).then_some(()));
    for (sent, number) in [(Signal::INT, libc::SIGINT), (Signal::TERM, libc::SIGTERM)] {
        signal(bench.keeper.id(), sent);
        let expected = FromKeeper::Terminate { signal: number };
        bench.engine.wait(|message| (message == expected).then_some(()));
    }
    // An engine that dies instead leaves it to the next one.
    bench.replace_engine();
    let expected = FromKeeper::Terminate { signal: libc::SIGTERM };
    bench.engine.wait(|message| (message == expected).then_some(()));
    let survivor = bench.spawn_shell("exec sleep 1000");
    bench.send(&ToKeeper::Shutdown);
    bench.engine.exit(0);
    assert_eq!(bench.wait_for_keeper().code(), Some(0));
    // What the engine left running goes on, for the next daemon to adopt.
    assert!(is_alive(survivor.pid));
    assert!(bench.record(survivor.run).is_some());
}

#[test]
fn an_engine_that_exits_without_shutdown_is_started_again() {
    let mut bench = Bench::new();
    bench.engine.exit(0);
    bench.next_engine();
    bench.send(&ToKeeper::Shutdown);
    bench.engine.exit(7);
    bench.next_engine();
    assert!(bench.list().is_empty());
}

#[test]
fn f10_a_second_keeper_says_so_and_exits() {
    let bench = Bench::new();
    let second = Command::new(env!("CARGO_BIN_EXE_stigmer"))
        .args(bench.config.to_arguments())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another daemon is running"), "{said}");
    assert!(bench.list().is_empty());
}

#[test]
fn nonsense_on_the_command_line_is_refused() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stigmer"));
        command.arg("__keeper").args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("stigmer daemon"));
    let output = run(&["--run", "/no", "--records", "/no/runs", "--tag", "ab"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/no/daemon.lock"));
    let all = ["--run", "/no", "--records", "/no/runs", "--tag", "ab", "--lock-fd", "77"];
    let output = run(&all);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn f06_s40_survivors_of_a_killed_keeper_are_adopted_with_their_exit_codes() {
    for best_effort in [false, true] {
        let mut bench = Bench::with(|config| config.best_effort = best_effort);
        let gates = ["a", "b"].map(|name| bench.gate(name));
        let first = bench.spawn_shell("read x < a; exit 23");
        let second = bench.spawn_shell("read x < b; kill -9 $$");
        let mortal = bench.spawn_shell("exec sleep 1000");
        let tree = bench.spawn_shell(
            "(setsid sh -c 'echo $$ > deep; exec sleep 1000' &); echo $$ > top; exec sleep 1000",
        );
        let deep = wait_number(&bench.path("deep"));
        wait_number(&bench.path("top"));
        let records = record::read_all(&bench.config.records).unwrap();
        assert_eq!(records.complete.len(), 4);
        // Or that of the next launch, which may be there already.
        assert!(records.torn.iter().all(|(run, _)| *run == next(tree.run)), "{:?}", records.torn);
        bench.keeper.kill().unwrap();
        bench.keeper.wait().unwrap();
        signal(mortal.pid, Signal::KILL);
        // Whoever adopted it must have reaped it, or its status would still be known.
        until("it is reaped", || crate::bench::state_of(mortal.pid).is_none().then_some(()));
        bench.start_another_keeper();
        assert!(bench.list().is_empty());
        for record in &records.complete {
            let state = bench.adopt(record);
            assert_eq!(state.key, record.key);
            assert_eq!(state.pid, record.identity.pid);
            assert_eq!(state.spawned_at, record.started);
            if record.run == mortal.run {
                // f07: what nobody saw is unknown, and not 0.
                let exited = ended(&state);
                assert_eq!(code(&exited), ExitStatus::Unknown);
                assert!(exited.empty);
            } else {
                assert_eq!(state.phase, RunPhase::Running, "{state:?}");
            }
        }
        // Adopting twice changes nothing.
        assert_eq!(bench.adopt(&records.complete[0]).pid, first.pid);
        gates[0].open();
        assert_eq!(code(&bench.exited(first.run)), ExitStatus::Code(23));
        gates[1].open();
        assert_eq!(code(&bench.exited(second.run)), ExitStatus::Signal(9));
        assert!(is_alive(deep));
        assert_eq!(code(&bench.kill_tree(tree.run)), ExitStatus::Signal(9));
        assert!(!is_alive(deep) && !is_alive(tree.pid));
        for state in bench.list() {
            bench.send(&ToKeeper::Ack { run: state.run });
        }
        assert!(bench.list().is_empty());
        let count = || fs::read_dir(&bench.config.records).unwrap().count();
        crate::bench::until("no record is left", || (count() == 0).then_some(()));
    }
}

#[test]
fn a_grandchild_that_outlived_the_main_process_and_the_keeper_is_found() {
    for best_effort in [false, true] {
        let mut bench = Bench::with(|config| config.best_effort = best_effort);
        let spawned = bench.spawn_shell(
            "(setsid sh -c 'echo $$ > deep; exec sleep 1000' &); \
             until [ -s deep ]; do :; done; exit 0",
        );
        assert!(!bench.exited(spawned.run).empty);
        let deep = wait_number(&bench.path("deep"));
        let record = bench.record(spawned.run).unwrap();
        bench.replace_keeper();
        let exited = ended(&bench.adopt(&record));
        assert_eq!(code(&exited), ExitStatus::Unknown);
        assert!(!exited.empty);
        bench.send(&ToKeeper::KillTree { run: spawned.run });
        bench.gone(spawned.run);
        assert!(!is_alive(deep));
    }
}

#[test]
fn f02_a_keeper_killed_in_the_middle_of_a_launch_leaves_no_unknown_process() {
    for best_effort in [false, true] {
        let mut bench = Bench::with(|config| config.best_effort = best_effort);
        for round in 0..20 {
            let spawns: Vec<_> = (0..8).map(|_| bench.program(&["/bin/sleep", "1000"])).collect();
            for spawn in &spawns {
                bench.send(&ToKeeper::Spawn(Box::new(spawn.clone())));
            }
            // At another point of the launches each time: after so many of their answers.
            for _ in 0..round % 6 {
                bench.engine.receive();
            }
            bench.replace_keeper();
            let records = record::read_all(&bench.config.records).unwrap();
            let mut known = Vec::new();
            for record in &records.complete {
                if bench.adopt(record).phase == RunPhase::Running {
                    known.push(record.identity.pid);
                }
            }
            let tag = format!("STIGMER_RUN={}:", bench.config.tag);
            let mut alive = tagged_processes(&tag);
            known.sort_unstable();
            alive.sort_unstable();
            assert_eq!(alive, known, "what runs is what the records tell");
            for record in &records.complete {
                bench.send(&ToKeeper::KillTree { run: record.run });
            }
            until("all are gone", || {
                let states = bench.list();
                for state in &states {
                    bench.send(&ToKeeper::Ack { run: state.run });
                }
                states.is_empty().then_some(())
            });
            for (_, torn) in records.torn {
                fs::remove_file(torn).unwrap();
            }
        }
        // Groups that were made and never used go with the next keeper.
        bench.replace_keeper();
        let base = group_base(&bench.config.tag);
        let left = base.map_or(0, |base| {
            let entries = fs::read_dir(base).unwrap().flatten();
            entries.filter(|entry| entry.file_type().unwrap().is_dir()).count()
        });
        assert_eq!(left, 0);
    }
}

#[test]
fn f11_records_of_another_boot_are_not_adopted() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("exec sleep 1000");
    let record = bench.record(spawned.run).unwrap();
    bench.keeper.kill().unwrap();
    bench.keeper.wait().unwrap();
    let path = bench.config.records.join(format!("{}.run", spawned.run));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&record.boot_id, "00000000-0000-0000-0000-000000000000"))
        .unwrap();
    bench.start_another_keeper();
    let exited = ended(&bench.adopt(&record));
    assert_eq!(code(&exited), ExitStatus::Unknown);
    assert!(exited.empty);
    bench.send(&ToKeeper::KillTree { run: spawned.run });
    bench.list();
    assert!(is_alive(spawned.pid), "nothing of another boot is signalled");
}
