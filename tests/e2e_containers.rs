//! Containers beside processes, on the engine of this machine: S34, S36, S52, and what issue after issue
//! of other tools complain about.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;
#[path = "support/tls_front.rs"]
mod tls_front;

use std::sync::{Arc, Mutex};

use serde_json::Value;

use support::containers::{Engine, IMAGE};
use support::home::{TestHome, lock};

/// A shell in a container that ends at once when it is told to.
const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

struct Bench {
    engine: Arc<Mutex<Engine>>,
    home: TestHome,
}

impl Bench {
    fn new() -> Option<Self> {
        let engine = Arc::new(Mutex::new(Engine::shared()?));
        let home = TestHome::with_engine(&engine);
        Some(Self { engine, home })
    }

    fn docker(&self, arguments: &[&str]) -> String {
        lock(&self.engine).docker(arguments.iter().copied())
    }

    fn inspect(&self, component: &str, template: &str) -> Option<String> {
        lock(&self.engine).inspect(&self.home.container(component), template)
    }

    /// Writes a manifest with the project's name before it.
    fn manifest(&self, components: &str) {
        let project = self.home.project_name();
        self.home.manifest(&format!("project: {project}\n{components}"));
    }

    #[track_caller]
    fn apply(&self, components: &str) {
        self.manifest(components);
        self.home.run(["apply"]).expect_code(0);
    }

    fn id_of(&self, component: &str) -> String {
        self.home.component(component)["container_id"].as_str().unwrap().to_owned()
    }

    /// Waits until a component runs as another container.
    #[track_caller]
    fn wait_replaced(&self, component: &str, before: &str) -> Value {
        self.home.wait_for("another container", || {
            self.home.try_component(component).filter(|now| {
                now["state"] == "running"
                    && now["container_id"].as_str().is_some_and(|id| id != before)
            })
        })
    }
}

/// One component `web` of the test's image that waits, with more keys below `container`.
fn web(more: &str) -> String {
    format!(
        "components:
  web:
    container:
      image: {IMAGE}
      command: [sh, -c, \"{WAITS}\"]
{more}
    restart: {{ backoff: {{ initial: 50ms }} }}
"
    )
}

#[test]
fn s34_s36_a_container_runs_under_its_name_and_the_engine_restarts_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.apply(&web(""));
    let component = bench.home.component("web");
    assert_eq!(component["kind"], "container");
    assert_eq!(component["state"], "running");
    let id = bench.id_of("web");
    assert_eq!(bench.inspect("web", "{{.Id}}").unwrap(), id);
    assert_eq!(bench.inspect("web", "{{.HostConfig.RestartPolicy.Name}}").unwrap(), "no");
    assert_eq!(bench.inspect("web", "{{.HostConfig.AutoRemove}}").unwrap(), "false");
    let project = bench.home.project_name();
    let labels = bench.inspect("web", "{{json .Config.Labels}}").unwrap();
    let labels: Value = serde_json::from_str(&labels).unwrap();
    assert_eq!(labels["stigmer.project"], project);
    assert_eq!(
        (&labels["stigmer.component"], &labels["stigmer.replica"]),
        (&"web".into(), &"0".into())
    );
    assert!(labels["stigmer.run"].is_string() && labels["stigmer.spec"].is_string(), "{labels}");
    // The status shows the first twelve characters, and what the container uses.
    let table = bench.home.run(["status"]).expect_code(0).stdout;
    assert!(table.contains(&format!("c:{}", &id[..12])), "{table}");
    bench.home.run(["down"]).expect_code(0);
    assert_eq!(bench.inspect("web", "{{.Id}}"), None);
    let networks = bench.docker(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(!networks.contains(&project), "{networks}");
}

#[test]
fn s51_s52_what_is_killed_stopped_or_removed_behind_its_back_is_there_again() {
    let Some(bench) = Bench::new() else { return };
    bench.apply(&web(""));
    let name = bench.home.container("web");
    for (arguments, reason) in [
        (vec!["kill", &name], "SIGKILL"),
        // Its first process ends in order when it is told to.
        (vec!["stop", &name], "exit 0"),
        (vec!["rm", "-f", &name], "SIGKILL"),
        (vec!["restart", &name], "exit 0"),
    ] {
        let before = bench.id_of("web");
        bench.docker(&arguments);
        let after = bench.wait_replaced("web", &before);
        assert_eq!(after["restarts"]["last_reason"], reason, "{arguments:?}: {after}");
        assert_eq!(bench.inspect("web", "{{.Id}}").as_deref(), after["container_id"].as_str());
        bench.home.run(["reset", "web"]).expect_code(0);
    }
    assert_eq!(bench.home.component("web")["restarts"]["total"], 4);
}

#[test]
fn s34_paused_is_not_running_and_is_ended_by_stop() {
    let Some(bench) = Bench::new() else { return };
    bench.apply(&web(
        "    probes: { liveness: { container: {}, interval: 100ms, failure_threshold: 2 } }",
    ));
    let before = bench.id_of("web");
    bench.docker(&["pause", &bench.home.container("web")]);
    let after = bench.wait_replaced("web", &before);
    let reason = after["restarts"]["last_reason"].as_str().unwrap();
    assert!(reason.contains("the container is paused"), "{after}");
    // Without a probe that minds, a stop still reaches it.
    bench.apply(&web("    probes: { liveness: { container: {}, interval: 1h } }"));
    bench.docker(&["pause", &bench.home.container("web")]);
    bench.home.run(["stop", "web"]).expect_code(0);
    assert_eq!(bench.inspect("web", "{{.Id}}"), None);
}

#[test]
fn s34_the_engines_own_health_check_counts() {
    let Some(bench) = Bench::new() else { return };
    let health =
        "      healthcheck: { test: [CMD, test, -e, /tmp/well], interval: 200ms, retries: 1 }
      tmpfs: /tmp
    probes:
      readiness: { container: {}, interval: 100ms, success_threshold: 1 }
      liveness: { container: {}, interval: 100ms, failure_threshold: 1 }";
    bench.manifest(&web(health));
    bench.home.run(["apply", "--no-wait"]).expect_code(0);
    // It never gets well: unhealthy, and restarted, again and again.
    let web = bench.home.wait_for("a restart", || {
        bench.home.try_component("web").filter(|web| web["restarts"]["total"].as_u64() > Some(0))
    });
    let reason = web["restarts"]["last_reason"].as_str().unwrap();
    assert!(reason.contains("unhealthy"), "{web}");
    bench.home.run(["down"]).expect_code(0);
    let well = health.replace("test, -e, /tmp/well", "\"true\"");
    bench.apply(&self::web(&well));
    assert_eq!(bench.home.component("web")["ready"], true);
}

#[test]
fn exits_have_their_code_their_signal_and_the_memory_that_was_used_up() {
    let Some(bench) = Bench::new() else { return };
    let one = |name: &str, command: &str, more: &str| {
        format!(
            "  {name}:
    container: {{ image: {IMAGE}, command: [sh, -c, \"{command}\"]{more} }}
    restart: never
"
        )
    };
    let manifest = format!(
        "components:\n{}{}{}{}",
        one("code", "exit 3", ""),
        one("signal", "kill -9 $$$$", ", init: true"),
        one("done", "exit 0", ""),
        one("memory", "tail /dev/zero", ", mem_limit: 16m"),
    );
    bench.manifest(&manifest);
    bench.home.run(["apply"]).expect_code(3);
    assert_eq!(bench.home.wait_state("code", "failed")["last_exit"]["code"], 3);
    let signal = bench.home.wait_state("signal", "failed");
    assert_eq!(signal["last_exit"]["signal"], "SIGKILL", "{signal}");
    assert_eq!(signal["last_exit"]["code"], Value::Null, "{signal}");
    assert_eq!(bench.home.wait_state("done", "stopped")["reason"], "completed");
    let memory = bench.home.wait_state("memory", "failed");
    assert_eq!(memory["last_exit"]["oom"], true, "{memory}");
    assert!(
        memory["last_error"]["message"].as_str().unwrap().contains("out of memory"),
        "{memory}"
    );
}

#[test]
fn what_the_engine_refuses_is_a_failed_launch_with_its_reason() {
    let Some(bench) = Bench::new() else { return };
    bench.manifest(&format!(
        "components:
  nosuch:
    container: {{ image: {IMAGE}, command: [nosuch] }}
    restart: {{ max_restarts: 0 }}
  missing:
    container: {{ image: \"stigmer-test:nowhere\", pull_policy: never }}
    restart: {{ max_restarts: 0 }}
  fine:
    container: {{ image: {IMAGE}, command: [sleep, infinity], stop_signal: KILL }}
"
    ));
    bench.home.run(["apply"]).expect_code(3);
    let nosuch = bench.home.wait_state("nosuch", "failed");
    let message = nosuch["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("executable file not found"), "{message}");
    assert!(nosuch["reason"].as_str().unwrap().contains("container.command"), "{nosuch}");
    // An image that is not there may come: it is waited for, and never charged.
    let missing = bench.home.component("missing");
    assert_eq!(missing["state"], "restarting", "{missing}");
    let message = missing["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("stigmer-test:nowhere is not there"), "{message}");
    assert_eq!(bench.home.component("fine")["state"], "running");
}

#[test]
fn s40_the_next_daemon_takes_over_what_runs_and_starts_what_died() {
    let Some(bench) = Bench::new() else { return };
    bench.apply(&format!(
        "components:
  one: {{ container: {{ image: {IMAGE}, command: [sh, -c, \"{WAITS}\"] }} }}
  two: {{ container: {{ image: {IMAGE}, command: [sh, -c, \"{WAITS}\"] }} }}
"
    ));
    let (one, two) = (bench.id_of("one"), bench.id_of("two"));
    let engine = bench.home.kill_engine();
    let again = || {
        bench.home.wait_for("another daemon", || {
            let now = bench.home.daemon_pids().filter(|now| now.engine != engine.engine)?;
            let one = bench.home.try_component("one")?;
            (one["state"] == "running" && one["unknown"].is_null()).then_some(now)
        })
    };
    again();
    assert_eq!((bench.id_of("one"), bench.id_of("two")), (one.clone(), two.clone()));
    assert_eq!(bench.home.component("one")["restarts"]["total"], 0);
    // Both are dead, and so is one of the containers, before the next daemon comes.
    bench.home.kill_daemon();
    bench.docker(&["kill", &bench.home.container("two")]);
    bench.home.run(["apply"]).expect_code(0);
    assert_eq!(bench.id_of("one"), one);
    let second = bench.wait_replaced("two", &two);
    assert_eq!(second["last_exit"]["signal"], "SIGKILL", "{second}");
    let label = format!("stigmer.project={}", bench.home.project_name());
    assert_eq!(lock(&bench.engine).with_label(&label).len(), 2);
}

#[test]
fn s41_s48_every_line_is_in_the_log_once_whatever_dies() {
    let Some(bench) = Bench::new() else { return };
    let count = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; \
                 [ $((i % 50)) = 0 ] && usleep 20000; done; echo the end; sleep 1000";
    bench.apply(&format!(
        "components:
  writer:
    container: {{ image: {IMAGE}, command: [sh, -c, '{count}'], stop_signal: KILL }}
"
    ));
    let lines = || {
        let log = bench.home.try_component("writer")?["log_file"].as_str()?.to_owned();
        std::fs::read_to_string(log).ok()
    };
    for _ in 0..5 {
        let before = lines().unwrap_or_default().len();
        bench.home.kill_engine();
        // On a busy machine it may have written all of them by now.
        let has_gone_on = |now: &String| now.len() > before || now.contains("the end\n");
        bench.home.wait_for("more lines", || lines().filter(has_gone_on));
    }
    let text = bench.home.wait_for("the end", || lines().filter(|text| text.contains("the end\n")));
    let numbers: Vec<u32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("line "))
        .map(|number| number.parse().unwrap())
        .collect();
    assert_eq!(numbers, (1..=3000).collect::<Vec<_>>());
}

#[test]
fn s2_probes_reach_into_the_container_and_to_where_it_listens() {
    let Some(bench) = Bench::new() else { return };
    let port = support::ports::free_port();
    let server = "mkdir -p /tmp/www; echo hello > /tmp/www/index.html; \
                  exec httpd -f -p 80 -h /tmp/www";
    bench.apply(&format!(
        "components:
  inside:
    container: {{ image: {IMAGE}, command: [sh, -c, \"{server}\"], stop_signal: KILL }}
    probes:
      startup: {{ tcp: 80, interval: 100ms }}
      liveness: {{ http: {{ port: 80 }}, interval: 100ms }}
      readiness: {{ exec: [test, -e, /tmp/www/index.html], interval: 100ms, success_threshold: 1 }}
  published:
    container:
      image: {IMAGE}
      command: [sh, -c, \"{server}\"]
      ports: [\"127.0.0.1:{}:80\"]
      stop_signal: KILL
    probes:
      startup: {{ http: {{ port: 80, body: hello }}, interval: 100ms }}
      readiness: {{ exec: 'exit 0', interval: 100ms, success_threshold: 1 }}
",
        port.number()
    ));
    assert_eq!(bench.home.component("published")["ports"], serde_json::json!([port.number()]));
    // The next daemon finds the way to it before it knocks.
    let before = bench.id_of("inside");
    let at = |found: &Value| found["probes"]["liveness"]["at"].clone();
    for _ in 0..3 {
        bench.home.kill_engine();
        let first = bench.home.wait_for("a daemon", || bench.home.try_component("inside"));
        let after = bench.home.wait_for("a turn of the probe", || {
            let found = bench.home.try_component("inside")?;
            let probe = &found["probes"]["liveness"];
            let is_news = at(&found) != at(&first);
            (is_news && (probe["result"] == "success" || found["state"] != "running"))
                .then_some(found)
        });
        assert_eq!(after["container_id"], *before, "{:#?}", bench.home.story("inside"));
        assert_eq!(after["restarts"]["total"], 0, "{:#?}", bench.home.story("inside"));
    }
    // A command of a probe that hangs is ended with everything that it has started.
    let project = bench.home.project_name();
    let hanging = format!("sleep 77{}", std::process::id());
    bench.manifest(&format!(
        "components:
  inside:
    container: {{ image: {IMAGE}, command: [sh, -c, \"{server}\"], stop_signal: KILL }}
    probes:
      readiness: {{ exec: 'sh -c \"{hanging}\"; true', interval: 1h, timeout: 300ms }}
"
    ));
    bench.home.run(["apply", "--no-wait"]).expect_code(0);
    bench.home.wait_for("the failure", || {
        let inside = bench.home.try_component("inside")?;
        let message = inside["probes"]["readiness"]["message"].as_str()?.to_owned();
        message.contains("no answer within").then_some(())
    });
    bench.home.wait_for("its end", || {
        let top = bench.docker(&["top", &format!("{project}.inside")]);
        (!top.contains(&hanging)).then_some(())
    });
}

#[test]
fn limits_change_in_place_and_anything_else_replaces_just_that_container() {
    let Some(bench) = Bench::new() else { return };
    let manifest = |memory: &str| {
        format!(
            "components:
  one:
    container:
      image: {IMAGE}
      command: [sh, -c, \"{WAITS}\"]
      mem_limit: {memory}
      environment: {{ WORD: '${{WORD:-a}}' }}
  two: {{ container: {{ image: {IMAGE}, command: [sh, -c, \"{WAITS}\"] }} }}
"
        )
    };
    bench.apply(&manifest("64m"));
    let (one, two) = (bench.id_of("one"), bench.id_of("two"));
    bench.apply(&manifest("128m"));
    assert_eq!((bench.id_of("one"), bench.id_of("two")), (one.clone(), two.clone()));
    bench.home.wait_for("the new limit", || {
        (bench.inspect("one", "{{.HostConfig.Memory}}")? == "134217728").then_some(())
    });
    // A variable of the command: the daemon, which watches the file, does not know of it before.
    let apply = |arguments: &[&str]| {
        let mut command = bench.home.command(["apply"].iter().chain(arguments));
        command.env("WORD", "b");
        bench.home.run_command(command).expect_code(0)
    };
    let plan = apply(&["--dry-run"]).stdout;
    assert!(plan.contains("container.environment"), "{plan}");
    apply(&[]);
    assert_ne!(bench.id_of("one"), one);
    assert_eq!(bench.id_of("two"), two);
    let env = bench.inspect("one", "{{json .Config.Env}}").unwrap();
    assert!(env.contains("WORD=b") && env.contains("STIGMER_COMPONENT=one"), "{env}");
}

#[test]
fn what_is_taken_out_is_removed_and_what_volumes_hold_stays_until_somebody_asks() {
    let Some(bench) = Bench::new() else { return };
    let image = lock(&bench.engine).variant("volume", &["VOLUME /image"]);
    let manifest = |second: &str| {
        format!(
            "volumes: {{ data: {{}} }}
components:
  keeper:
    container:
      image: {image}
      command: [sh, -c, \"echo $(date +%s%N) >> /named/log; echo x >> /image/log; {WAITS}\"]
      volumes: [\"data:/named\"]
{second}
"
        )
    };
    let second =
        format!("  second: {{ container: {{ image: {IMAGE}, command: [sh, -c, \"{WAITS}\"] }} }}");
    bench.apply(&manifest(&second));
    bench.apply(&manifest(""));
    assert_eq!(bench.inspect("second", "{{.Id}}"), None);
    // What the image itself wants a volume for outlives its container, too.
    let before = bench.id_of("keeper");
    bench.home.run(["restart", "keeper"]).expect_code(0);
    bench.wait_replaced("keeper", &before);
    let name = bench.home.container("keeper");
    let count = |file: &str| bench.docker(&["exec", &name, "sh", "-c", &format!("wc -l < {file}")]);
    bench.home.wait_for("its second run", || (count("/named/log") == "2").then_some(()));
    bench.home.wait_for("its second run", || (count("/image/log") == "2").then_some(()));
    bench.home.run(["down"]).expect_code(0);
    let project = bench.home.project_name();
    let volumes = || {
        let listed = bench.docker(&["volume", "ls", "--format", "{{.Name}}"]);
        listed.lines().filter(|name| name.starts_with(&project)).count()
    };
    assert_eq!(volumes(), 2);
    bench.apply(&manifest(""));
    bench.home.run(["down", "--volumes"]).expect_code(0);
    assert_eq!(volumes(), 0);
}

#[test]
fn a_project_that_was_going_down_is_gone_after_a_boot_with_its_containers_and_volumes() {
    let Some(bench) = Bench::new() else { return };
    bench.apply(&format!(
        "volumes: {{ data: {{}} }}
components:
  slow:
    container:
      image: {IMAGE}
      # The first process of a container ignores what it has no handler for.
      command: [sleep, '1000']
      volumes: [\"data:/data\"]
    stop: {{ timeout: 1h }}
"
    ));
    let home = &bench.home;
    home.run(["down", "--volumes", "--no-wait"]).expect_code(0);
    home.wait_told("slow", "stopping", 1);
    let (project, container) = (home.project_name(), home.container("slow"));
    home.kill_daemon();
    bench.docker(&["kill", &container]);
    let Some(daemon) = home.after_a_boot(&home.command(["daemon", "--detach"])) else { return };
    home.run_command(daemon).expect_code(0);
    let count = |what: &[&str]| {
        let listed = bench.docker(what);
        listed.lines().filter(|name| name.starts_with(&project)).count()
    };
    home.wait_for("the end of all of it", || {
        let containers = count(&["ps", "-a", "--format", "{{.Names}}"]);
        let volumes = count(&["volume", "ls", "--format", "{{.Name}}"]);
        (containers + volumes == 0).then_some(())
    });
    // The network goes last, and the project with it.
    home.wait_for("a daemon that knows no such project", || {
        (home.run(["status"]).code == Some(4)).then_some(())
    });
}

#[test]
fn an_image_is_built_from_a_context_and_its_failure_says_which_step() {
    let Some(bench) = Bench::new() else { return };
    std::fs::create_dir(bench.home.file("app")).unwrap();
    bench.home.write("app/word", "a word\n");
    bench.home.write("app/.dockerignore", "secret\n");
    bench.home.write("app/secret", "not for the image\n");
    let dockerfile = |steps: &str| {
        bench.home.write("app/Dockerfile", format!("FROM {IMAGE}\nARG WORD\n{steps}\n"));
    };
    dockerfile(
        "COPY . /app/\nRUN echo $WORD > /app/arg\nCMD cat /app/word /app/arg; ls /app; sleep 1000",
    );
    let manifest = "components:
  app:
    container: { build: { context: app, args: { WORD: of-the-args } }, stop_signal: KILL }
    probes: { readiness: { log: of-the-args, interval: 100ms, success_threshold: 1 } }
";
    bench.apply(manifest);
    let log = String::from_utf8(bench.home.log_of("app")).unwrap();
    assert!(log.contains("a word") && !log.contains("secret"), "{log}");
    let events = bench.home.run(["events"]).stdout;
    assert!(events.contains("building the image"), "{events}");
    let image = format!("{}-app", bench.home.project_name());
    let first = lock(&bench.engine).inspect(&image, "{{.Id}}").unwrap();
    // The image is there, and is of another recipe than what is declared now.
    bench.apply(&manifest.replace("of-the-args", "of-other-args"));
    // Of the same again, it is used as it is.
    let built = || lock(&bench.engine).inspect(&image, "{{.Created}} {{.Id}}");
    let before = built();
    bench.home.run(["restart", "app"]).expect_code(0);
    assert_eq!(built(), before);
    bench.home.run(["down"]).expect_code(0);
    bench.docker(&["rmi", "-f", &image, &first]);
    dockerfile("RUN echo before; exit 7");
    bench.manifest(manifest);
    bench.home.run(["apply", "--no-wait"]).expect_code(0);
    let app = bench.home.wait_for("the failure", || {
        bench.home.try_component("app").filter(|app| !app["last_error"].is_null())
    });
    let message = app["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("cannot be built") && message.contains("exit 7"), "{message}");
    assert!(message.contains("before"), "{message}");
}

#[test]
fn s56_containers_and_processes_wait_for_each_other_and_find_each_other_by_name() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.home.trouble(&["--report", "report"]);
    bench.apply(&format!(
        "components:
  server:
    container:
      image: {IMAGE}
      command: [sh, -c, \"mkdir -p /tmp/w; echo hi > /tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w\"]
      stop_signal: KILL
    probes: {{ readiness: {{ tcp: 80, interval: 100ms, success_threshold: 1 }} }}
  client:
    container:
      image: {IMAGE}
      command: [sh, -c, \"wget -q -O - http://server/; {WAITS}\"]
    depends_on: {{ server: ready }}
    probes: {{ readiness: {{ log: ^hi$, interval: 100ms, success_threshold: 1 }} }}
  process:
    command: {client}
    depends_on: {{ client: ready }}
"
    ));
    assert_eq!(bench.home.component("process")["state"], "running");
    let stops = bench.home.run(["down"]).expect_code(0);
    drop(stops);
}

#[test]
fn s39_secrets_reach_the_container_and_are_in_no_file_and_no_answer() {
    let Some(bench) = Bench::new() else { return };
    let value = "hunter2-of-the-container";
    bench.home.write("password", format!("{value}\n"));
    bench.apply(&format!(
        "components:
  app:
    container:
      image: {IMAGE}
      command: [sh, -c, \"test $WORD = {} && {WAITS}\"]
      environment: {{ WORD: {{ secret: {{ file: password }} }} }}
",
        "$(printf hunter2-of-the-; printf container)"
    ));
    assert_eq!(bench.home.component("app")["state"], "running");
    for arguments in [&["status", "-o", "json"][..], &["status", "app"], &["config", "--applied"]] {
        let output = bench.home.run(arguments).expect_code(0);
        assert!(!output.stdout.contains(value), "{arguments:?}");
    }
    let state = std::fs::read(bench.home.home().join("state.db")).unwrap();
    assert!(!state.windows(value.len()).any(|window| window == value.as_bytes()));
}

#[test]
fn a_hundred_containers_come_and_go() {
    let Some(bench) = Bench::new() else { return };
    // Asked to end at once, they take up to a second: where a hundred end in the same instant, Docker 20.10
    // may lock itself up for good (each of its goroutines waits for a lock of libnetwork), and answers nobody
    // any more.
    let waits = WAITS.replace("exit 0", "sleep 0.$((RANDOM % 10)); exit 0");
    bench.manifest(&format!(
        "components:
  many:
    replicas: 100
    container: {{ image: {IMAGE}, command: [sh, -c, \"{waits}\"], network_mode: none }}
"
    ));
    bench.home.run(["apply", "--timeout", "5m"]).expect_code(0);
    let label = format!("stigmer.project={}", bench.home.project_name());
    assert_eq!(lock(&bench.engine).with_label(&label).len(), 100);
    bench.home.run(["down", "--timeout", "5m"]).expect_code(0);
    assert_eq!(lock(&bench.engine).with_label(&label).len(), 0);
}

/// The engine behind TLS, if it is one with a socket of its own; the port.
fn behind_tls(bench: &Bench) -> Option<u16> {
    let host = lock(&bench.engine).host().map(str::to_owned);
    let socket = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    Some(tls_front::start(socket.strip_prefix("unix://")?.into()))
}

/// The first command, which starts the daemon: it finds its engine in this environment.
fn apply_by_tls(home: &TestHome, port: u16, certificates: &str) -> support::command::Output {
    let mut command = home.command(["apply", "--timeout", "30s"]);
    command
        .env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}"))
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", home.file(certificates));
    home.run_command(command)
}

#[test]
fn an_engine_behind_tls_is_used_with_the_certificates_of_its_clients() {
    let Some(bench) = Bench::new() else { return };
    let Some(port) = behind_tls(&bench) else { return };
    bench.home.folder("certificates");
    for (name, pem) in tls_front::CLIENT {
        bench.home.write(format!("certificates/{name}"), pem);
    }
    bench.manifest(&web(""));
    apply_by_tls(&bench.home, port, "certificates").expect_code(0);
    // Events, one after the other, come by the same way.
    let first = bench.id_of("web");
    bench.docker(&["kill", &first]);
    bench.wait_replaced("web", &first);
    // And so does a connection that becomes a stream of two halves.
    let said = bench.home.run(["exec", "web", "--", "echo", "from inside"]);
    assert_eq!(said.expect_code(0).stdout, "from inside\n");
}

#[test]
fn certificates_that_cannot_be_used_are_named_until_they_can() {
    let Some(bench) = Bench::new() else { return };
    let Some(port) = behind_tls(&bench) else { return };
    bench.manifest(&web(""));
    let folder = bench.home.folder("certificates");
    apply_by_tls(&bench.home, port, "certificates").expect_code(3);
    let names = |file: &str, why: &str| {
        let place = format!("certificates cannot be used: {}: {why}", folder.join(file).display());
        bench.home.wait_for("the file's name", || {
            let shown = bench.home.run(["status", "web"]).stdout;
            (shown.contains(&place) && shown.contains("DOCKER_CERT_PATH")).then_some(())
        });
    };
    names("ca.pem", "No such file");
    for (name, pem) in tls_front::CLIENT {
        let pem = if name == "key.pem" { "nonsense" } else { pem };
        bench.home.write(format!("certificates/{name}"), pem);
    }
    names("key.pem", "");
    for (name, pem) in tls_front::CLIENT {
        bench.home.write(format!("certificates/{name}"), pem);
    }
    bench.home.wait_for("the container", || {
        bench.home.try_component("web").filter(|web| web["state"] == "running")
    });
}
