//! Commands that make the daemon do something.

use std::io::Read;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stigmer::api::v1;

use crate::fake::{Answers, Scene, component, shown, status};

const MANIFEST: &str = "project: shop\ncomponents:\n  api: { command: [sleep, \"1\"] }\n";

fn plan(steps: &[(&str, &str, &str)], unchanged: u32) -> v1::Progress {
    let step = |(action, component, reason): &(&str, &str, &str)| v1::PlanStep {
        action: (*action).into(),
        component: (*component).into(),
        reason: (*reason).into(),
        changed: Vec::new(),
    };
    let steps = steps.iter().map(step).collect();
    let plan = v1::Plan { steps, unchanged, warnings: Vec::new() };
    v1::Progress { project: "shop".into(), plan: Some(plan), ..v1::Progress::default() }
}

fn event(component: &str, kind: &str, message: &str) -> v1::Progress {
    let event = v1::Event {
        project: "shop".into(),
        component: component.into(),
        kind: kind.into(),
        severity: "info".into(),
        message: message.into(),
        ..v1::Event::default()
    };
    v1::Progress { events: vec![event], ..v1::Progress::default() }
}

fn now(components: Vec<v1::Component>) -> v1::Progress {
    v1::Progress { status: Some(status(components)), ..v1::Progress::default() }
}

fn outcome(failures: Vec<v1::Failure>) -> v1::Progress {
    let outcome = v1::Outcome { ok: failures.is_empty(), failures, ..v1::Outcome::default() };
    v1::Progress { outcome: Some(outcome), ..v1::Progress::default() }
}

fn scene(progress: Vec<v1::Progress>) -> Scene {
    let scene = Scene::with(Answers { progress, ..Answers::default() });
    scene.manifest(MANIFEST);
    scene
}

#[test]
fn apply_shows_the_plan_the_changes_and_the_end() {
    let scene = scene(vec![
        plan(&[("create", "api", "new"), ("restart", "worker", "env.PORT")], 3),
        event("api", "launched", "launched as process 42"),
        event("api", "state_changed", "starting -> running"),
        event("api", "ready", "ready"),
        now(vec![component("api")]),
        outcome(Vec::new()),
    ]);
    let said = scene.run(&["apply"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert_eq!(
        said.stdout,
        "shop:
  + create   api     new
  ! restart  worker  env.PORT
  3 unchanged
api: launched as process 42
api: ready
1 component: 1 running
"
    );
    let asked = scene.asked().pop().unwrap();
    assert!(
        asked.contains(&format!(r#"manifest: "{}""#, shown(&scene.folder().join("stigmer.yaml"))))
    );
    assert!(asked.contains(r#""LANG": "C.UTF-8""#), "{asked}");
    assert!(!asked.contains("STIGMER_HOME"), "{asked}");
}

/// `api` has failed.
fn boom() -> v1::Failure {
    v1::Failure {
        component: "api".into(),
        state: "failed".into(),
        reason: "exit 1".into(),
        hint: "stigmer reset api".into(),
        log_file: "/logs/api.log".into(),
        log_tail: vec!["boom".into()],
    }
}

#[test]
fn a_failure_is_told_with_its_reason_its_log_and_what_to_type() {
    let failed = v1::Component { state: "failed".into(), ready: false, ..component("api") };
    let scene =
        scene(vec![plan(&[("create", "api", "new")], 0), now(vec![failed]), outcome(vec![boom()])]);
    let said = scene.run(&["apply"]);
    assert_eq!(said.code, Some(3));
    assert_eq!(
        said.stderr,
        "api is failed: exit 1\n  the last lines of /logs/api.log:\n    boom\n  stigmer reset api\n"
    );
    let said = scene.run(&["apply", "-o", "json"]);
    assert_eq!((said.code, &*said.stderr), (Some(3), ""));
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(value["schema_version"], 1);
    assert_eq!(value["project"], "shop");
    assert_eq!(value["plan"]["steps"][0]["action"], "create");
    assert_eq!(value["outcome"]["failures"][0]["log_tail"][0], "boom");
    assert_eq!(value["status"]["components"][0]["state"], "failed");
    assert_eq!(value["rejected"], Value::Null);
}

#[test]
fn what_is_optional_fails_with_a_warning_and_the_command_does_not() {
    let failed =
        v1::Component { state: "failed".into(), ready: false, optional: true, ..component("api") };
    let ended = v1::Outcome { ok: true, warnings: vec![boom()], ..v1::Outcome::default() };
    let scene = scene(vec![
        plan(&[("create", "api", "new")], 0),
        now(vec![failed]),
        v1::Progress { outcome: Some(ended), ..v1::Progress::default() },
    ]);
    let told = "warning: optional: api is failed: exit 1\n  the last lines of /logs/api.log:\n    \
                boom\n  stigmer reset api\n";
    let said = scene.run(&["apply"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), told));
    assert!(said.stdout.ends_with("1 component: 1 failed\n"), "{said:?}");
    let said = scene.run(&["apply", "-o", "json"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), told));
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(value["outcome"]["ok"], true);
    assert_eq!(value["outcome"]["warnings"][0]["log_tail"][0], "boom");
    assert_eq!(value["status"]["components"][0]["optional"], true);
}

#[test]
fn what_is_optional_and_late_is_a_warning_unless_something_else_is_late_too() {
    let late = |name: &str, optional| v1::Component {
        state: "starting".into(),
        ready: false,
        pid: None,
        optional,
        ..component(name)
    };
    let ended = |command: &str, components: Vec<v1::Component>| {
        let scene = Scene::with(Answers {
            progress: vec![plan(&[], 2), now(components)],
            endless: true,
            ..Answers::default()
        });
        scene.manifest(MANIFEST);
        scene.run(&[command, "--timeout", "200ms"])
    };
    let warning = "warning: optional: agent is not ready within 200ms: starting\n";
    let said = ended("apply", vec![component("api"), late("agent", true)]);
    assert_eq!((said.code, &*said.stderr), (Some(0), warning));
    let said = ended("apply", vec![late("api", false), late("agent", true)]);
    assert_eq!(said.code, Some(6));
    assert!(said.stderr.starts_with(warning), "{said:?}");
    assert!(said.stderr.contains("not ready within 200ms:\n  api: starting\n"), "{said:?}");
    // What has crashed and is up again may be about to crash again.
    let restarts = Some(v1::Restarts { total: 2, ..v1::Restarts::default() });
    let stage = Some("started".to_owned());
    let shaky = v1::Component { restarts, stage, ..component("api") };
    assert_eq!(ended("apply", vec![shaky, late("agent", true)]).code, Some(6));
    // What does not stop runs, however little it is needed.
    assert_eq!(ended("stop", vec![late("agent", true)]).code, Some(6));
}

#[test]
fn a_dry_run_has_a_code_for_changes() {
    let changes = scene(vec![plan(&[("create", "api", "new")], 0)]);
    assert_eq!(changes.run(&["apply", "--dry-run"]).code, Some(0));
    assert_eq!(changes.run(&["apply", "--dry-run", "--detailed-exitcode"]).code, Some(10));
    let nothing = scene(vec![plan(&[], 2)]);
    let said = nothing.run(&["apply", "--dry-run", "--detailed-exitcode"]);
    assert_eq!((said.code, &*said.stdout), (Some(0), "shop: nothing to do, 2 unchanged\n"));
    assert!(nothing.asked()[0].contains("dry_run: true"));
}

#[test]
fn a_manifest_that_the_daemon_refuses_ends_with_5() {
    let rejected = v1::Rejected {
        file: "/shop/stigmer.yaml".into(),
        diagnostics: vec![v1::Diagnostic {
            severity: "error".into(),
            file: "/shop/stigmer.yaml".into(),
            line: 1,
            column: 1,
            length: 7,
            message: "unknown key `projekt`".into(),
            ..v1::Diagnostic::default()
        }],
        sources: [("/shop/stigmer.yaml".to_owned(), "projekt: shop\n".to_owned())].into(),
    };
    let scene = scene(vec![v1::Progress { rejected: Some(rejected), ..v1::Progress::default() }]);
    let said = scene.run(&["apply"]);
    assert_eq!((said.code, &*said.stdout), (Some(5), ""));
    assert!(said.stderr.contains("unknown key `projekt`"), "{said:?}");
    let said = scene.run(&["reload", "-o", "json"]);
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(value["rejected"]["diagnostics"][0]["line"], 1);
}

#[test]
fn a_wait_that_is_too_long_ends_with_6_and_names_what_is_late() {
    let late = v1::Component {
        state: "starting".into(),
        reason: Some("waiting".into()),
        waiting_for: vec!["db (ready)".into()],
        ready: false,
        pid: None,
        ..component("web")
    };
    let scene = Scene::with(Answers {
        progress: vec![plan(&[], 2), now(vec![component("api"), late])],
        endless: true,
        ..Answers::default()
    });
    scene.manifest(MANIFEST);
    let said = scene.run(&["apply", "--timeout", "200ms"]);
    assert_eq!(said.code, Some(6));
    assert!(
        said.stderr.contains("not ready within 200ms:\n  web: starting: waiting (db)\n"),
        "{said:?}"
    );
    assert!(!said.stderr.contains("api"), "{said:?}");
    assert_eq!(scene.run(&["apply", "--timeout", "soon"]).code, Some(2));
}

#[test]
fn ctrl_c_leaves_the_daemon_to_go_on() {
    let scene = Scene::with(Answers {
        progress: vec![plan(&[("create", "api", "new")], 0)],
        endless: true,
        ..Answers::default()
    });
    scene.manifest(MANIFEST);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = scene.command(&["apply"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Once the plan is shown the daemon has accepted it.
        let mut first = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("the daemon goes on with it"), "{said}");
    }
}

#[test]
fn a_daemon_that_ends_in_the_middle_is_no_success() {
    let scene = scene(vec![plan(&[("create", "api", "new")], 0)]);
    let said = scene.run(&["restart", "api"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("the connection to the daemon broke"), "{said:?}");
    assert_eq!(scene.asked().len(), 1, "a restart is not asked for twice");
    assert_eq!(scene.run(&["restart", "api", "--no-wait"]).code, Some(0));
}

#[test]
fn each_command_asks_for_its_action() {
    let scene = scene(vec![now(Vec::new()), outcome(Vec::new())]);
    let actions = [("start", 1), ("stop", 2), ("restart", 3), ("reset", 4), ("down", 6)];
    for (command, number) in actions {
        let said = scene.run(&[command]);
        assert_eq!((said.code, &*said.stdout), (Some(0), "done\n"), "{command}");
        let asked = scene.asked().pop().unwrap();
        let names = ["Start", "Stop", "Restart", "Reset", "", "Down"];
        let name = names[number - 1];
        assert!(asked.contains(&format!("action: {name},")), "{asked}");
    }
    scene.run(&["signal", "hup", "api"]);
    let asked = scene.asked().pop().unwrap();
    assert!(
        asked.contains(r#"signal: "SIGHUP""#) && asked.contains(r#"names: ["api"]"#),
        "{asked}"
    );
    assert_eq!(scene.run(&["signal", "NOPE", "api"]).code, Some(2));
    assert_eq!(scene.run(&["down", "api"]).code, Some(2));
}
