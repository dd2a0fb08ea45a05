//! The container engine absent, killed, frozen, or losing an answer: S35 and faults 50 to 54.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use support::containers::{Engine, IMAGE};
use support::home::{TestHome, lock};

const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/// A container and a process, with probes that tell quickly.
fn manifest(home: &TestHome) {
    let project = home.project_name();
    home.manifest(&format!(
        "project: {project}
components:
  box:
    container: {{ image: {IMAGE}, command: [sh, -c, \"{WAITS}\"], network_mode: none }}
    probes:
      liveness: {{ container: {{}}, interval: 200ms, timeout: 2s, failure_threshold: 1 }}
    restart: {{ backoff: {{ initial: 50ms }} }}
  program: {{ command: [sleep, infinity] }}
"
    ));
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
    let before = after;
    lock(&engine).kill();
    wait_box(&home, "doubt", |found| !found["unknown"].is_null());
    lock(&engine).start_again();
    wait_box(&home, "certainty", is_up);
    assert_eq!(containers(&engine, &home).len(), 1);
    drop(before);
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

/// A socket before the engine's that loses the answer to the first `create`.
struct Lossy {
    path: PathBuf,
    lost: Arc<AtomicU32>,
}

impl Lossy {
    fn before(engine: &Path, folder: &Path) -> Self {
        let path = folder.join("lossy.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let lost = Arc::new(AtomicU32::new(0));
        let (engine, count) = (engine.to_owned(), lost.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (engine, count) = (engine.clone(), count.clone());
                std::thread::spawn(move || drop(forward(client, &engine, &count)));
            }
        });
        Self { path, lost }
    }
}

fn forward(mut client: UnixStream, engine: &Path, lost: &AtomicU32) -> std::io::Result<()> {
    let mut server = UnixStream::connect(engine)?;
    let mut first = vec![0; 64 * 1024];
    let length = client.read(&mut first)?;
    server.write_all(&first[..length])?;
    let is_create = String::from_utf8_lossy(&first[..length]).contains("/containers/create");
    if is_create && lost.fetch_add(1, Ordering::SeqCst) == 0 {
        // The engine does it; nobody hears of it.
        let mut answer = vec![0; 64 * 1024];
        let mut rest = client.try_clone()?;
        let mut onward = server.try_clone()?;
        std::thread::spawn(move || drop(std::io::copy(&mut rest, &mut onward)));
        let _ = server.read(&mut answer)?;
        return client.shutdown(std::net::Shutdown::Both);
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let upward = std::thread::spawn(move || {
        drop(std::io::copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(std::net::Shutdown::Write));
    });
    std::io::copy(&mut server, &mut client)?;
    let _ = client.shutdown(std::net::Shutdown::Both);
    drop(upward.join());
    Ok(())
}

#[test]
fn fault_54_a_create_whose_answer_is_lost_makes_no_second_container() {
    let Some((engine, home)) = bench() else { return };
    let socket = lock(&engine).host().unwrap().trim_start_matches("unix://").to_owned();
    let lossy = Lossy::before(Path::new(&socket), home.root());
    if let Some(user) = home.user() {
        user.own(&lossy.path);
    }
    let mut apply = home.command(["apply"]);
    apply.env("DOCKER_HOST", format!("unix://{}", lossy.path.display()));
    home.run_command(apply).expect_code(0);
    assert!(lossy.lost.load(Ordering::SeqCst) >= 2, "the answer was not lost");
    wait_box(&home, "the container", is_up);
    assert_eq!(containers(&engine, &home).len(), 1);
}
