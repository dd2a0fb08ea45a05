//! Components that are `optional: true`: waited for like others, and nobody's failure.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use support::home::TestHome;

/// A component `extra` that gives up at once, beside `api` that is well.
fn with_failing(home: &TestHome, more: &str) -> String {
    format!(
        "
components:
  api: {{ command: {api} }}
  extra:
    command: 'echo no luck today; exit 3'
    restart: never
{more}
",
        api = home.trouble(&[])
    )
}

#[test]
fn a_failure_of_what_is_optional_is_a_warning_of_every_command() {
    let home = TestHome::new();
    home.manifest(&with_failing(&home, "    optional: true"));
    let applied = home.run(["apply"]).expect_code(0);
    assert!(applied.stderr.starts_with("warning: optional: extra is failed: "), "{applied:?}");
    assert!(applied.stderr.contains("no luck today"), "{applied:?}");
    assert!(applied.stderr.contains("stigmer reset extra"), "{applied:?}");
    // Its state is shown as ever, and nothing fails because of it.
    let table = home.run(["status"]).expect_code(0).stdout;
    assert!(table.contains("✗✗ extra"), "{table}");
    assert_eq!(home.component("extra")["optional"], true);
    assert_eq!(home.component("api")["optional"], false);
    for command in [&["start"][..], &["reload"], &["restart", "extra"], &["reset", "extra"]] {
        let output = home.run(command.iter().copied()).expect_code(0);
        assert!(
            output.stderr.starts_with("warning: optional: extra is "),
            "{command:?} {output:?}"
        );
    }
    let output = home.run(["apply", "-o", "json"]).expect_code(0);
    let json = output.json();
    assert_eq!(json["outcome"]["ok"], true, "{json}");
    assert_eq!(json["outcome"]["failures"].as_array().unwrap().len(), 0, "{json}");
    assert_eq!(json["outcome"]["warnings"][0]["component"], "extra", "{json}");
    let config = home.run(["config", "--applied"]).expect_code(0).stdout;
    assert!(config.contains("optional: true"), "{config}");
}

#[test]
fn whether_it_is_optional_is_changed_without_a_restart() {
    let home = TestHome::new();
    home.manifest(&with_failing(&home, ""));
    home.run(["apply"]).expect_code(3);
    home.run(["status"]).expect_code(3);
    let api = home.pid_of("api");
    home.manifest(
        &with_failing(&home, "    optional: true")
            .replace("  api: { command:", "  api: { optional: true, command:"),
    );
    let plan = home.run(["apply"]).expect_code(0).stdout;
    for name in ["api", "extra"] {
        let step = format!("~ update   {name:<5}  changed, without a restart: optional\n");
        assert!(plan.contains(&step), "{plan}");
    }
    assert_eq!(home.pid_of("api"), api);
    home.run(["status"]).expect_code(0);
}

#[test]
fn s56_what_depends_on_it_waits_as_ever() {
    let home = TestHome::new();
    home.manifest(&with_failing(
        &home,
        "    optional: true
    probes: { readiness: { file: never } }
  after:
    command: [sleep, infinity]
    depends_on: { extra: ready }",
    ));
    let applied = home.run(["apply"]).expect_code(3);
    assert!(applied.stderr.contains("after is starting: "), "{applied:?}");
    assert!(applied.stderr.contains("warning: optional: extra is failed: "), "{applied:?}");
    assert_eq!(home.component("after")["waiting_for"][0], "extra (ready)");
}

#[test]
fn one_that_does_not_come_up_is_waited_for_and_then_only_a_warning() {
    let home = TestHome::new();
    let never = "readiness: { file: never, interval: 50ms }";
    home.manifest(&format!(
        "
components:
  api: {{ command: {api} }}
  slow: {{ command: {api}, optional: true, probes: {{ {never} }} }}
",
        api = home.trouble(&[])
    ));
    let applied = home.run(["apply", "--timeout", "1s"]).expect_code(0);
    assert!(
        applied.stderr.starts_with("warning: optional: slow is not ready within 1s: "),
        "{applied:?}"
    );
    // Once it is ready, nothing is said.
    home.write("never", "");
    let applied = home.run(["apply"]).expect_code(0);
    assert_eq!(applied.stderr, "");
}
