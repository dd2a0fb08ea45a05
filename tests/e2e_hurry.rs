//! Orders in the middle of something, and many components at once: exactly what was asked for is
//! left, and never two copies of anything.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use support::births::Births;
use support::home::TestHome;
use support::processes::belonging_to;

/// How many troublemakers live.
fn alive(home: &TestHome) -> usize {
    let found = belonging_to(home.root());
    found.iter().filter(|found| found.command.contains("troublemaker")).count()
}

/// A component that ends at once and then waits for an hour.
fn in_backoff() -> TestHome {
    let home = TestHome::new();
    let command = home.trouble(&["--births", "births", "--exit-after", "0s", "--exit-code", "1"]);
    home.manifest(&format!(
        "
components:
  api: {{ command: {command}, restart: {{ backoff: {{ initial: 1h, max: 1h }} }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_for("the backoff", || {
        home.try_component("api").filter(|api| api["reason"] == "backoff")
    });
    home
}

#[test]
fn s28_stop_during_the_backoff_leaves_it_stopped() {
    let home = in_backoff();
    let api = home.component("api");
    assert_eq!(api["state"], "restarting", "{api}");
    assert_ne!(api["restarts"]["next_at"], Value::Null, "{api}");
    home.run(["stop", "api"]).expect_code(0);
    let api = home.component("api");
    assert_eq!((&api["state"], &api["wanted"]), (&"stopped".into(), &"stopped".into()), "{api}");
    assert_eq!(api["restarts"]["next_at"], Value::Null, "{api}");
    home.wait_born("births", 1);
    assert_eq!(alive(&home), 0);
}

#[test]
fn s28_start_restart_and_reset_during_the_backoff_do_not_wait_for_its_end() {
    let home = in_backoff();
    for (order, count) in [("start", 2), ("restart", 3), ("reset", 4)] {
        home.run([order, "--no-wait", "api"]).expect_code(0);
        home.wait_born("births", count);
        home.wait_for("the next backoff", || {
            home.try_component("api").filter(|api| api["reason"] == "backoff")
        });
    }
    home.wait_born("births", 4);
}

#[test]
fn s28_an_apply_during_the_backoff_starts_what_it_declares() {
    let home = in_backoff();
    let command = home.trouble(&["--births", "births"]);
    home.apply(&format!("components: {{ api: {{ command: {command} }} }}"));
    assert_eq!(home.component("api")["state"], "running");
    home.wait_born("births", 2);
    assert_eq!(alive(&home), 1);

    let home = in_backoff();
    let other = home.trouble(&["--births", "births-of-other"]);
    home.apply(&format!("components: {{ other: {{ command: {other} }} }}"));
    assert!(home.try_component("api").is_none(), "it is not declared any more");
    home.wait_born("births", 1);
    assert_eq!(alive(&home), 1);
}

#[test]
fn s28_down_during_the_backoff_and_during_the_start_leaves_nothing() {
    for home in [in_backoff(), while_starting()] {
        home.run(["down"]).expect_code(0);
        assert_eq!(alive(&home), 0);
        home.wait_for("the daemon to end", || belonging_to(home.root()).is_empty().then_some(()));
        home.wait_born("births", 1);
    }
}

/// A component whose startup probe never passes.
fn while_starting() -> TestHome {
    let home = TestHome::new();
    let command = home.trouble(&["--births", "births"]);
    home.manifest(&format!(
        "
components:
  api: {{ command: {command}, probes: {{ startup: {{ file: never-there, interval: 50ms, failure_threshold: 100000 }} }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_for("the startup probe", || {
        home.try_component("api").filter(|api| api["probes"]["startup"]["result"] == "failure")
    });
    assert_eq!(home.component("api")["state"], "starting");
    home.wait_born("births", 1);
    home
}

#[test]
fn s28_stop_during_the_start_leaves_nothing_running() {
    let home = while_starting();
    home.run(["stop", "api"]).expect_code(0);
    assert_eq!(home.component("api")["state"], "stopped");
    home.wait_born("births", 1);
    assert_eq!(alive(&home), 0);
}

#[test]
fn s28_restart_and_apply_during_the_start_replace_the_one_copy() {
    let home = while_starting();
    home.run(["restart", "--no-wait", "api"]).expect_code(0);
    home.wait_born("births", 2);
    let command = home.trouble(&["--births", "births", "--say", "another"]);
    home.apply(&format!("components: {{ api: {{ command: {command} }} }}"));
    home.wait_born("births", 3);
    assert_eq!(alive(&home), 1);
}

/// A component that does not end before the file `let-go` is there; it is asked to end by `order`.
fn held_at_its_end(order: &str) -> TestHome {
    let home = TestHome::new();
    let command = home.trouble(&["--births", "births"]);
    // A stop command that fails is followed by the signal.
    home.apply(&format!(
        "
components:
  api:
    command: {command}
    stop: {{ command: \"until [ -e let-go ]; do sleep 0.02; done; false\", timeout: 5m }}
"
    ));
    home.wait_born("births", 1);
    home.run([order, "--no-wait", "api"]).expect_code(0);
    home.wait_for("its end to begin", || {
        home.try_component("api").filter(|api| api["reason"] == "stopping")
    });
    home
}

#[test]
fn s28_orders_during_a_restart_leave_what_the_last_one_asked_for() {
    for (order, born, left) in [("stop", 1, 0), ("start", 2, 1), ("restart", 2, 1)] {
        let home = held_at_its_end("restart");
        home.run([order, "--no-wait", "api"]).expect_code(0);
        home.write("let-go", "");
        home.wait_state("api", if order == "stop" { "stopped" } else { "running" });
        home.wait_born("births", born);
        home.wait_for(order, || (alive(&home) == left).then_some(()));
    }
}

#[test]
fn s28_an_apply_during_a_restart_has_the_last_word() {
    let home = held_at_its_end("restart");
    let command = home.trouble(&["--births", "births", "--say", "as applied"]);
    home.manifest(&format!("components: {{ api: {{ command: {command} }} }}"));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.write("let-go", "");
    home.wait_for("the new one", || home.log_of("api").ends_with(b"as applied\n").then_some(()));
    home.wait_born("births", 2);
    assert_eq!(alive(&home), 1);
}

#[test]
fn s28_start_during_a_stop_starts_it_once_the_old_copy_is_gone() {
    let home = held_at_its_end("stop");
    home.run(["start", "--no-wait", "api"]).expect_code(0);
    home.write("let-go", "");
    home.wait_born("births", 2);
    home.wait_ready("api");
    assert_eq!(alive(&home), 1);
}

#[test]
fn s28_many_orders_at_once_leave_one_copy_or_none() {
    let home = TestHome::new();
    let command = home.trouble(&["--births", "births", "--on-term", "exit"]);
    home.apply(&format!("components: {{ api: {{ command: {command} }} }}"));
    let orders = ["restart", "stop", "start", "restart", "reset", "reload", "apply", "stop"];
    thread::scope(|scope| {
        for order in orders {
            let home = &home;
            scope.spawn(move || {
                for _ in 0..5 {
                    let arguments: &[&str] = match order {
                        "reload" | "apply" => &[order, "--no-wait"],
                        _ => &[order, "--no-wait", "api"],
                    };
                    home.run(arguments).expect_code(0);
                }
            });
        }
    });
    home.run(["start", "api"]).expect_code(0);
    home.wait_ready("api");
    Births::never_two(&home.file("births"));
    assert_eq!(alive(&home), 1);
    home.run(["stop", "api"]).expect_code(0);
    Births::never_two(&home.file("births"));
    assert_eq!(alive(&home), 0);
}

/// Fifty components, each with a births file of its own.
fn fifty(home: &TestHome) -> Vec<String> {
    let names: Vec<String> = (0..50).map(|number| format!("c{number:02}")).collect();
    let mut manifest = String::from("components:\n");
    for name in &names {
        let command = home.trouble(&["--births", &format!("births-{name}")]);
        writeln!(
            manifest,
            "  {name}: {{ command: {command}, restart: {{ backoff: {{ initial: 100ms }} }} }}"
        )
        .unwrap();
    }
    home.apply(&manifest);
    names
}

#[test]
fn s51_s53_a_storm_of_fifty_crashes_is_survived_by_all() {
    let home = TestHome::new();
    let names = fifty(&home);
    assert_eq!(alive(&home), 50);
    let before: Vec<u32> = names.iter().map(|name| home.pid_of(name)).collect();
    for found in belonging_to(home.root()) {
        if before.contains(&found.process.pid()) {
            found.process.signal(rustix::process::Signal::KILL);
        }
    }
    for (name, before) in names.iter().zip(before) {
        let component = home.wait_replaced(name, before);
        assert_eq!(component["restarts"]["total"], 1, "{component}");
        assert_eq!(component["last_exit"]["signal"], "SIGKILL", "{component}");
        home.wait_born(&format!("births-{name}"), 2);
        // How long this one was away.
        let story = home.story(name);
        let exited = story.iter().find(|told| told.kind == "exited").unwrap();
        let launched = story.iter().rfind(|told| told.kind == "launched").unwrap();
        let away = launched.since(exited);
        assert!(away < Duration::from_secs(8), "{name} was away for {away:?}");
    }
}
