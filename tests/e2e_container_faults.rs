//! The container engine absent, killed, frozen, or losing an answer: S35 and faults 50 to 54.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;

use support::containers::{Engine, IMAGE};
use support::home::{TestHome, lock};

const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/// A container and a process, with probes that tell quickly.
fn manifest(home: &TestHome) {
    home.manifest(&text(home));
}

fn text(home: &TestHome) -> String {
    let project = home.project_name();
    format!(
        "project: {project}
components:
  box:
    container: {{ image: {IMAGE}, command: [sh, -c, \"{WAITS}\"], network_mode: none }}
    probes:
      liveness: {{ container: {{}}, interval: 200ms, timeout: 2s, failure_threshold: 1 }}
    restart: {{ backoff: {{ initial: 50ms }} }}
    stop: {{ timeout: 2s }}
  program: {{ command: [sleep, infinity] }}
  clock: {{ command: [sleep, \"3\"], restart: {{ policy: on-failure }} }}
"
    )
}

/// Waits until a program that takes longer than anything in the manifest has run to its end.
fn pass_time(home: &TestHome) {
    home.run(["restart", "clock", "--no-wait"]).expect_code(0);
    home.wait_for("the clock", || {
        let clock = home.component("clock");
        (clock["state"] == "running").then_some(())
    });
    home.wait_for("the end of the clock", || {
        let clock = home.component("clock");
        (clock["state"] == "stopped").then_some(())
    });
}

fn bench() -> Option<(Arc<Mutex<Engine>>, TestHome)> {
    let engine = Arc::new(Mutex::new(Engine::private()?));
    let home = TestHome::with_engine(&engine);
    manifest(&home);
    Some((engine, home))
}

#[track_caller]
fn wait_box(home: &TestHome, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    home.wait_for(what, || home.try_component("box").filter(|found| is_it(found)))
}

fn is_up(found: &Value) -> bool {
    found["state"] == "running" && found["unknown"].is_null() && found["ready"] == true
}

fn containers(engine: &Mutex<Engine>, home: &TestHome) -> Vec<String> {
    lock(engine).with_label(&format!("stigmer.project={}", home.project_name()))
}

#[test]
fn s35_without_an_engine_the_component_says_so_and_heals_when_there_is_one() {
    let Some((engine, home)) = bench() else { return };
    lock(&engine).stop();
    home.run(["apply", "--timeout", "30s"]).expect_code(3);
    // Others are as if nothing was the matter.
    assert_eq!(home.component("program")["state"], "running");
    let waiting = home.component("box");
    assert_eq!(waiting["state"], "restarting", "{waiting}");
    let message = waiting["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("docker.sock"), "{message}");
    assert!(message.contains("cannot be reached"), "{message}");
    assert_eq!(
        waiting["restarts"]["in_window"], 0,
        "an absent engine is no fault of the component's"
    );
    lock(&engine).start_again();
    wait_box(&home, "the container", is_up);
    assert_eq!(containers(&engine, &home).len(), 1);
}

#[test]
fn fault_50_an_engine_that_is_restarted_is_reconciled_by_identity() {
    let Some((engine, home)) = bench() else { return };
    home.run(["apply"]).expect_code(0);
    let before = home.component("box");
    let program = home.pid_of("program");
    // In order: it ends its containers, and knows how.
    lock(&engine).stop();
    let doubtful = wait_box(&home, "doubt", |found| {
        !found["unknown"].is_null() || found["state"] != "running"
    });
    assert_ne!(doubtful["ready"], true, "nobody can vouch for it: {doubtful}");
    lock(&engine).start_again();
    let after = wait_box(&home, "another container", |found| {
        is_up(found) && found["container_id"] != before["container_id"]
    });
    assert_eq!(after["last_exit"]["code"], 0, "{after}");
    assert_eq!(home.pid_of("program"), program);
    // Killed: what it had started may live on, and is not doubled.
    lock(&engine).kill();
    wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    lock(&engine).start_again();
    let after = wait_box(&home, "certainty", is_up);
    assert_eq!(containers(&engine, &home), [after["container_id"].as_str().unwrap()]);
    assert_eq!(home.pid_of("program"), program);
}

#[test]
fn fault_51_an_engine_that_hangs_makes_states_unknown_and_nothing_double() {
    let Some((engine, home)) = bench() else { return };
    home.run(["apply"]).expect_code(0);
    let before = home.component("box")["container_id"].clone();
    lock(&engine).freeze();
    let unknown = wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    assert_eq!(unknown["state"], "running", "what was known last");
    let table = home.run(["status"]).stdout;
    assert!(table.contains("unknown (was running)"), "{table}");
    // Others go on, and commands about them do not wait.
    home.run(["restart", "program"]).expect_code(0);
    home.run(["restart", "box", "--no-wait"]).expect_code(0);
    lock(&engine).thaw();
    let after =
        wait_box(&home, "the replacement", |found| is_up(found) && found["container_id"] != before);
    assert_eq!(
        after["restarts"]["total"], 0,
        "an engine that hangs is no failure of the component's"
    );
    assert_eq!(containers(&engine, &home).len(), 1);
}

#[test]
fn fault_51_a_daemon_that_begins_while_the_engine_hangs_waits_for_it() {
    let Some((engine, home)) = bench() else { return };
    home.run(["apply"]).expect_code(0);
    let before = home.component("box")["container_id"].clone();
    lock(&engine).freeze();
    home.kill_engine();
    wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    lock(&engine).thaw();
    let after = wait_box(&home, "certainty", is_up);
    assert_eq!(after["container_id"], before, "{:#?}", home.story("box"));
    assert_eq!(containers(&engine, &home).len(), 1);
}

/// What becomes of a request on its way to the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// The engine does what it says, and nobody hears of it.
    IsNotAnswered,
    /// It waits for ever.
    Waits,
    /// Somebody between says that there is nobody.
    IsRefused,
}

/// A socket before the engine's, which decides what becomes of each request by its text.
struct Front {
    path: PathBuf,
}

type Rule = Arc<dyn Fn(&str) -> Fate + Send + Sync>;

impl Front {
    fn before(engine: &Mutex<Engine>, home: &TestHome, rule: Rule) -> Self {
        let engine = lock(engine).host().unwrap().trim_start_matches("unix://").to_owned();
        let path = home.root().join("front.sock");
        let listener = UnixListener::bind(&path).unwrap();
        if let Some(user) = home.user() {
            user.own(&path);
        }
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (engine, rule) = (engine.clone(), rule.clone());
                std::thread::spawn(move || drop(forward(client, Path::new(&engine), &rule)));
            }
        });
        Self { path }
    }

    fn apply(&self, home: &TestHome) {
        let mut apply = home.command(["apply"]);
        apply.env("DOCKER_HOST", format!("unix://{}", self.path.display()));
        home.run_command(apply).expect_code(0);
    }
}

fn forward(mut client: UnixStream, engine: &Path, rule: &Rule) -> std::io::Result<()> {
    let mut server = UnixStream::connect(engine)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let is_heard = Arc::new(AtomicBool::new(true));
    let heard = is_heard.clone();
    let downward = std::thread::spawn(move || {
        let mut answer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut answer) {
            if !heard.load(Ordering::SeqCst) || to_client.write_all(&answer[..length]).is_err() {
                break;
            }
        }
        drop(to_client.shutdown(Shutdown::Both));
    });
    let mut request = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = client.read(&mut request) {
        match rule(&String::from_utf8_lossy(&request[..length])) {
            Fate::Arrives => {}
            Fate::IsNotAnswered => is_heard.store(false, Ordering::SeqCst),
            Fate::Waits => continue,
            Fate::IsRefused => {
                let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
                client.write_all(answer)?;
                continue;
            }
        }
        server.write_all(&request[..length])?;
    }
    let _ = server.shutdown(Shutdown::Write);
    drop(downward.join());
    Ok(())
}

#[test]
fn fault_54_a_create_whose_answer_is_lost_makes_no_second_container() {
    let Some((engine, home)) = bench() else { return };
    let created = Arc::new(AtomicU32::new(0));
    let count = created.clone();
    let rule = move |request: &str| {
        let is_create = request.contains("/containers/create");
        if is_create && count.fetch_add(1, Ordering::SeqCst) == 0 {
            Fate::IsNotAnswered
        } else {
            Fate::Arrives
        }
    };
    Front::before(&engine, &home, Arc::new(rule)).apply(&home);
    assert!(created.load(Ordering::SeqCst) >= 2, "the answer was not lost");
    wait_box(&home, "the container", is_up);
    assert_eq!(containers(&engine, &home).len(), 1);
}

/// An engine that is back is asked about the container that it has ended. Nobody may be told that it runs,
/// however long it takes to find out more.
#[test]
fn fault_50_what_is_known_to_have_ended_is_never_said_to_run() {
    let Some((engine, home)) = bench() else { return };
    let asked = Arc::new(AtomicU32::new(0));
    let ended = Arc::new(OnceLock::<String>::new());
    let (count, about) = (asked.clone(), ended.clone());
    let rule = move |request: &str| match about.get() {
        Some(id) if request.contains(&format!("/containers/{id}/json")) => {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Fate::Arrives,
                _ => Fate::Waits,
            }
        }
        _ => Fate::Arrives,
    };
    Front::before(&engine, &home, Arc::new(rule)).apply(&home);
    let before = home.component("box")["container_id"].clone();
    // The one that follows it ends what has lived on, before it answers anybody.
    lock(&engine).kill();
    wait_box(&home, "doubt", |found| !is_up(found));
    ended.set(before.as_str().unwrap().to_owned()).unwrap();
    lock(&engine).start_again();
    wait_box(&home, "another container", |found| {
        let is_old = found["container_id"] == before;
        assert!(!(is_old && is_up(found)), "it was ended before: {found}");
        is_up(found)
    });
    assert!(asked.load(Ordering::SeqCst) > 0, "nobody has looked at it");
}

/// What an engine that hangs is to be told arrives when it goes on, in order and with its whole time; also
/// from the next daemon.
fn stop_while_the_engine_hangs(next_daemon: bool) {
    let Some((engine, home)) = bench() else { return };
    home.run(["apply"]).expect_code(0);
    lock(&engine).freeze();
    wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    home.run(["stop", "box", "--no-wait"]).expect_code(0);
    // Longer than the container has to end once it has heard of it.
    pass_time(&home);
    let waiting = home.component("box");
    assert!(!waiting["unknown"].is_null(), "{waiting}");
    if next_daemon {
        home.kill_engine();
        wait_box(&home, "the doubt of the next daemon", |found| !found["unknown"].is_null());
        pass_time(&home);
    }
    lock(&engine).thaw();
    let after = wait_box(&home, "the stop", |found| found["state"] == "stopped");
    assert_eq!(after["last_exit"]["code"], 0, "it was asked, and not just killed: {after}");
    assert!(containers(&engine, &home).is_empty());
}

#[test]
fn fault_51_a_stop_that_is_asked_for_while_the_engine_hangs_is_made_when_it_is_back() {
    stop_while_the_engine_hangs(false);
}

#[test]
fn fault_51_a_stop_that_is_asked_for_while_the_engine_hangs_is_made_by_the_next_daemon() {
    stop_while_the_engine_hangs(true);
}

/// A container that counts how often it is asked to end, and ends with that number a while after the first.
const COUNTS: &str = "trap 'e=$((e+1))' TERM; e=0; k=0; while [ $k -lt 5 ]; do sleep 0.2 & wait $!; \
                      if [ $e -gt 0 ]; then k=$((k+1)); fi; done; exit $e";

/// A daemon that is asked before it has seen the container asks it once.
#[test]
fn fault_51_a_stop_that_a_new_daemon_is_asked_for_is_made_once() {
    let Some((engine, home)) = bench() else { return };
    home.manifest(&text(&home).replace(WAITS, COUNTS));
    home.run(["apply"]).expect_code(0);
    lock(&engine).freeze();
    home.kill_engine();
    wait_box(&home, "the doubt of the next daemon", |found| !found["unknown"].is_null());
    home.run(["stop", "box", "--no-wait"]).expect_code(0);
    lock(&engine).thaw();
    let after = wait_box(&home, "the stop", |found| found["state"] == "stopped");
    assert_eq!(after["last_exit"]["code"], 1, "{after}");
}

/// Asks for a stop while requests of this kind have no answer, which nobody knows yet, and lets them arrive later.
fn stop_unheard(engine: &Mutex<Engine>, home: &TestHome, kind: &'static str) -> Value {
    let holds = Arc::new(AtomicBool::new(false));
    let held = holds.clone();
    let rule = move |request: &str| {
        let is_held = request.contains(kind) || request.contains("/_ping");
        if is_held && held.load(Ordering::SeqCst) { Fate::Waits } else { Fate::Arrives }
    };
    Front::before(engine, home, Arc::new(rule)).apply(home);
    holds.store(true, Ordering::SeqCst);
    home.run(["stop", "box", "--no-wait"]).expect_code(0);
    pass_time(home);
    holds.store(false, Ordering::SeqCst);
    wait_box(home, "the stop", |found| found["state"] == "stopped")
}

/// It is run when it can be, once.
#[test]
fn fault_51_a_stop_command_that_could_not_be_begun_is_begun_when_the_engine_is_back() {
    let Some((engine, home)) = bench() else { return };
    let command = "stop: { command: [sh, -c, 'kill -TERM 1'], ";
    home.manifest(&text(&home).replace(WAITS, COUNTS).replace("stop: { ", command));
    let after = stop_unheard(&engine, &home, "/exec");
    assert_eq!(after["last_exit"]["code"], 1, "{after}");
}

#[test]
fn fault_51_a_stop_that_the_engine_does_not_answer_is_asked_again_before_it_kills() {
    let Some((engine, home)) = bench() else { return };
    let after = stop_unheard(&engine, &home, "/kill?");
    assert_eq!(after["last_exit"]["code"], 0, "it was asked, and not just killed: {after}");
}

#[test]
fn a_container_that_the_engine_does_not_ask_to_end_is_killed_in_time() {
    let Some((engine, home)) = bench() else { return };
    let rule = move |request: &str| {
        if request.contains("signal=SIGTERM") { Fate::IsRefused } else { Fate::Arrives }
    };
    Front::before(&engine, &home, Arc::new(rule)).apply(&home);
    home.run(["stop", "box"]).expect_code(0);
    let after = home.component("box");
    assert_eq!(after["last_exit"]["signal"], "SIGKILL", "{after}");
}

fn limit_while_the_engine_hangs(next_daemon: bool) {
    let Some((engine, home)) = bench() else { return };
    home.run(["apply"]).expect_code(0);
    let before = home.component("box")["container_id"].clone();
    let id = before.as_str().unwrap();
    lock(&engine).freeze();
    wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    home.manifest(&text(&home).replace("network_mode: none", "network_mode: none, mem_limit: 64m"));
    home.run(["apply", "--no-wait"]).expect_code(0);
    if next_daemon {
        home.kill_engine();
        wait_box(&home, "the doubt of the next daemon", |found| !found["unknown"].is_null());
    }
    lock(&engine).thaw();
    home.wait_for("the limit", || {
        let limit = lock(&engine).inspect(id, "{{.HostConfig.Memory}}")?;
        (limit == (64 << 20).to_string()).then_some(())
    });
    let after = wait_box(&home, "certainty", is_up);
    assert_eq!(after["container_id"], before, "{:#?}", home.story("box"));
    assert_eq!(after["restarts"]["total"], 0);
}

#[test]
fn fault_51_limits_that_change_while_the_engine_hangs_are_changed_in_place_when_it_is_back() {
    limit_while_the_engine_hangs(false);
}

#[test]
fn fault_51_limits_that_change_while_the_engine_hangs_are_changed_by_the_next_daemon() {
    limit_while_the_engine_hangs(true);
}

/// A probe that only the engine can make says nothing while there is none.
#[test]
fn fault_51_probes_inside_wait_until_a_new_daemon_has_seen_the_container() {
    let Some((engine, home)) = bench() else { return };
    home.manifest(&text(&home).replace("container: {}, interval", "exec: [\"true\"], interval"));
    home.run(["apply"]).expect_code(0);
    let before = wait_box(&home, "the container", is_up)["container_id"].clone();
    lock(&engine).freeze();
    home.kill_engine();
    wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    // Many turns of the probe.
    pass_time(&home);
    lock(&engine).thaw();
    let after = wait_box(&home, "certainty", is_up);
    assert_eq!(after["container_id"], before, "{:#?}", home.story("box"));
    assert_eq!(after["restarts"]["total"], 0, "{:#?}", home.story("box"));
}

/// Its engine has told that it ended, and does not say how yet.
#[test]
fn what_has_ended_is_not_said_to_be_ready_while_its_engine_is_asked_how() {
    let Some((engine, home)) = bench() else { return };
    let asked = Arc::new(AtomicU32::new(0));
    let (holds, ended) = (Arc::new(AtomicBool::new(true)), Arc::new(OnceLock::<String>::new()));
    let (count, held, about) = (asked.clone(), holds.clone(), ended.clone());
    let rule = move |request: &str| match about.get() {
        Some(id) if request.contains(&format!("/containers/{id}/json")) => {
            count.fetch_add(1, Ordering::SeqCst);
            if held.load(Ordering::SeqCst) { Fate::Waits } else { Fate::Arrives }
        }
        _ => Fate::Arrives,
    };
    Front::before(&engine, &home, Arc::new(rule)).apply(&home);
    let before = home.component("box")["container_id"].clone();
    let id = before.as_str().unwrap().to_owned();
    ended.set(id.clone()).unwrap();
    lock(&engine).docker(["kill", "--signal", "TERM", &id]);
    home.wait_for("the question", || (asked.load(Ordering::SeqCst) > 0).then_some(()));
    let known = home.component("box");
    assert_ne!(known["ready"], true, "{known}");
    assert_eq!(known["container_id"], before, "{known}");
    holds.store(false, Ordering::SeqCst);
    let after = wait_box(&home, "another container", |found| {
        is_up(found) && found["container_id"] != before
    });
    assert_eq!(after["last_exit"]["code"], 0, "{after}");
    assert_eq!(after["restarts"]["total"], 1, "{after}");
}

/// Somebody between the daemon and the engine refuses once. Each line is there once all the same, also after
/// the next daemon has gone on.
#[test]
fn a_log_that_is_refused_once_is_asked_for_again() {
    let Some((engine, home)) = bench() else { return };
    let counts = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2 & wait";
    home.manifest(&text(&home).replace("while :; do sleep 1 & wait", counts));
    let (asked, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (count, refusals) = (asked.clone(), refused.clone());
    let rule = move |request: &str| {
        let is_again = request.contains("/logs?") && count.fetch_add(1, Ordering::SeqCst) > 0;
        if is_again && refusals.fetch_add(1, Ordering::SeqCst) == 0 {
            Fate::IsRefused
        } else {
            Fate::Arrives
        }
    };
    Front::before(&engine, &home, Arc::new(rule)).apply(&home);
    let numbers = || -> Vec<usize> {
        let log = String::from_utf8(home.log_of("box")).unwrap();
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        let theirs = whole.lines().filter(|line| !line.starts_with("stigmer: "));
        theirs.map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect()
    };
    let wait_more = |what: &str| {
        let before = numbers().len();
        home.wait_for(what, || (numbers().len() > before + 3).then_some(()));
    };
    wait_more("the first lines");
    lock(&engine).freeze();
    wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    lock(&engine).thaw();
    home.wait_for("the refusal", || (refused.load(Ordering::SeqCst) > 0).then_some(()));
    wait_more("the next lines");
    home.kill_engine();
    wait_more("the lines of the next daemon");
    let numbers = numbers();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

/// It is better supervised without a log than not at all.
#[test]
fn a_new_daemon_that_cannot_write_the_log_supervises_the_container() {
    let Some((engine, home)) = bench() else { return };
    home.manifest(&text(&home).replace("sleep 1 & wait", "echo line; sleep 1 & wait"));
    home.run(["apply"]).expect_code(0);
    let before = home.component("box")["container_id"].clone();
    home.wait_for("the first line", || (!home.log_of("box").is_empty()).then_some(()));
    let log = PathBuf::from(home.component("box")["log_file"].as_str().unwrap());
    std::fs::rename(&log, home.root().join("aside")).unwrap();
    std::fs::create_dir(&log).unwrap();
    home.kill_engine();
    wait_box(&home, "the next daemon", is_up);
    lock(&engine).docker(["kill", before.as_str().unwrap()]);
    let ended = wait_box(&home, "its end", |found| !found["last_exit"].is_null());
    assert_eq!(ended["last_exit"]["signal"], "SIGKILL", "{ended}");
    std::fs::remove_dir(&log).unwrap();
    home.run(["start", "box"]).expect_code(0);
    wait_box(&home, "another container", |found| is_up(found) && found["container_id"] != before);
}

#[test]
fn a_project_that_goes_down_without_its_engine_says_what_may_be_left() {
    let Some((engine, home)) = bench() else { return };
    home.run(["apply"]).expect_code(0);
    home.run(["stop", "box"]).expect_code(0);
    lock(&engine).stop();
    let told = home.run(["down"]).expect_code(0);
    let told = format!("{}{}", told.stdout, told.stderr);
    assert!(told.contains("may be left") && told.contains("down --volumes"), "{told}");
    lock(&engine).start_again();
}
