//! `apply`: the plan, what it waits for, how it ends.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use support::home::TestHome;

/// Two components with births; `extra` is put under the first.
fn two(home: &TestHome, extra: &str) -> String {
    let api = home.troublemaker("api", &[]);
    let web = home.troublemaker("web", &[]);
    format!(
        "project: shop
components:
  api:
    command: {api}
{extra}  web:
    command: {web}
"
    )
}

/// One component that dies at once, with something to say.
const LOOPS: &str = "components:
  loops:
    command: 'echo the disk is made of cheese; exit 3'
    restart: { backoff: { initial: 20ms, max: 20ms } }
";

#[test]
fn apply_starts_a_daemon_and_an_unchanged_one_restarts_nothing() {
    let home = TestHome::new();
    let first = home.apply(&two(&home, ""));
    for word in ["api", "web", "new"] {
        assert!(first.stdout.contains(word), "{first:#?}");
    }
    let (daemon, pids) = (home.daemon_pids(), [home.pid_of("api"), home.pid_of("web")]);
    let generation = home.generation();
    for _ in 0..3 {
        let again = home.run(["apply"]).expect_code(0);
        assert!(again.stdout.contains("2 unchanged"), "{again:#?}");
    }
    assert_eq!([home.pid_of("api"), home.pid_of("web")], pids);
    assert_eq!((home.births("api").len(), home.births("web").len()), (1, 1));
    assert_eq!(home.generation(), generation);
    assert_eq!(home.daemon_pids(), daemon);
    assert!(!first.stdout.contains('\u{1b}'), "no colours and no cursor in a pipe: {first:#?}");
}

/// Everything that differs between two applies comes from variables and profiles, so that no hot reload
/// gets in between.
const VARIED: &str = "components:
  same: { command: [sleep, infinity] }
  tuned: { command: [sleep, infinity], labels: { a: '${A:-x}' } }
  changed: { command: [sleep, infinity], env: { A: '${A:-x}' } }
  grown:
    command: [sleep, infinity]
    replicas: ${N:-1}
  gone: { command: [sleep, infinity], profiles: [old] }
  fresh: { command: [sleep, infinity], profiles: [new] }
";

#[test]
fn a_dry_run_shows_each_kind_of_step_with_its_reason_and_does_nothing() {
    let home = TestHome::new();
    home.manifest(VARIED);
    home.run(["apply", "--profile", "old"]).expect_code(0);
    let before = home.status_json();
    let apply = |arguments: &[&str]| {
        let mut command = home.command(["apply", "--profile", "new"].iter().chain(arguments));
        command.env("A", "y").env("N", "2");
        home.run_command(command)
    };
    let plan = apply(&["--dry-run", "-o", "json"]).expect_code(0).json()["plan"].clone();
    let step = |name: &str| {
        let steps = plan["steps"].as_array().unwrap();
        steps.iter().find(|step| step["component"] == name).cloned().unwrap_or_default()
    };
    for (name, action, changed) in [
        ("tuned", "update", json!(["labels.a"])),
        ("changed", "restart", json!(["env.A"])),
        ("grown", "scale", json!(["replicas"])),
        ("fresh", "create", json!([])),
        ("gone", "remove", json!([])),
    ] {
        assert_eq!((&step(name)["action"], &step(name)["changed"]), (&action.into(), &changed));
    }
    assert_eq!(plan["unchanged"], 1, "{plan:#}");
    let text = apply(&["--dry-run"]).expect_code(0).stdout;
    for words in ["tuned", "labels.a", "env.A", "1 to 2", "fresh", "gone", "1 unchanged"] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    apply(&["--dry-run", "--detailed-exitcode"]).expect_code(10);
    let after = home.status_json();
    let pids = |status: &Value| -> Vec<Value> {
        let components = status["components"].as_array().unwrap();
        components.iter().map(|one| json!([one["name"], one["pid"]])).collect()
    };
    assert_eq!(pids(&after), pids(&before));
    assert_eq!(after["projects"][0]["manifest"], before["projects"][0]["manifest"]);

    apply(&[]).expect_code(0);
    apply(&["--dry-run", "--detailed-exitcode"]).expect_code(0);
    let pid = |status: &Value, name: &str| {
        let components = status["components"].as_array().unwrap();
        components.iter().find(|one| one["name"] == name).map(|one| one["pid"].clone())
    };
    let done = home.status_json();
    for (name, stays) in [("same", true), ("tuned", true), ("grown", true), ("changed", false)] {
        assert_eq!(pid(&done, name) == pid(&before, name), stays, "{name}");
    }
    assert!(home.try_component("gone").is_none() && home.try_component("grown.1").is_some());
}

#[test]
fn a_dry_run_without_a_daemon_starts_none() {
    let home = TestHome::new();
    home.manifest(&two(&home, ""));
    let dry = home.run(["apply", "--dry-run", "--detailed-exitcode"]).expect_code(10);
    assert!(dry.stdout.contains("api") && dry.stdout.contains("web"), "{dry:#?}");
    home.run(["ping"]).expect_code(4);
    assert!(home.births("api").is_empty());
}

#[test]
fn a_failure_is_told_with_its_reason_its_log_and_what_to_type() {
    let home = TestHome::new();
    home.manifest(LOOPS);
    let failed = home.run(["apply"]).expect_code(3);
    let said = format!("{}{}", failed.stdout, failed.stderr);
    for words in
        ["loops", "exit 3", "the disk is made of cheese", "loops.log", "stigmer logs loops"]
    {
        assert!(said.contains(words), "{words:?} in {failed:#?}");
    }
    let failed = home.run(["apply", "-o", "json"]).expect_code(3);
    let json = failed.json();
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["outcome"]["ok"], false);
    let failure = &json["outcome"]["failures"][0];
    assert_eq!(failure["component"], "loops");
    assert!(failure["log_tail"].as_array().unwrap().contains(&json!("the disk is made of cheese")));
    assert!(failure["log_file"].as_str().unwrap().ends_with("loops.log"));
    for key in ["project", "plan", "status"] {
        assert!(!json[key].is_null(), "{key}: {json:#}");
    }
}

#[test]
fn one_that_fails_does_not_hide_that_the_others_are_well() {
    let home = TestHome::new();
    let web = home.troublemaker("web", &[]);
    home.manifest(&format!("{LOOPS}  web:\n    command: {web}\n"));
    home.run(["apply"]).expect_code(3);
    home.wait_ready("web");
    home.run(["status"]).expect_code(3);
    home.run(["status", "web"]).expect_code(0);
}

#[test]
fn no_wait_returns_with_the_plan_and_a_timeout_is_code_6() {
    let home = TestHome::new();
    let never = "    probes: { readiness: { exec: 'echo patience; exit 1', interval: 50ms } }\n";
    home.manifest(&two(&home, never));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_ready("web");
    let late = home.run(["apply", "--timeout", "500ms"]).expect_code(6);
    let said = format!("{}{}", late.stdout, late.stderr);
    assert!(said.contains("api") && said.contains("patience"), "{late:#?}");
    // It goes on all the same.
    assert_eq!(home.component("api")["state"], "running");
    assert_eq!(home.births("api").len(), 1);
}

#[test]
fn an_interrupted_apply_leaves_the_daemon_at_work() {
    let home = TestHome::new();
    home.manifest(
        "components:
  api:
    command: [sleep, infinity]
    probes: { readiness: { exec: 'exit 1', interval: 50ms } }
",
    );
    let ends = [("create", Signal::INT, 130), ("nothing to do", Signal::TERM, 143)];
    for (plan, signal, code) in ends {
        let mut apply = home.follow(["apply"]);
        home.wait_state("api", "running");
        apply.line_with(plan);
        apply.signal(signal);
        assert_eq!(apply.wait(), (Some(code), None));
        home.run(["ping"]).expect_code(0);
    }
    assert_eq!(home.component("api")["restarts"]["total"], 0);
}

#[test]
fn an_invalid_manifest_is_code_5_and_leaves_no_daemon_behind() {
    let home = TestHome::new();
    home.manifest("components:\n  api:\n    comand: [sleep, infinity]\n");
    let refused = home.run(["apply"]).expect_code(5);
    assert!(refused.stderr.contains("stigmer.yaml:3:5"), "{refused:#?}");
    assert!(refused.stderr.contains("comand") && refused.stderr.contains("command"));
    home.run(["ping"]).expect_code(4);
    fs::remove_file(home.file("stigmer.yaml")).unwrap();
    let nothing = home.run(["apply"]).expect_code(5);
    assert!(nothing.stderr.contains("stigmer init"), "{nothing:#?}");
    home.run(["ping"]).expect_code(4);
    // With a daemon it is the same, and what runs is not touched.
    home.apply(&two(&home, ""));
    home.manifest("components: 7\n");
    home.run(["apply"]).expect_code(5);
    home.run(["apply", "--dry-run"]).expect_code(5);
    assert_eq!(home.births("api").len(), 1);
    assert_eq!(home.component("api")["state"], "running");
}

#[test]
fn s28_two_applies_at_once_are_both_done_and_start_nothing_twice() {
    let home = TestHome::new();
    home.manifest(&two(&home, ""));
    let codes: Vec<Option<i32>> = thread::scope(|scope| {
        let applies: Vec<_> = (0..4).map(|_| scope.spawn(|| home.run(["apply"]).code)).collect();
        applies.into_iter().map(|apply| apply.join().unwrap()).collect()
    });
    assert_eq!(codes, [Some(0); 4]);
    assert_eq!((home.births("api").len(), home.births("web").len()), (1, 1));
    // Another spec each, at the same time: one of them is the last, and that one runs.
    thread::scope(|scope| {
        for number in 0..4 {
            let home = &home;
            scope.spawn(move || {
                let yaml = two(home, &format!("    env: {{ N: '{number}' }}\n"));
                let own = home.write(format!("{number}.yaml"), yaml);
                fs::rename(own, home.file("stigmer.yaml")).unwrap();
                home.run(["apply"]);
            });
        }
    });
    home.run(["apply"]).expect_code(0);
    assert_eq!(home.births("web").len(), 1);
    home.births("api");
}

#[test]
fn s22_apply_starts_what_was_stopped_and_not_what_has_failed_unchanged() {
    let home = TestHome::new();
    home.apply(&two(&home, ""));
    home.run(["stop", "api"]).expect_code(0);
    let again = home.run(["apply"]).expect_code(0);
    assert!(again.stdout.contains("stopped by hand"), "{again:#?}");
    assert_eq!(home.births("api").len(), 2);
    home.manifest(&LOOPS.replace("restart: {", "restart: { max_restarts: 1,"));
    home.run(["apply"]).expect_code(3);
    home.wait_state("loops", "failed");
    home.run(["apply"]).expect_code(3);
    assert_eq!(home.component("loops")["state"], "failed");
    assert_eq!(home.events_of("loops", "launched").len(), 2);
}

#[test]
fn one_daemon_serves_two_projects() {
    let home = TestHome::new();
    home.apply("project: shop\ncomponents: { api: { command: [sleep, infinity] } }\n");
    let shop = home.component("api")["pid"].clone();
    fs::create_dir(home.file("blog")).unwrap();
    home.write(
        "blog/stigmer.yaml",
        "project: blog\ncomponents: { api: { command: [sleep, infinity] }, db: { command: [sleep, infinity] } }\n",
    );
    home.run(["apply", "-f", "blog/stigmer.yaml"]).expect_code(0);
    let components = |arguments: &[&str]| {
        let all: Vec<&str> = ["status", "-o", "json"].iter().chain(arguments).copied().collect();
        let status = home.run(all).expect_code(0).json();
        let components = status["components"].as_array().unwrap().clone();
        components
            .iter()
            .map(|one| {
                format!("{}/{}", one["project"].as_str().unwrap(), one["name"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(components(&[]), ["shop/api"]);
    assert_eq!(components(&["-p", "blog"]), ["blog/api", "blog/db"]);
    assert_eq!(components(&["-f", "blog/stigmer.yaml"]), ["blog/api", "blog/db"]);
    assert_eq!(components(&["--all"]), ["blog/api", "blog/db", "shop/api"]);
    let mut below = home.command(["status", "-o", "json"]);
    below.current_dir(home.file("blog"));
    let below = home.run_command(below).expect_code(0).json();
    assert_eq!(below["components"].as_array().unwrap().len(), 2);
    let mut outside = home.command(["status", "-o", "json"]);
    outside.current_dir(home.root());
    let outside = home.run_command(outside).expect_code(0).json();
    assert_eq!(outside["components"].as_array().unwrap().len(), 3, "no manifest here: all");

    home.run(["down", "-p", "blog"]).expect_code(0);
    assert_eq!(components(&["--all"]), ["shop/api"]);
    assert_eq!(home.component("api")["pid"], shop);
    home.run(["status", "-p", "blog"]).expect_code(4);
    let twice =
        home.write("twin.yaml", "project: shop\ncomponents: { x: { command: [sleep, '9'] } }\n");
    let refused = home.run(["apply", "-f", twice.to_str().unwrap()]).expect_code(1);
    assert!(refused.stderr.contains("shop"), "{refused:#?}");
    assert_eq!(home.component("api")["pid"], shop);
}

#[test]
fn variables_come_from_the_apply_and_stay_for_later_launches() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &["--report", "report-api"]);
    home.manifest(&format!(
        "components:\n  api:\n    command: {api}\n    env: {{ VALUE: '${{VALUE:-none}}' }}\n    restart: {{ backoff: {{ initial: 10ms }} }}\n"
    ));
    let mut apply = home.command(["apply"]);
    apply.env("VALUE", "from the apply").env("SECRET_OF_THE_SHELL", "x");
    home.run_command(apply).expect_code(0);
    let environment = || -> Value {
        serde_json::from_slice(&fs::read(home.file("report-api")).unwrap()).unwrap()
    };
    assert_eq!(environment()["environment"]["VALUE"], "from the apply");
    assert_eq!(environment()["environment"]["SECRET_OF_THE_SHELL"], Value::Null);
    let before = home.pid_of("api");
    home.kill(before);
    home.wait_replaced("api", before);
    home.wait_for("a second report", || (environment()["pid"] == home.pid_of("api")).then_some(()));
    assert_eq!(environment()["environment"]["VALUE"], "from the apply");
    // Applied from a shell without it, it is `none`: declared is what this apply says.
    let again = home.run(["apply"]).expect_code(0);
    assert!(again.stdout.contains("env.VALUE"), "{again:#?}");
    assert!(!again.stdout.contains("from the apply"), "values are not shown: {again:#?}");
    assert_eq!(environment()["environment"]["VALUE"], "none");
}
