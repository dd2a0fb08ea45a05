//! When it is given up, by the limit, the policy or a launch that cannot work; and what brings it
//! back.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use serde_json::Value;

use support::home::TestHome;

const LOOP: [&str; 6] = ["--births", "births", "--exit-after", "0s", "--exit-code", "1"];

/// A component `api` that ends at once, with a limit of three restarts.
fn crash_loop(home: &TestHome, more: &str) -> String {
    let command = home.trouble(&LOOP);
    format!(
        "
components:
  api:
    command: {command}
    restart: {{ max_restarts: 3, backoff: {{ initial: 20ms }}{more} }}
"
    )
}

/// A home in which `api` has reached its limit.
fn with_failed() -> TestHome {
    let home = TestHome::new();
    home.manifest(&crash_loop(&home, ""));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_state("api", "failed");
    home.wait_born("births", 4);
    home
}

#[test]
fn s20_s21_the_limit_is_made_use_of_and_the_next_need_is_one_prominent_error() {
    let home = with_failed();
    let api = home.component("api");
    assert_eq!(api["pid"], Value::Null, "{api}");
    assert_eq!(api["ready"], false, "{api}");
    assert_eq!(api["restarts"]["in_window"], 3, "{api}");
    assert_eq!(api["restarts"]["limit"], 3, "{api}");
    assert_eq!(api["restarts"]["next_at"], Value::Null, "{api}");
    assert_eq!(api["last_exit"]["code"], 1, "{api}");
    let attempts: Vec<String> =
        home.told("api", "restarting").into_iter().map(|told| told.message).collect();
    assert_eq!(
        attempts,
        [
            "restarting (attempt 1/3) in 20ms: exit 1",
            "restarting (attempt 2/3) in 40ms: exit 1",
            "restarting (attempt 3/3) in 80ms: exit 1",
        ]
    );

    let failed = home.told("api", "failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].severity, "error");
    let in_log = home.daemon_log();
    let errors: Vec<&str> = in_log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{in_log}");
    for text in [errors[0], failed[0].message.as_str()] {
        // The limit, the window, the last error, and what to type.
        for part in ["3 times", "10m", "exit 1", "`stigmer start api`"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
    assert!(errors[0].contains(" api "), "{errors:?}");
}

#[test]
fn s20_restarts_that_have_left_the_window_do_not_count() {
    let home = TestHome::new();
    let command = home.trouble(&LOOP);
    home.manifest(&format!(
        "
components:
  api:
    command: {command}
    restart: {{ max_restarts: 3, window: 600ms, backoff: {{ initial: 300ms, multiplier: 1 }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_told("api", "restarting", 6);
    assert_eq!(home.told("api", "failed").len(), 0);
    assert_ne!(home.component("api")["state"], "failed");
}

#[test]
fn s22_failed_stays_failed_over_an_unchanged_reload_and_apply_and_a_new_engine() {
    let home = with_failed();
    home.run(["reload"]).expect_code(3);
    home.run(["apply"]).expect_code(3);
    // Saved again as it is: the watch looks at it, and finds nothing new.
    home.manifest(&crash_loop(&home, ""));
    let before = home.kill_engine();
    home.wait_for("another engine", || home.daemon_pids().filter(|now| *now != before));
    home.run(["reload"]).expect_code(3);
    let api = home.component("api");
    assert_eq!(api["state"], "failed", "{api}");
    assert_eq!(api["restarts"]["in_window"], 3, "{api}");
    home.wait_born("births", 4);
}

/// Each of these brings it back, with the counters cleared: it has three restarts again.
fn brings_back(command: &[&str]) {
    let home = with_failed();
    home.run(command).expect_code(0);
    home.wait_for("it to be given up once more", || {
        (home.told("api", "failed").len() == 2).then_some(())
    });
    home.wait_born("births", 8);
    let restarting = home.told("api", "restarting");
    assert_eq!(restarting[3].message, "restarting (attempt 1/3) in 20ms: exit 1");
    assert_eq!(restarting.len(), 6);
}

#[test]
fn s22_start_brings_a_failed_component_back() {
    brings_back(&["start", "--no-wait", "api"]);
}

#[test]
fn s22_restart_brings_a_failed_component_back() {
    brings_back(&["restart", "--no-wait", "api"]);
}

#[test]
fn s22_reset_brings_a_failed_component_back() {
    brings_back(&["reset", "--no-wait", "api"]);
}

#[test]
fn s22_a_changed_spec_brings_a_failed_component_back() {
    for healed in [
        |home: &TestHome| home.trouble(&["--births", "births"]),
        |_: &TestHome| "[sleep, infinity]".to_owned(),
    ] {
        let home = with_failed();
        home.apply(&format!("components: {{ api: {{ command: {} }} }}", healed(&home)));
        let api = home.component("api");
        assert_eq!(api["state"], "running", "{api}");
        assert_eq!(api["restarts"]["in_window"], 0, "{api}");
    }
    let home = with_failed();
    home.manifest(&crash_loop(&home, ", min_uptime: 1s"));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_for("it to be given up once more", || {
        (home.told("api", "failed").len() == 2).then_some(())
    });
    home.wait_born("births", 8);
}

#[test]
fn s23_the_policy_and_the_listed_ends_decide() {
    let home = TestHome::new();
    let components = [
        // (name, how it ends, its restart section, the state that it ends in, how often it ran)
        ("always-ok", "--exit-code 0", "policy: always, max_restarts: 1", "failed", 2),
        ("on-failure-ok", "--exit-code 0", "policy: on-failure", "stopped", 1),
        ("on-failure", "--exit-code 1", "policy: on-failure, max_restarts: 1", "failed", 2),
        ("on-signal", "--die-by HUP", "policy: on-failure, max_restarts: 1", "failed", 2),
        ("never-ok", "--exit-code 0", "policy: never", "stopped", 1),
        ("never", "--exit-code 1", "policy: never", "failed", 1),
        (
            "listed-code",
            "--exit-code 7",
            "policy: on-failure, success_exit_status: [7]",
            "stopped",
            1,
        ),
        (
            "listed-signal",
            "--die-by TERM",
            "policy: on-failure, success_exit_status: [SIGTERM]",
            "stopped",
            1,
        ),
        ("prevented", "--exit-code 78", "policy: always, prevent_exit_status: [78]", "failed", 1),
        (
            "prevented-signal",
            "--die-by ABRT",
            "policy: always, prevent_exit_status: [SIGABRT]",
            "failed",
            1,
        ),
    ];
    let declared = components.map(|(name, end, restart, ..)| {
        let births = format!("births-{name}");
        let mut flags = vec!["--births", &births, "--exit-after", "0s"];
        flags.extend(end.split(' '));
        let command = home.trouble(&flags);
        let restart = format!("{{ {restart}, backoff: {{ initial: 20ms }} }}");
        format!("  {name}: {{ command: {command}, restart: {restart} }}\n")
    });
    let manifest = format!("components:\n{}", declared.concat());
    home.manifest(&manifest);
    home.run(["apply", "--no-wait"]).expect_code(0);
    for (name, _, _, state, times) in components {
        let component = home.wait_for(&format!("{name} to be {state}"), || {
            home.try_component(name)
                .filter(|one| one["state"] == state && one["last_exit"].is_object())
        });
        assert_eq!(component["pid"], Value::Null, "{component}");
        if state == "stopped" {
            assert_eq!(component["reason"], "completed", "{component}");
        }
        home.wait_born(&format!("births-{name}"), times);
    }
    let failed = &home.told("prevented", "failed")[0].message;
    assert!(failed.contains("exit 78") && failed.contains("start prevented"), "{failed}");
}

#[test]
fn s23_a_restart_by_hand_does_not_depend_on_the_policy() {
    let home = TestHome::new();
    let command = home.trouble(&["--births", "births"]);
    home.apply(&format!("components: {{ api: {{ command: {command}, restart: never }} }}"));
    let before = home.pid_of("api");
    home.run(["restart", "api"]).expect_code(0);
    assert_ne!(home.pid_of("api"), before);
    home.wait_born("births", 2);
    assert_eq!(home.component("api")["restarts"]["total"], 0);
}

#[test]
fn s26_what_cannot_be_launched_says_why_and_costs_the_daemon_and_the_others_nothing() {
    let home = TestHome::new();
    home.write("not-executable", "#!/bin/sh\nexit 0\n");
    for (name, text) in [
        ("no-interpreter", "#!/no/such/interpreter\n"),
        ("no-format", "neither a program nor a script"),
    ] {
        home.executable(name, text);
    }
    let good = home.trouble(&[]);
    let retries = "restart: { max_restarts: 1, backoff: { initial: 20ms } }";
    home.manifest(&format!(
        "
components:
  good: {{ command: {good} }}
  missing: {{ command: [./no-such-program], {retries} }}
  not-on-path: {{ command: [no-such-program-anywhere], {retries} }}
  not-executable: {{ command: [./not-executable], {retries} }}
  no-interpreter: {{ command: [./no-interpreter], {retries} }}
  no-format: {{ command: [./no-format], {retries} }}
  a-folder: {{ command: [/tmp], {retries} }}
  no-folder: {{ command: [/bin/true], working_dir: /no/such/folder, {retries} }}
"
    ));
    let output = home.run(["apply"]).expect_code(3);
    for (name, parts) in [
        ("missing", &["./no-such-program"][..]),
        ("not-on-path", &["no-such-program-anywhere", "/usr/local/bin"]),
        ("not-executable", &["./not-executable", "execut"]),
        ("no-interpreter", &["/no/such/interpreter"]),
        ("no-format", &["./no-format"]),
        ("a-folder", &["/tmp"]),
        ("no-folder", &["/no/such/folder"]),
    ] {
        let component = home.wait_state(name, "failed");
        let error = &component["last_error"];
        assert_eq!(error["reason"], "launch", "{component}");
        let message = error["message"].as_str().unwrap();
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message:?}");
        }
        assert!(output.stdout.contains(name) || output.stderr.contains(name), "{output:#?}");
        // Counted as a failed start, and tried again.
        assert_eq!(home.told(name, "launch_failed").len(), 2, "{name}");
        assert_eq!(component["restarts"]["total"], 1, "{component}");
    }
    assert_eq!(home.component("good")["state"], "running");
}

#[test]
fn s26_a_launch_that_becomes_possible_is_made_by_the_next_attempt() {
    let home = TestHome::new();
    home.manifest(
        "
components:
  late:
    command: [./late]
    restart: { max_restarts: unlimited, backoff: { initial: 50ms, multiplier: 1 } }
",
    );
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_told("late", "launch_failed", 2);
    home.executable("late", "#!/bin/sh\nexec sleep infinity\n");
    home.wait_ready("late");
}
