//! `status`, `ping`, and whom a command means.

use serde_json::{Value, json};
use stigmer::api::v1;
use tonic::Status;

use crate::fake::{Answers, Scene, component, shown, status};

fn json_of(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

#[test]
fn s45_without_a_daemon_status_says_so_and_what_to_type() {
    let scene = Scene::empty();
    let said = scene.run(&["status"]);
    assert_eq!((said.code, &*said.stdout), (Some(4), ""));
    assert!(said.stderr.contains("no daemon is running"), "{said:?}");
    assert!(said.stderr.contains("stigmer apply"), "{said:?}");
    let said = scene.run(&["status", "-o", "json"]);
    assert_eq!(said.code, Some(4));
    let none = json!({"schema_version": 1, "daemon": null, "projects": [], "components": []});
    assert_eq!(json_of(&said.stdout), none);
    assert!(!scene.home().exists(), "looking makes no folders");
    for command in ["down", "stop", "logs", "events", "ping", "reload"] {
        assert_eq!(scene.run(&[command]).code, Some(4), "{command}");
    }
}

#[test]
fn s47_the_json_has_the_documented_keys() {
    let probe = v1::Probe {
        result: Some("success".into()),
        at: Some("2026-05-01T00:00:00Z".into()),
        consecutive: 1,
        ..v1::Probe::default()
    };
    let one = v1::Component {
        probes: Some(v1::Probes { startup: Some(probe), ..v1::Probes::default() }),
        last_exit: Some(v1::Exit {
            signal: Some("SIGKILL".into()),
            at: "2026-05-01T00:00:00Z".into(),
            ..v1::Exit::default()
        }),
        ..component("api")
    };
    let scene = Scene::with(Answers { status: status(vec![one]), ..Answers::default() });
    let said = scene.run(&["status", "-o", "json"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    let value = json_of(&said.stdout);
    assert_eq!(value["schema_version"], 1);
    assert_eq!(
        value["daemon"],
        json!({"version": env!("CARGO_PKG_VERSION"), "pid": 1, "engine_pid": 2,
               "started_at": "2026-05-01T00:00:00Z"})
    );
    assert_eq!(
        value["projects"],
        json!([{"name": "shop",
            "manifest": {"path": "/shop/stigmer.yaml", "sha256": null, "generation": 0,
                         "loaded_at": null, "error": null},
            "info": {"Web": "http://localhost", "Admin": "http://localhost/admin"}}])
    );
    assert!(said.stdout.contains(r#""info":{"Web":"http://localhost","Admin""#), "in order");
    let found = &value["components"][0];
    for key in [
        "project",
        "name",
        "replica",
        "kind",
        "wanted",
        "state",
        "reason",
        "ready",
        "probes",
        "pid",
        "container_id",
        "started_at",
        "uptime_seconds",
        "restarts",
        "last_exit",
        "last_error",
        "waiting_for",
        "cpu_seconds_total",
        "memory_bytes",
        "log_file",
    ] {
        assert!(found.get(key).is_some(), "{key}");
    }
    for key in ["result", "message", "at", "consecutive"] {
        assert!(found["probes"]["startup"].get(key).is_some(), "{key}");
    }
    for key in ["total", "in_window", "limit", "window_seconds", "next_at"] {
        assert!(found["restarts"].get(key).is_some(), "{key}");
    }
    assert_eq!(found["probes"]["liveness"], Value::Null);
    assert_eq!(
        found["last_exit"],
        json!({"code": null, "signal": "SIGKILL", "oom": false, "at": "2026-05-01T00:00:00Z"})
    );
    assert_eq!(found["log_file"], Value::Null);
}

#[test]
fn the_exit_code_tells_whether_what_is_wanted_runs() {
    let with = |change: fn(&mut v1::Component)| {
        let mut one = component("api");
        change(&mut one);
        let answers = Answers { status: status(vec![component("db"), one]), ..Answers::default() };
        Scene::with(answers).run(&["status"]).code
    };
    assert_eq!(with(|_| {}), Some(0));
    assert_eq!(with(|one| one.ready = false), Some(0));
    for state in ["starting", "restarting", "unhealthy", "failed", "stopped"] {
        let answers = Answers {
            status: status(vec![v1::Component { state: state.into(), ..component("api") }]),
            ..Answers::default()
        };
        assert_eq!(Scene::with(answers).run(&["status"]).code, Some(3), "{state}");
        let optional = v1::Component { state: state.into(), optional: true, ..component("agent") };
        let answers =
            Answers { status: status(vec![component("api"), optional]), ..Answers::default() };
        assert_eq!(Scene::with(answers).run(&["status"]).code, Some(0), "{state}");
    }
    let stopped = with(|one| {
        one.state = "stopped".into();
        one.wanted = "stopped".into();
    });
    assert_eq!(stopped, Some(0));
    let completed = with(|one| {
        one.state = "stopped".into();
        one.reason = Some("completed".into());
    });
    assert_eq!(completed, Some(0));
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let answers = Answers { status: status(vec![component("api")]), ..Answers::default() };
    let scene = Scene::with(answers);
    assert!(!scene.run(&["status"]).stdout.contains('\x1b'));
    assert!(scene.run(&["status", "--color", "always"]).stdout.contains("\x1b[32m✓"));
    let mut forced = scene.command(&["status"]);
    forced.env("CLICOLOR_FORCE", "1");
    assert!(Scene::finish(forced).stdout.contains('\x1b'));
    let mut refused = scene.command(&["status"]);
    refused.env("FORCE_COLOR", "1").env("NO_COLOR", "1");
    assert!(!Scene::finish(refused).stdout.contains('\x1b'));
    let mut ascii = scene.command(&["status"]);
    ascii.env("LANG", "C");
    assert!(Scene::finish(ascii).stdout.contains("\n+  api "));
}

#[test]
fn a_command_means_the_manifest_that_is_found_named_or_none() {
    let answers = Answers { status: status(vec![component("api")]), ..Answers::default() };
    let scene = Scene::with(answers);
    let asked = |arguments: &[&str]| {
        scene.run(arguments);
        scene.asked().pop().unwrap()
    };
    let all = asked(&["status"]);
    assert!(all.contains(r#"project: "", manifest: "", names: []"#), "{all}");
    let path = shown(&scene.manifest("components: {}\n"));
    let here = asked(&["status", "a*", "b"]);
    assert!(here.contains(&format!(r#"manifest: "{path}", names: ["a*", "b"]"#)), "{here}");
    let named = asked(&["logs", "--file", "../p/stigmer.yaml", "-n", "1"]);
    assert!(named.contains(&format!(r#"manifest: "{path}""#)), "{named}");
    assert!(asked(&["status", "--all"]).contains(r#"manifest: """#));
    assert!(asked(&["stop", "-p", "blog"]).contains(r#"project: "blog", manifest: """#));
    assert_eq!(scene.run(&["status", "--all", "-p", "blog"]).code, Some(2));
}

#[test]
fn a_manifest_that_is_not_applied_is_said_to_be_so() {
    let mut empty = status(Vec::new());
    empty.projects.clear();
    for answers in [
        Answers { status: empty, ..Answers::default() },
        Answers { refusal: Some(Status::not_found("no such project")), ..Answers::default() },
    ] {
        let scene = Scene::with(answers);
        scene.manifest("components: {}\n");
        let said = scene.run(&["status"]);
        assert_eq!(said.code, Some(4), "{said:?}");
        assert!(said.stderr.contains("p/stigmer.yaml is not applied"), "{said:?}");
        assert!(said.stderr.contains("--all"), "{said:?}");
    }
}

#[test]
fn refusals_have_their_codes() {
    let code = |status: Status| {
        let scene = Scene::with(Answers { refusal: Some(status), ..Answers::default() });
        let said = scene.run(&["stop", "wroker"]);
        (said.code, said.stderr)
    };
    let (unknown, text) =
        code(Status::not_found("no component is named wroker; did you mean worker?"));
    assert_eq!(unknown, Some(4));
    assert!(text.contains("did you mean worker?"), "{text}");
    assert_eq!(code(Status::invalid_argument("a[ is not a valid pattern")).0, Some(2));
    assert_eq!(code(Status::failed_precondition("the disk is full")).0, Some(1));
    let (older, text) = code(Status::unimplemented(""));
    assert_eq!(older, Some(1));
    assert!(text.contains("is older and does not know this"), "{text}");
}

#[test]
fn a_difference_of_versions_is_said_once_on_stderr() {
    let answers = Answers {
        version: Some("0.0.9"),
        status: status(vec![component("api")]),
        ..Answers::default()
    };
    let scene = Scene::with(answers);
    let said = scene.run(&["status"]);
    assert_eq!(said.code, Some(0));
    assert_eq!(
        said.stderr.matches("the daemon is 0.0.9; `stigmer upgrade`").count(),
        1,
        "{said:?}"
    );
    let said = scene.run(&["ping"]);
    assert!(said.stdout.contains("`stigmer upgrade`"), "{said:?}");
    assert_eq!(said.stderr, "");
    let value = json_of(&scene.run(&["ping", "-o", "json"]).stdout);
    assert_eq!(value["daemon"]["version"], "0.0.9");
    assert_eq!(value["client"]["version"], env!("CARGO_PKG_VERSION"));
    // A newer daemon is not to be replaced by an older program.
    let answers = Answers {
        version: Some("999.0.0"),
        status: status(vec![component("api")]),
        ..Answers::default()
    };
    let said = Scene::with(answers).run(&["status"]);
    assert!(said.stderr.contains("older than the daemon (999.0.0)"), "{said:?}");
    assert!(!said.stderr.contains("upgrade"), "{said:?}");
}

#[test]
fn one_name_gives_everything_about_it() {
    let detail = v1::ComponentDetail {
        component: Some(component("api")),
        spec: "command: sleep 1\n".into(),
        exits: vec![v1::ExitRecord {
            exit: Some(v1::Exit { code: Some(1), ..v1::Exit::default() }),
            cause: "restarted".into(),
            uptime_seconds: 12.0,
        }],
        processes: vec![
            v1::ProcessNode { pid: 42, parent: 1, command: "sh -c x".into(), state: "S".into() },
            v1::ProcessNode { pid: 43, parent: 42, command: "sleep 1".into(), state: "D".into() },
        ],
        log_tail: vec![v1::LogLine { text: "hello".into(), ..v1::LogLine::default() }],
        ..v1::ComponentDetail::default()
    };
    let answers = Answers { details: [("api".to_owned(), detail)].into(), ..Answers::default() };
    let said = Scene::with(answers).run(&["status", "api"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        "✓ shop/api  running, ready\n",
        "  process:     42\n",
        "exit 1 after 12s: restarted\n",
        "  42 sh -c x\n    43 sleep 1  (state D: it waits inside of the kernel)\n",
        "\nSpec\n  command: sleep 1\n",
        "\nLast log lines\n  hello\n",
    ] {
        assert!(said.stdout.contains(part), "{part:?} in {}", said.stdout);
    }
}

#[test]
fn help_is_there_for_everything() {
    let scene = Scene::empty();
    let alone = scene.run(&[]);
    assert_eq!(alone.code, Some(0));
    assert!(alone.stdout.contains("stigmer init"), "{alone:?}");
    assert_eq!(scene.run(&["nonsense"]).code, Some(2));
    assert_eq!(
        scene.run(&["--version"]).stdout.trim(),
        concat!("stigmer ", env!("CARGO_PKG_VERSION"))
    );
    let options: [(&str, &[&str]); 18] = [
        (
            "apply",
            &[
                "--file",
                "--dry-run",
                "--detailed-exitcode",
                "--no-wait",
                "--timeout",
                "--profile",
                "--output",
            ],
        ),
        ("status", &["--output", "--watch", "--file", "--project", "--all", "--color", "--home"]),
        ("start", &["--no-wait", "--timeout", "--output"]),
        ("stop", &["--no-wait", "--timeout", "--output"]),
        ("restart", &["--no-wait", "--timeout", "--output"]),
        ("reset", &["--no-wait", "--timeout", "--output"]),
        ("signal", &["<SIGNAL>", "<NAMES>"]),
        ("reload", &["--no-wait", "--timeout", "--output"]),
        ("down", &["--no-wait", "--timeout", "--output"]),
        (
            "logs",
            &[
                "--follow",
                "--lines",
                "--since",
                "--until",
                "--grep",
                "--previous",
                "--timestamps",
                "--no-prefix",
                "--output",
            ],
        ),
        ("events", &["--follow", "--lines", "--since", "--output"]),
        ("why", &["<NAME>", "--output"]),
        ("init", &["--force"]),
        ("validate", &["--file", "--output"]),
        ("config", &["--applied", "--file"]),
        ("schema", &[]),
        ("ping", &["--output"]),
        ("daemon", &["--detach"]),
    ];
    for (command, options) in options {
        let said = scene.run(&[command, "--help"]);
        assert_eq!(said.code, Some(0), "{command}");
        for option in options {
            assert!(said.stdout.contains(option), "{command} {option}");
        }
    }
}

#[test]
fn the_reference_knows_every_command_and_option() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    let reference = std::fs::read_to_string(path).unwrap();
    let scene = Scene::empty();
    let help = scene.run(&["--help"]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let option = regex::Regex::new(r"(?m)^ +(?:-\w, )?(--[a-z-]+)").unwrap();
    let mut seen = 0;
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        if command == "help" {
            continue;
        }
        let section = reference
            .split("\n### ")
            .find(|section| {
                let title = section.lines().next().unwrap_or_default();
                title.split(", ").any(|name| name == format!("stigmer {command}"))
            })
            .unwrap_or_else(|| panic!("{command} is not in docs/cli.md"));
        for capture in option.captures_iter(&scene.run(&[command, "--help"]).stdout) {
            let option = &capture[1];
            if !["--help", "--home", "--color"].contains(&option) {
                assert!(section.contains(option), "docs/cli.md: {command} {option}");
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "only {seen} options were found");
}
