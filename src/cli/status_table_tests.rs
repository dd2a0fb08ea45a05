//! The status as people see it, letter by letter.

use super::*;

const PIPE: Look = Look { color: false, utf8: true, width: None };

fn now() -> Timestamp {
    "2026-05-01T12:00:00Z".parse().unwrap()
}

fn component(name: &str, state: &str) -> v1::Component {
    v1::Component {
        project: "shop".into(),
        name: name.into(),
        kind: "process".into(),
        wanted: "running".into(),
        state: state.into(),
        restarts: Some(v1::Restarts { limit: Some(10), ..v1::Restarts::default() }),
        ..v1::Component::default()
    }
}

fn error(message: &str) -> v1::LastError {
    v1::LastError { message: message.into(), ..v1::LastError::default() }
}

/// The five components of the specification, and what else there is.
fn shop() -> v1::StatusResponse {
    let restarts = |total, in_window, next: Option<&str>, last: Option<&str>| {
        Some(v1::Restarts {
            total,
            in_window: in_window - u32::from(next.is_some()),
            limit: Some(10),
            next_at: next.map(str::to_owned),
            next_counts: next.is_some(),
            last_at: last.map(str::to_owned),
            ..v1::Restarts::default()
        })
    };
    let components = vec![
        v1::Component {
            ready: true,
            pid: Some(48_213),
            uptime_seconds: Some(187_200.5),
            restarts: restarts(1, 0, None, Some("2026-05-01T09:59:00Z")),
            ..component("api", "running")
        },
        v1::Component {
            reason: Some("backoff".into()),
            restarts: restarts(3, 3, Some("2026-05-01T12:00:07.2Z"), Some("2026-05-01T11:59:00Z")),
            last_error: Some(error("exit 1")),
            ..component("worker", "restarting")
        },
        v1::Component {
            container_id: Some("9f3a1c0b22de77aa".into()),
            uptime_seconds: Some(240.0),
            last_error: Some(error("liveness: GET /healthz 503 (3/3)")),
            ..component("cache", "unhealthy")
        },
        v1::Component {
            restarts: restarts(10, 10, None, Some("2026-05-01T11:59:00Z")),
            last_error: Some(error("SIGKILL (out of memory)\nand more")),
            ..component("mailer", "failed")
        },
        v1::Component { wanted: "stopped".into(), ..component("batch", "stopped") },
    ];
    v1::StatusResponse { schema_version: 1, components, ..v1::StatusResponse::default() }
}

fn only(one: v1::Component) -> String {
    let status = v1::StatusResponse { components: vec![one], ..v1::StatusResponse::default() };
    let text = render(&status, Detail::Usual, now(), PIPE);
    text.lines().nth(1).unwrap().to_owned()
}

#[test]
fn s43_the_table_of_the_specification() {
    assert_eq!(
        render(&shop(), Detail::Usual, now(), PIPE),
        "   COMPONENT  STATE       READY  PID/CONTAINER   UPTIME  RESTARTS    LAST ERROR
✓  api        running     yes    48213           2d 4h   1 (2h ago)  -
↻  worker     restarting  no     -               -       3/10 in 8s  exit 1
✗  cache      unhealthy   no     c:9f3a1c0b22de  4m 0s   0           liveness: GET /healthz 503 (3/3)
✗✗ mailer     failed      no     -               -       10/10       SIGKILL (out of memory)
○  batch      stopped     -      -               -       0           -

5 components: 1 running, 1 unhealthy, 1 restarting, 1 stopped, 1 failed
"
    );
}

#[test]
fn outside_utf8_the_symbols_are_ascii() {
    let text = render(&shop(), Detail::Usual, now(), Look { utf8: false, ..PIPE });
    let symbols: Vec<&str> = text.lines().skip(1).take(5).map(|line| &line[..2]).collect();
    assert_eq!(symbols, ["+ ", "~ ", "x ", "X ", "- "]);
    assert!(text.is_ascii());
}

#[test]
fn s43_colours_mean_states() {
    let look = Look { color: true, ..PIPE };
    let text = render(&shop(), Detail::Usual, now(), look);
    let lines: Vec<&str> = text.lines().collect();
    for (line, code) in [(1, "\x1b[32m"), (2, "\x1b[33m"), (3, "\x1b[31m"), (4, "\x1b[31m")] {
        assert!(lines[line].starts_with(code), "{}", lines[line]);
    }
    // A stop that was asked for is grey, never red.
    assert!(lines[5].starts_with("\x1b[90m"), "{}", lines[5]);
    assert!(!lines[5].contains("\x1b[31m"));
    // Live, but not ready: a green tick and a yellow no.
    let unready = component("api", "running");
    let status = v1::StatusResponse { components: vec![unready], ..v1::StatusResponse::default() };
    let text = render(&status, Detail::Usual, now(), look);
    let line = text.lines().nth(1).unwrap();
    assert!(line.starts_with("\x1b[32m✓"), "{line}");
    assert!(line.contains("\x1b[33mno\x1b[0m"), "{line}");
    assert!(text.ends_with("1 component: 1 running (1 not ready)\n"), "{text}");
}

#[test]
fn what_is_wrong_with_a_log_stands_above_the_table() {
    let full = v1::Component {
        log_problem: Some("its log cannot be rotated: No space left on device".into()),
        ..component("api", "running")
    };
    let status = v1::StatusResponse { components: vec![full], ..v1::StatusResponse::default() };
    let text = render(&status, Detail::Usual, now(), PIPE);
    let first = text.lines().next().unwrap();
    assert_eq!(first, "api: its log cannot be rotated: No space left on device");
    let text = render(&status, Detail::Usual, now(), Look { color: true, ..PIPE });
    assert!(text.starts_with("\x1b[33mapi: its log"), "{text}");
}

#[test]
fn the_last_error_is_dimmed_after_recovery() {
    let recovered = v1::Component {
        ready: true,
        last_error: Some(error("exit 1")),
        ..component("api", "running")
    };
    assert_eq!(words::last_error(&recovered), ("exit 1".into(), anstyle::Style::new().dimmed()));
    let broken = component("api", "restarting");
    let broken = v1::Component { last_error: Some(error("exit 1")), ..broken };
    assert_eq!(words::last_error(&broken).1, anstyle::Style::new());
}

#[test]
fn what_goes_on_inside_a_state_is_shown() {
    let inside = |state: &str, reason: &str, waiting: &[&str]| {
        only(v1::Component {
            reason: Some(reason.into()),
            waiting_for: waiting.iter().map(|one| (*one).to_owned()).collect(),
            ..component("api", state)
        })
    };
    let waiting = ["db (ready)", "cache healthy"];
    assert!(inside("starting", "waiting", &waiting).contains("starting: waiting (db, cache)  no"));
    assert!(inside("starting", "probing", &[]).contains("  starting  no"));
    assert!(inside("running", "stopping", &[]).contains("running: stopping  no"));
    assert!(inside("restarting", "backoff", &[]).contains("  restarting  no"));
    assert!(inside("stopped", "completed", &[]).contains("stopped (completed)  -"));
}

#[test]
fn without_a_limit_only_the_count_is_shown() {
    let next_at = Some("2026-05-01T12:01:00Z".to_owned());
    let restarts =
        Some(v1::Restarts { in_window: 2, next_at, next_counts: true, ..v1::Restarts::default() });
    let line = only(v1::Component { restarts, ..component("api", "restarting") });
    assert!(line.contains("  3 in 1m 0s  "), "{line}");
}

#[test]
fn a_narrow_terminal_gets_what_matters() {
    let at = |width| render(&shop(), Detail::Wide, now(), Look { width: Some(width), ..PIPE });
    let head = |width| at(width).lines().next().unwrap().trim().to_owned();
    assert_eq!(
        head(200),
        "PROJECT  COMPONENT  STATE       READY  KIND     CPU  MEMORY  PROBES  PORTS  \
         PID/CONTAINER   UPTIME  RESTARTS    LAST ERROR"
    );
    assert_eq!(
        head(100),
        "PROJECT  COMPONENT  STATE       READY  PID/CONTAINER   UPTIME  RESTARTS    LAST ERROR"
    );
    assert_eq!(head(70), "PROJECT  COMPONENT  STATE       READY  RESTARTS    LAST ERROR");
    assert_eq!(head(32), "COMPONENT  STATE       READY");
    for width in [20, 30, 50, 70, 90] {
        for line in at(width).lines().take(6) {
            let cells = unicode_width::UnicodeWidthStr::width(line);
            assert!(cells <= width.max(24), "{width}: {line}");
        }
    }
}

#[test]
fn several_projects_have_a_column() {
    let mut status = shop();
    status.components.truncate(1);
    let other = v1::Component { project: "blog".into(), ..status.components[0].clone() };
    status.components.push(other);
    let text = render(&status, Detail::Usual, now(), PIPE);
    assert!(text.starts_with("   PROJECT  COMPONENT  STATE"), "{text}");
    assert!(text.contains("\n✓  blog     api        running"), "{text}");
}

#[test]
fn replicas_have_numbers_and_control_characters_no_power() {
    let second = v1::Component {
        replica: 1,
        last_error: Some(error("\x1b[2Jboo")),
        ..component("api", "restarting")
    };
    let line = only(second);
    assert!(line.starts_with("↻  api.1 "), "{line}");
    assert!(line.ends_with("\u{fffd}[2Jboo"), "{line}");
}

#[test]
fn a_rejected_manifest_is_on_top_and_information_below() {
    let mut status = shop();
    status.components.truncate(1);
    let manifest = v1::Manifest {
        path: "/shop/stigmer.yaml".into(),
        error: Some(v1::ManifestError {
            message: "unknown key `comand`".into(),
            file: "/shop/stigmer.yaml".into(),
            line: 3,
            column: 5,
            ..v1::ManifestError::default()
        }),
        ..v1::Manifest::default()
    };
    let info = [("Web page", "http://127.0.0.1:8088/"), ("Data", "/var/shop")];
    let info = info.map(|(name, value)| v1::InfoLine { name: name.into(), value: value.into() });
    status.projects =
        vec![v1::Project { name: "shop".into(), manifest: Some(manifest), info: info.into() }];
    let text = render(&status, Detail::Usual, now(), PIPE);
    assert!(
        text.starts_with("/shop/stigmer.yaml:3:5: unknown key `comand`\n   COMPONENT"),
        "{text}"
    );
    let end = "\n  Web page: http://127.0.0.1:8088/\n  Data:     /var/shop\n";
    assert!(text.ends_with(end), "{text}");
    let red = render(&status, Detail::Usual, now(), Look { color: true, ..PIPE });
    assert!(red.starts_with("\x1b[31m/shop/stigmer.yaml:3:5"), "{red}");
}
