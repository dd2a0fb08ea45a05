//! What the commands print for programs (S47) and for people (S42-S46): exactly the documented keys.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use support::home::TestHome;
use support::ports::free_port;

/// The keys of an object.
#[track_caller]
fn keys(value: &Value) -> BTreeSet<&str> {
    let Some(object) = value.as_object() else { panic!("no object: {value:#}") };
    object.keys().map(String::as_str).collect()
}

/// Fails unless these keys are there, whatever else is.
#[track_caller]
fn has(value: &Value, wanted: &[&str]) {
    let keys = keys(value);
    for key in wanted {
        assert!(keys.contains(key), "{key} is missing in {value:#}");
    }
}

fn is_utc(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T'))
}

#[test]
fn s47_the_status_has_the_documented_shape() {
    let home = TestHome::new();
    let port = free_port();
    let api = home.troublemaker("api", &["--http", &port.to_string()]);
    home.apply(&format!(
        "project: shop
info:
  Web page: 'http://127.0.0.1:{port}/'
  Data: here
components:
  api:
    command: {api}
    ports: [{port}]
    labels: {{ team: blue }}
    env: {{ PASSWORD: {{ secret: {{ command: [echo, hunter2] }} }}, PLAIN: sesame }}
    restart: {{ backoff: {{ initial: 10ms }} }}
    probes:
      startup: {{ http: {{ port: {port} }}, interval: 50ms }}
  other:
    command: [sleep, infinity]
"
    ));
    let before = home.pid_of("api");
    home.kill(before);
    home.wait_replaced("api", before);
    let output = home.run(["status", "-o", "json"]).expect_code(0);
    assert_eq!(output.stderr, "");
    for secret in ["hunter2", "sesame"] {
        assert!(!output.stdout.contains(secret), "values of the environment: {output:#?}");
    }
    let status = output.json();
    assert_eq!(
        keys(&status),
        BTreeSet::from(["components", "daemon", "projects", "schema_version"])
    );
    assert_eq!(status["schema_version"], 1);
    let daemon = &status["daemon"];
    has(daemon, &["version", "pid", "engine_pid", "started_at"]);
    assert_eq!(daemon["version"], env!("CARGO_PKG_VERSION"));
    assert!(is_utc(&daemon["started_at"]), "{daemon:#}");
    let project = &status["projects"][0];
    has(project, &["name", "manifest", "info"]);
    let manifest = &project["manifest"];
    has(manifest, &["path", "sha256", "generation", "loaded_at", "error"]);
    assert_eq!(manifest["error"], Value::Null);
    assert_eq!(manifest["generation"], 1);
    assert_eq!(manifest["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(
        project["info"],
        json!({"Web page": format!("http://127.0.0.1:{port}/"), "Data": "here"}),
    );
    let place = |text: &str| output.stdout.find(text).unwrap();
    assert!(place("Web page") < place("\"Data\""), "S46: in the order of the manifest");

    let api = &status["components"][0];
    has(
        api,
        &[
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
        ],
    );
    assert_eq!(api["project"], "shop");
    assert_eq!(api["kind"], "process");
    assert_eq!((&api["wanted"], &api["state"]), (&"running".into(), &"running".into()));
    assert_eq!((&api["reason"], &api["container_id"]), (&Value::Null, &Value::Null));
    assert!(is_utc(&api["started_at"]) && api["uptime_seconds"].is_f64(), "{api:#}");
    assert!(api["memory_bytes"].is_u64() && api["cpu_seconds_total"].is_number(), "{api:#}");
    assert_eq!(api["waiting_for"], json!([]));
    let probes = &api["probes"];
    has(probes, &["startup", "liveness", "readiness"]);
    assert_eq!((&probes["liveness"], &probes["readiness"]), (&Value::Null, &Value::Null));
    has(&probes["startup"], &["result", "message", "at", "consecutive"]);
    assert_eq!(probes["startup"]["consecutive"], 1);
    let restarts = &api["restarts"];
    has(restarts, &["total", "in_window", "limit", "window_seconds", "next_at"]);
    assert_eq!((&restarts["total"], &restarts["in_window"]), (&1.into(), &1.into()));
    assert_eq!((&restarts["limit"], &restarts["next_at"]), (&10.into(), &Value::Null));
    assert!((restarts["window_seconds"].as_f64().unwrap() - 600.0).abs() < 0.001);
    let exit = &api["last_exit"];
    assert_eq!(keys(exit), BTreeSet::from(["at", "code", "oom", "signal"]));
    assert_eq!((&exit["code"], &exit["signal"]), (&Value::Null, &"SIGKILL".into()));
    assert_eq!(exit["oom"], false);
    has(&api["last_error"], &["reason", "message", "at"]);
    assert_eq!(api["last_error"]["reason"], "signal");

    let other = &status["components"][1];
    for key in ["last_exit", "last_error"] {
        assert_eq!(other[key], Value::Null, "{other:#}");
    }
}

#[test]
fn s43_s44_s45_the_table_has_a_symbol_and_a_word_for_each_state() {
    let home = TestHome::new();
    home.manifest(
        "project: shop
info: { Web page: 'http://localhost/' }
components:
  well: { command: [sleep, infinity] }
  held: { command: [sleep, infinity], depends_on: { shy: ready } }
  shy:
    command: [sleep, infinity]
    probes: { readiness: { exec: 'exit 1', interval: 50ms } }
  slow:
    command: [sleep, infinity]
    probes: { startup: { exec: 'exit 1', interval: 50ms, failure_threshold: 100000 } }
  loops:
    command: 'exit 5'
    restart: { backoff: { initial: 1h, max: 1h } }
  gone:
    command: 'exit 6'
    restart: { max_restarts: 1, backoff: { initial: 10ms } }
  sick:
    command: [sleep, infinity]
    restart: { policy: never }
    probes: { liveness: { exec: 'echo fever; exit 1', interval: 50ms } }
  batch: { command: 'exit 0', oneshot: true }
  off: { command: [sleep, infinity] }
",
    );
    home.run(["apply", "--no-wait"]).expect_code(0);
    for (name, state) in [
        ("well", "running"),
        ("loops", "restarting"),
        ("gone", "failed"),
        ("sick", "unhealthy"),
        ("batch", "stopped"),
        ("slow", "starting"),
        ("off", "running"),
    ] {
        home.wait_state(name, state);
    }
    home.run(["stop", "off"]).expect_code(0);
    let output = home.run(["status"]).expect_code(3);
    let text = &output.stdout;
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text}");
    let header = text.lines().next().unwrap();
    for word in ["COMPONENT", "STATE", "READY", "PID", "UPTIME", "RESTARTS", "LAST ERROR"] {
        assert!(header.contains(word), "{word}: {text}");
    }
    let row = |name: &str| {
        text.lines()
            .find(|line| line.split_whitespace().nth(1) == Some(name))
            .unwrap_or_else(|| panic!("no row {name}: {text}"))
            .to_owned()
    };
    for (name, start, word) in [
        ("well", "✓  ", "running"),
        ("shy", "✓  ", "running"),
        ("held", "↻  ", "waiting (shy)"),
        ("slow", "↻  ", "starting"),
        ("loops", "↻  ", "restarting"),
        ("gone", "✗✗ ", "failed"),
        ("sick", "✗  ", "unhealthy"),
        ("batch", "○  ", "stopped (completed)"),
        ("off", "○  ", "stopped"),
    ] {
        let row = row(name);
        assert!(row.starts_with(start) && row.contains(word), "{row:?} in\n{text}");
    }
    assert!(row("gone").contains("1/1") && row("gone").contains("exit 6"), "{text}");
    assert!(row("loops").contains("/10 in 1h 0m") || row("loops").contains("/10 in 59m"), "{text}");
    assert!(row("sick").contains("fever"), "{text}");
    assert!(row("shy").contains(" no "), "{text}");
    assert!(text.contains("Web page") && text.contains("http://localhost/"), "{text}");
    let mut ascii = home.command(["status"]);
    ascii.env("LANG", "C");
    let ascii = home.run_command(ascii).expect_code(3).stdout;
    assert!(ascii.is_ascii() && ascii.contains("X  gone"), "{ascii}");
    let colours = home.run(["status", "--color", "always"]).expect_code(3).stdout;
    assert!(colours.contains('\u{1b}'), "{colours:?}");
    let wide = home.run(["status", "-o", "wide"]).expect_code(3).stdout;
    for word in ["KIND", "CPU", "MEMORY", "PROBES", "PORTS"] {
        assert!(wide.contains(word), "{word}: {wide}");
    }
}

#[test]
fn s42_the_detail_of_one_component() {
    let home = TestHome::new();
    home.apply(&format!(
        "components:
  api:
    command: {}
    ports: [1234]
    restart: {{ backoff: {{ initial: 10ms }} }}
    env: {{ PASSWORD: {{ secret: {{ env: PATH }} }} }}
",
        home.troublemaker("api", &["--say", "the last words", "--child", "--tick=1h"])
    ));
    let before = home.pid_of("api");
    home.kill(before);
    home.wait_replaced("api", before);
    let pid = home.pid_of("api").to_string();
    home.wait_for("a whole detail", || {
        let text = home.run(["status", "api"]).expect_code(0).stdout;
        let words =
            ["SIGKILL", "the last words", "api.log", "1234", "troublemaker", "--tick", &pid];
        words.iter().all(|word| text.contains(word)).then_some(())
    });
}

#[test]
fn s47_events_are_lines_of_json() {
    let home = TestHome::new();
    home.apply("project: shop\ncomponents: { api: { command: [sleep, infinity] } }\n");
    let events = home.events();
    for event in &events {
        assert_eq!(
            keys(event),
            BTreeSet::from([
                "at",
                "component",
                "id",
                "kind",
                "message",
                "project",
                "replica",
                "severity"
            ]),
        );
        assert!(is_utc(&event["at"]), "{event:#}");
        assert!(["info", "warning", "error"].contains(&event["severity"].as_str().unwrap()));
    }
    let ids: Vec<u64> = events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in ["applied", "launched", "started", "ready"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    assert_eq!(
        home.run(["events", "-n", "1", "-o", "json"]).expect_code(0).stdout.lines().count(),
        1
    );
    let launched = events.iter().find(|event| event["kind"] == "launched").unwrap();
    let since = launched["at"].as_str().unwrap();
    let later = home.run(["events", "--since", since, "-o", "json"]).expect_code(0).stdout;
    assert!(later.contains("launched") && !later.contains("applied"), "{later}");
    let follower = home.follow(["events", "-f", "-n", "0", "-o", "json"]);
    home.run(["restart", "api"]).expect_code(0);
    let line: Value = serde_json::from_str(&follower.line_with("launched")).unwrap();
    assert_eq!(line["component"], "api");
    let text = home.run(["events"]).expect_code(0).stdout;
    assert!(text.contains("api") && text.contains("launched as process"), "{text}");
}

#[test]
fn why_tells_the_whole_chain_in_plain_words() {
    let home = TestHome::new();
    home.manifest(
        "components:
  web: { command: [sleep, infinity], depends_on: { api: ready } }
  api: { command: [sleep, infinity], depends_on: { db: ready } }
  db:
    command: [sleep, infinity]
    probes: { readiness: { exec: 'echo the disk is full; exit 1', interval: 50ms } }
  loops:
    command: 'exit 5'
    restart: { backoff: { initial: 1h, max: 1h } }
",
    );
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_message("db", "readiness", "the disk is full");
    home.wait_state("loops", "restarting");
    let web = home.run(["why", "web"]).expect_code(3).stdout;
    for words in ["api", "db", "ready", "the disk is full"] {
        assert!(web.contains(words), "{words:?} in {web}");
    }
    let loops = home.run(["why", "loops"]).expect_code(3).stdout;
    for words in ["exit 5", "restart"] {
        assert!(loops.contains(words), "{words:?} in {loops}");
    }
}
