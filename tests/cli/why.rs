//! `why`: the cause in plain words.

use stigmer::api::v1;

use crate::fake::{Answers, Scene, component};

fn detail(component: v1::Component) -> v1::ComponentDetail {
    v1::ComponentDetail { component: Some(component), ..v1::ComponentDetail::default() }
}

fn why(details: Vec<v1::ComponentDetail>) -> (Option<i32>, String) {
    let details = details.into_iter().map(|one| (one.component.clone().unwrap().name, one));
    let scene = Scene::with(Answers { details: details.collect(), ..Answers::default() });
    let said = scene.run(&["why", "web"]);
    assert_eq!(said.stderr, "");
    (said.code, said.stdout)
}

fn depends(name: &str, condition: &str, state: &str, why: &str) -> v1::Dependency {
    v1::Dependency {
        name: name.into(),
        condition: condition.into(),
        holds: false,
        state: state.into(),
        why: why.into(),
    }
}

#[test]
fn the_chain_of_what_is_waited_for_is_followed_to_its_cause() {
    let waiting = |name: &str, on: &str| v1::Component {
        state: "starting".into(),
        reason: Some("waiting".into()),
        waiting_for: vec![on.into()],
        ready: false,
        pid: None,
        ..component(name)
    };
    let failing = v1::Probe {
        result: Some("failure".into()),
        message: Some("connection refused".into()),
        consecutive: 3,
        failure_threshold: 3,
        check: "tcp 127.0.0.1:5432".into(),
        ..v1::Probe::default()
    };
    let db = v1::Component {
        ready: false,
        probes: Some(v1::Probes { readiness: Some(failing), ..v1::Probes::default() }),
        ..component("db")
    };
    let (code, text) = why(vec![
        v1::ComponentDetail {
            depends_on: vec![depends("api", "ready", "starting", "it waits for db")],
            ..detail(waiting("web", "api (ready)"))
        },
        v1::ComponentDetail {
            depends_on: vec![depends("db", "ready", "running", "its readiness probe fails")],
            ..detail(waiting("api", "db (ready)"))
        },
        detail(db),
    ]);
    assert_eq!(code, Some(3));
    assert_eq!(
        text,
        "web waits for api (ready).
  api is to be ready, and is starting: it waits for db
    db is to be ready, and is running: its readiness probe fails
      its readiness probe fails (3 of 3 in a row): connection refused  [tcp 127.0.0.1:5432]

What to type: stigmer logs web
"
    );
}

#[test]
fn a_component_that_was_given_up_tells_its_end() {
    let failed = v1::Component {
        state: "failed".into(),
        reason: Some("restarted 10 times within 10m 0s, which is its limit".into()),
        ready: false,
        pid: None,
        log_file: "/logs/web.log".into(),
        last_error: Some(v1::LastError { message: "exit 1".into(), ..v1::LastError::default() }),
        ..component("web")
    };
    let (code, text) = why(vec![v1::ComponentDetail {
        log_tail: vec![v1::LogLine { text: "boom".into(), ..v1::LogLine::default() }],
        events: vec![v1::Event {
            at: "2026-05-01T00:00:00Z".into(),
            message: "exited: exit 1".into(),
            ..v1::Event::default()
        }],
        ..detail(failed)
    }]);
    assert_eq!(code, Some(3));
    assert_eq!(
        text,
        "web was given up: restarted 10 times within 10m 0s, which is its limit.
The last error: exit 1.

What happened last:
  2026-05-01 00:00:00  exited: exit 1

The last lines of /logs/web.log:
  boom

What to type: once its cause is mended: stigmer start web
"
    );
}

#[test]
fn what_runs_in_health_is_said_to_do_so() {
    let (code, text) = why(vec![detail(component("web"))]);
    assert_eq!((code, &*text), (Some(0), "web has been running as process 42 for 45s.\n"));
    let stopped = v1::Component {
        state: "stopped".into(),
        wanted: "stopped".into(),
        ready: false,
        ..component("web")
    };
    let (code, text) = why(vec![detail(stopped)]);
    assert_eq!(code, Some(0));
    assert!(text.contains("nobody wants it to run"), "{text}");
    assert!(text.contains("stigmer start web"), "{text}");
}
