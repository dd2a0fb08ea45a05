//! The daemon's own life: in the foreground and detached, one a home, ended in order, and started again.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::process::Signal;
use serde_json::Value;

use support::home::TestHome;
use support::look::{signal, wait_gone};
use support::processes::Process;

/// Two components, of which `web` needs `api`; and one that is not wanted.
fn shop(home: &TestHome) -> String {
    let api = home.troublemaker("api", &["--on-term", "exit"]);
    let web = home.troublemaker("web", &["--on-term", "exit"]);
    format!(
        "project: shop
components:
  api: {{ command: {api} }}
  web: {{ command: {web}, depends_on: {{ api: ready }} }}
  off: {{ command: [sleep, infinity] }}
"
    )
}

#[test]
fn a_daemon_that_is_told_to_end_stops_in_order_and_the_next_one_starts_again() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    home.run(["stop", "off"]).expect_code(0);
    let daemon = home.daemon_pids().unwrap();
    let pids = [home.pid_of("api"), home.pid_of("web")];
    signal(daemon.keeper, Signal::TERM);
    for pid in pids.into_iter().chain([daemon.keeper, daemon.engine]) {
        wait_gone(pid);
    }
    home.run(["status"]).expect_code(4);
    home.run(["daemon", "--detach"]).expect_code(0);
    home.wait_ready("web");
    home.wait_ready("api");
    let off = home.component("off");
    assert_eq!((&off["state"], &off["wanted"]), (&"stopped".into(), &"stopped".into()));
    assert_eq!((home.births("api").len(), home.births("web").len()), (2, 2));
    assert_eq!(home.component("api")["restarts"]["total"], 0);
    let events = home.events();
    let place = |name: &str, kind: &str, last: bool| {
        let like = |event: &Value| event["component"] == name && event["kind"] == kind;
        if last { events.iter().rposition(like) } else { events.iter().position(like) }.unwrap()
    };
    assert!(place("web", "exited", false) < place("api", "exited", false), "{events:#?}");
    assert!(place("api", "launched", true) < place("web", "launched", true), "{events:#?}");
}

#[test]
fn an_engine_that_dies_before_it_has_heard_of_the_end_leaves_it_to_the_next_one() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    let daemon = home.daemon_pids().unwrap();
    let pids = [home.pid_of("api"), home.pid_of("web")];
    home.hold(daemon.engine);
    signal(daemon.keeper, Signal::TERM);
    home.kill(daemon.engine);
    for pid in pids.into_iter().chain([daemon.keeper]) {
        wait_gone(pid);
    }
    home.run(["status"]).expect_code(4);
    assert_eq!((home.births("api").len(), home.births("web").len()), (1, 1));
}

#[test]
fn what_was_still_ending_when_the_daemon_was_killed_runs_again_with_the_next_one() {
    let home = TestHome::new();
    let slow = home.troublemaker("slow", &["--on-term", "ignore"]);
    home.apply(&format!("components: {{ slow: {{ command: {slow}, stop: {{ timeout: 1h }} }} }}"));
    let daemon = home.daemon_pids().unwrap();
    signal(daemon.keeper, Signal::TERM);
    home.wait_told("slow", "stopping", 1);
    let pid = home.pid_of("slow");
    home.kill_daemon();
    home.run(["daemon", "--detach"]).expect_code(0);
    home.wait_for("a daemon", || home.daemon_pids());
    home.kill(pid);
    home.wait_replaced("slow", pid);
    home.wait_ready("slow");
    assert_eq!(home.births("slow").len(), 2);
    home.run(["down", "--no-wait"]).expect_code(0);
    home.kill(home.pid_of("slow"));
}

#[test]
fn fault_10_a_second_daemon_on_the_same_home_is_refused() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    let daemon = home.daemon_pids();
    let second = home.run(["daemon"]).expect_code(1);
    let said = format!("{}{}", second.stdout, second.stderr);
    assert!(said.contains("already"), "{second:#?}");
    home.run(["daemon", "--detach"]).expect_code(0);
    assert_eq!(home.daemon_pids(), daemon);
    assert_eq!((home.births("api").len(), home.births("web").len()), (1, 1));
}

#[test]
fn fault_10_two_daemons_started_at_once_are_one() {
    let home = TestHome::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| home.run(["daemon", "--detach"]));
        }
    });
    home.run(["ping"]).expect_code(0);
    let daemon = home.daemon_pids();
    home.apply(&shop(&home));
    assert_eq!(home.daemon_pids(), daemon);
    let keepers = support::processes::belonging_to(home.root())
        .into_iter()
        .filter(|found| found.command.contains("__keeper"))
        .count();
    assert_eq!(keepers, 1);
}

#[test]
fn a_daemon_that_apply_has_started_ends_with_its_last_project() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    let daemon = home.daemon_pids().unwrap();
    fs::create_dir(home.file("blog")).unwrap();
    home.write(
        "blog/stigmer.yaml",
        "project: blog\ncomponents: { x: { command: [sleep, '1000'] } }\n",
    );
    home.run(["apply", "-f", "blog/stigmer.yaml"]).expect_code(0);
    home.run(["down"]).expect_code(0);
    home.run(["ping"]).expect_code(0);
    home.run(["down", "-p", "blog"]).expect_code(0);
    wait_gone(daemon.keeper);
    wait_gone(daemon.engine);
    home.run(["ping"]).expect_code(4);
    // And everything begins anew.
    home.apply(&shop(&home));
    assert_eq!(home.component("api")["restarts"]["total"], 0);
    assert_ne!(home.daemon_pids(), Some(daemon));
}

#[test]
fn a_foreground_daemon_without_a_terminal() {
    let home = TestHome::new();
    let mut daemon = home.follow(["daemon"]);
    home.wait_for("the daemon", || (home.run(["ping"]).code == Some(0)).then_some(()));
    home.apply(&shop(&home));
    let pids = home.daemon_pids().unwrap();
    assert_eq!(pids.keeper, daemon.pid(), "the command becomes the keeper");
    let api = home.pid_of("api");
    // It is not for a project that it lives.
    home.run(["down"]).expect_code(0);
    home.run(["ping"]).expect_code(0);
    home.apply(&shop(&home));
    let again = home.pid_of("api");
    assert_ne!(again, api);
    daemon.signal(Signal::TERM);
    let (code, signal) = daemon.wait();
    assert_eq!((code, signal), (Some(0), None));
    wait_gone(again);
    wait_gone(pids.engine);
    assert!(!home.home().join("run/stigmer.sock").exists());
}

#[test]
fn s1_a_detached_daemon_has_no_terminal_no_session_and_no_folder_of_who_started_it() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    let pids = home.daemon_pids().unwrap();
    let proc = |pid: u32, name: &str| format!("/proc/{pid}/{name}");
    for pid in [pids.keeper, pids.engine] {
        assert_eq!(fs::read_link(proc(pid, "cwd")).unwrap(), std::path::Path::new("/"));
        assert_eq!(fs::read_link(proc(pid, "fd/0")).unwrap(), std::path::Path::new("/dev/null"));
        let log = fs::read_link(proc(pid, "fd/2")).unwrap();
        assert_eq!(log, home.home().join("logs/daemon.log"));
    }
    let stat = fs::read_to_string(proc(pids.keeper, "stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[3], pids.keeper.to_string(), "it leads its session");
    assert_eq!(fields[4], "0", "it has no terminal");
    let mode = |path: &str| fs::metadata(home.home().join(path)).unwrap().mode() & 0o777;
    assert_eq!(mode("logs/daemon.log"), 0o600);
    assert_eq!(mode("run/stigmer.sock"), 0o600);
}

#[test]
fn fault_18_a_home_that_cannot_be_used_is_said_and_leaves_nothing() {
    let home = TestHome::new();
    home.manifest(&shop(&home));
    fs::remove_dir(home.home()).unwrap();
    fs::write(home.home(), "in the way").unwrap();
    let failed = home.run(["apply"]).expect_code(1);
    let path = home.home();
    assert!(failed.stderr.contains(path.to_str().unwrap()), "{failed:#?}");
    fs::remove_file(home.home()).unwrap();
    home.run(["apply"]).expect_code(0);
    home.wait_ready("web");
}

#[test]
fn a_socket_file_that_was_removed_is_made_again() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    let daemon = home.daemon_pids().unwrap();
    let api = home.pid_of("api");
    fs::remove_file(home.home().join("run/stigmer.sock")).unwrap();
    home.run(["ping"]).expect_code(4);
    // The next engine makes a new one; until then nobody can reach the daemon, and a second one is
    // refused by the lock.
    let refused = home.run(["apply"]);
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    home.kill(daemon.engine);
    home.wait_for("an answer", || (home.run(["ping"]).code == Some(0)).then_some(()));
    assert_eq!(home.pid_of("api"), api);
    assert!(Process::open(daemon.keeper).is_some());
}

#[test]
fn what_was_to_be_killed_when_the_keeper_was_killed_is_killed_by_the_next_one() {
    let home = TestHome::new();
    let stubborn = home.troublemaker("stubborn", &["--on-term", "ignore"]);
    home.apply(&format!(
        "components: {{ stubborn: {{ command: {stubborn}, stop: {{ timeout: 500ms }} }} }}"
    ));
    let pid = home.pid_of("stubborn");
    let daemon = home.daemon_pids().unwrap();
    home.run(["stop", "stubborn", "--no-wait"]).expect_code(0);
    // It hears nothing any more: what the engine orders from now on goes down with it.
    signal(daemon.keeper, Signal::STOP);
    home.wait_for("the order to kill", || {
        home.events().iter().any(|event| event["kind"] == "killed").then_some(())
    });
    home.kill(daemon.keeper);
    wait_gone(pid);
    home.wait_for("the stop", || {
        home.try_component("stubborn").filter(|found| found["state"] == "stopped")
    });
}
