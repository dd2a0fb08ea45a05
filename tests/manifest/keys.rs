//! Every key with its default, and what it becomes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stigmer::manifest::{self, LoadOptions, Severity};
use stigmer::model::socket::{ListenAddress, SocketSpec};
use stigmer::model::spec::{
    BackoffSpec, Check, CommandSpec, ComponentSpec, Condition, EnvValue, ExitMatch, HttpCheck,
    LimitSpec, LogSpec, ProbeSpec, ProcessSpec, RestartPolicy, RestartSpec, Rlimit, SecretRef,
    StopSpec, Workload,
};

use crate::load;

fn component(lines: &str) -> ComponentSpec {
    let text =
        format!("components:\n  web:\n    command: run\n    {}\n", lines.replace('\n', "\n    "));
    let loaded = load(&text).unwrap_or_else(|report| panic!("{}", report.render(false, 100)));
    Arc::unwrap_or_clone(loaded.project.components.into_values().next().unwrap())
}

fn process(lines: &str) -> ProcessSpec {
    match component(lines).workload {
        Workload::Process(process) => process,
        Workload::Container(_) | Workload::External => panic!("no process"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn defaults_of_everything() {
    let loaded = load("components: { web: { command: run } }").unwrap();
    assert_eq!(loaded.project.name, "shop");
    assert_eq!(loaded.project.manifest, Path::new("/tmp/shop/stigmer.yaml"));
    assert_eq!(loaded.watched, [PathBuf::from("/tmp/shop/stigmer.yaml")]);
    let process = ProcessSpec::new(CommandSpec::Shell("run".into()), "/tmp/shop");
    let expected =
        ComponentSpec { workload: Workload::Process(process), ..ComponentSpec::external() };
    assert_eq!(*loaded.project.components["web"], expected);
}

#[test]
fn sockets_of_all_kinds() {
    let tcp = |address: &str, backlog| SocketSpec {
        address: ListenAddress::Tcp(address.parse().unwrap()),
        backlog,
        mode: None,
    };
    let unix = |path: &str, mode| SocketSpec {
        address: ListenAddress::Unix(path.into()),
        backlog: 4096,
        mode: Some(mode),
    };
    let lines = "ports: [90]\nsockets:\n  a: 8080\n  b: \"8081\"\n  c: 0.0.0.0:80\n  d: '[::1]:80'\n  e: { tcp: 82, backlog: 5 }\n  f: { unix: run/s }\n  g: { unix: /s, mode: 0660 }\n  h: { unix: /t, mode: \"0o606\" }";
    let spec = component(lines);
    assert_eq!(spec.ports, [90, 8080, 8081, 80, 82]);
    let expected = [
        ("a", tcp("127.0.0.1:8080", 4096)),
        ("b", tcp("127.0.0.1:8081", 4096)),
        ("c", tcp("0.0.0.0:80", 4096)),
        ("d", tcp("[::1]:80", 4096)),
        ("e", tcp("127.0.0.1:82", 5)),
        ("f", unix("/tmp/shop/run/s", 0o600)),
        ("g", unix("/s", 0o660)),
        ("h", unix("/t", 0o606)),
    ];
    let expected = expected.map(|(name, spec)| (name.to_owned(), spec));
    assert_eq!(process(lines).sockets, BTreeMap::from(expected));
    // Replicas share them, which is no reason for a warning.
    let shared =
        load("components: { a: { command: x, replicas: 2, sockets: { a: 80 } } }").unwrap();
    assert_eq!(shared.warnings, []);
}

#[test]
fn what_runs() {
    let argv = |text: &str| {
        let text = format!("components: {{ a: {{ command: {text} }} }}");
        match load(&text).unwrap().project.components["a"].workload.clone() {
            Workload::Process(process) => process.command,
            Workload::Container(_) | Workload::External => panic!("no process"),
        }
    };
    let expected =
        CommandSpec::Exec(["a", "--port", "8080", "1.10", "true"].map(Into::into).to_vec());
    assert_eq!(argv("[a, --port, 8080, 1.10, true]"), expected);
    assert_eq!(argv("a b"), CommandSpec::Shell("a b".into()));
    assert_eq!(process("working_dir: ../shop/.").working_dir, Path::new("/tmp/shop/../shop"));
    assert_eq!(process("umask: 0022").umask, Some(0o022));
    assert_eq!(process("umask: \"077\"").umask, Some(0o077));
    assert_eq!(process("umask: 0o27").umask, Some(0o027));
    assert_eq!(process("nice: 5").nice, Some(5));
    let limits = process("rlimits: { nofile: 1024, nproc: { soft: 1, hard: unlimited }, as: 64MiB, core: { hard: 0 } }").rlimits;
    let pair = |soft, hard| LimitSpec { soft, hard };
    assert_eq!(
        limits,
        BTreeMap::from([
            (Rlimit::As, pair(Some(64 << 20), Some(64 << 20))),
            (Rlimit::Core, pair(Some(0), Some(0))),
            (Rlimit::Nofile, pair(Some(1024), Some(1024))),
            (Rlimit::Nproc, pair(Some(1), None)),
        ])
    );
    // Another user could not give it away.
    if nix::unistd::geteuid().is_root() {
        assert_eq!(process("user: 0\ngroup: root").user.as_deref(), Some("0"));
    }
}

#[test]
fn environment() {
    let plain = |text: &str| EnvValue::Plain(text.into());
    let env = process("env: { A: x, B: 1.10, C: true, D: 0x10, E: \"\", F: '$HOME $$ x' }").env;
    assert_eq!(
        env,
        BTreeMap::from([
            ("A".into(), plain("x")),
            ("B".into(), plain("1.10")),
            ("C".into(), plain("true")),
            ("D".into(), plain("0x10")),
            ("E".into(), plain("")),
            ("F".into(), plain("$HOME $ x")),
        ])
    );
    assert_eq!(
        process("env: [A=b=c, B=]").env,
        BTreeMap::from([("A".into(), plain("b=c")), ("B".into(), plain(""))])
    );
    let secrets = process("env: { A: { secret: { file: x } }, B: { secret: { env: Y } }, C: { secret: { command: [z, 1] } } }").env;
    assert_eq!(
        secrets.into_values().collect::<Vec<_>>(),
        [
            EnvValue::Secret(SecretRef::File("/tmp/shop/x".into())),
            EnvValue::Secret(SecretRef::Env("Y".into())),
            EnvValue::Secret(SecretRef::Command(vec!["z".into(), "1".into()])),
        ]
    );
}

#[test]
fn env_files_and_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stigmer.yaml");
    fs::write(
        folder.path().join("values.env"),
        "export A=one # comment\nB='two $A'\nC=\"a\\nb\"\n\n# x\nD = \n",
    )
    .unwrap();
    fs::write(folder.path().join("given.env"), "X=1\nY=2\n").unwrap();
    fs::write(&path, "env_file: values.env\ncomponents:\n  a:\n    command: 'x ${A} ${B} ${C} ${D:-d} ${D-e} ${A:+f} ${NO:-${A}} ${NO+g} $A $$'\n    env_file: [given.env]\n    env: { Y: 3, HERE: }\n    ports: [\"${PORT}\"]\n    nice: '${NICE:-3}'\n    oneshot: \"${ONCE:-true}\"\n    probes: { startup: { tcp: \"${PORT}\" } }\n").unwrap();
    let options = LoadOptions {
        variables: BTreeMap::from([
            ("PORT".into(), "8080".into()),
            ("HERE".into(), "h ${A}".into()),
        ]),
        ..LoadOptions::default()
    };
    let loaded = manifest::load(&path, &options)
        .unwrap_or_else(|report| panic!("{}", report.render(false, 100)));
    let spec = &loaded.project.components["a"];
    let Workload::Process(process) = &spec.workload else { panic!() };
    assert_eq!(process.command, CommandSpec::Shell("x one two $A a\nb d  f one  $A $".into()));
    let env: Vec<_> =
        process.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let plain = |text: &str| EnvValue::Plain(text.into());
    assert_eq!(env, [("HERE", plain("h ${A}")), ("X", plain("1")), ("Y", plain("3"))]);
    assert_eq!(
        (spec.ports.as_slice(), process.nice, spec.oneshot),
        ([8080].as_slice(), Some(3), true)
    );
    let names = ["A", "B", "C", "D", "HERE", "NICE", "NO", "ONCE", "PORT"].map(ToOwned::to_owned);
    assert_eq!(loaded.variables, BTreeSet::from(names));
    assert_eq!(manifest::variables_named(&path), loaded.variables);
    assert_eq!(loaded.watched.len(), 3);
    assert_eq!(manifest::digest(&path, &loaded.watched).as_ref(), Some(&loaded.sha256));
    fs::write(folder.path().join("given.env"), "X=2\n").unwrap();
    assert_ne!(manifest::digest(&path, &loaded.watched).as_ref(), Some(&loaded.sha256));
    fs::write(folder.path().join("given.env"), "X='never closed\n").unwrap();
    let report = manifest::load(&path, &options).unwrap_err();
    assert_eq!(
        (report.first().line, report.first().file.file_name().unwrap()),
        (1, "given.env".as_ref())
    );
    assert_eq!(manifest::find(&folder.path().join("a/b")), Some(path));
}

#[test]
fn probes() {
    let spec = component("probes:\n  startup: { tcp: 80 }\n  liveness: { process: {} }\n  readiness: { min_uptime: 3s }").probes;
    let probe = |check, interval, timeout, failure_threshold, success_threshold| {
        Some(Box::new(ProbeSpec {
            check,
            interval: seconds(interval),
            timeout: seconds(timeout),
            failure_threshold,
            success_threshold,
            initial_delay: seconds(0),
        }))
    };
    let local = "127.0.0.1".to_owned();
    assert_eq!(
        spec.startup,
        probe(Check::Tcp { host: Some(local.clone()), port: 80 }, 1, 5, 30, 1)
    );
    assert_eq!(spec.liveness, probe(Check::Process, 10, 3, 3, 1));
    assert_eq!(spec.readiness, probe(Check::MinUptime(seconds(3)), 5, 2, 3, 2));
    let given = component("probes: { startup: { exec: [a], interval: 500ms, timeout: 1m30s, failure_threshold: 4, success_threshold: 5, initial_delay: 6s, deadline: 1h } }").probes;
    assert_eq!(given.startup_deadline, Some(seconds(3600)));
    let startup = given.startup.unwrap();
    assert_eq!(
        (startup.interval, startup.timeout, startup.initial_delay),
        (Duration::from_millis(500), seconds(90), seconds(6))
    );
    assert_eq!((startup.failure_threshold, startup.success_threshold), (4, 5));

    let check = |text: &str| {
        component(&format!("probes: {{ liveness: {{ {text} }} }}")).probes.liveness.unwrap().check
    };
    assert_eq!(check("exec: [a, b]"), Check::Exec(CommandSpec::Exec(vec!["a".into(), "b".into()])));
    assert_eq!(check("exec: a b"), Check::Exec(CommandSpec::Shell("a b".into())));
    let http = HttpCheck {
        tls: false,
        host: Some(local.clone()),
        port: 80,
        path: "/".into(),
        method: "GET".into(),
        headers: BTreeMap::new(),
        status: Vec::new(),
        body: None,
    };
    assert_eq!(check("http: { port: 80 }"), Check::Http(http.clone()));
    let full = HttpCheck {
        tls: true,
        host: Some("h".into()),
        path: "/p?q".into(),
        method: "HEAD".into(),
        headers: BTreeMap::from([("A".into(), "1".into())]),
        status: vec![200, 204],
        body: Some("^x".into()),
        ..http
    };
    assert_eq!(
        check(
            "https: { port: 80, host: h, path: /p?q, method: head, headers: { A: 1 }, status: [200, 204], body: ^x }"
        ),
        Check::Http(full)
    );
    assert_eq!(check("tcp: { port: 1, host: h }"), Check::Tcp { host: Some("h".into()), port: 1 });
    assert_eq!(check("unix: s"), Check::Unix { path: "/tmp/shop/s".into() });
    assert_eq!(check("unix: { path: /s }"), Check::Unix { path: "/s".into() });
    assert_eq!(
        check("grpc: { port: 1 }"),
        Check::Grpc { host: Some(local), port: 1, service: String::new(), tls: false }
    );
    assert_eq!(check("log: ^x"), Check::Log { pattern: "^x".into() });
    assert_eq!(check("log: { pattern: x }"), Check::Log { pattern: "x".into() });
    assert_eq!(
        check("file: f"),
        Check::File { path: "/tmp/shop/f".into(), contains: None, max_age: None }
    );
    assert_eq!(
        check("file: { path: /f, contains: x, max_age: 1d }"),
        Check::File {
            path: "/f".into(),
            contains: Some("x".into()),
            max_age: Some(seconds(86400))
        }
    );
    assert_eq!(
        check("all: [ { process: {} }, { all: [ { log: x } ] } ]"),
        Check::All(vec![Check::Process, Check::All(vec![Check::Log { pattern: "x".into() }])])
    );
}

#[test]
fn restart_stop_logs() {
    assert_eq!(
        component("restart: never").restart,
        RestartSpec { policy: RestartPolicy::Never, ..RestartSpec::default() }
    );
    assert_eq!(component("oneshot: true").restart.policy, RestartPolicy::OnFailure);
    let full = component("restart: { policy: on-failure, max_restarts: unlimited, window: 1h, min_uptime: 0, backoff: { initial: 0, multiplier: 1.5, max: 2m, jitter: 0.2 }, success_exit_status: [SIGHUP, 3], prevent_exit_status: [78, TERM] }").restart;
    assert_eq!(
        full,
        RestartSpec {
            policy: RestartPolicy::OnFailure,
            max_restarts: None,
            window: seconds(3600),
            min_uptime: seconds(0),
            backoff: BackoffSpec {
                initial: seconds(0),
                multiplier: 1.5,
                max: seconds(120),
                jitter: 0.2
            },
            success_exit_status: BTreeSet::from([ExitMatch::Code(3), ExitMatch::Signal(1)]),
            prevent_exit_status: BTreeSet::from([ExitMatch::Code(78), ExitMatch::Signal(15)]),
        }
    );
    for signal in ["SIGINT", "INT", "2", "sigint"] {
        assert_eq!(component(&format!("stop: {{ signal: {signal} }}")).stop.signal, 2);
    }
    let stop = component("stop: { timeout: 3s, command: [bye] }").stop;
    assert_eq!(
        stop,
        StopSpec {
            signal: 15,
            timeout: seconds(3),
            command: Some(CommandSpec::Exec(vec!["bye".into()]))
        }
    );
    assert_eq!(
        component("logs: { max_size: 64MiB, max_files: 0 }").logs,
        LogSpec { max_size: 64 << 20, max_files: 0, ..LogSpec::default() }
    );
    let kept = component("logs: { max_age: 7d, compress: false }").logs;
    let week = Some(seconds(7 * 86_400));
    assert_eq!(kept, LogSpec { max_age: week, compress: false, ..LogSpec::default() });
    let older: LogSpec = serde_json::from_str("{\"max_size\":70000,\"max_files\":1}").unwrap();
    let expected = LogSpec { max_size: 70_000, max_files: 1, ..LogSpec::default() };
    assert_eq!(older, expected, "as a version before has stored it");
}

#[test]
fn the_rest_of_a_component() {
    let spec = component("replicas: 3\nlabels: { a: 1 }\nports: [80, 0x51]");
    assert_eq!((spec.replicas, spec.labels["a"].as_str(), spec.ports), (3, "1", vec![80, 81]));
    assert!(!spec.optional && component("optional: true").optional);
    let text = "components:\n  a: { command: x, depends_on: [b], profiles: [p] }\n  b: { external: true, depends_on: { c: completed } }\n  c: { command: x, oneshot: true }\n";
    assert_eq!(load(text).unwrap().project.components.len(), 2);
    let options = LoadOptions {
        profiles: vec!["p".into()],
        project: Some("other".into()),
        ..LoadOptions::default()
    };
    let loaded =
        manifest::load_bytes(Path::new("/tmp/My shop!/x.yaml"), text.as_bytes(), &options).unwrap();
    assert_eq!(loaded.project.name, "other");
    assert_eq!(loaded.project.components["a"].depends_on["b"], Condition::Started);
    assert_eq!(loaded.project.components["b"].depends_on["c"], Condition::Completed);
    assert_eq!(loaded.project.components["b"].workload, Workload::External);
    let loaded = manifest::load_bytes(
        Path::new("/tmp/.My shop!/x.yaml"),
        text.as_bytes(),
        &LoadOptions::default(),
    )
    .unwrap();
    assert_eq!(loaded.project.name, "My-shop-");
}

#[test]
fn defaults_lie_under_every_component() {
    let text = "\
x-base: &base { labels: { from: base } }
info: { B: 1, A: two }
defaults:
  env: { A: 1, B: 2 }
  restart: { policy: never, window: 5m }
  probes: { liveness: { tcp: 80, interval: 3s } }
components:
  one:
    <<: *base
    command: x
    env: [B=3]
    restart: always
    probes: { liveness: { process: {} } }
    x-note: ignored
  two: { command: x, oneshot: true }
";
    let loaded = load(text).unwrap();
    assert_eq!(loaded.project.info, [("B".into(), "1".into()), ("A".into(), "two".into())]);
    let one = &loaded.project.components["one"];
    assert_eq!(one.labels["from"], "base");
    assert_eq!((one.restart.policy, one.restart.window), (RestartPolicy::Always, seconds(300)));
    let liveness = one.probes.liveness.clone().unwrap();
    assert_eq!((liveness.check, liveness.interval), (Check::Process, seconds(3)));
    let Workload::Process(process) = &one.workload else { panic!() };
    assert_eq!(
        process.env.values().cloned().collect::<Vec<_>>(),
        [EnvValue::Plain("1".into()), EnvValue::Plain("3".into())]
    );
    assert_eq!(loaded.project.components["two"].restart.policy, RestartPolicy::Never);
}

#[test]
fn that_no_profile_is_chosen_is_told_if_nothing_is_there() {
    let text =
        "components:\n  a: { command: x, profiles: [q, p] }\n  b: { command: x, profiles: [p] }\n";
    let loaded = load(text).unwrap();
    let [warning] = &loaded.warnings[..] else { panic!("{:#?}", loaded.warnings) };
    assert_eq!((warning.line, warning.column), (1, 1));
    assert_eq!(warning.help, "choose with --profile: p, q");
    let options = LoadOptions { profiles: vec!["q".into()], ..LoadOptions::default() };
    let path = Path::new("/tmp/shop/stigmer.yaml");
    let loaded = manifest::load_bytes(path, text.as_bytes(), &options).unwrap();
    assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);
}

#[test]
fn warnings_do_not_refuse() {
    let text = "components:\n  a: { command: x, working_dir: /not/there, ports: [80], replicas: 2 }\n  b: { command: x, oneshot: true }\n  c: { command: x, depends_on: [b], restart: { policy: never, max_restarts: 3 }, stop: { signal: INT, command: x } }\n";
    let loaded = load(text).unwrap();
    let lines: Vec<u32> = loaded.warnings.iter().map(|one| one.line).collect();
    assert!(loaded.warnings.iter().all(|one| one.severity == Severity::Warning));
    assert_eq!(lines, [2, 2, 4, 4, 4], "{:#?}", loaded.warnings);
}
