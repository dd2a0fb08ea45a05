//! `logs` and `events`.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use stigmer::api::v1;

use crate::fake::{Answers, Scene, component, status};

fn line(component: &str, at: &str, text: &str) -> v1::LogLine {
    v1::LogLine {
        project: "shop".into(),
        component: component.into(),
        at: Some(format!("2026-05-01T00:00:{at}Z")),
        position: Some(at.parse().unwrap()),
        text: text.into(),
        ..v1::LogLine::default()
    }
}

fn scene(logs: Vec<Vec<v1::LogLine>>) -> Scene {
    let status = status(vec![component("api"), component("worker")]);
    Scene::with(Answers { status, logs, ..Answers::default() })
}

#[test]
fn lines_have_aligned_names_and_their_own_bytes() {
    let raw = v1::LogLine {
        raw: Some(b"caf\xe9\0\x1b[31m".to_vec()),
        ..line("api", "02", "caf\u{fffd}")
    };
    let event = v1::LogLine { event: true, ..line("worker", "03", "exited: exit 1") };
    let scene = scene(vec![vec![line("worker", "01", "hello"), raw, event]]);
    let said = scene.run(&["logs"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(
        said.bytes,
        b"worker | hello\napi    | caf\xe9\0\x1b[31m\nworker | -- exited: exit 1\n"
    );
    let said = scene.run(&["logs", "-t", "api"]);
    assert!(said.stdout.starts_with("2026-05-01 00:00:01.000 worker | hello\n"), "{said:?}");
    let said = scene.run(&["logs", "--no-prefix"]);
    assert!(said.bytes.starts_with(b"hello\ncaf\xe9"), "{said:?}");
    assert!(scene.asked().pop().unwrap().contains("events: false"));
}

#[test]
fn options_are_passed_on() {
    let scene = scene(vec![Vec::new()]);
    let asked = |arguments: &[&str]| {
        let said = scene.run(arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
        scene.asked().pop().unwrap()
    };
    assert!(asked(&["logs"]).contains("lines: Some(100), since: \"\""));
    assert!(asked(&["logs", "-n", "all"]).contains("lines: None"));
    let since = asked(&["logs", "--since", "2026-05-01T09:30:00Z", "--grep", "a|b"]);
    assert!(since.contains("lines: None, since: \"2026-05-01T09:30:00Z\""), "{since}");
    assert!(since.contains("grep: \"a|b\", events: false"), "{since}");
    assert!(asked(&["logs", "--previous"]).contains("previous: true"));
    let said = scene.run(&["logs", "--since", "yesteryear"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("write an age such as 10m"), "{said:?}");
}

#[test]
fn json_is_a_document_a_line() {
    let scene = scene(vec![vec![line("api", "01", "hello"), line("api", "02", "world")]]);
    let said = scene.run(&["logs", "-o", "json"]);
    let texts: Vec<String> = said
        .stdout
        .lines()
        .map(|one| serde_json::from_str::<serde_json::Value>(one).unwrap()["text"].to_string())
        .collect();
    assert_eq!(texts, [r#""hello""#, r#""world""#]);
}

#[test]
fn s49_following_goes_on_after_the_connection_broke_and_repeats_nothing() {
    let first = vec![line("api", "01", "one"), line("api", "02", "two")];
    let second =
        vec![line("api", "01", "one"), line("api", "02", "two"), line("api", "03", "three")];
    let status = status(vec![component("api")]);
    let logs = vec![first, second];
    let scene = Scene::with(Answers { status, logs, endless: true, ..Answers::default() });
    let mut child = scene
        .command(&["logs", "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for wanted in ["api | one", "api | two", "api | three"] {
        assert_eq!(lines.next().unwrap().unwrap(), wanted);
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "", "nothing is said about a moment");
    let asked = scene.asked().pop().unwrap();
    assert!(asked.contains("lines: None, since: \"2026-04-30T23:59:52Z\""), "{asked}");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let many = (0..20_000).map(|_| line("api", "01", "a line that somebody might read")).collect();
    let scene = scene(vec![many]);
    let mut child =
        scene.command(&["logs"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn events_are_lines_or_documents() {
    let event = v1::Event {
        id: 7,
        at: "2026-05-01T00:00:00Z".into(),
        project: "shop".into(),
        component: "api".into(),
        replica: 1,
        kind: "restarting".into(),
        severity: "warning".into(),
        message: "restarting (attempt 1/10) in 1s: SIGKILL".into(),
    };
    let of_project = v1::Event { component: String::new(), id: 8, ..event.clone() };
    let events = vec![event, of_project];
    let scene = Scene::with(Answers { events, ..Answers::default() });
    let said = scene.run(&["events"]);
    assert_eq!(said.code, Some(0));
    let sentence = "restarting (attempt 1/10) in 1s: SIGKILL";
    assert_eq!(
        said.stdout,
        format!(
            "2026-05-01 00:00:00  shop/api.1  {sentence}\n2026-05-01 00:00:00  shop  {sentence}\n"
        )
    );
    let said = scene.run(&["events", "-o", "json", "-n", "5"]);
    let value: serde_json::Value =
        serde_json::from_str(said.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&value["id"], &value["kind"]), (&7.into(), &"restarting".into()));
    assert!(scene.asked().pop().unwrap().contains("limit: 5"));
}
