//! Every class of mistakes: its place, its words, its hint.

use std::path::Path;

use stigmer::manifest::{LoadOptions, load_bytes};

use crate::{load, refused};

/// `line:column message | expected | help` of every diagnostic.
fn all(text: &str) -> Vec<String> {
    let report = load(text).unwrap_err();
    report
        .diagnostics
        .iter()
        .map(|one| {
            format!("{}:{} {} | {} | {}", one.line, one.column, one.message, one.expected, one.help)
        })
        .collect()
}

/// The one diagnostic of a component with these lines.
fn of(lines: &str) -> String {
    let all = all(&format!("components:\n  web:\n    command: run\n    {lines}\n"));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.into_iter().next().unwrap()
}

/// A part that the one diagnostic has.
#[track_caller]
fn has(lines: &str, part: &str) {
    let found = of(lines);
    assert!(found.contains(part), "{found}");
}

#[test]
fn what_is_empty_or_no_map() {
    assert!(refused("").contains("1:1 the manifest is empty: `components:` is missing"));
    assert!(refused("# nothing\n").contains("the manifest is empty"));
    assert!(refused("[a]").contains("1:1 the manifest is a list"));
    assert!(refused("hello").contains("the manifest is the text `hello`"));
    assert!(refused("project: x").contains("1:1 the manifest has no `components`"));
    assert!(refused("components: {}").contains("1:1 `components` is empty"));
    assert!(refused("components:\n").contains("1:1 `components` is empty"));
    assert!(refused("components: [a]").contains("1:1 `components` is a list"));
    assert!(refused("components:\n  a:\n").contains("2:3 `a` is empty"));
    assert!(
        refused("components: { a: b }\n---\na: b\n").contains("2:1 a second document begins here")
    );
}

#[test]
fn unknown_keys_with_the_nearest_known_one() {
    assert_eq!(
        all("components:\n  web:\n    comand: run\n"),
        ["3:5 unknown key `comand` |  | did you mean `command`?"]
    );
    has("stop: { signl: TERM }", "4:13 unknown key `signl` |  | did you mean `signal`?");
    has("stop: { zzz: TERM }", "known are command, signal and timeout");
    has("environment: {}", "did you mean `env`?");
    has("probes: { ready: {} }", "did you mean `readiness`?");
    has("logs: { maxSize: 1MB }", "did you mean `max_size`?");
    assert!(
        refused("command: x\ncomponents: { a: { command: x } }")
            .contains("put it below `components:`")
    );
}

#[test]
fn values_of_the_wrong_type() {
    has(
        "oneshot: yes",
        "4:14 `oneshot` is the text `yes` | true or false | `yes` is a text in YAML 1.2: write `true`",
    );
    has("oneshot: \"true\"", "write it without quotes");
    has("replicas: two", "4:15 `replicas` is the text `two` | a whole number from 1 to 1000");
    has("replicas: 0", "`replicas` is the number `0`");
    has("replicas: 2.5", "`replicas` is the number `2.5`");
    has("ports: 80", "`ports` is the number `80` | a list");
    has("ports: [0]", "4:13 an item of `ports` is the number `0` | a port from 1 to 65535");
    has("ports: [70000]", "`70000`");
    has("probes:", "4:5 `probes` is empty | a map | give it a value, or take the key out");
    has("labels: [a]", "`labels` is a list | a map");
    has("env: { A: [b] }", "`A` is a list | a text, a number, true or false, or `{ secret: ... }`");
    has("nice: 20", "a whole number from -20 to 19");
    has("umask: 99", "4:12 `99` is no file mode mask | octal digits from 0000 to 0777");
}

#[test]
fn words_durations_sizes_and_signals() {
    has(
        "restart: alwys",
        "4:14 `restart` is the text `alwys` | always, on-failure or never | did you mean `always`?",
    );
    has("restart: { policy: onfailure }", "did you mean `on-failure`?");
    has(
        "restart: { window: 10 }",
        "4:24 `window` is the number `10` | a duration such as 500ms, 10s or 1m30s | write the unit: `10s`",
    );
    has("restart: { window: 0s }", "`window` is 0");
    has("restart: { window: 5 minutes }", "`window` is the text `5 minutes`");
    has("restart: { max_restarts: many }", "a number from 0, or unlimited");
    has(
        "restart: { backoff: { initial: 10s, max: 5s } }",
        "4:46 the longest delay, 5s, is shorter than the first, 10s",
    );
    has("restart: { backoff: { multiplier: 0.5 } }", "a number from 1");
    has("restart: { backoff: { jitter: 2 } }", "a number from 0 to 1");
    has("restart: { success_exit_status: [300] }", "an exit code from 0 to 255");
    has(
        "restart: { success_exit_status: [3], prevent_exit_status: [3] }",
        "3 is in `success_exit_status` too",
    );
    has("logs: { max_size: 10 apples }", "a size such as 50MB");
    has("logs: { max_size: 0 }", "`0` is no size");
    has(
        "logs: { max_size: 64KB }",
        "4:23 a log of `64KB` is too small | a size such as 50MB, of at least 64KiB",
    );
    has("logs: { max_age: 0s }", "`max_age` is 0");
    has("logs: { max_age: 7 }", "write the unit: `7s`");
    has("logs: { compress: gzip }", "`compress` is the text `gzip` | true or false");
    has(
        "stop: { signal: SIGTRM }",
        "4:21 `SIGTRM` is no signal | a signal such as SIGTERM, TERM or 15 | did you mean `SIGTERM`?",
    );
    has("rlimits: { nofle: 3 }", "did you mean `nofile`?");
    has("rlimits: { nofile: { soft: 10, hard: 5 } }", "the soft limit is above the hard one");
    has("rlimits: { nofile: {} }", "a limit without a value");
}

#[test]
fn probes() {
    has(
        "probes: { liveness: { interval: 3s } }",
        "4:15 this probe has no kind | one of process, min_uptime,",
    );
    has(
        "probes: { liveness: { tcp: 80, unix: x } }",
        "4:36 this probe has 2 kinds: tcp and unix | exactly one kind",
    );
    has(
        "probes: { liveness: { htpp: { port: 80 } } }",
        "4:27 unknown key `htpp` |  | did you mean `http`?",
    );
    has("probes: { liveness: { nosuchkind: {} } }", "4:27 unknown key `nosuchkind`");
    has(
        "probes: { liveness: { plugin: { kind: nosuchkind } } }",
        "there is no program stigmer-probe-nosuchkind | an executable of this name in a folder of",
    );
    has("probes: { liveness: { plugin: { kind: a/b } } }", "`kind` is the text `a/b`");
    has("probes: { liveness: { http: {} } }", "4:27 `http` has no `port`");
    has("probes: { liveness: { http: { port: 80, path: x } } }", "a path that begins with `/`");
    has("probes: { liveness: { all: [] } }", "`all` is an empty list | a list that is not empty");
    has("probes: { liveness: { all: [{}] } }", "this probe has no kind");
    has(
        "probes: { liveness: { tcp: 80, failure_threshold: 0 } }",
        "`failure_threshold` is the number `0`",
    );
    has("probes: { liveness: { tcp: 80, interval: 0 } }", "`interval` is 0");
    has("probes: { liveness: { tcp: 80, deadline: 1s } }", "unknown key `deadline`");
    has(
        "probes: { liveness: { log: 'a(b' } }",
        "4:32 this is no regular expression: unclosed group",
    );
    has(
        "probes: { liveness: { http: { port: 1, status: [99] } } }",
        "an HTTP status from 100 to 599",
    );
}

#[test]
fn what_a_component_is() {
    assert_eq!(
        all("components:\n  web: { working_dir: / }\n"),
        [
            "2:3 `web` has no command | `command`, `container`, or `external: true` | add `command: [program, argument]`, or `container: { image: ... }`"
        ]
    );
    has("external: true", "`web` is external and has `command`");
    has("oneshot: true\n    restart: always", "5:14 a oneshot runs to its end once");
    has("user: nobody-of-this-name", "4:11 there is no user `nobody-of-this-name`");
    has("group: nobody-of-this-name", "there is no group");
    has("env_file: absent.env", "4:15 the env file /tmp/shop/absent.env: there is no such file");
    has("env: [A]", "4:11 the variable `A` has no value here, and none in the shell");
    has("env: { A: { secret: { file: x, env: y } } }", "a secret has exactly one source");
    assert!(refused("components: { a: { command: [] } }").contains("`command` is an empty list"));
    assert!(refused("components: { a: { command: '' } }").contains("`command` is an empty text"));
    assert!(
        refused("components: { a.b: { command: x } }")
            .contains("1:15 `a.b` cannot be the name of a component")
    );
    assert!(
        refused("project: a.b\ncomponents: { a: { command: x } }")
            .contains("1:10 `project` is the text `a.b`")
    );
}

#[test]
fn dependencies_and_ports() {
    has("depends_on: [wbe]", "4:18 there is no component `wbe`");
    has("depends_on: [web]", "`web` depends on itself");
    assert_eq!(
        all(
            "components:\n  a: { command: x, depends_on: [b] }\n  b: { command: x, depends_on: [c] }\n  c: { command: x, depends_on: [a] }\n"
        ),
        [
            "4:33 the dependencies go in a circle: a -> b -> c -> a |  | take one of these dependencies out"
        ]
    );
    let two = |rest: &str| {
        all(&format!(
            "components:\n  one: {{ command: x, ports: [80] }}\n  two: {{ command: x, {rest} }}\n"
        ))
    };
    assert!(
        two("depends_on: { one: completed }")[0]
            .contains("`one` never completes: it is not a oneshot")
    );
    assert!(two("depends_on: { one: redy }")[0].contains("did you mean `ready`?"));
    assert!(two("ports: [80]")[0].contains(
        "port 80 belongs to `one` already | a port of its own | it stands at line 2, column 30"
    ));
    assert!(two("ports: [81, 81]")[0].contains("port 81 is in this list twice"));
    let profile = all(
        "components:\n  a: { command: x, profiles: [p] }\n  b: { command: x, depends_on: [a] }\n",
    );
    assert!(profile[0].contains("`a` is not there: none of its profiles is chosen"), "{profile:?}");
}

#[test]
fn sockets() {
    has(
        "sockets: { http: localhost:80 }",
        "4:22 `localhost:80` is no address to listen on | a port, or an address such as \"127.0.0.1:8080\", \"0.0.0.0:80\" or \"[::1]:80\" | write `127.0.0.1:80`",
    );
    has(
        "sockets: { http: ':80' }",
        "write `0.0.0.0:80` for all addresses of IPv4, `[::]:80` of IPv6",
    );
    has("sockets: { http: /run/s }", "write `{ unix: /run/s }`");
    has("sockets: { http: db:80 }", "a name is not looked up");
    has("sockets: { http: 0 }", "`http` is the number `0`");
    has("sockets: { http: 70000 }", "`70000`");
    has("sockets: { http: '127.0.0.1:0' }", "no address to listen on");
    has("sockets: [80]", "`sockets` is a list | a map");
    has("sockets: { http: { tpc: 80 } }", "unknown key `tpc` |  | did you mean `tcp`?");
    has("sockets: { http: {} }", "4:16 a socket listens on one of `tcp` and `unix`");
    has("sockets: { http: { tcp: 80, unix: s } }", "a socket listens on one of `tcp` and `unix`");
    has("sockets: { http: { tcp: 80, mode: 0600 } }", "4:33 a socket of TCP has no file");
    has("sockets: { http: { tcp: 80, backlog: 0 } }", "`backlog` is the number `0`");
    has("sockets: { s: { unix: s, mode: 9 } }", "`9` is no file mode");
    has("sockets: { s: { unix: s, mode: 1777 } }", "octal digits from 0000 to 0777");
    has("sockets: { s: { unix: / } }", "this is a folder");
    has(&format!("sockets: {{ s: {{ unix: {} }} }}", "x".repeat(81)), "at most 80");
    has("sockets: { 'a:b': 80 }", "4:16 `a:b` cannot be the name of a socket | letters, digits");
    has("sockets: { a: 80, b: '0.0.0.0:80' }", "port 80 is declared twice");
    has("ports: [80]\n    sockets: { a: 80 }", "port 80 is declared twice");
    has("sockets: { a: { unix: s }, b: { unix: ./s } }", "the socket /tmp/shop/s belongs to `web`");
    let two = |rest: &str| {
        all(&format!(
            "components:\n  one: {{ command: x, sockets: {{ a: 80, s: {{ unix: s }} }} }}\n  two: {{ command: x, {rest} }}\n"
        ))
    };
    assert!(two("ports: [80]")[0].contains("port 80 belongs to `one` already"));
    assert!(two("sockets: { b: '0.0.0.0:80' }")[0].contains("port 80 belongs to `one` already"));
    assert!(two("sockets: { b: { unix: s } }")[0].contains(
        "the socket /tmp/shop/s belongs to `one` already | a path of its own | it stands at line 2"
    ));
    assert!(
        refused("components: { a: { external: true, sockets: { a: 80 } } }")
            .contains("`a` is external and has `sockets`")
    );
    assert!(
        refused("components: { a: { container: { image: x }, sockets: { a: 80 } } }")
            .contains("`a` is a container, and `sockets` here is for processes")
    );
    assert!(
        refused("defaults: { sockets: { a: 80 } }\ncomponents: { a: { command: x } }")
            .contains("unknown key `sockets`")
    );
}

#[test]
fn variables() {
    assert_eq!(
        of("env: { A: \"x ${NOPE} y\" }"),
        "4:18 the variable `NOPE` is not set |  | set it in the shell, put it into an env file (top-level `env_file:`), or give a default: `${NOPE:-default}`"
    );
    has(
        "env: { A: '${NOPE:?ask your admin}' }",
        "4:16 the variable `NOPE` is required: ask your admin",
    );
    has("env: { A: '${#x}' }", "write `$${` if it is meant for the shell");
    has("env: { A: '${x' }", "`${x` is never closed");
    has("ports: ['${NOPE}']", "the variable `NOPE` is not set");
    has(
        "labels:\n      text: |\n        first\n        second ${NOPE}",
        "7:16 the variable `NOPE` is not set",
    );
}

#[test]
fn values_of_variables_are_not_shown() {
    let mut options = LoadOptions::default();
    options.variables.insert("SECRET".into(), "hunter2".into());
    let text = "components:\n  a: { command: x, working_dir: \"/${SECRET}\", replicas: \"${SECRET}\", user: \"${SECRET}\", stop: { signal: \"${SECRET}\" } }\n";
    let report =
        load_bytes(Path::new("/tmp/shop/stigmer.yaml"), text.as_bytes(), &options).unwrap_err();
    let shown = report.render(false, 200);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("`${SECRET}` is no signal"), "{shown}");
    let default = refused("components: { a: { command: x, ports: [\"${NO:-abc}\"] } }");
    assert!(default.contains("the text `${NO:-abc}`"), "{default}");
}

#[test]
fn syntax() {
    assert!(refused("components:\n  a: b: c\n").contains("needs quotes"));
    assert!(refused("components:\n  a: \"b\n").contains("a quote is opened and never closed"));
    assert!(refused("a: *nowhere\n").contains("an alias `*name` needs an anchor"));
    assert!(refused("a: [b\n").contains("missing `,`, `]` or `}`"));
    assert!(refused("a: !custom b\n").contains("1:4 the tag `!custom` means nothing here"));
    assert!(refused("? [a]\n: b\n").contains("a key that is no text"));
    assert!(refused("<<: 3\n").contains("`<<` merges what is not a map"));
    assert_eq!(
        all("components:\n  a: { command: x }\n  a: { command: y }\n"),
        ["3:3 duplicate key `a` |  | it stands already at line 2, column 3"]
    );
}

#[test]
fn all_mistakes_of_a_file_at_once_as_they_are_shown() {
    let text = "\
projct: shop
defaults: { stop: { timeout: 3 } }
components:
  api:
    comand: [./api]
    ports: [8080, 70000]
    depends_on: { db: redy, wrker: started }
  worker:
    command: run
    depends_on: [api]
    env: { TOKEN: \"${TOKEN}\" }
  worker:
    command: again
";
    insta::assert_snapshot!(load(text).unwrap_err().render(false, 100));
}

#[test]
fn many_mistakes_and_long_lines_are_cut() {
    let lines: String =
        (0..200).map(|index| ["  c", &index.to_string(), ": { comand: x }\n"].concat()).collect();
    let report = load(&format!("components:\n{lines}")).unwrap_err();
    assert_eq!(report.diagnostics.len(), 200);
    let shown = report.render(false, 100);
    assert_eq!(shown.matches("error:").count(), 50);
    assert!(shown.trim_end().ends_with("and 150 more"), "{shown}");

    let long = format!(
        "components: {{ a: {{ command: [x{}], comand: x{} }} }}",
        ", x".repeat(5000),
        "y".repeat(5000)
    );
    let shown = load(&long).unwrap_err().render(false, 100);
    assert!(shown.contains("stigmer.yaml:1:15034"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 250), "{shown}");
}
