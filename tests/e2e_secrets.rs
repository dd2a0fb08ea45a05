//! S39: the value of a secret is in the environment of its component, and nowhere else.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use support::home::TestHome;

const VALUES: [&str; 3] =
    ["hunter2-of-the-file", "hunter2-of-the-daemon", "hunter2-of-the-command"];

/// A component that has a secret of each kind, and ends by itself now and then.
fn with_secrets() -> TestHome {
    let home = TestHome::new();
    home.write("password", format!("{}\n", VALUES[0]));
    home.executable("token", format!("#!/bin/sh\necho {}\n", VALUES[2]));
    let command = home.trouble(&["--report", "report", "--births", "births"]);
    home.manifest(&format!(
        "
components:
  api:
    command: {command}
    env:
      OF_FILE: {{ secret: {{ file: password }} }}
      OF_ENV: {{ secret: {{ env: DAEMON_SECRET }} }}
      OF_COMMAND: {{ secret: {{ command: [./token] }} }}
    restart: {{ backoff: {{ initial: 20ms }} }}
    probes:
      liveness: {{ exec: 'test -n \"$OF_FILE\"', interval: 100ms }}
"
    ));
    // `env` is of the daemon's environment, which is that of the apply which starts it.
    let mut apply = home.command(["apply"]);
    apply.env("DAEMON_SECRET", VALUES[1]);
    home.run_command(apply).expect_code(0);
    home
}

fn environment(home: &TestHome) -> Value {
    let text = home.wait_for("the report", || fs::read(home.file("report")).ok());
    let report: Value = serde_json::from_slice(&text).unwrap();
    report["environment"].clone()
}

/// Fails where `text` holds a value.
#[track_caller]
fn no_value_in(what: &str, text: &[u8]) {
    for value in VALUES {
        let found = text.windows(value.len()).any(|window| window == value.as_bytes());
        assert!(!found, "{what} holds {value}");
    }
}

/// Fails where a file holds a value. One that is gone by now (the record of a probe) holds none.
#[track_caller]
fn no_value_in_file(path: &Path) {
    match fs::read(path) {
        Ok(bytes) => no_value_in(&path.display().to_string(), &bytes),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", path.display()),
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

#[test]
fn s39_secrets_reach_the_component_and_are_in_no_file_and_no_answer() {
    let home = with_secrets();
    let given = environment(&home);
    assert_eq!([&given["OF_FILE"], &given["OF_ENV"], &given["OF_COMMAND"]], VALUES);
    // A restart, a new engine and a failure to launch write more than a quiet life does.
    let before = home.pid_of("api");
    home.kill(before);
    home.wait_replaced("api", before);
    let engine = home.kill_engine();
    home.wait_for("another engine", || home.daemon_pids().filter(|now| *now != engine));
    home.wait_ready("api");

    for arguments in [
        &["status", "-o", "json"][..],
        &["status", "-o", "wide"],
        &["status", "api"],
        &["status", "api", "-o", "json"],
        &["config"],
        &["config", "--applied"],
        &["events"],
        &["events", "-o", "json"],
        &["logs"],
        &["why", "api"],
        &["apply", "--dry-run"],
        &["apply", "-o", "json"],
    ] {
        let output = home.run(arguments).expect_code(0);
        no_value_in(&format!("{arguments:?}"), output.stdout.as_bytes());
        no_value_in(&format!("{arguments:?}"), output.stderr.as_bytes());
    }
    let config = home.run(["config", "--applied"]).stdout;
    assert!(config.contains("password") && config.contains("DAEMON_SECRET"), "{config}");

    let kept = files(&home.home());
    assert!(kept.iter().any(|path| path.ends_with("state.db")), "{kept:?}");
    for path in kept {
        no_value_in_file(&path);
    }
    // Nor in a command line that any user can read.
    for found in support::processes::belonging_to(home.root()) {
        no_value_in("a command line", found.command.as_bytes());
        no_value_in("a path", found.program.as_os_str().as_bytes());
    }
}

#[test]
fn s39_a_secret_is_resolved_anew_at_each_launch() {
    let home = with_secrets();
    assert_eq!(environment(&home)["OF_FILE"], VALUES[0]);
    let generation = || home.status_json()["projects"][0]["manifest"]["generation"].clone();
    let before = (home.pid_of("api"), generation());
    home.write("password", "another value, without a newline");
    // A reference has not changed: nothing is restarted for it.
    home.run(["reload"]).expect_code(0);
    assert_eq!((home.pid_of("api"), generation()), before);
    fs::remove_file(home.file("report")).unwrap();
    home.kill(before.0);
    home.wait_replaced("api", before.0);
    assert_eq!(environment(&home)["OF_FILE"], "another value, without a newline");
}

#[test]
fn s26_s39_a_secret_that_cannot_be_resolved_is_a_failed_launch_that_says_why() {
    let home = TestHome::new();
    let leaky = format!("#!/bin/sh\necho {}; echo {} >&2; exit 3\n", VALUES[0], VALUES[1]);
    home.executable("leaky", leaky);
    let declared = [
        ("no-file", "file: nowhere/secret"),
        ("no-variable", "env: NO_SUCH_VARIABLE"),
        ("no-command", "command: [./no-such-command]"),
        ("failing", "command: [./leaky]"),
    ]
    .map(|(name, secret)| {
        format!(
            "  {name}: {{ command: [sleep, infinity], restart: {{ max_restarts: 0 }}, \
             env: {{ TOKEN: {{ secret: {{ {secret} }} }} }} }}\n"
        )
    });
    let manifest = format!("components:\n{}", declared.concat());
    home.manifest(&manifest);
    let output = home.run(["apply"]).expect_code(3);
    for (name, parts) in [
        ("no-file", ["TOKEN", "nowhere/secret"]),
        ("no-variable", ["TOKEN", "NO_SUCH_VARIABLE"]),
        ("no-command", ["TOKEN", "no-such-command"]),
        ("failing", ["TOKEN", "exit 3"]),
    ] {
        let component = home.wait_state(name, "failed");
        let message = component["last_error"]["message"].as_str().unwrap();
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message:?}");
        }
    }
    no_value_in("the output", output.stdout.as_bytes());
    no_value_in("the errors", output.stderr.as_bytes());
    for path in files(&home.home()) {
        no_value_in_file(&path);
    }
}

#[test]
fn a_secret_in_a_fifo_holds_nobody_up() {
    let home = TestHome::new();
    let fifo = home.file("password");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    home.user().into_iter().for_each(|user| user.own(&fifo));
    home.manifest(
        "components:
  api: { command: [sleep, infinity], env: { X: { secret: { file: password } } } }
  other: { command: [sleep, infinity] }
",
    );
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_ready("other");
    let api = home.wait_for("the reason", || {
        home.try_component("api").filter(|api| !api["last_error"].is_null())
    });
    assert!(api["last_error"].to_string().contains("is not a file"), "{api}");
}

#[test]
fn a_secret_whose_command_hangs_does_not_hold_up_the_end() {
    let home = TestHome::new();
    let manifest = |seconds: u32| {
        home.manifest(&format!(
            "components:
  api:
    command: [sleep, infinity]
    env: {{ X: {{ secret: {{ command: [sleep, \"{seconds}\"] }} }} }}
  other: {{ command: [sleep, infinity] }}
"
        ))
    };
    let helper = |seconds: &str| {
        let found = support::processes::belonging_to(home.root());
        found.iter().any(|found| found.command.contains(seconds)).then_some(())
    };
    manifest(1001);
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_ready("other");
    home.wait_for("the command of the secret", || helper("1001"));
    home.run(["stop", "api", "--timeout", "20s"]).expect_code(0);
    home.wait_for("its end", || helper("1001").is_none().then_some(()));
    home.run(["start", "api", "--no-wait"]).expect_code(0);
    home.wait_for("the command of the secret", || helper("1001"));
    // Another declaration does not wait either.
    manifest(1002);
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_for("the new command", || helper("1002"));
    home.wait_for("the end of the old one", || helper("1001").is_none().then_some(()));
    home.run(["down", "--timeout", "20s"]).expect_code(0);
}
