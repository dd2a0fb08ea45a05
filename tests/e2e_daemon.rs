//! The death of the daemon's processes, one by one and together: nothing that runs is lost, nothing
//! runs twice (S38-S41).
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use support::ask::DaemonPids;
use support::births::Births;
use support::home::TestHome;
use support::look::wait_gone;
use support::processes::{Process, belonging_to};

/// How many components the large tests have.
const MANY: u32 = 50;

/// That many replicas, each with births of its own.
fn many(home: &TestHome) -> String {
    let program = home.example("troublemaker");
    format!(
        "project: many
components:
  it:
    command: 'exec {} --births births-$STIGMER_REPLICA'
    replicas: {MANY}
    restart: {{ backoff: {{ initial: 10ms }} }}
",
        program.display()
    )
}

/// Who runs, since when.
fn who(home: &TestHome) -> BTreeMap<u64, (Value, Value)> {
    let status = home.status_json();
    let components = status["components"].as_array().unwrap().iter();
    components
        .map(|one| {
            let replica = one["replica"].as_u64().unwrap();
            (replica, (one["pid"].clone(), one["started_at"].clone()))
        })
        .collect()
}

/// Fails unless each was born so often, and never two at once.
#[track_caller]
fn each_born(home: &TestHome, times: impl Fn(u32) -> usize) {
    for replica in 0..MANY {
        let births = Births::never_two(&home.file(format!("births-{replica}")));
        assert_eq!(births.len(), times(replica), "births of {replica}");
    }
}

#[track_caller]
fn wait_engine(home: &TestHome, before: DaemonPids) -> DaemonPids {
    home.wait_for("a new engine", || home.daemon_pids().filter(|pids| pids.engine != before.engine))
}

/// RFC 3339 times to within this many milliseconds of each other.
#[track_caller]
fn close(one: &Value, other: &Value, at_most: i64) {
    let parse = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let apart = parse(one).as_millisecond() - parse(other).as_millisecond();
    assert!(apart.abs() <= at_most, "{one} and {other} are {apart} ms apart");
}

#[test]
fn fault_01_s40_a_killed_engine_costs_no_component() {
    let home = TestHome::new();
    home.apply(&many(&home));
    let victim = home.pid_of("it.7");
    home.kill(victim);
    home.wait_replaced("it.7", victim);
    let (running, generation) = (who(&home), home.generation());
    for round in 0..3 {
        let before = home.kill_engine();
        let after = wait_engine(&home, before);
        assert_eq!(after.keeper, before.keeper);
        for (replica, (pid, started_at)) in who(&home) {
            let (pid_before, started_before) = &running[&replica];
            assert_eq!(&pid, pid_before, "round {round}, replica {replica}");
            close(&started_at, started_before, 1_000);
        }
        assert_eq!(home.component("it.7")["restarts"]["total"], 1, "S40: counters are kept");
        assert_eq!(home.component("it.7")["last_exit"]["signal"], "SIGKILL");
        assert_eq!(home.generation(), generation);
    }
    each_born(&home, |replica| if replica == 7 { 2 } else { 1 });
    // It still supervises all of them.
    let victim = home.pid_of("it.9");
    home.kill(victim);
    home.wait_replaced("it.9", victim);
    home.run(["status"]).expect_code(0);
}

#[test]
fn fault_06_s40_a_killed_keeper_costs_no_component() {
    let home = TestHome::new();
    home.apply(&many(&home));
    let running = who(&home);
    let before = home.kill_keeper();
    let after = home.wait_for("a new keeper", || {
        home.daemon_pids().filter(|pids| pids.keeper != before.keeper)
    });
    assert!(Process::open(after.keeper).is_some() && Process::open(after.engine).is_some());
    for (replica, (pid, started_at)) in who(&home) {
        assert_eq!(pid, running[&replica].0, "replica {replica}");
        close(&started_at, &running[&replica].1, 1_000);
    }
    each_born(&home, |_| 1);
    let victim = home.pid_of("it.3");
    home.kill(victim);
    home.wait_replaced("it.3", victim);
    each_born(&home, |replica| if replica == 3 { 2 } else { 1 });
    home.run(["stop", "it.4"]).expect_code(0);
    assert!(Process::open(u32::try_from(running[&4].0.as_u64().unwrap()).unwrap()).is_none());
}

#[test]
fn fault_06_a_keeper_that_is_killed_while_an_engine_starts_is_replaced_by_that_engine() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    home.apply(&format!("components:\n  api:\n    command: {api}\n"));
    let pid = home.pid_of("api");
    for _ in 0..10 {
        let before = home.kill_engine();
        // As soon as the next engine is there, which has not spoken with the keeper yet.
        home.wait_for("the next engine", || {
            let found = belonging_to(home.root());
            found.iter().any(|found| found.command.ends_with("__engine")).then_some(())
        });
        home.kill(before.keeper);
        let after = home.wait_for("another keeper", || {
            home.daemon_pids().filter(|pids| pids.keeper != before.keeper)
        });
        assert_ne!(after.engine, before.engine);
        assert_eq!(home.pid_of("api"), pid);
    }
    assert_eq!(home.births("api").len(), 1);
}

#[test]
fn fault_07_s40_both_killed_and_adopted_by_the_next_apply() {
    let home = TestHome::new();
    home.apply(&many(&home));
    let running = who(&home);
    home.kill_daemon();
    home.run(["status"]).expect_code(4);
    // One dies while nobody looks. How, only the kernel may know, if its remains are still there.
    let victim = u32::try_from(running[&5].0.as_u64().unwrap()).unwrap();
    home.kill(victim);
    home.run(["apply"]).expect_code(0);
    for (replica, (pid, started_at)) in who(&home) {
        if replica != 5 {
            assert_eq!(pid, running[&replica].0, "replica {replica}");
            close(&started_at, &running[&replica].1, 1_000);
        }
    }
    let revived = home.wait_replaced("it.5", victim);
    let exit = &revived["last_exit"];
    assert_eq!(exit["code"], Value::Null, "never 0: {exit:#}");
    assert!(exit["signal"].is_null() || exit["signal"] == "SIGKILL", "{exit:#}");
    each_born(&home, |replica| if replica == 5 { 2 } else { 1 });
}

#[test]
fn fault_07_s40_both_killed_and_adopted_by_a_daemon() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &["--tick", "2ms"]);
    home.apply(&format!("components:\n  api:\n    command: {api}\n"));
    let pid = home.pid_of("api");
    for _ in 0..2 {
        let before = home.kill_daemon();
        home.run(["daemon", "--detach"]).expect_code(0);
        assert_ne!(home.daemon_pids().unwrap().keeper, before.keeper);
        assert_eq!(home.pid_of("api"), pid);
        assert_eq!(home.component("api")["state"], "running");
    }
    assert_eq!(home.births("api").len(), 1);
    home.run(["stop", "api"]).expect_code(0);
    wait_gone(pid);
    // S41: what it wrote in all that time is there, each line once.
    let log = String::from_utf8(home.log_of("api")).unwrap();
    for (number, line) in log.lines().enumerate() {
        assert_eq!(line, format!("tick {number}"));
    }
}

#[test]
fn fault_08_s40_a_death_while_the_engine_is_away_is_known_with_its_real_exit_code() {
    let home = TestHome::new();
    home.apply(
        "components:
  api:
    command: 'while ! [ -e die ]; do sleep 0.01; done; rm die; exit 7'
    restart: { backoff: { initial: 10ms } }
",
    );
    let pid = home.pid_of("api");
    let daemon = home.daemon_pids().unwrap();
    home.hold(daemon.engine);
    home.write("die", "");
    wait_gone(pid);
    home.kill(daemon.engine);
    let api = home.wait_replaced("api", pid);
    assert_eq!(api["last_exit"]["code"], 7, "{api:#}");
    assert_eq!(api["restarts"]["total"], 1);
    assert_eq!(home.events_of("api", "exited").len(), 1);
}

#[test]
fn fault_04_s40_a_pending_backoff_goes_on() {
    let home = TestHome::new();
    home.manifest(
        "components:
  api:
    command: 'test -e once && exec sleep 1000; touch once; exit 1'
    restart: { backoff: { initial: 4s } }
",
    );
    home.run(["apply", "--no-wait"]).expect_code(0);
    let waiting = home.wait_for("the backoff", || {
        home.try_component("api").filter(|api| api["restarts"]["next_at"].is_string())
    });
    let next_at = waiting["restarts"]["next_at"].clone();
    let before = home.kill_engine();
    wait_engine(&home, before);
    let still = home.component("api");
    assert_eq!(still["state"], "restarting", "{still:#}");
    close(&still["restarts"]["next_at"], &next_at, 500);
    assert_eq!(still["restarts"]["in_window"], waiting["restarts"]["in_window"]);
    home.wait_state("api", "running");
    let launched = home.events_of("api", "launched");
    assert_eq!(launched.len(), 2);
    close(&launched[1]["at"], &next_at, 2_000);
    assert_eq!(home.component("api")["restarts"]["total"], 1);
}

#[test]
fn s40_the_manifest_still_converges_and_a_stop_is_still_carried_out() {
    let home = TestHome::new();
    let stubborn = home.troublemaker("stubborn", &["--on-term", "ignore"]);
    let api = home.troublemaker("api", &[]);
    let yaml = |value: &str| {
        format!(
            "components:
  stubborn:
    command: {stubborn}
    stop: {{ timeout: 2s }}
  api:
    command: {api}
    env: {{ VALUE: '{value}' }}
"
        )
    };
    home.apply(&yaml("one"));
    let (pid, api_pid) = (home.pid_of("stubborn"), home.pid_of("api"));
    home.run(["stop", "stubborn", "--no-wait"]).expect_code(0);
    home.wait_event("stopping", |event| event["kind"] == "stopping");
    let before = home.kill_engine();
    wait_gone(pid);
    home.wait_state("stubborn", "stopped");
    wait_engine(&home, before);
    assert_eq!(home.births("stubborn").len(), 1);
    home.apply(&yaml("two"));
    assert_ne!(home.pid_of("api"), api_pid);
    assert_eq!(home.births("api").len(), 2);
}

#[test]
fn fault_02_s40_killed_again_and_again_in_the_middle_of_launches() {
    let home = TestHome::new();
    home.manifest(&many(&home));
    home.run(["apply", "--no-wait"]).expect_code(0);
    for _ in 0..4 {
        let before = home.kill_engine();
        wait_engine(&home, before);
    }
    for replica in 0..MANY {
        home.wait_ready(&format!("it.{replica}"));
    }
    let running = who(&home);
    for replica in 0..MANY {
        let births = Births::never_two(&home.file(format!("births-{replica}")));
        let last = births.last().unwrap();
        assert_eq!(running[&u64::from(replica)].0, last.pid, "replica {replica}");
    }
}

#[test]
fn s45_commands_are_answered_while_the_engine_restarts() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let pid = home.pid_of("api");
    for _ in 0..3 {
        home.kill_engine();
        let status = home.run(["status", "-o", "json"]).expect_code(0);
        assert_eq!(status.json()["components"][0]["pid"], pid, "{status:#?}");
        assert_eq!(status.stderr, "", "{status:#?}");
        assert!(status.took < Duration::from_secs(10), "{status:#?}");
    }
    home.kill_engine();
    home.run(["apply"]).expect_code(0);
    assert_eq!(home.pid_of("api"), pid);
}

#[test]
fn a_watched_status_survives_the_engine() {
    let home = TestHome::new();
    home.apply(
        "components: { api: { command: [sleep, infinity], restart: { backoff: { initial: 10ms } } } }\n",
    );
    let watch = home.follow(["status", "--watch"]);
    let first = home.pid_of("api");
    watch.line_with(&first.to_string());
    let before = home.kill_engine();
    wait_engine(&home, before);
    home.kill(first);
    let second = home.wait_replaced("api", first)["pid"].to_string();
    watch.line_with(&second);
}

#[test]
fn fault_14_a_state_whose_copies_are_damaged_as_well_loses_no_component_that_runs() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    home.apply(&format!("components:\n  api:\n    command: {api}\n"));
    let pid = home.pid_of("api");
    home.kill_daemon();
    let files = fs::read_dir(home.home()).unwrap().flatten().map(|entry| entry.path());
    for file in files.filter(|path| path.to_string_lossy().contains("state.db")) {
        fs::write(file, "this is no database at all, and long enough to be looked at").unwrap();
    }
    home.run(["apply"]).expect_code(0);
    home.wait_ready("api");
    // Nobody knows any more whose it was; a second copy beside it would be worse than a new start.
    home.births("api");
    let new = home.pid_of("api");
    assert!(new == pid || Process::open(pid).is_none());
    assert!(home.daemon_log().contains("damaged"), "{}", home.daemon_log());
}
