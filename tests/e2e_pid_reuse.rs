//! A number of a process that ended goes to another: nobody may be signalled or adopted by it (fault 21).
//!
//! ```text
//!   the test (root) ── unshare: pids of its own ──► this program again, as their number 1
//!                                                     └ decides which number the next process gets
//! ```
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use support::home::TestHome;
use support::processes::Process;

/// Set inside of the namespace.
const INSIDE: &str = "STIGMER_TEST_OWN_PIDS";

#[test]
fn fault_21_a_number_that_is_used_again_is_neither_signalled_nor_adopted() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "not root: numbers of processes cannot be chosen");
        return;
    }
    let inside = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "with_pids_of_its_own", "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    let complained = String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed"), "{said}");
}

/// Not a test of its own: what happens inside of the namespace.
#[test]
fn with_pids_of_its_own() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    assert_eq!(std::process::id(), 1, "it has its own numbers");
    while_the_daemon_is_away();
    while_the_daemon_is_there();
}

/// The component's number is another's when the next daemon comes.
fn while_the_daemon_is_away() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &["--on-term", "exit"]);
    home.apply(&format!("components: {{ api: {{ command: {api} }} }}"));
    let pid = home.pid_of("api");
    home.kill_daemon();
    home.kill(pid);
    reap(pid);
    let impostor = Impostor::with_pid(pid);
    home.run(["daemon", "--detach"]).expect_code(0);
    let api = home.wait_replaced("api", pid);
    assert_eq!(api["last_exit"]["code"], serde_json::Value::Null, "{api:#}");
    assert_eq!(home.births("api").len(), 2);
    impostor.must_live("it was not adopted, and not taken for the old copy");
    home.run(["stop", "api"]).expect_code(0);
    impostor.must_live("after a stop");
    home.run(["down"]).expect_code(0);
    impostor.must_live("after the end of all");
}

/// The component has ended, and its number is another's, while the daemon knows of it.
fn while_the_daemon_is_there() {
    let home = TestHome::new();
    let flags = ["--on-term", "exit"];
    let (once, child) = (home.troublemaker("once", &flags), home.troublemaker("left", &flags));
    home.apply(&format!(
        "components:
  once: {{ command: {once}, restart: {{ policy: never }} }}
  left: {{ command: {child}, restart: {{ policy: never }} }}
"
    ));
    let pid = home.pid_of("once");
    home.kill(pid);
    home.wait_for("the end of it", || {
        home.try_component("once").filter(|once| once["pid"].is_null())
    });
    // The keeper has reaped it: the number is free.
    let impostor = Impostor::with_pid(pid);
    for command in [&["stop", "once"][..], &["signal", "KILL", "once"], &["restart", "left"]] {
        home.run(command);
        impostor.must_live(&format!("after {command:?}"));
    }
    // A new engine and a new keeper look at the records, and at who has which number.
    let before = home.kill_engine();
    home.wait_for("a new engine", || home.daemon_pids().filter(|now| now.engine != before.engine));
    impostor.must_live("after a new engine");
    let before = home.kill_keeper();
    home.wait_for("a new keeper", || home.daemon_pids().filter(|now| now.keeper != before.keeper));
    impostor.must_live("after a new keeper");
    home.run(["down"]).expect_code(0);
    impostor.must_live("after the end of all");
}

/// Number 1 is the parent of all orphans here.
fn reap(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    waitpid(pid, Some(WaitPidFlag::empty())).unwrap();
}

/// A process that has nothing to do with stigmer, under the number of one that had.
struct Impostor(Child);

impl Impostor {
    fn with_pid(pid: u32) -> Self {
        for _ in 0..1_000 {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
            let mut child = Command::new("sleep").arg("1000").env_clear().spawn().unwrap();
            if child.id() == pid {
                return Self(child);
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        panic!("the number {pid} is not to be had");
    }

    #[track_caller]
    fn must_live(&self, when: &str) {
        assert!(Process::open(self.0.id()).is_some(), "the impostor was ended: {when}");
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
