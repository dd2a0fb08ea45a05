//! Who starts and ends before whom: dependencies, one-shots, external components, replicas, profiles.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use jiff::Timestamp;
use serde_json::Value;

use support::births::Births;
use support::home::TestHome;
use support::ports::free_port;

/// When the first event of this kind was told.
#[track_caller]
fn first(home: &TestHome, name: &str, kind: &str) -> Timestamp {
    home.wait_told(name, kind, 1)[0].at
}

#[test]
fn s56_each_condition_holds_its_dependent_until_it_is_met() {
    let home = TestHome::new();
    let readiness = "{ file: is-ready, interval: 30ms, success_threshold: 1 }";
    home.manifest(&format!(
        "
components:
  base:
    command: [sleep, infinity]
    probes:
      startup: {{ file: is-started, interval: 30ms, failure_threshold: 1000000 }}
      liveness: {{ file: is-alive, interval: 30ms, failure_threshold: 1000000 }}
      readiness: {readiness}
  job:
    command: \"until [ -e is-done ]; do sleep 0.02; done\"
    oneshot: true
  on-started: {{ command: [sleep, infinity], depends_on: {{ base: started }} }}
  on-healthy: {{ command: [sleep, infinity], depends_on: {{ base: healthy }} }}
  on-ready: {{ command: [sleep, infinity], depends_on: {{ base: ready }} }}
  on-completed: {{ command: [sleep, infinity], depends_on: {{ job: completed }} }}
  on-both: {{ command: [sleep, infinity], depends_on: {{ base: ready, job: completed }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    for (name, waiting_for) in [
        ("on-started", "base (started)"),
        ("on-healthy", "base (healthy)"),
        ("on-ready", "base (ready)"),
        ("on-completed", "job (completed)"),
    ] {
        let waiting = home.wait_state(name, "starting");
        assert_eq!(waiting["waiting_for"], serde_json::json!([waiting_for]), "{waiting}");
        assert_eq!(waiting["pid"], Value::Null, "{waiting}");
    }

    let is_waiting = |name: &str| home.component(name)["waiting_for"] != serde_json::json!([]);
    home.write("is-started", "");
    home.wait_ready("on-started");
    assert!(is_waiting("on-healthy") && is_waiting("on-ready"));
    home.write("is-alive", "");
    home.wait_ready("on-healthy");
    assert!(is_waiting("on-ready") && is_waiting("on-completed"));
    home.write("is-ready", "");
    home.wait_ready("on-ready");
    assert!(is_waiting("on-both"));
    home.write("is-done", "");
    home.wait_ready("on-completed");
    home.wait_ready("on-both");
    assert_eq!(home.component("job")["reason"], "completed");
    home.run(["status"]).expect_code(0);
}

#[test]
fn s56_stops_go_in_reverse_order_and_starts_in_order() {
    let home = TestHome::new();
    let slow = home.trouble(&["--on-term", "exit", "--term-takes", "100ms"]);
    home.apply(&format!(
        "
components:
  one: {{ command: {slow} }}
  two: {{ command: {slow}, depends_on: [one] }}
  three: {{ command: {slow}, depends_on: {{ two: ready }} }}
"
    ));
    assert!(first(&home, "one", "started") <= first(&home, "two", "launched"));
    assert!(first(&home, "two", "started") <= first(&home, "three", "launched"));
    home.run(["stop"]).expect_code(0);
    assert!(first(&home, "three", "exited") <= first(&home, "two", "stopping"));
    assert!(first(&home, "two", "exited") <= first(&home, "one", "stopping"));
    for name in ["one", "two", "three"] {
        assert_eq!(home.component(name)["state"], "stopped");
    }
    // Started again in order, whatever the order of the names.
    home.run(["start", "three", "two", "one"]).expect_code(0);
    let again = |name: &str, kind: &str| home.wait_told(name, kind, 2)[1].at;
    assert!(again("one", "started") <= again("two", "launched"));
    assert!(again("two", "started") <= again("three", "launched"));
    // The same order at the end of it all.
    home.run(["down"]).expect_code(0);
}

#[test]
fn s56_a_dependent_is_not_restarted_when_its_dependency_crashes() {
    let home = TestHome::new();
    let command = |births: &str| home.trouble(&["--births", births]);
    let (db, api) = (command("births-db"), command("births-api"));
    home.apply(&format!(
        "
components:
  db: {{ command: {db}, restart: {{ backoff: {{ initial: 50ms }} }} }}
  api: {{ command: {api}, depends_on: {{ db: ready }} }}
"
    ));
    let before = home.pid_of("db");
    home.kill(before);
    home.wait_replaced("db", before);
    home.wait_born("births-api", 1);
}

#[test]
fn s56_a_migration_runs_once_before_the_service_and_not_again_with_an_unchanged_apply() {
    let home = TestHome::new();
    let manifest = "
components:
  migrate:
    command: echo migrated >> migrations
    oneshot: true
  api:
    command: [sleep, infinity]
    depends_on: { migrate: completed }
";
    home.apply(manifest);
    let migrate = home.component("migrate");
    assert_eq!((&migrate["state"], &migrate["reason"]), (&"stopped".into(), &"completed".into()));
    assert_eq!(migrate["last_exit"]["code"], 0, "{migrate}");
    assert!(first(&home, "migrate", "exited") <= first(&home, "api", "launched"));
    home.apply(manifest);
    home.run(["restart", "api"]).expect_code(0);
    assert_eq!(fs::read_to_string(home.file("migrations")).unwrap(), "migrated\n");
    // A one-shot that is done is as it should be.
    home.run(["status"]).expect_code(0);
    // By name, it runs once more.
    home.run(["start", "migrate"]).expect_code(0);
    assert_eq!(fs::read_to_string(home.file("migrations")).unwrap(), "migrated\nmigrated\n");
}

#[test]
fn s56_a_failing_migration_holds_what_depends_on_it_and_why_says_so() {
    let home = TestHome::new();
    let manifest = |command: &str| {
        format!(
            "
components:
  migrate:
    command: {command}
    oneshot: true
    restart: {{ max_restarts: 1, backoff: {{ initial: 20ms }} }}
  api: {{ command: [sleep, infinity], depends_on: {{ migrate: completed }} }}
  web: {{ command: [sleep, infinity], depends_on: {{ api: ready }} }}
"
        )
    };
    home.manifest(&manifest("\"echo 'no such table' >&2; exit 9\""));
    let output = home.run(["apply"]).expect_code(3);
    let said = output.stdout + &output.stderr;
    assert!(said.contains("no such table"), "the last lines of its log: {said}");
    home.wait_state("migrate", "failed");
    let api = home.component("api");
    assert_eq!(api["state"], "starting", "{api}");
    assert_eq!(api["waiting_for"], serde_json::json!(["migrate (completed)"]), "{api}");
    assert_eq!(api["pid"], Value::Null, "{api}");

    let why = home.run(["why", "web"]).expect_code(3).stdout;
    for part in ["api", "migrate", "exit 9"] {
        assert!(why.contains(part), "no {part:?} in\n{why}");
    }
    home.run(["status"]).expect_code(3);

    home.apply(&manifest("\"true\""));
    home.wait_ready("web");
}

#[test]
fn s57_an_external_component_is_probed_and_shown_and_never_started_or_stopped() {
    let home = TestHome::new();
    let port = free_port();
    let api = home.trouble(&["--births", "births"]);
    home.manifest(&format!(
        "
components:
  database:
    external: true
    probes:
      liveness: {{ tcp: {{ port: {port} }}, interval: 50ms, failure_threshold: 2 }}
      readiness: {{ tcp: {{ port: {port} }}, interval: 50ms, failure_threshold: 2, success_threshold: 1 }}
  api: {{ command: {api}, depends_on: {{ database: healthy }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    let database = home.wait_state("database", "unhealthy");
    assert_eq!(database["kind"], "external", "{database}");
    assert_eq!(database["pid"], Value::Null, "{database}");
    assert_eq!(database["ready"], false, "{database}");
    assert_eq!(Births::read(&home.file("births")).born.len(), 0, "held back");

    // Somebody else starts it.
    let listen = |home: &TestHome| {
        let mut command = std::process::Command::new(home.example("troublemaker"));
        command.args(["--tcp", &port.to_string(), "--say-ready", "open"]);
        let running = support::command::Running::start(command);
        running.line_with("open");
        running
    };
    let up = listen(&home);
    home.wait_ready("database");
    home.wait_ready("api");

    // It goes down: seen, not restarted, and what depends on it goes on.
    drop(up);
    let database = home.wait_state("database", "unhealthy");
    assert_eq!(database["restarts"]["total"], 0, "{database}");
    assert_eq!(home.told("database", "restarting").len(), 0);
    assert_eq!(home.component("api")["state"], "running");
    let up = listen(&home);
    home.wait_ready("database");

    // Neither a stop nor a restart nor the end of it all touches it.
    home.run(["restart", "database"]).expect_code(0);
    home.run(["stop", "database"]).expect_code(0);
    home.run(["start", "database"]).expect_code(0);
    home.wait_ready("database");
    home.run(["down"]).expect_code(0);
    assert!(support::processes::Process::open(up.pid()).is_some());
    home.wait_born("births", 1);
}

/// A replica is ready half a second after its birth.
fn replicas(home: &TestHome, count: u32, word: &str) -> String {
    let troublemaker = home.example("troublemaker");
    let troublemaker = troublemaker.display();
    format!(
        "
components:
  worker:
    command: 'exec {troublemaker} --births births-$STIGMER_REPLICA --ready-after 300ms --say-ready {word}'
    replicas: {count}
    probes:
      readiness: {{ log: {word}, interval: 30ms, success_threshold: 1 }}
"
    )
}

#[test]
fn replicas_have_names_numbers_and_logs_of_their_own() {
    let home = TestHome::new();
    home.apply(&replicas(&home, 3, "here"));
    let mut pids = Vec::new();
    for replica in 0..3 {
        let name = format!("worker.{replica}");
        let worker = home.wait_ready(&name);
        assert_eq!(worker["replica"], replica, "{worker}");
        pids.push(home.pid_of(&name));
        let births = home.wait_born(&format!("births-{replica}"), 1);
        assert_eq!(births.iter().map(|birth| birth.pid).collect::<Vec<_>>(), [pids[replica]]);
        assert_eq!(home.log_of(&name), b"here\n");
    }
    // One of them is meant by its own name.
    home.run(["restart", "worker.2"]).expect_code(0);
    assert_eq!([home.pid_of("worker.0"), home.pid_of("worker.1")], pids[..2]);
    assert_ne!(home.pid_of("worker.2"), pids[2]);
    home.run(["stop", "worker.1"]).expect_code(0);
    assert_eq!(home.component("worker.1")["state"], "stopped");
    assert_eq!(home.component("worker.0")["state"], "running");
}

#[test]
fn s9_replicas_are_replaced_one_at_a_time_with_never_fewer_than_all_but_one_ready() {
    let home = TestHome::new();
    home.apply(&replicas(&home, 3, "here"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut fewest, mut looks) = (3, 0);
            while !over.load(Ordering::Relaxed) {
                let status = home.status_json();
                let workers = status["components"].as_array().unwrap().clone();
                let ready = workers.iter().filter(|worker| worker["ready"] == true).count();
                fewest = fewest.min(ready);
                looks += 1;
            }
            (fewest, looks)
        });
        home.apply(&replicas(&home, 3, "again"));
        over.store(true, Ordering::Relaxed);
        let (fewest, looks) = watcher.join().unwrap();
        assert!(fewest >= 2, "only {fewest} were ready in one of {looks} looks");
    });
    for replica in 0..3 {
        home.wait_born(&format!("births-{replica}"), 2);
        assert!(home.log_of(&format!("worker.{replica}")).ends_with(b"again\n"));
    }
    // Told in order, too: nobody is stopped before everybody else is ready.
    let mut ready = [true; 3];
    let mut rolled = 0;
    for event in home.events() {
        let Some(replica) = event["replica"].as_u64().and_then(|n| usize::try_from(n).ok()) else {
            continue;
        };
        match event["kind"].as_str().unwrap() {
            "stopping" => {
                assert_eq!(ready, [true; 3], "{event}");
                ready[replica] = false;
                rolled += 1;
            }
            "ready" => ready[replica] = true,
            _ => {}
        }
    }
    assert_eq!(rolled, 3);
}

#[test]
fn profiles_decide_what_is_there() {
    let home = TestHome::new();
    home.manifest(
        "
components:
  always: { command: [sleep, infinity] }
  debugger: { command: [sleep, infinity], profiles: [debug] }
  tracer: { command: [sleep, infinity], profiles: [debug, trace] }
",
    );
    let names = || -> Vec<String> {
        let status = home.status_json();
        let components = status["components"].as_array().unwrap().clone();
        components.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    home.run(["apply"]).expect_code(0);
    assert_eq!(names(), ["always"]);
    let before = home.pid_of("always");
    home.run(["apply", "--profile", "trace"]).expect_code(0);
    assert_eq!(names(), ["always", "tracer"]);
    // A reload keeps to the profiles of the apply.
    home.run(["reload"]).expect_code(0);
    assert_eq!(names(), ["always", "tracer"]);
    home.run(["apply", "--profile", "debug"]).expect_code(0);
    assert_eq!(names(), ["always", "debugger", "tracer"]);
    home.run(["apply"]).expect_code(0);
    home.wait_for("the others to be gone", || (names() == ["always"]).then_some(()));
    assert_eq!(home.pid_of("always"), before);
}

#[test]
fn a_one_shot_that_is_done_runs_again_only_by_its_name() {
    let home = TestHome::new();
    home.apply(
        "
components:
  job: { command: \"echo ran >>runs\", oneshot: true }
  web: { command: [sleep, infinity] }
",
    );
    let runs = || fs::read_to_string(home.file("runs")).map_or(0, |text| text.lines().count());
    assert_eq!(runs(), 1);
    home.run(["stop", "web"]).expect_code(0);
    home.run(["start"]).expect_code(0);
    home.wait_state("web", "running");
    home.run(["apply"]).expect_code(0);
    assert_eq!(runs(), 1, "what is done is left alone");
    home.run(["start", "job"]).expect_code(0);
    assert_eq!(runs(), 2);
}

/// They are told to end a hundred at a time.
#[test]
fn s56_the_order_of_stopping_holds_also_among_many() {
    let home = TestHome::new();
    let slow = home.trouble(&["--on-term", "exit", "--term-takes", "300ms"]);
    let mut yaml = String::from("components:\n  a: { command: [sleep, infinity] }\n");
    for number in 0..150 {
        yaml += "  f";
        yaml += &number.to_string();
        yaml += ": { command: [sleep, infinity] }\n";
    }
    home.apply(&format!("{yaml}  z: {{ command: {slow}, depends_on: [a] }}\n"));
    home.run(["stop"]).expect_code(0);
    assert!(first(&home, "z", "exited") <= first(&home, "a", "stopping"));
    home.run(["start"]).expect_code(0);
    home.run(["down"]).expect_code(0);
}
