//! The keeper becomes another program in place: what runs, and what is known of it, stays.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use stigmer::keeper::wire::{FromKeeper, RunPhase, ToKeeper};
use stigmer::model::ExitStatus;

use crate::bench::{
    Bench, code, ended, is_alive, signal, state_of, tagged_processes, until, wait_dead, wait_number,
};
use crate::executable::write_executable;

/// The program under test once more, in another file.
fn copy(bench: &Bench) -> PathBuf {
    let path = bench.path("stigmer-new");
    write_executable(&path, fs::read(env!("CARGO_BIN_EXE_stigmer")).unwrap(), 0o755);
    path
}

/// A script in the place of a program.
fn script(bench: &Bench, text: &str) -> PathBuf {
    let path = bench.path("script");
    write_executable(&path, format!("#!/bin/sh\n{text}\n"), 0o755);
    path
}

fn replace(program: &Path) -> ToKeeper {
    ToKeeper::Replace { program: program.as_os_str().as_encoded_bytes().to_vec() }
}

fn why_not(bench: &Bench) -> String {
    bench.engine.wait(|message| match message {
        FromKeeper::NotReplaced { why } => Some(why),
        _ => None,
    })
}

fn executed(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn f09_a_new_program_in_the_same_process_knows_all_that_the_old_one_knew() {
    for best_effort in [false, true] {
        let mut bench = Bench::with(|config| config.best_effort = best_effort);
        let new = copy(&bench);
        let gates = ["a", "b", "c"].map(|name| bench.gate(name));
        // A survivor of a keeper that was killed, so that a pidfd is handed over as well.
        let survivor = bench.spawn_shell("read x < a; exit 23");
        let record = bench.record(survivor.run).unwrap();
        bench.replace_keeper();
        bench.adopt(&record);
        let child = bench.spawn_shell("read x < b; exit 24");
        let ended_before = bench.spawn_shell("exit 25");
        assert_eq!(code(&bench.exited(ended_before.run)), ExitStatus::Code(25));
        // Its main process is gone, and a grandchild is left.
        let lingering = bench.spawn_shell(
            "(setsid sh -c 'echo $$ > deep; read x < c' &); until [ -s deep ]; do :; done; exit 26",
        );
        assert!(!bench.exited(lingering.run).empty);
        let deep = wait_number(&bench.path("deep"));
        let (mut mine, theirs) = UnixStream::pair().unwrap();
        bench.engine.send(&ToKeeper::Hold { name: "web".into() }, vec![OwnedFd::from(theirs)]);
        let before = bench.list();
        let (keeper, started_at) = (bench.keeper.id(), bench.welcome.started_at);
        let old_engine = bench.engine.pid;

        bench.send(&replace(&new));
        bench.next_engine();
        assert_eq!(bench.keeper.id(), keeper);
        assert_eq!(executed(keeper), new);
        assert!(state_of(old_engine).is_none(), "the old engine is gone, and reaped");
        assert_eq!(bench.list(), before);
        assert_eq!(bench.engine.greet().started_at, started_at);
        // Descriptors are held, and only once.
        bench.send(&ToKeeper::Release { name: "web".into() });
        bench.send(&ToKeeper::List);
        bench.engine.wait(|message| (message == FromKeeper::ListEnd).then_some(()));
        let mut rest = Vec::new();
        mine.read_to_end(&mut rest).unwrap();

        for (gate, run, status) in [(0, survivor.run, 23), (1, child.run, 24)] {
            gates[gate].open();
            assert_eq!(code(&bench.exited(run)), ExitStatus::Code(status));
        }
        assert_eq!(code(&ended(&bench.state(ended_before.run))), ExitStatus::Code(25));
        assert!(is_alive(deep));
        gates[2].open();
        bench.gone(lingering.run);
        for state in bench.list() {
            bench.send(&ToKeeper::Ack { run: state.run });
        }
        assert!(bench.list().is_empty());
        // It works as ever.
        let fresh = bench.spawn_shell("exec 3>fds; ls -l /proc/self/fd >&3; exit 3");
        assert_eq!(code(&bench.exited(fresh.run)), ExitStatus::Code(3));
        // Nothing of what was handed over is inherited: 0, 1, 2, and what it has opened itself.
        let listed = fs::read_to_string(bench.path("fds")).unwrap();
        let links = listed.lines().filter_map(|line| line.split_once(" -> "));
        for (_, target) in links {
            let own = ["/dev/null", "/log", "/fds", "/fd"];
            assert!(own.iter().any(|end| target.ends_with(end)), "{listed}");
        }
    }
}

#[test]
fn f08_f09_what_ends_while_the_new_program_starts_is_known() {
    let mut bench = Bench::new();
    let stigmer = env!("CARGO_BIN_EXE_stigmer");
    let slow = script(&bench, &format!("echo > starting; read x < go; exec {stigmer} \"$@\""));
    // A keeper works in the root folder.
    let text = fs::read_to_string(&slow).unwrap();
    let folder = bench.folder.path().display().to_string();
    let at = |name: &str| format!("{folder}/{name}");
    fs::write(
        &slow,
        text.replace("> starting", &format!("> {}", at("starting")))
            .replace("< go", &format!("< {}", at("go"))),
    )
    .unwrap();
    let gate = bench.gate("gate");
    let go = bench.gate("go");
    let first = bench.spawn_shell("read x < gate; exit 42");
    let killed = bench.spawn_shell("exec sleep 1000");
    let launched = bench.shell("exit 43");
    bench.send(&replace(&slow));
    until("the new program starts", || bench.path("starting").exists().then_some(()));
    gate.open();
    wait_dead(first.pid);
    signal(killed.pid, Signal::KILL);
    wait_dead(killed.pid);
    // What the old engine asks for in between is done by the new keeper.
    let launched_run = launched.run;
    bench.send(&ToKeeper::Spawn(Box::new(launched)));
    go.open();
    bench.next_engine();
    assert_eq!(code(&ended(&bench.state(first.run))), ExitStatus::Code(42));
    assert_eq!(code(&ended(&bench.state(killed.run))), ExitStatus::Signal(9));
    let exited = until("the launch of the last words", || match bench.state(launched_run).phase {
        RunPhase::Ended(exited) => Some(exited),
        _ => None,
    });
    assert_eq!(code(&exited), ExitStatus::Code(43));
}

#[test]
fn f09_a_child_whose_end_a_script_has_taken_is_not_waited_for_in_vain() {
    let mut bench = Bench::new();
    let stigmer = env!("CARGO_BIN_EXE_stigmer");
    let folder = bench.folder.path().display().to_string();
    // Waiting for its own commands, the shell reaps whatever ends meanwhile.
    let waiting = format!(": > {folder}/starting; while ! [ -e {folder}/go ]; do sleep 0.01; done");
    let script = script(&bench, &format!("{waiting}; exec {stigmer} \"$@\""));
    let gate = bench.gate("gate");
    let taken = bench.spawn_shell("read x < gate; exit 42");
    let other = bench.spawn_shell("exec sleep 1000");
    bench.send(&replace(&script));
    until("the script runs", || bench.path("starting").exists().then_some(()));
    gate.open();
    until("it is reaped", || state_of(taken.pid).is_none().then_some(()));
    fs::write(bench.path("go"), "").unwrap();
    bench.next_engine();
    let exited = until("its end is noticed", || match bench.state(taken.run).phase {
        RunPhase::Ended(exited) => Some(exited),
        _ => None,
    });
    assert_eq!(code(&exited), ExitStatus::Unknown, "never 0");
    assert_eq!(bench.state(other.run).phase, RunPhase::Running);
    bench.kill_tree(other.run);
}

#[test]
fn f09_launches_that_are_under_way_go_on() {
    let mut bench = Bench::new();
    let new = copy(&bench);
    for _ in 0..5 {
        let spawns: Vec<_> = (0..20).map(|_| bench.program(&["/bin/sleep", "1000"])).collect();
        for spawn in &spawns {
            bench.send(&ToKeeper::Spawn(Box::new(spawn.clone())));
        }
        bench.send(&replace(&new));
        bench.next_engine();
        let pids: Vec<u32> = until("all of them run", || {
            let states = bench.list();
            let of_now = states.iter().filter(|state| spawns.iter().any(|s| s.run == state.run));
            let running = of_now.filter(|state| state.phase == RunPhase::Running);
            let pids: Vec<u32> = running.map(|state| state.pid).collect();
            (pids.len() == spawns.len()).then_some(pids)
        });
        let mut alive = tagged_processes(&format!("STIGMER_RUN={}:", bench.config.tag));
        alive.retain(|pid| *pid != bench.engine.pid);
        alive.sort_unstable();
        let mut pids = pids;
        pids.sort_unstable();
        assert_eq!(alive, pids);
        for spawn in &spawns {
            bench.kill_tree(spawn.run);
            bench.send(&ToKeeper::Ack { run: spawn.run });
        }
    }
}

#[test]
fn f09_a_program_that_cannot_be_executed_changes_nothing() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("exec sleep 1000");
    let garbage = bench.path("garbage");
    write_executable(&garbage, [0x7f, b'E', b'L', b'F', 0, 0, 0, 0], 0o600);
    for (program, mode, expected) in [
        ("/no/such/program", 0, "No such file"),
        ("garbage", 0o600, "Permission"),
        ("garbage", 0o700, "Exec format"),
    ] {
        let program =
            if program.starts_with('/') { PathBuf::from(program) } else { garbage.clone() };
        if mode != 0 {
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        }
        bench.send(&replace(&program));
        let why = why_not(&bench);
        assert!(why.contains(expected) && why.contains(program.to_str().unwrap()), "{why}");
        assert_eq!(bench.state(spawned.run).phase, RunPhase::Running);
    }
    bench.send(&ToKeeper::Replace { program: b"/a\0b".to_vec() });
    assert!(why_not(&bench).contains("NUL"));
    // A child inherits nothing of what was to be handed over.
    let listed = bench.spawn_shell("ls -l /proc/self/fd > fds; exit 0");
    assert_eq!(code(&bench.exited(listed.run)), ExitStatus::Code(0));
    let fds = fs::read_to_string(bench.path("fds")).unwrap();
    assert!(!fds.contains("stigmer") || fds.contains("/log"), "{fds}");
    assert!(!fds.contains("memfd") && !fds.contains("daemon.lock"), "{fds}");
    bench.kill_tree(spawned.run);
}

#[test]
fn f09_engines_that_never_get_to_work_bring_the_program_before_back() {
    let mut bench = Bench::new();
    let new = copy(&bench);
    let keeper = bench.keeper.id();
    let old = executed(keeper);
    let spawned = bench.spawn_shell("exec sleep 1000");
    bench.send(&replace(&new));
    bench.next_engine();
    assert_eq!(executed(keeper), new);
    for _ in 0..2 {
        bench.engine.exit(1);
        bench.next_engine();
        assert_eq!(executed(keeper), new);
    }
    bench.engine.exit(1);
    bench.next_engine();
    assert_eq!(executed(keeper), old);
    assert_eq!(bench.state(spawned.run).pid, spawned.pid);
    // Once an engine has been at work, there is no going back.
    bench.send(&replace(&new));
    bench.next_engine();
    bench.send(&ToKeeper::AtWork);
    for _ in 0..5 {
        bench.engine.exit(1);
        bench.next_engine();
    }
    assert_eq!(executed(keeper), new);
    bench.kill_tree(spawned.run);
}

#[test]
fn f09_what_would_be_handed_over_is_shown_and_can_be_read() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("exec sleep 1000");
    bench.send(&ToKeeper::Rehearse);
    let mut estate = loop {
        if let (FromKeeper::Estate, descriptor) = bench.engine.receive() {
            break File::from(descriptor.unwrap());
        }
    };
    let mut bytes = vec![0; usize::try_from(estate.metadata().unwrap().len()).unwrap()];
    estate.read_exact_at(&mut bytes, 0).unwrap();
    let arguments = || bench.config.to_arguments().into_iter().skip(1);
    stigmer::keeper::can_take_over(arguments(), &bytes).unwrap();
    let refused = stigmer::keeper::can_take_over(arguments(), &bytes[..20]).unwrap_err();
    assert!(refused.contains("cut short"), "{refused}");
    let refused = stigmer::keeper::can_take_over(["--new".into()].into_iter(), &bytes).unwrap_err();
    assert!(refused.contains("--new"), "{refused}");
    // It can only be read.
    assert!(estate.write_all(b"x").is_err());
    bench.kill_tree(spawned.run);
}

#[test]
fn f09_a_program_that_cannot_take_over_executes_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = File::open("/dev/null").unwrap();
    let before = File::open("/bin/echo").unwrap();
    for descriptor in [&garbage, &before] {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
    }
    let run = folder.path().to_str().unwrap();
    let (estate, previous) = (garbage.as_raw_fd().to_string(), before.as_raw_fd().to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_stigmer"))
        .arg0("stigmer")
        .args(["__keeper", "--run", run, "--records", run, "--tag", "ab"])
        .args(["--estate-fd", &estate, "--previous-fd", &previous])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot take over"), "{said}");
    let echoed = String::from_utf8(output.stdout).unwrap();
    assert!(echoed.starts_with("__keeper --run"), "{echoed}");
    assert!(echoed.contains(&format!("--estate-fd {estate}")), "{echoed}");
    assert!(!echoed.contains("--previous-fd"), "{echoed}");
}

#[test]
fn f09_a_daemon_that_is_ending_is_not_replaced() {
    let mut bench = Bench::new();
    let new = copy(&bench);
    signal(bench.keeper.id(), Signal::TERM);
    let expected = FromKeeper::Terminate { signal: libc::SIGTERM };
    bench.engine.wait(|message| (message == expected).then_some(()));
    bench.send(&replace(&new));
    assert!(why_not(&bench).contains("ending"));
    bench.send(&ToKeeper::Shutdown);
    bench.engine.exit(0);
    assert_eq!(bench.wait_for_keeper().code(), Some(0));
}
