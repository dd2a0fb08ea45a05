//! What ends comes back: at once, after the delays of its backoff, as it was, and as its policy says.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use support::births::Births;
use support::home::TestHome;
use support::story::Told;

/// One component under the name `api`, restarted after 100 ms.
fn manifest(home: &TestHome, flags: &[&str], restart: &str) -> String {
    let command = home.trouble(flags);
    format!(
        "
project: shop
components:
  api:
    command: {command}
    restart: {{ {restart} }}
"
    )
}

const SOON: &str = "backoff: { initial: 100ms }";

#[test]
fn s51_a_killed_component_is_restarted() {
    let home = TestHome::new();
    home.apply(&manifest(&home, &["--births", "births"], SOON));
    let before = home.pid_of("api");
    home.kill(before);
    let api = home.wait_replaced("api", before);

    assert_eq!(api["restarts"]["total"], 1, "{api}");
    assert_eq!(api["restarts"]["limit"], 10, "{api}");
    assert_eq!(api["last_exit"]["signal"], "SIGKILL", "{api}");
    assert_eq!(api["last_exit"]["code"], Value::Null, "a death by signal is never a code: {api}");
    assert_eq!(api["last_exit"]["oom"], false, "{api}");
    assert_eq!(api["last_error"]["reason"], "signal", "{api}");
    assert!(api["uptime_seconds"].as_f64().unwrap() < 30.0, "{api}");
    let exited = home.wait_told("api", "exited", 1);
    assert_eq!(exited[0].message, "exited: SIGKILL");
    home.wait_born("births", 2);
}

#[test]
fn s27_every_restart_is_an_event_and_a_line_of_the_log_with_its_reason_and_delay() {
    let home = TestHome::new();
    home.apply(&manifest(&home, &["--births", "births"], SOON));
    let before = home.pid_of("api");
    home.run(["signal", "SIGUSR1", "api"]).expect_code(0);
    home.wait_replaced("api", before);
    let restarting = home.wait_told("api", "restarting", 1);
    assert_eq!(restarting[0].severity, "warning");
    assert_eq!(restarting[0].message, "restarting (attempt 1/10) in 100ms: SIGUSR1");
    assert!(home.daemon_log().contains("api restarting (attempt 1/10) in 100ms: SIGUSR1"));

    // The code of an exit is told as well.
    home.manifest(&manifest(&home, &["--exit-code", "3", "--exit-after", "0s"], SOON));
    home.run(["apply", "--no-wait"]).expect_code(0);
    let restarting = home.wait_told("api", "restarting", 3);
    assert_eq!(restarting[1].message, "restarting (attempt 1/10) in 100ms: exit 3");
    assert_eq!(restarting[2].message, "restarting (attempt 2/10) in 200ms: exit 3");
    let api = home.component("api");
    assert_eq!(api["last_exit"]["code"], 3, "{api}");
    assert_eq!(api["last_exit"]["signal"], Value::Null, "{api}");
}

#[test]
fn s1_supervision_goes_on_when_the_command_line_is_gone_with_all_its_processes() {
    let home = TestHome::new();
    home.manifest(&manifest(&home, &["--births", "births"], SOON));
    // As a terminal does that is closed: whatever the command has left in its group is killed.
    let apply = home.command(["apply"]);
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "\"$1\" apply >/dev/null 2>&1 && kill -KILL 0", "sh"])
        .arg(apply.get_program())
        .current_dir(home.project())
        .env_clear()
        .envs(apply.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .process_group(0);
    home.user().into_iter().for_each(|user| user.run(&mut shell));
    let killed = home.run_command(shell);
    assert_eq!(killed.signal, Some(9), "{killed:#?}");

    home.wait_ready("api");
    let before = home.pid_of("api");
    home.kill(before);
    home.wait_replaced("api", before);
}

#[test]
fn s53_with_the_defaults_a_crash_is_replaced_after_about_a_second() {
    let home = TestHome::new();
    home.apply(&manifest(&home, &["--births", "births"], ""));
    let before = home.pid_of("api");
    home.kill(before);
    home.wait_replaced("api", before);
    let exited = &home.told("api", "exited")[0];
    let launched = &home.told("api", "launched")[1];
    let took = launched.since(exited);
    assert!(took >= Duration::from_millis(990), "{took:?} is less than the first backoff");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn s29_s30_an_exit_is_acted_on_at_once_whatever_the_intervals_of_the_probes() {
    let home = TestHome::new();
    let command = home.trouble(&["--births", "births"]);
    home.apply(&format!(
        "
components:
  api:
    command: {command}
    restart: {{ backoff: {{ initial: 0s }} }}
    probes:
      liveness: {{ process: {{}}, interval: 1h }}
      readiness: {{ process: {{}}, interval: 1h, success_threshold: 1 }}
"
    ));
    let before = home.pid_of("api");
    let killed_at = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    home.kill(before);
    home.wait_replaced("api", before);
    let births = home.wait_born("births", 2);
    let reborn = Duration::from_nanos(births[1].at_nanos);
    let took = reborn.checked_sub(Duration::from(killed_at)).unwrap();
    // A few milliseconds; the rest is for a machine that does other things as well.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(
        home.told("api", "restarting")[0].message,
        "restarting (attempt 1/10) in 0s: SIGKILL"
    );
}

/// The delays that were announced, and those that were kept, of the first `count` restarts.
fn delays(home: &TestHome, count: usize) -> Vec<String> {
    let restarting = home.wait_told("api", "restarting", count);
    let launched = home.wait_told("api", "launched", count + 1);
    let announced = |told: &Told| {
        let (_, rest) = told.message.split_once(" in ").unwrap();
        rest.split_once(':').unwrap().0.to_owned()
    };
    let announced: Vec<String> = restarting.iter().take(count).map(announced).collect();
    for (index, delay) in announced.iter().enumerate() {
        let millis: u64 = delay.strip_suffix("ms").unwrap().parse().unwrap();
        let took = launched[index + 1].since(&restarting[index]);
        // The two times are taken when they are told, and so may be a little off.
        assert!(took + Duration::from_millis(20) >= Duration::from_millis(millis), "{took:?}");
    }
    announced
}

#[test]
fn s17_s18_the_delays_of_failed_starts_grow_up_to_their_maximum() {
    let home = TestHome::new();
    let restart = "backoff: { initial: 50ms, multiplier: 2, max: 300ms }";
    let flags = ["--births", "births", "--exit-after", "20ms", "--exit-code", "1"];
    home.manifest(&manifest(&home, &flags, restart));
    home.run(["apply", "--no-wait"]).expect_code(0);
    assert_eq!(delays(&home, 5), ["50ms", "100ms", "200ms", "300ms", "300ms"]);
    Births::never_two(&home.file("births"));
}

#[test]
fn s18_a_stable_run_resets_the_backoff() {
    let home = TestHome::new();
    let restart = "min_uptime: 100ms, backoff: { initial: 50ms }";
    let flags = ["--births", "births", "--exit-after", "500ms", "--exit-code", "1"];
    home.manifest(&manifest(&home, &flags, restart));
    home.run(["apply", "--no-wait"]).expect_code(0);
    assert_eq!(delays(&home, 3), ["50ms", "50ms", "50ms"]);
    assert!(home.told("api", "stable").len() >= 3);
}

#[test]
fn s54_launched_started_and_stable_are_three_things() {
    let home = TestHome::new();
    let gone = home.trouble(&["--exit-after", "50ms", "--exit-code", "1"]);
    let stays = home.trouble(&["--births", "births"]);
    home.manifest(&format!(
        "
defaults: {{ restart: {{ {SOON}, max_restarts: 3 }} }}
components:
  never-started:
    command: {gone}
    probes: {{ startup: {{ min_uptime: 1h, interval: 100ms }} }}
  never-stable:
    command: {gone}
  stable:
    command: {stays}
    restart: {{ min_uptime: 200ms }}
"
    ));
    // A crash loop is no success, for the command neither.
    home.run(["apply"]).expect_code(3);
    home.wait_state("never-started", "failed");
    home.wait_state("never-stable", "failed");
    home.wait_told("stable", "stable", 1);
    assert_eq!(home.component("stable")["stage"], "stable");

    let kinds = |name: &str| -> Vec<String> {
        home.story(name).into_iter().map(|told| told.kind).collect()
    };
    let looped = kinds("never-started");
    assert_eq!(looped.iter().filter(|kind| *kind == "launched").count(), 4, "{looped:?}");
    for success in ["started", "ready", "stable"] {
        assert!(!looped.iter().any(|kind| kind == success), "{looped:?}");
    }
    let looped = kinds("never-stable");
    assert!(looped.iter().any(|kind| kind == "started"), "{looped:?}");
    assert!(!looped.iter().any(|kind| kind == "stable"), "{looped:?}");
    let story = kinds("stable");
    let place = |kind: &str| story.iter().position(|told| told == kind).unwrap();
    assert!(place("launched") < place("started") && place("started") < place("stable"));
}

#[test]
fn s54_an_apply_of_what_ends_at_once_fails_and_shows_what_it_said() {
    let home = TestHome::new();
    home.manifest(
        "components: { api: { command: no-such-program-anywhere, restart: { backoff: { initial: 20ms } } } }",
    );
    let output = home.run(["apply"]).expect_code(3);
    let said = output.stdout + &output.stderr;
    for part in ["exit 127", "no-such-program-anywhere: not found", "api.log"] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
}

#[test]
fn s30_without_a_limit_and_a_delay_it_is_restarted_without_end() {
    let home = TestHome::new();
    let restart = "max_restarts: unlimited, backoff: { initial: 0s }";
    let flags = ["--births", "births", "--exit-after", "0s", "--exit-code", "1"];
    home.manifest(&manifest(&home, &flags, restart));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_for("more restarts than any limit", || {
        (Births::never_two(&home.file("births")).len() > 30).then_some(())
    });
    let api = home.component("api");
    assert_ne!(api["state"], "failed", "{api}");
    assert_eq!(api["restarts"]["limit"], Value::Null, "{api}");
    let restarting = home.wait_told("api", "restarting", 2);
    assert_eq!(restarting[1].message, "restarting (attempt 2) in 0s: exit 1");

    home.run(["stop", "api"]).expect_code(0);
    let born = Births::never_two(&home.file("births")).len();
    assert_eq!(home.component("api")["state"], "stopped");
    assert_eq!(Births::never_two(&home.file("births")).len(), born);
}

#[test]
fn s24_an_automatic_restart_uses_what_was_applied_last() {
    let home = TestHome::new();
    let flags = ["--births", "births", "--report", "report", "--say", "an argument"];
    let command = home.trouble(&flags);
    home.manifest(&format!(
        "
components:
  api:
    command: {command}
    env: {{ FROM_SHELL: \"${{FLAVOUR}}\", PLAIN: plain }}
    restart: {{ {SOON} }}
"
    ));
    let mut apply = home.command(["apply"]);
    apply.env("FLAVOUR", "sweet").env("UNNAMED", "leaks");
    home.run_command(apply).expect_code(0);
    let first = report(&home);
    assert_eq!(first["environment"]["FROM_SHELL"], "sweet");
    assert_eq!(first["environment"]["UNNAMED"], Value::Null);
    assert_eq!(first["arguments"][6], "an argument");

    // Another shell, with another value, does other things.
    let mut other = home.command(["status"]);
    other.env("FLAVOUR", "sour").env("PLAIN", "no");
    home.run_command(other).expect_code(0);
    assert_eq!(reborn(&home), first);

    // An edit that cannot be read changes nothing that runs, nor what is restarted.
    home.manifest("components: { api: { command: [sleep, infinity], comand: x } }");
    home.wait_for("the edit to be refused", || {
        let status = home.try_status_json()?;
        status["projects"][0]["manifest"]["error"].is_object().then_some(())
    });
    assert_eq!(reborn(&home), first);
    Births::never_two(&home.file("births"));
}

/// Kills the component; what its successor reports.
fn reborn(home: &TestHome) -> Value {
    fs::remove_file(home.file("report")).unwrap();
    let before = home.pid_of("api");
    home.kill(before);
    home.wait_replaced("api", before);
    report(home)
}

/// What was given to the component, without what differs from process to process.
fn report(home: &TestHome) -> Value {
    let text = home.wait_for("the report", || fs::read(home.file("report")).ok());
    let mut report: Value = serde_json::from_slice(&text).unwrap();
    for own in ["pid", "group", "session", "cgroups"] {
        report[own] = Value::Null;
    }
    // The tag of the run is its own.
    report["environment"]["STIGMER_RUN"] = Value::Null;
    report
}
