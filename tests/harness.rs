//! The harness itself: a harness that cannot fail proves nothing.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use support::births::Births;
use support::command::Running;
use support::executable::write_executable;
use support::home::TestHome;
use support::ports::{Port, free_port};
use support::processes::{Process, belonging_to};
use support::programs::Programs;
use support::wait::{patience, poll};

/// A home whose stigmer is a shell script.
fn home_with_script(folder: &Path, script: &str) -> TestHome {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.join("stigmer");
    write_executable(&path, format!("#!/bin/sh\n{script}\n"), 0o755);
    TestHome::with_programs(Programs::built().with_stigmer(path))
}

/// Starts a program in the background, as the fake daemon of these tests does.
const START: &str = "setsid sleep infinity >/dev/null 2>&1 </dev/null & echo $!";

#[test]
fn a_home_without_a_daemon_ends_quietly_and_leaves_no_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let home = home_with_script(scratch.path(), "exit 4");
    let root = home.root().to_owned();
    assert!(root.is_dir());
    assert_eq!(home.run(["status"]).code, Some(4));
    drop(home);
    assert!(!root.exists());
}

#[test]
fn what_down_leaves_running_fails_the_test_and_is_ended_all_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let script = format!("case $1 in apply) {START};; down) exit 0;; *) exit 4;; esac");
    let home = home_with_script(scratch.path(), &script);
    let pid: u32 = home.run(["apply"]).stdout.trim().parse().unwrap();
    let process = Process::open(pid).unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| drop(home)));
    let message = *ended.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("left running by `down --all`"), "{message}");
    assert!(message.contains("sleep infinity"), "{message}");
    assert!(process.wait_gone(patience()));
}

#[test]
fn a_down_that_fails_fails_the_test() {
    let scratch = tempfile::tempdir().unwrap();
    let script = format!("case $1 in apply) {START};; down) exit 1;; *) exit 4;; esac");
    let home = home_with_script(scratch.path(), &script);
    home.run(["apply"]).expect_code(0);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(home))).is_err());
}

#[test]
fn after_a_killed_daemon_the_survivors_are_ended_and_are_no_failure() {
    let scratch = tempfile::tempdir().unwrap();
    let script = format!("case $1 in apply) {START};; *) exit 4;; esac");
    let home = home_with_script(scratch.path(), &script);
    let pid: u32 = home.run(["apply"]).stdout.trim().parse().unwrap();
    let process = Process::open(pid).unwrap();
    drop(home);
    assert!(process.wait_gone(patience()));
}

#[test]
fn an_output_that_is_held_by_what_a_command_left_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let home = home_with_script(
        scratch.path(),
        "case $1 in apply) setsid sleep infinity & exit 0;; *) exit 4;; esac",
    );
    let told = catch_unwind(AssertUnwindSafe(|| home.run(["apply"])));
    let message = *told.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("holds its output"), "{message}");
}

#[test]
fn a_process_of_somebody_else_is_never_killed() {
    let scratch = tempfile::tempdir().unwrap();
    let home = home_with_script(scratch.path(), "exit 4");
    let mut other = Command::new("sleep").arg("infinity").stdin(Stdio::null()).spawn().unwrap();
    let refused = catch_unwind(AssertUnwindSafe(|| home.kill(other.id())));
    let alive = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(refused.is_err());
    assert!(alive);
    home.kill(other.id());
}

#[test]
fn the_pids_and_states_are_read_from_the_status() {
    let scratch = tempfile::tempdir().unwrap();
    let script = r#"
        case $1 in
        status) echo '{"daemon": {"pid": 11, "engine_pid": 12}, "components": [
            {"name": "api", "replica": 0, "state": "running", "ready": true, "pid": 7},
            {"name": "api", "replica": 1, "state": "stopped", "ready": false, "pid": null}]}'
            exit 3;;
        events) echo '{"kind": "launched"}'; echo '{"kind": "exited"}';;
        *) exit 4;;
        esac"#;
    let home = home_with_script(scratch.path(), script);
    let pids = home.daemon_pids().unwrap();
    assert_eq!((pids.keeper, pids.engine), (11, 12));
    assert_eq!(home.pid_of("api"), 7);
    assert_eq!(home.wait_state("api.1", "stopped")["replica"], 1);
    assert_eq!(home.wait_ready("api")["pid"], 7);
    assert_eq!(home.wait_replaced("api", 6)["pid"], 7);
    assert!(home.try_component("web").is_none());
    assert_eq!(home.events().len(), 2);
}

#[test]
fn a_wait_that_runs_out_gives_nothing_and_looks_once_more_at_its_end() {
    let mut looks = 0;
    assert!(
        poll(Duration::ZERO, || -> Option<()> {
            looks += 1;
            None
        })
        .is_none()
    );
    assert_eq!(looks, 1);
    assert_eq!(poll(Duration::ZERO, || Some(5)), Some(5));
}

#[test]
fn ports_are_free_and_nobody_gets_the_same_one_twice() {
    let leases: Vec<Port> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..8).map(|_| free_port()).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let numbers: BTreeSet<u16> = leases.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), leases.len());
    for number in numbers {
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
    }
}

#[test]
fn two_copies_at_once_are_found_and_one_after_the_other_are_fine() {
    let scratch = tempfile::tempdir().unwrap();
    let births = scratch.path().join("births");
    let start = || {
        let mut command = Command::new(Programs::built().example("troublemaker"));
        command.arg("--births").arg(&births).args(["--say-ready", "ready"]);
        Running::start(command)
    };
    let mut first = start();
    first.line_with("ready");
    first.signal(rustix::process::Signal::KILL);
    assert_eq!(first.wait(), (None, Some(9)));
    let second = start();
    second.line_with("ready");
    let born = Births::never_two(&births);
    assert_eq!(born.iter().map(|birth| birth.pid).collect::<Vec<_>>(), [first.pid(), second.pid()]);
    assert!(born[0].at_nanos < born[1].at_nanos);
    assert!(born[0].start_ticks <= born[1].start_ticks);

    let mut third = start();
    assert_eq!(third.wait(), (Some(99), None));
    assert_eq!(Births::read(&births).doubles[0].pid, third.pid());
    assert!(catch_unwind(|| Births::never_two(&births)).is_err());
}

#[test]
fn a_grandchild_that_hides_is_found_by_the_environment_of_its_home() {
    let scratch = tempfile::tempdir().unwrap();
    let home = home_with_script(scratch.path(), "exit 4");
    let lock = scratch.path().join("lock");
    let mut command = Command::new(home.example("troublemaker"));
    command
        .env_clear()
        .env("PATH", home.root().join("bin"))
        .current_dir("/")
        .arg(format!("--grandchild=--lock={} --close-stdout", lock.display()))
        .args(["--exit-after", "0s"]);
    assert_eq!(Running::start(command).wait(), (Some(0), None));
    let found = poll(patience(), || belonging_to(home.root()).pop()).unwrap();
    assert!(found.command.contains("--lock"), "{found:?}");
    drop(home);
    assert!(found.process.wait_gone(patience()));
}
