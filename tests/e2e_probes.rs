//! What the daemon makes of the results of probes.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use support::home::TestHome;
use support::look::{signal, wait_gone};
use support::ports::free_port;
use support::processes::Process;

/// Applies and waits for nothing.
fn declare(home: &TestHome, yaml: &str) {
    home.manifest(yaml);
    home.run(["apply", "--no-wait"]).expect_code(0);
}

/// The numbers of the first event of each of these kinds, which must have come in this order.
#[track_caller]
fn in_order(home: &TestHome, name: &str, kinds: &[&str]) -> Vec<Value> {
    let events = home.events();
    let mut rest = events.iter().filter(|event| event["component"] == name);
    kinds
        .iter()
        .map(|kind| {
            let found = rest.find(|event| event["kind"] == *kind);
            found.cloned().unwrap_or_else(|| panic!("no {kind} in order {kinds:?}: {events:#?}"))
        })
        .collect()
}

#[test]
fn s2_three_probes_of_different_kinds_on_one_component() {
    let home = TestHome::new();
    let port = free_port();
    let command = home.troublemaker("api", &["--http", &port.to_string()]);
    home.apply(&format!(
        "components:
  api:
    command: {command}
    probes:
      startup: {{ tcp: {{ port: {port} }}, interval: 50ms }}
      liveness: {{ process: {{}}, interval: 50ms }}
      readiness: {{ http: {{ port: {port} }}, interval: 50ms }}
"
    ));
    for (role, check) in [
        ("startup", format!("tcp 127.0.0.1:{port}")),
        ("liveness", "process".into()),
        ("readiness", format!("http GET 127.0.0.1:{port}/")),
    ] {
        let probe = home.wait_probe("api", role, "success");
        assert_eq!(probe["check"], check, "{role}");
    }
    let events = in_order(&home, "api", &["launched", "started", "ready"]);
    assert!(events.iter().all(|event| event["severity"] == "info"), "{events:#?}");
}

#[test]
fn s6_liveness_and_readiness_wait_for_startup() {
    let home = TestHome::new();
    declare(
        &home,
        "components:
  api:
    command: [sleep, infinity]
    probes:
      startup: { exec: 'echo s >>asked; test -e open', interval: 30ms, failure_threshold: 10000 }
      liveness: { exec: 'echo l >>asked', interval: 30ms }
      readiness: { exec: 'echo r >>asked', interval: 30ms, success_threshold: 1 }
",
    );
    let asked = home.wait_lines("asked", 8);
    assert!(asked.iter().all(|line| line == "s"), "{asked:?}");
    let api = home.component("api");
    assert_eq!((&api["state"], &api["ready"]), (&"starting".into(), &false.into()), "{api:#}");
    assert_eq!(api["probes"]["startup"]["result"], "failure");
    for role in ["liveness", "readiness"] {
        assert_eq!(api["probes"][role]["result"], Value::Null, "{api:#}");
    }
    home.write("open", "");
    home.wait_ready("api");
    home.wait_probe("api", "liveness", "success");
    let asked = home.lines_of("asked");
    let last_startup = asked.iter().rposition(|line| line == "s").unwrap();
    let first_other = asked.iter().position(|line| line != "s").unwrap();
    assert!(last_startup < first_other, "{asked:?}");
}

#[test]
fn s7_thirty_failed_startup_probes_are_unhealthy_and_then_a_restart() {
    let home = TestHome::new();
    // A backoff without end, so that nothing is asked any more when the first run is over.
    declare(
        &home,
        "components:
  api:
    command: [sleep, infinity]
    restart: { backoff: { initial: 1h, max: 1h } }
    probes:
      startup: { exec: 'echo s >>asked; echo not yet; exit 1', interval: 20ms }
",
    );
    let api = home.wait_for("a backoff", || {
        home.try_component("api").filter(|api| api["reason"] == "backoff")
    });
    assert_eq!(home.lines_of("asked").len(), 30);
    assert_eq!(api["state"], "restarting");
    assert_eq!(api["last_error"]["reason"], "startup", "{api:#}");
    let events = in_order(&home, "api", &["launched", "unhealthy", "exited", "restarting"]);
    assert_eq!(events[1]["message"], "unhealthy: startup: exit 1: not yet (30/30)");
    assert_eq!(events[1]["severity"], "warning");
    let text = events[3]["message"].as_str().unwrap();
    assert!(text.contains("attempt 1/10") && text.contains("startup"), "{text}");
    assert!(home.events_of("api", "started").is_empty());
}

#[test]
fn s8_two_failures_and_a_success_are_no_restart_and_three_failures_are_one() {
    let home = TestHome::new();
    let command = home.troublemaker("api", &[]);
    let sick = "n=$(wc -l <asked); echo l >>asked; test -e sick && { echo sick; exit 1; }; \
                echo hiccup; test $((n % 3)) = 2";
    home.write("asked", "");
    home.apply(&format!(
        "components:
  api:
    command: {command}
    restart: {{ backoff: {{ initial: 10ms }} }}
    probes:
      liveness: {{ exec: '{sick}', interval: 20ms }}
"
    ));
    let before = home.pid_of("api");
    home.wait_lines("asked", 13);
    let api = home.component("api");
    assert_eq!((&api["pid"], &api["restarts"]["total"]), (&before.into(), &0.into()), "{api:#}");
    assert!(home.events_of("api", "unhealthy").is_empty());
    home.write("sick", "");
    home.wait_event("a restart", |event| event["kind"] == "restarting");
    std::fs::remove_file(home.file("sick")).unwrap();
    let after = home.wait_replaced("api", before);
    let events = in_order(&home, "api", &["unhealthy", "exited", "restarting", "launched"]);
    // The first of the three may have been a hiccup, the last one cannot.
    assert_eq!(events[0]["message"], "unhealthy: liveness: exit 1: sick (3/3)");
    assert_eq!(after["last_error"]["reason"], "liveness", "{after:#}");
    assert!(home.births("api").len() >= 2);
}

#[test]
fn s9_a_readiness_failure_holds_dependents_and_never_restarts() {
    let home = TestHome::new();
    declare(
        &home,
        "components:
  api:
    command: [sleep, infinity]
    probes:
      readiness: { exec: 'echo r >>asked; test -e open', interval: 20ms }
  web:
    command: [sleep, infinity]
    depends_on: { api: ready }
",
    );
    home.wait_lines("asked", 10);
    let api = home.wait_state("api", "running");
    let pid = home.pid_of("api");
    assert_eq!((&api["ready"], &api["restarts"]["total"]), (&false.into(), &0.into()));
    let web = home.component("web");
    assert_eq!((&web["state"], &web["pid"]), (&"starting".into(), &Value::Null), "{web:#}");
    assert_eq!(web["waiting_for"], serde_json::json!(["api (ready)"]));
    home.write("open", "");
    home.wait_ready("web");
    std::fs::remove_file(home.file("open")).unwrap();
    let not_ready = home.wait_event("not ready", |event| event["kind"] == "not_ready");
    assert_eq!(not_ready["message"], "not ready: exit 1 (3/3)");
    let asked = home.lines_of("asked").len();
    home.wait_lines("asked", asked + 10);
    // What runs already is not stopped because of it, neither here nor there.
    assert_eq!(home.pid_of("api"), pid);
    assert_eq!(home.component("web")["state"], "running");
    assert!(home.events_of("api", "restarting").is_empty());
}

#[test]
fn s10_a_probe_that_hangs_is_one_failure_and_its_whole_group_is_killed() {
    let home = TestHome::new();
    // The probe and its children ignore what they may; they write down who they are.
    let hang = "trap : TERM; echo $$$$ >>kids; (trap : TERM; exec sleep 1000) & echo $! >>kids; \
                sleep 1000 & echo $! >>kids; wait; wait; wait";
    declare(
        &home,
        &format!(
            "components:
  api:
    command: [sleep, infinity]
    probes:
      readiness: {{ exec: '{hang}', interval: 20ms, timeout: 300ms, failure_threshold: 2 }}
"
        ),
    );
    let probe = home.wait_message("api", "readiness", "no answer within 300ms");
    assert_eq!(probe["result"], "failure");
    let kids: Vec<u32> =
        home.wait_lines("kids", 3).iter().take(3).map(|pid| pid.parse().unwrap()).collect();
    for pid in kids {
        wait_gone(pid);
    }
    let second = home.wait_lines("kids", 6);
    home.wait_event("not ready", |event| {
        event["kind"] == "not_ready"
            && event["message"] == "not ready: no answer within 300ms (2/2)"
    });
    // With the component, its probe ends as well.
    home.run(["stop", "api"]).expect_code(0);
    let all: BTreeSet<u32> =
        second.iter().chain(&home.lines_of("kids")).map(|pid| pid.parse().unwrap()).collect();
    for pid in all {
        wait_gone(pid);
    }
    assert_eq!(home.component("api")["restarts"]["total"], 0);
}

#[test]
fn s12_stopped_and_failed_components_are_not_probed() {
    let home = TestHome::new();
    declare(
        &home,
        "components:
  halted:
    command: [sleep, infinity]
    probes: { readiness: { exec: 'echo x >>asked-halted', interval: 20ms } }
  broken:
    command: 'sleep 0.3; exit 1'
    restart: { max_restarts: 0 }
    probes: { readiness: { exec: 'echo x >>asked-broken', interval: 20ms } }
  clock:
    command: [sleep, infinity]
    probes: { readiness: { exec: 'echo x >>asked-clock', interval: 20ms } }
",
    );
    home.wait_lines("asked-halted", 2);
    home.wait_state("broken", "failed");
    home.run(["stop", "halted"]).expect_code(0);
    let count = |name: &str| home.lines_of(name).len();
    let (halted, broken, clock) =
        (count("asked-halted"), count("asked-broken"), count("asked-clock"));
    // The third one is the clock: it is asked as often as the others would be.
    home.wait_lines("asked-clock", clock + 10);
    assert_eq!((count("asked-halted"), count("asked-broken")), (halted, broken));
    for name in ["halted", "broken"] {
        let component = home.component(name);
        assert_eq!(component["pid"], Value::Null);
        assert_eq!(component["probes"]["readiness"]["result"], Value::Null, "{component:#}");
    }
}

#[test]
fn s13_a_success_resets_the_count_and_the_message() {
    let home = TestHome::new();
    declare(
        &home,
        "components:
  api:
    command: [sleep, infinity]
    probes:
      readiness: { exec: 'test -e open || { echo closed; exit 1; }', interval: 20ms }
",
    );
    let probe = home.wait_for("four failures", || {
        let probe = home.try_component("api")?["probes"]["readiness"].clone();
        (probe["consecutive"].as_u64()? >= 4).then_some(probe)
    });
    assert_eq!(
        (&probe["result"], &probe["message"]),
        (&"failure".into(), &"exit 1: closed".into())
    );
    assert_eq!(probe["failure_threshold"], 3);
    home.write("open", "");
    let probe = home.wait_probe("api", "readiness", "success");
    assert_eq!(probe["message"], Value::Null);
    home.wait_ready("api");
    std::fs::remove_file(home.file("open")).unwrap();
    // Counted from 1 again: it takes three more failures until it is not ready.
    let events = |kind: &str| home.events_of("api", kind);
    home.wait_for("not ready", || (events("not_ready").len() == 1).then_some(()));
    assert_eq!(events("ready").len(), 1);
}

#[test]
fn s14_after_a_restart_the_new_process_is_probed() {
    let home = TestHome::new();
    // Only its first run says so; the line of that run must not count for the second one.
    home.apply(
        "components:
  api:
    command: 'test -e once || echo open for business; touch once; exec sleep 1000'
    restart: { backoff: { initial: 10ms } }
    probes:
      startup: { log: '^open for business', interval: 20ms, failure_threshold: 100000 }
      liveness: { process: {}, interval: 20ms }
",
    );
    let before = home.pid_of("api");
    home.wait_probe("api", "liveness", "success");
    signal(before, Signal::KILL);
    let api = home.wait_for("a second run that is starting", || {
        let api = home.try_component("api")?;
        let is_new = api["pid"].as_u64().is_some_and(|pid| pid != u64::from(before));
        (is_new && api["probes"]["startup"]["consecutive"].as_u64()? >= 5).then_some(api)
    });
    assert_eq!(api["state"], "starting", "S25: {api:#}");
    assert_eq!(api["probes"]["startup"]["message"], "no line matches /^open for business/ yet");
    assert_eq!(api["probes"]["liveness"]["result"], Value::Null, "of the run before: {api:#}");
    assert_eq!(home.events_of("api", "started").len(), 1);
}

#[test]
fn s15_a_slow_probe_delays_nobody() {
    let home = TestHome::new();
    let mut yaml = "components:
  quick:
    command: [sleep, infinity]
    restart: { backoff: { initial: 10ms } }
    probes: { readiness: { exec: 'echo x >>asked', interval: 20ms } }
"
    .to_owned();
    for number in 0..10 {
        let one = format!(
            "  slow{number}:
    command: [sleep, infinity]
    probes: {{ liveness: {{ exec: [sleep, '1000'], timeout: 1000s, interval: 20ms }} }}
"
        );
        yaml.push_str(&one);
    }
    home.apply(&yaml);
    let before = home.pid_of("quick");
    let asked = home.wait_lines("asked", 20).len();
    signal(before, Signal::KILL);
    home.wait_replaced("quick", before);
    home.wait_lines("asked", asked + 20);
    for number in 0..10 {
        let slow = home.component(&format!("slow{number}"));
        assert_eq!(slow["probes"]["liveness"]["result"], Value::Null, "{slow:#}");
        assert_eq!(slow["restarts"]["total"], 0);
    }
}

#[test]
fn s33_a_live_process_with_a_closed_port_is_unhealthy_and_restarted() {
    let home = TestHome::new();
    let port = free_port();
    let command = home.troublemaker("api", &["--tcp", &port.to_string()]);
    home.apply(&format!(
        "components:
  api:
    command: {command}
    restart: {{ backoff: {{ initial: 10ms }} }}
    probes: {{ liveness: {{ tcp: {{ port: {port} }}, interval: 50ms }} }}
"
    ));
    let before = home.pid_of("api");
    home.run(["signal", "USR1", "api"]).expect_code(0);
    let unhealthy = home.wait_event("unhealthy", |event| event["kind"] == "unhealthy");
    let words = format!("unhealthy: liveness: connection refused (127.0.0.1:{port}) (3/3)");
    assert_eq!(unhealthy["message"], words);
    let api = home.wait_replaced("api", before);
    assert_eq!(api["restarts"]["total"], 1);
    assert!(Process::open(before).is_none());
    home.wait_probe("api", "liveness", "success");
    assert_eq!(home.births("api").len(), 2);
}
