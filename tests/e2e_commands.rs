//! The commands that act on components: whom they mean, what they leave, how they end.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use support::home::TestHome;
use support::look::{signal, wait_gone};

/// `api`, `api.1`, `worker` and `web`, each with its births (of the replicas, one file each).
fn shop(home: &TestHome) -> String {
    let worker = home.troublemaker("worker", &["--on-term", "exit"]);
    let web = home.troublemaker("web", &[]);
    format!(
        "project: shop
components:
  api:
    command: [sleep, infinity]
    replicas: 2
  worker:
    command: {worker}
  web:
    command: {web}
    depends_on: {{ worker: started }}
"
    )
}

/// Names and states, in the order of the status.
fn states(home: &TestHome) -> Vec<(String, String)> {
    let status = home.status_json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name = |one: &Value| match one["replica"].as_u64().unwrap() {
        0 => text(&one["name"]),
        replica => format!("{}.{replica}", text(&one["name"])),
    };
    let components = status["components"].as_array().unwrap().iter();
    components.map(|one| (name(one), text(&one["state"]))).collect()
}

/// Who is stopped.
fn stopped(home: &TestHome) -> Vec<String> {
    let stopped = states(home).into_iter().filter(|(_, state)| state == "stopped");
    stopped.map(|(name, _)| name).collect()
}

#[test]
fn names_globs_and_replicas() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    home.run(["stop", "api.1"]).expect_code(0);
    assert_eq!(stopped(&home), ["api.1"]);
    home.run(["stop", "api"]).expect_code(0);
    assert_eq!(stopped(&home), ["api", "api.1"]);
    home.run(["start", "api.0"]).expect_code(0);
    assert_eq!(stopped(&home), ["api.1"]);
    home.run(["stop", "w*"]).expect_code(0);
    assert_eq!(stopped(&home), ["api.1", "web", "worker"]);
    home.run(["start", "web", "worker", "api*"]).expect_code(0);
    assert!(stopped(&home).is_empty());
    home.run(["stop"]).expect_code(0);
    assert_eq!(stopped(&home).len(), 4);
    home.run(["start"]).expect_code(0);
    assert!(stopped(&home).is_empty());
}

#[test]
fn unknown_names_are_code_4_with_the_nearest_and_touch_nothing() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    for command in
        ["start", "stop", "restart", "reset", "reload", "status", "logs", "events", "why"]
    {
        let unknown = home.run([command, "wroker"]).expect_code(4);
        assert!(unknown.stderr.contains("wroker"), "{unknown:#?}");
        assert!(unknown.stderr.contains("did you mean worker?"), "{unknown:#?}");
        // A reload reads the manifest first: the name may have just been added.
        assert!(unknown.stdout.is_empty() || command == "reload", "{unknown:#?}");
    }
    let unknown = home.run(["signal", "HUP", "wroker"]).expect_code(4);
    assert!(unknown.stderr.contains("did you mean worker?"), "{unknown:#?}");
    // One good name beside it does not help.
    home.run(["stop", "worker", "nobody"]).expect_code(4);
    assert!(stopped(&home).is_empty());
    home.run(["stop", "-p", "nope"]).expect_code(4);
    home.run(["stop", "a["]).expect_code(2);
    assert_eq!(home.births("worker").len(), 1);
}

#[test]
fn s45_without_a_daemon_everything_is_code_4_and_none_is_started() {
    let home = TestHome::new();
    home.manifest(&shop(&home));
    for arguments in [
        &["status"][..],
        &["status", "api"],
        &["start"],
        &["stop"],
        &["restart", "api"],
        &["reset"],
        &["reload"],
        &["signal", "HUP", "api"],
        &["logs"],
        &["events"],
        &["why", "api"],
        &["down"],
        &["ping"],
        &["config", "--applied"],
    ] {
        let none = home.run(arguments).expect_code(4);
        assert!(none.stderr.contains("stigmer apply"), "{none:#?}");
        assert_eq!(none.stdout, "", "{none:#?}");
    }
    let json = home.run(["status", "-o", "json"]).expect_code(4).json();
    assert_eq!(json["daemon"], Value::Null);
    assert!(!home.home().join("run/stigmer.sock").exists());
    assert!(home.births("web").is_empty());
}

#[test]
fn a_manifest_that_is_not_applied_is_said_so() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    fs::create_dir(home.file("other")).unwrap();
    home.write("other/stigmer.yaml", "components: { x: { command: [sleep, '1000'] } }\n");
    for command in ["status", "stop", "logs", "down"] {
        let mut there = home.command([command]);
        there.current_dir(home.file("other"));
        let unknown = home.run_command(there).expect_code(4);
        assert!(unknown.stderr.contains("stigmer apply"), "{unknown:#?}");
    }
    assert!(stopped(&home).is_empty());
}

#[test]
fn stop_start_and_restart_leave_exactly_what_was_asked_for() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    let before = home.pid_of("worker");
    home.run(["stop", "worker"]).expect_code(0);
    // What depends on it is stopped before it, and it ended by its own signal.
    let worker = home.component("worker");
    assert_eq!((&worker["wanted"], &worker["pid"]), (&"stopped".into(), &Value::Null));
    assert_eq!(worker["last_exit"]["code"], 0, "{worker:#}");
    assert_eq!(worker["last_error"], Value::Null, "a stop is no error: {worker:#}");
    assert!(support::processes::Process::open(before).is_none());
    home.run(["stop", "worker"]).expect_code(0);
    home.run(["start", "worker", "web"]).expect_code(0);
    assert_eq!(home.births("worker").len(), 2);
    home.run(["start", "worker"]).expect_code(0);
    assert_eq!(home.births("worker").len(), 2, "it runs already");
    let before = home.pid_of("worker");
    home.run(["restart", "worker"]).expect_code(0);
    let worker = home.component("worker");
    assert_ne!(worker["pid"], before);
    assert_eq!(worker["restarts"]["total"], 0, "asked for, not a mishap: {worker:#}");
    home.births("web");
}

#[test]
fn a_stop_is_not_undone_by_a_new_engine() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    home.run(["stop", "api.1"]).expect_code(0);
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    assert_eq!(stopped(&home), ["api.1"]);
    home.run(["status"]).expect_code(0);
}

#[test]
fn s22_reset_clears_the_counters_of_what_has_failed() {
    let home = TestHome::new();
    home.manifest(
        "components:
  fragile:
    command: 'test -e mended || exit 7; exec sleep 1000'
    restart: { max_restarts: 2, backoff: { initial: 10ms } }
",
    );
    home.run(["apply"]).expect_code(3);
    let fragile = home.wait_state("fragile", "failed");
    assert_eq!(fragile["restarts"]["in_window"], 2);
    assert_eq!(fragile["last_exit"]["code"], 7);
    home.run(["status"]).expect_code(3);
    home.write("mended", "");
    home.run(["reset", "fragile"]).expect_code(0);
    let fragile = home.wait_ready("fragile");
    assert_eq!(fragile["restarts"]["in_window"], 0, "{fragile:#}");
}

#[test]
fn signals_reach_the_main_process_and_nothing_else() {
    let home = TestHome::new();
    let worker =
        home.troublemaker("worker", &["--on-term", "ignore", "--child", "--on-term=ignore"]);
    home.apply(&format!(
        "components:\n  worker:\n    command: {worker}\n    stop: {{ timeout: 200ms }}\n"
    ));
    let pid = home.pid_of("worker");
    let got = || String::from_utf8_lossy(&home.log_of("worker")).matches("got SIGTERM").count();
    // One after the other: the kernel keeps no two of one kind.
    for (count, name) in ["TERM", "SIGTERM", "15", "term"].into_iter().enumerate() {
        home.run(["signal", name, "worker"]).expect_code(0);
        home.wait_for("the signal", || (got() == count + 1).then_some(()));
    }
    assert_eq!(home.pid_of("worker"), pid);
    let wrong = home.run(["signal", "BANANA", "worker"]);
    assert!(matches!(wrong.code, Some(1 | 2)), "{wrong:#?}");
    assert!(wrong.stderr.contains("BANANA"), "{wrong:#?}");
    home.run(["stop"]).expect_code(0);
    let nobody = home.run(["signal", "HUP", "worker"]).expect_code(3);
    assert!(nobody.stderr.contains("no process"), "{nobody:#?}");
}

#[test]
fn down_ends_everything_in_order_and_a_second_one_finds_nothing() {
    let home = TestHome::new();
    home.apply(&shop(&home));
    let pids = home.daemon_pids().unwrap();
    let all: Vec<u32> = ["api", "api.1", "worker", "web"].map(|name| home.pid_of(name)).into();
    let events = home.follow(["events", "--all", "-f", "-n", "0"]);
    // Once it has answered a first message, it listens.
    home.run(["restart", "api.1"]).expect_code(0);
    events.line_with("api.1");
    home.run(["down"]).expect_code(0);
    for pid in all.into_iter().chain([pids.keeper, pids.engine]) {
        support::look::wait_gone(pid);
    }
    let mut said = Vec::new();
    while let Some(line) = events.next_line() {
        said.push(line);
        if said.last().is_some_and(|line| line.contains("worker") && line.contains("removed")) {
            break;
        }
    }
    let place = |name: &str, word: &str| {
        said.iter()
            .position(|line| line.contains(name) && line.contains(word))
            .unwrap_or_else(|| panic!("{name} {word}: {said:#?}"))
    };
    assert!(place("web", "exited") < place("worker", "exited"), "{said:#?}");
    home.run(["down"]).expect_code(4);
    assert!(!home.home().join("run/stigmer.sock").exists());
    let runs = fs::read_dir(home.home().join("run/runs")).map_or(0, Iterator::count);
    assert_eq!(runs, 0, "records of runs that are over");
}

#[test]
fn local_commands_need_no_daemon() {
    let home = TestHome::new();
    home.run(["validate"]).expect_code(5);
    home.run(["init"]).expect_code(0);
    let validated = home.run(["validate"]).expect_code(0);
    assert!(validated.stdout.contains("no mistakes"), "{validated:#?}");
    let again = home.run(["init"]);
    assert_eq!(again.code, Some(1), "{again:#?}");
    home.run(["init", "--force"]).expect_code(0);
    home.manifest("components:\n  api:\n    comand: x\n    probes: { liveness: { tcp: 99999 } }\n");
    let wrong = home.run(["validate"]).expect_code(5);
    for words in ["stigmer.yaml:3:5", "comand", "99999"] {
        assert!(wrong.stderr.contains(words), "{words:?} in {wrong:#?}");
    }
    let schema = home.run(["schema"]).expect_code(0).json();
    assert!(schema["properties"]["components"].is_object());
    home.manifest(&shop(&home));
    let config = home.run(["config"]).expect_code(0);
    home.write("resolved.yaml", &config.stdout);
    home.run(["validate", "-f", "resolved.yaml"]).expect_code(0);
    home.run(["--version"]).expect_code(0);
    home.run(["nonsense"]).expect_code(2);
    home.run(["status", "--nonsense"]).expect_code(2);
    home.run(["ping"]).expect_code(4);
}

#[test]
fn config_applied_is_what_is_in_force() {
    let home = TestHome::new();
    home.manifest(
        "components:\n  api:\n    command: [sleep, infinity]\n    env: { A: '${A:-x}' }\n",
    );
    let mut apply = home.command(["apply"]);
    apply.env("A", "of the apply");
    home.run_command(apply).expect_code(0);
    let applied = home.run(["config", "--applied"]).expect_code(0);
    assert!(applied.stdout.contains("of the apply"), "{applied:#?}");
    let local = home.run(["config"]).expect_code(0);
    assert!(!local.stdout.contains("of the apply"), "{local:#?}");
    let ping = home.run(["ping"]).expect_code(0);
    assert!(ping.stdout.contains(env!("CARGO_PKG_VERSION")), "{ping:#?}");
}

/// One that takes no SIGTERM, and what it depends on.
fn stubborn(home: &TestHome) -> String {
    let slow = home.troublemaker("slow", &["--on-term", "ignore"]);
    let db = home.troublemaker("db", &[]);
    format!(
        "components:
  db: {{ command: {db} }}
  slow: {{ command: {slow}, depends_on: [db], stop: {{ timeout: 1h }} }}
"
    )
}

#[test]
fn what_waits_for_its_turn_to_stop_is_stopped_also_by_a_new_engine() {
    let home = TestHome::new();
    home.apply(&stubborn(&home));
    home.run(["stop", "--no-wait"]).expect_code(0);
    home.wait_told("slow", "stopping", 1);
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    assert_eq!(home.component("db")["wanted"], "stopped");
    home.kill(home.pid_of("slow"));
    home.wait_state("slow", "stopped");
    home.wait_state("db", "stopped");
    assert_eq!((home.births("slow").len(), home.births("db").len()), (1, 1));
}

#[test]
fn what_goes_down_is_gone_also_with_a_new_engine() {
    let home = TestHome::new();
    home.apply(&format!("{}  quick: {{ command: {} }}\n", stubborn(&home), {
        home.troublemaker("quick", &[])
    }));
    home.run(["down", "--no-wait"]).expect_code(0);
    home.wait_for("the end of the first", || {
        let components = home.status_json()["components"].as_array()?.clone();
        (!components.iter().any(|one| one["name"] == "quick")).then_some(())
    });
    let slow = home.pid_of("slow");
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    home.kill(slow);
    // It was started by an apply, and ends with its last project.
    wait_gone(before.keeper);
    for name in ["quick", "slow", "db"] {
        assert_eq!(home.births(name).len(), 1, "{name}");
    }
}

#[test]
fn what_is_taken_out_of_the_manifest_is_gone_also_with_a_new_engine() {
    let home = TestHome::new();
    let slow = home.troublemaker("slow", &["--on-term", "ignore"]);
    let rest = "  api: { command: [sleep, infinity] }\n";
    home.apply(&format!(
        "components:\n{rest}  slow: {{ command: {slow}, stop: {{ timeout: 1h }} }}\n"
    ));
    let (slow, api) = (home.pid_of("slow"), home.pid_of("api"));
    home.manifest(&format!("components:\n{rest}"));
    home.wait_told("slow", "stopping", 1);
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    home.kill(slow);
    home.wait_for("the end of it", || {
        let components = home.status_json()["components"].as_array()?.clone();
        (components.len() == 1).then_some(())
    });
    assert_eq!((home.pid_of("api"), home.births("slow").len()), (api, 1));
}

/// Three replicas that take a while to be ready.
fn rolling(home: &TestHome, word: &str) -> String {
    let flags = ["--say", word, "--ready-after", "300ms", "--say-ready", "up"];
    format!(
        "components:
  worker:
    command: {}
    replicas: 3
    probes: {{ readiness: {{ log: up, interval: 30ms, success_threshold: 1 }} }}
",
        home.trouble(&flags)
    )
}

const REPLICAS: [&str; 3] = ["worker", "worker.1", "worker.2"];

#[test]
fn replicas_that_wait_for_their_turn_are_replaced_also_by_a_new_engine() {
    let home = TestHome::new();
    home.apply(&rolling(&home, "one"));
    let before = REPLICAS.map(|name| home.pid_of(name));
    home.manifest(&rolling(&home, "two"));
    home.wait_replaced("worker", before[0]);
    let engine = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != engine.engine)
    });
    for (name, pid) in REPLICAS.into_iter().zip(before) {
        home.wait_replaced(name, pid);
        home.wait_ready(name);
    }
}

#[test]
fn replicas_that_wait_for_their_turn_are_replaced_also_by_the_next_daemon() {
    let home = TestHome::new();
    home.apply(&rolling(&home, "one"));
    let (before, daemon) = (home.pid_of("worker"), home.daemon_pids().unwrap());
    home.manifest(&rolling(&home, "two"));
    home.wait_replaced("worker", before);
    signal(daemon.keeper, Signal::TERM);
    wait_gone(daemon.keeper);
    home.run(["daemon", "--detach"]).expect_code(0);
    for name in REPLICAS {
        home.wait_for("a run by the new manifest", || {
            let log = String::from_utf8_lossy(&home.log_of(name)).into_owned();
            log.lines().any(|line| line == "two").then_some(())
        });
        home.wait_ready(name);
    }
}
