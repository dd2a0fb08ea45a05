//! The example `examples/stigmer-stack`, with its stand-ins: it comes up in order, each of its parts is
//! killed, hung and stopped behind the daemon's back, and nothing of it is left when it goes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use support::command::Output;
use support::containers::{Engine, IMAGE};
use support::home::{TestHome, lock};
use support::look::signal;
use support::ports::{Port, free_port};

/// What the repository holds of the example. What somebody keeps beside it is not for a test.
const FILES: [&str; 5] = [
    "stigmer.yaml",
    "stack.env",
    "agent/Dockerfile",
    "agent/agent-runner.sh",
    "secrets/api-key.example",
];

/// The stand-ins that are processes, and what makes each hang.
const PROCESSES: [(&str, Signal); 4] = [
    ("demo-ollama", Signal::STOP),
    ("demo-temporal", Signal::STOP),
    // Its port still takes connections then: only the health service tells.
    ("demo-stigmer-server", Signal::USR2),
    // It listens on nothing: only the file that it touches tells.
    ("demo-workflow-runner", Signal::USR2),
];

const AGENT: &str = "demo-agent-runner";

/// A copy of the example with ports of this test's own.
struct Stack {
    home: TestHome,
    server: Port,
    temporal: Port,
    temporal_ui: Port,
    ollama: Port,
}

impl Stack {
    fn in_home(home: TestHome) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/stigmer-stack");
        for folder in ["agent", "secrets", "data"] {
            fs::create_dir(home.file(folder)).unwrap();
            home.user().into_iter().for_each(|user| user.own(&home.file(folder)));
        }
        for file in FILES {
            home.write(file, fs::read(example.join(file)).unwrap());
        }
        let (server, temporal, temporal_ui, ollama) =
            (free_port(), free_port(), free_port(), free_port());
        Self { home, server, temporal, temporal_ui, ollama }
    }

    /// A command about the project of this test; its agent is built upon `base`.
    fn command(&self, arguments: &[&str], base: &str) -> Command {
        let project = self.home.project_name();
        let mut command = self.home.command([arguments, &["-p", &project]].concat());
        command
            .env("STIGMER_EXAMPLES", self.home.example("web").parent().unwrap())
            .env("STIGMER_SERVER_PORT", self.server.to_string())
            .env("TEMPORAL_PORT", self.temporal.to_string())
            .env("TEMPORAL_UI_PORT", self.temporal_ui.to_string())
            .env("OLLAMA_PORT", self.ollama.to_string())
            .env("AGENT_BASE", base)
            .envs([("PROBE_INTERVAL", "200ms"), ("PROBE_TIMEOUT", "1s"), ("STOP_TIMEOUT", "1s")])
            .env("RUNNER_MIN_UPTIME", "500ms");
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        self.home.run_command(self.command(arguments, IMAGE)).expect_code(0)
    }

    #[track_caller]
    fn apply_upon(&self, base: &str) -> Output {
        let apply = self.command(&["apply", "--profile", "demo"], base);
        self.home.run_command(apply).expect_code(0)
    }

    /// Nothing is declared any more.
    #[track_caller]
    fn assert_gone(&self) {
        let left = self.home.try_status_json();
        let left =
            left.map_or_else(Vec::new, |status| status["components"].as_array().cloned().unwrap());
        assert!(left.is_empty(), "{left:?}");
    }

    /// When the first event of this kind was told.
    #[track_caller]
    fn first(&self, name: &str, kind: &str) -> Timestamp {
        self.home.wait_told(name, kind, 1)[0].at
    }

    /// Waits until another process or container has come in the place of `before`, and is well.
    #[track_caller]
    fn wait_recovered(&self, name: &str, before: &Value) -> Value {
        self.home.wait_for(&format!("{name} to be well again"), || {
            self.home.try_component(name).filter(|now| {
                now["state"] == "running"
                    && now["ready"] == true
                    && (&now["pid"], &now["container_id"])
                        != (&before["pid"], &before["container_id"])
            })
        })
    }

    /// Makes trouble for a part of the stack, and waits until it has recovered. Gives how it is then.
    #[track_caller]
    fn trouble(&self, name: &str, make: impl FnOnce(&Value)) -> Value {
        let before = self.home.wait_ready(name);
        make(&before);
        let after = self.wait_recovered(name, &before);
        // The next trouble is not to wait longer for this one.
        self.run(&["reset", name]);
        after
    }
}

fn pid(component: &Value) -> u32 {
    component["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap()
}

/// One line of a table, with single spaces.
#[track_caller]
fn row(table: &str, name: &str) -> String {
    let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
    let row = row.unwrap_or_else(|| panic!("no {name} in {table}"));
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_demo_comes_up_in_order_and_each_part_of_it_recovers_from_whatever_befalls_it() {
    let Some(engine) = Engine::shared() else { return };
    let engine = Arc::new(Mutex::new(engine));
    let stack = &Stack::in_home(TestHome::with_engine(&engine));
    let home = &stack.home;
    let project = home.project_name();
    let docker = |arguments: &[&str]| lock(&engine).docker(arguments.iter().copied());

    let applied = stack.apply_upon(IMAGE);
    assert_eq!(applied.stderr.matches("warning").count(), 0, "{applied:?}");
    for (name, needs) in [
        ("demo-stigmer-server", &["demo-temporal"][..]),
        ("demo-workflow-runner", &["demo-temporal", "demo-stigmer-server"]),
        (AGENT, &["demo-ollama", "demo-stigmer-server"]),
    ] {
        for needed in needs {
            let (ready, launched) = (stack.first(needed, "ready"), stack.first(name, "launched"));
            assert!(ready <= launched, "{name} did not wait for {needed}");
        }
    }

    // The whole table, and what the manifest tells about the stack.
    let table = stack.run(&["status"]).stdout;
    for (name, _) in PROCESSES {
        let pid = home.pid_of(name);
        assert!(row(&table, name).starts_with(&format!("✓ {name} running yes {pid} ")), "{table}");
    }
    let id = home.component(AGENT)["container_id"].as_str().unwrap()[..12].to_owned();
    assert!(row(&table, AGENT).starts_with(&format!("✓ {AGENT} running yes c:{id} ")), "{table}");
    let told = format!(
        "
5 components: 5 running

  Server:      127.0.0.1:{}
  Data folder: data
  LLM:         ollama, model qwen2.5-coder:7b
  Temporal UI: http://127.0.0.1:{}/
",
        stack.server, stack.temporal_ui
    );
    assert!(table.ends_with(&told), "{table}");
    let json = home.only_project();
    assert_eq!(json["info"]["LLM"], "ollama, model qwen2.5-coder:7b", "{json}");

    // It works: the runner does steps by the server, the agent asks the LLM, with keys that were not shown.
    let agent_said = home.wait_for("the agent to reach the LLM", || {
        let log = String::from_utf8_lossy(&home.log_of(AGENT)).into_owned();
        log.contains("the LLM has {\"models\"").then_some(log)
    });
    let key = fs::read_to_string(home.file("secrets/api-key.example")).unwrap();
    let length = key.trim_end().len();
    assert!(agent_said.contains(&format!("a key of {length} characters")), "{agent_said}");
    home.wait_for("a step of the runner", || {
        String::from_utf8_lossy(&home.log_of("demo-workflow-runner"))
            .contains("step 1 done")
            .then_some(())
    });

    // One trouble after the other for each part; the parts meet theirs at the same time, and no trouble of
    // one is another's.
    thread::scope(|scope| {
        for (name, hang) in PROCESSES {
            scope.spawn(move || {
                let killed = stack.trouble(name, |now| home.kill(pid(now)));
                assert_eq!(killed["last_exit"]["signal"], "SIGKILL", "{killed}");
                let hung = stack.trouble(name, |now| signal(pid(now), hang));
                let reason = hung["restarts"]["last_reason"].as_str().unwrap();
                assert!(reason.starts_with("liveness: "), "{hung}");
                let stopped = stack.trouble(name, |now| signal(pid(now), Signal::TERM));
                assert_eq!(stopped["last_exit"]["code"], 0, "{stopped}");
                assert_eq!(stopped["restarts"]["total"], 3, "{stopped}");
            });
        }
        scope.spawn(|| {
            let container = home.container(AGENT);
            let killed = stack.trouble(AGENT, |_| drop(docker(&["kill", &container])));
            assert_eq!(killed["last_exit"]["signal"], "SIGKILL", "{killed}");
            let hung = stack.trouble(AGENT, |_| drop(docker(&["pause", &container])));
            let reason = hung["restarts"]["last_reason"].as_str().unwrap();
            assert!(reason.contains("the container is paused"), "{hung}");
            let stopped = stack.trouble(AGENT, |_| drop(docker(&["stop", &container])));
            assert_eq!(stopped["last_exit"]["code"], 0, "{stopped}");
            assert_eq!(stopped["restarts"]["total"], 3, "{stopped}");
        });
    });

    let table = stack.run(&["status"]).stdout;
    assert!(table.contains("5 components: 5 running"), "{table}");
    assert!(row(&table, "demo-ollama").contains(" ago) "), "it was restarted: {table}");

    // Its volumes have outlived its containers, and outlive a plain `down`.
    let volumes = || {
        let listed = docker(&["volume", "ls", "--format", "{{.Name}}"]);
        let mut ours: Vec<String> =
            listed.lines().filter(|name| name.starts_with(&project)).map(str::to_owned).collect();
        ours.sort();
        ours
    };
    let kept = [format!("{project}_agent-logs"), format!("{project}_workspace")];
    let label = format!("stigmer.project={project}");
    let pids = PROCESSES.map(|(name, _)| home.pid_of(name));
    stack.run(&["down"]);
    assert_eq!(lock(&engine).with_label(&label), Vec::<String>::new());
    assert_eq!(volumes(), kept);
    for pid in pids {
        assert!(support::processes::Process::open(pid).is_none(), "process {pid} is left");
    }
    stack.assert_gone();

    // An agent that cannot work is a warning; nothing fails, and everything else runs.
    let broken = lock(&engine).variant("refuses", &["ENTRYPOINT [\"/bin/false\"]"]);
    let image = format!("{project}-{AGENT}");
    let first = lock(&engine).inspect(&image, "{{.Id}}").unwrap();
    let applied = stack.apply_upon(&broken);
    let warning = format!("warning: optional: {AGENT} is restarting: ");
    assert!(applied.stderr.starts_with(&warning), "{applied:?}");
    assert!(applied.stderr.contains("exit 1"), "{applied:?}");
    let table = stack.run(&["status"]).stdout;
    assert!(row(&table, AGENT).starts_with("↻ "), "{table}");
    for (name, _) in PROCESSES {
        assert_eq!(home.component(name)["ready"], true, "{table}");
    }

    stack.run(&["down", "--volumes"]);
    assert_eq!(lock(&engine).with_label(&label), Vec::<String>::new());
    assert_eq!(volumes(), Vec::<String>::new());
    docker(&["rmi", "-f", &image, &first]);
}

#[test]
fn without_an_engine_the_demo_works_but_for_the_agent() {
    let stack = Stack::in_home(TestHome::new());
    let mut apply = stack.command(&["apply", "--profile", "demo"], IMAGE);
    let nowhere = format!("unix://{}", stack.home.root().join("nowhere.sock").display());
    apply.env("DOCKER_HOST", nowhere);
    let applied = stack.home.run_command(apply).expect_code(0);
    let warning = format!("warning: optional: {AGENT} is restarting: ");
    assert!(applied.stderr.starts_with(&warning), "{applied:?}");
    assert!(applied.stderr.contains("nowhere.sock"), "{applied:?}");
    let table = stack.run(&["status"]).stdout;
    assert!(table.contains("5 components: 4 running, 1 restarting"), "{table}");
    stack.run(&["down"]);
    stack.assert_gone();
}
