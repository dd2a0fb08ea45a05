//! The daemon is replaced by another program while everything runs (fault 9).
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use support::ask::DaemonPids;
use support::executable::write_executable;
use support::home::TestHome;
use support::look::{signal, wait_gone};

/// A file beside the home that stigmer's user can execute.
fn program(home: &TestHome, name: &str, content: &[u8]) -> PathBuf {
    let path = home.root().join("bin").join(name);
    write_executable(&path, content, 0o755);
    path
}

/// A script that does `text` when it is to be the keeper, and tries itself out as stigmer does.
fn keeper_script(home: &TestHome, name: &str, text: &str) -> PathBuf {
    let stigmer = home.stigmer().display().to_string();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = __check ]; then exec {stigmer} \"$@\"; fi\n{text}\nexec {stigmer} \"$@\"\n"
    );
    program(home, name, script.as_bytes())
}

/// Another build of stigmer: the same program with another name of its build in it.
fn other_build(home: &TestHome) -> (PathBuf, String) {
    let build = ping(home)["client"]["build"].as_str().unwrap().to_owned();
    let other: String = build.chars().rev().collect();
    assert_ne!(build, other);
    let mut bytes = fs::read(home.stigmer()).unwrap();
    let mut at = 0;
    let mut found = 0;
    while let Some(next) = find(&bytes[at..], build.as_bytes()) {
        bytes[at + next..at + next + build.len()].copy_from_slice(other.as_bytes());
        at += next + build.len();
        found += 1;
    }
    assert!(found > 0, "the build is named in the program");
    (program(home, "stigmer-new", &bytes), other)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted[0];
    let mut from = 0;
    loop {
        let at = from + bytes[from..].iter().position(|byte| *byte == first)?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}

fn ping(home: &TestHome) -> Value {
    home.run(["ping", "-o", "json"]).expect_code(0).json()
}

fn upgrade(home: &TestHome, program: &Path) -> Value {
    let program = program.to_str().unwrap();
    let done = home.run(["upgrade", "--program", program, "-o", "json"]).expect_code(0).json();
    assert_eq!(done["upgraded"], true, "{done:#}");
    done
}

fn executed(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// What must not change for a component.
fn facts(home: &TestHome, name: &str) -> Value {
    let mut component = home.component(name);
    for passing in ["uptime_seconds", "cpu_seconds_total", "memory_bytes", "probes", "mtbf_seconds"]
    {
        component[passing] = Value::Null;
    }
    // To the tenth of a second: times are shown by the wall clock, and the reading of two clocks
    // differs a little each time.
    for place in
        ["/started_at", "/restarts/last_at", "/restarts/next_at", "/last_exit/at", "/last_error/at"]
    {
        let Some(time) = component.pointer_mut(place).filter(|time| time.is_string()) else {
            continue;
        };
        *time = Value::from((millis(time) + 50) / 100);
    }
    component
}

fn millis(value: &Value) -> i64 {
    value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn fault_09_an_upgrade_costs_nothing_and_nobody_notices() {
    let home = TestHome::new();
    let ticker = home.troublemaker("ticker", &["--tick", "2ms"]);
    let api = home.troublemaker("api", &[]);
    let stubborn = home.troublemaker("stubborn", &["--on-term", "ignore"]);
    home.manifest(&format!(
        "components:
  ticker: {{ command: {ticker} }}
  api: {{ command: {api}, restart: {{ backoff: {{ initial: 10ms }} }} }}
  stubborn: {{ command: {stubborn}, stop: {{ timeout: 6s }} }}
  crashed:
    command: 'test -e once && exec sleep 1000; touch once; exit 1'
    restart: {{ backoff: {{ initial: 8s }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    for name in ["ticker", "api", "stubborn"] {
        home.wait_ready(name);
    }
    let victim = home.pid_of("api");
    home.kill(victim);
    home.wait_replaced("api", victim);
    let waiting = home.wait_for("the backoff", || {
        home.try_component("crashed").filter(|one| one["restarts"]["next_at"].is_string())
    });
    let next_at = waiting["restarts"]["next_at"].clone();
    let (new, build) = other_build(&home);
    let before = home.daemon_pids().unwrap();
    let logs = home.follow(["logs", "-f", "ticker", "--no-prefix", "-n", "0"]);
    let events = home.follow(["events", "-f", "-o", "json"]);
    let watch = home.follow(["status", "--watch"]);
    let known = ["ticker", "api"].map(|name| facts(&home, name));
    let killed = home.pid_of("stubborn");
    home.run(["stop", "stubborn", "--no-wait"]).expect_code(0);
    home.wait_event("stopping", |event| event["kind"] == "stopping");

    let socket = home.home().join("run/stigmer.sock");
    let over = AtomicBool::new(false);
    let refused = thread::scope(|scope| {
        let knocking = scope.spawn(|| {
            let mut refused = Vec::new();
            while !over.load(Ordering::Relaxed) {
                refused.extend(UnixStream::connect(&socket).err());
                thread::park_timeout(std::time::Duration::from_millis(1));
            }
            refused
        });
        let done = upgrade(&home, &new);
        over.store(true, Ordering::Relaxed);
        assert_eq!(done["to"]["build"], build.as_str(), "{done:#}");
        knocking.join().unwrap()
    });
    assert!(refused.is_empty(), "refused while it was replaced: {refused:?}");
    let after = home.daemon_pids().unwrap();
    assert_eq!(after.keeper, before.keeper);
    assert_ne!(after.engine, before.engine);
    assert_eq!([executed(after.keeper), executed(after.engine)], [new.clone(), new.clone()]);
    assert_eq!(ping(&home)["daemon"]["build"], build.as_str());
    assert_eq!(["ticker", "api"].map(|name| facts(&home, name)), known);

    // The stop is carried out at its first deadline, and the backoff ends when it was to end.
    wait_gone(killed);
    home.wait_state("stubborn", "stopped");
    let story = home.story("stubborn");
    let at = |kind: &str| story.iter().find(|told| told.kind == kind).unwrap();
    let grace = at("killed").since(at("stopping"));
    assert!((5_900..8_000).contains(&grace.as_millis()), "{grace:?}");
    home.wait_state("crashed", "running");
    let launched = home.told("crashed", "launched");
    let late = launched[1].at.as_millisecond() - millis(&next_at);
    assert!((-100..2_000).contains(&late), "{late} ms late");
    assert_eq!(home.component("crashed")["restarts"]["total"], 1);

    // Those who follow go on, with nothing lost and nothing twice.
    let mut last = None;
    for _ in 0..2_000 {
        let line = logs.next_line().unwrap();
        let Some(number) = line.strip_prefix("tick ").and_then(|text| text.parse::<u64>().ok())
        else {
            continue;
        };
        assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}");
        last = Some(number);
    }
    let victim = home.pid_of("api");
    home.kill(victim);
    let fresh = home.wait_replaced("api", victim)["pid"].to_string();
    watch.line_with(&fresh);
    let all: Vec<u64> = home.events().iter().map(|event| event["id"].as_u64().unwrap()).collect();
    let mut heard: Vec<u64> = Vec::new();
    while heard.last() < all.last() {
        let event: Value = serde_json::from_str(&events.next_line().unwrap()).unwrap();
        heard.push(event["id"].as_u64().unwrap());
    }
    assert_eq!(heard[..all.len()], all);
    assert_eq!(home.births("api").len(), 3);
    assert_eq!((home.births("ticker").len(), home.births("stubborn").len()), (1, 1));
}

#[test]
fn fault_08_fault_09_what_ends_during_the_upgrade_is_known_with_its_real_exit_code() {
    let home = TestHome::new();
    home.apply(
        "components:
  api:
    command: 'while ! [ -e die ]; do sleep 0.01; done; rm die; exit 7'
    restart: { backoff: { initial: 10ms } }
",
    );
    let pid = home.pid_of("api");
    let folder = home.project().display().to_string();
    // The new keeper is long in coming: what happens meanwhile happens while it starts. A shell that
    // started something would take the ends of the keeper's children.
    let go = home.file("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    home.user().into_iter().for_each(|user| user.own(&go));
    let held = format!(": > {folder}/starting; read x < {folder}/go");
    let slow = keeper_script(&home, "slow", &held);
    let slow = slow.to_str().unwrap().to_owned();
    let mut upgrading = home.follow(["upgrade", "--program", &slow, "--force", "-o", "json"]);
    home.wait_for("the new keeper", || home.file("starting").exists().then_some(()));
    home.write("die", "");
    wait_gone(pid);
    fs::write(&go, "go\n").unwrap();
    let answer: Value = serde_json::from_str(&upgrading.next_line().unwrap()).unwrap();
    assert_eq!(answer["upgraded"], true, "{answer:#}");
    assert_eq!(upgrading.wait().0, Some(0));
    let api = home.wait_replaced("api", pid);
    assert_eq!(api["last_exit"]["code"], 7, "{api:#}");
    assert_eq!(api["restarts"]["total"], 1);
    assert_eq!(home.events_of("api", "exited").len(), 1);
}

/// The same daemon, the same processes, and they are looked after.
#[track_caller]
fn untouched(home: &TestHome, daemon: DaemonPids, pid: u32) {
    assert_eq!(home.daemon_pids(), Some(daemon));
    assert_eq!(home.pid_of("api"), pid);
    assert!(!home.home().join("run/upgrade").exists(), "the copies are gone");
}

#[test]
fn fault_09_a_program_that_cannot_work_is_refused_and_nothing_is_touched() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    home.apply(&format!("components: {{ api: {{ command: {api} }} }}"));
    let (daemon, pid) = (home.daemon_pids().unwrap(), home.pid_of("api"));
    let mut truncated = fs::read(home.stigmer()).unwrap();
    truncated.truncate(100_000);
    let script = |text: &str| format!("#!/bin/sh\n{text}\n").into_bytes();
    let programs: [(&str, Option<Vec<u8>>, &str); 9] = [
        ("absent", None, "there is no such file"),
        ("garbage", Some(vec![7; 100]), "not a program for this machine"),
        ("truncated", Some(truncated), ""),
        ("failing", Some(script("exit 3")), "exit 3"),
        ("silent", Some(script("exit 0")), "no stigmer, or broken"),
        ("crashing", Some(script("kill -SEGV $$")), "it crashes (SIGSEGV"),
        (
            "loader",
            Some(b"#!/no/such/interpreter\n".to_vec()),
            "the loader or interpreter that it names is not there",
        ),
        (
            "old",
            Some(script("echo \"error: unrecognized subcommand '$1'\" >&2; exit 2")),
            "too old to take over",
        ),
        (
            "newer",
            Some(script(
                "echo '{\"version\":\"9.0.0\",\"build\":\"x\",\"refused\":\"the state is of another time\"}'; exit 1",
            )),
            "version 9.0.0 says: the state is of another time",
        ),
    ];
    for (name, content, expected) in programs {
        let path = content.map_or_else(
            || home.root().join("bin").join(name),
            |content| program(&home, name, &content),
        );
        let path = path.to_str().unwrap();
        let refused = home.run(["upgrade", "--program", path]).expect_code(1);
        assert!(refused.stderr.contains(expected), "{name}: {refused:#?}");
        assert!(refused.stderr.contains(path), "{name}: {refused:#?}");
        untouched(&home, daemon, pid);
    }
    let plain = program(&home, "plain", b"x");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = home.run(["upgrade", "--program", plain.to_str().unwrap()]).expect_code(1);
    assert!(refused.stderr.contains("chmod +x"), "{refused:#?}");
    untouched(&home, daemon, pid);
    if home.is_root() {
        let open = program(&home, "open", &fs::read(home.stigmer()).unwrap());
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = home.run(["upgrade", "--program", open.to_str().unwrap()]).expect_code(1);
        assert!(refused.stderr.contains("chmod go-w"), "{refused:#?}");
        untouched(&home, daemon, pid);
    }
}

#[test]
fn fault_09_a_program_that_only_pretended_leaves_the_old_daemon_at_work() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    home.apply(&format!(
        "components: {{ api: {{ command: {api}, restart: {{ backoff: {{ initial: 10ms }} }} }} }}"
    ));
    let pid = home.pid_of("api");
    let before = home.daemon_pids().unwrap();
    // It tries itself out with success, and dies as the keeper: the old engine takes over.
    let pretender = keeper_script(&home, "pretender", "exit 1");
    let pretender = pretender.to_str().unwrap();
    // Of the same version and build, so that only its death tells.
    home.run(["upgrade", "--program", pretender]);
    let after = home.wait_for("the old daemon", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    assert_eq!(after.keeper, before.engine, "the engine has become the keeper");
    assert_eq!(executed(after.keeper), home.stigmer());
    assert_eq!(home.pid_of("api"), pid);
    home.kill(pid);
    home.wait_replaced("api", pid);
    assert_eq!(home.births("api").len(), 2);
}

#[test]
fn fault_09_a_downgrade_that_cannot_read_the_state_or_the_estate_is_refused() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let (daemon, pid) = (home.daemon_pids().unwrap(), home.pid_of("api"));
    // The running daemon is of a later time, as far as its state tells: this program is the older one.
    let state = rusqlite::Connection::open(home.home().join("state.db")).unwrap();
    let layout: i64 = state.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    state.pragma_update(None, "user_version", 99).unwrap();
    let refused = home.run(["upgrade", "--force"]).expect_code(1);
    assert!(refused.stderr.contains("has layout 99, written by stigmer"), "{refused:#?}");
    untouched(&home, daemon, pid);
    state.pragma_update(None, "user_version", layout).unwrap();
    // And what a keeper of a later time would hand over.
    let folder = home.file("copies");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("estate"), b"stigmer-estate\x02\0\0\0").unwrap();
    let run = folder.to_str().unwrap();
    let check = home.run(["__check", run, "--run", run, "--records", run, "--tag", "ab"]);
    let refused = check.expect_code(1).json()["refused"].to_string();
    assert!(refused.contains("format 2, newer than 1"), "{refused}");
    home.run(["upgrade", "--force"]).expect_code(0);
    assert_eq!(home.pid_of("api"), pid);
}

#[test]
fn fault_09_a_daemon_in_the_foreground_stays_the_same_process() {
    let home = TestHome::new();
    let mut daemon = home.follow(["daemon"]);
    home.wait_for("the daemon", || (home.run(["ping"]).code == Some(0)).then_some(()));
    let api = home.troublemaker("api", &["--on-term", "exit"]);
    home.apply(&format!("components: {{ api: {{ command: {api} }} }}"));
    let pid = home.pid_of("api");
    let (new, build) = other_build(&home);
    upgrade(&home, &new);
    let pids = home.daemon_pids().unwrap();
    assert_eq!(pids.keeper, daemon.pid());
    assert_eq!(ping(&home)["daemon"]["build"], build.as_str());
    assert_eq!(home.pid_of("api"), pid);
    // It still reads its manifests at SIGHUP, and ends in order.
    let generation = home.generation();
    home.write(
        "stigmer.yaml",
        format!("components: {{ api: {{ command: {api}, labels: {{ a: b }} }} }}"),
    );
    signal(daemon.pid(), Signal::HUP);
    home.wait_generation(generation);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), (Some(0), None));
    wait_gone(pid);
    wait_gone(pids.engine);
    assert!(!home.home().join("run/stigmer.sock").exists());
}

#[test]
fn a_client_of_another_build_says_so_once_and_names_the_command() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let pid = home.pid_of("api");
    assert_eq!(home.run(["status"]).expect_code(0).stderr, "");
    let (new, _) = other_build(&home);
    let with_new = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        let mut other = std::process::Command::new(&new);
        other.args(arguments).env_clear().current_dir(home.project());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        home.user().into_iter().for_each(|user| user.run(&mut other));
        std::mem::swap(&mut command, &mut other);
        home.run_command(command)
    };
    let said = with_new(&["status"]).expect_code(0).stderr;
    assert_eq!(said.matches("`stigmer upgrade`").count(), 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let dry = with_new(&["upgrade", "--dry-run"]).expect_code(0);
    assert!(dry.stdout.contains("can take over"), "{dry:#?}");
    // Without a program it is the one that is asked with.
    let done = with_new(&["upgrade"]).expect_code(0);
    assert!(done.stdout.contains("everything runs on"), "{done:#?}");
    assert_eq!((done.stderr.as_str(), home.pid_of("api")), ("", pid));
    let again = with_new(&["upgrade"]).expect_code(0);
    assert!(again.stdout.contains("already"), "{again:#?}");
    assert_eq!(with_new(&["status"]).expect_code(0).stderr, "");
    home.run(["upgrade"]).expect_code(0);
}

#[test]
fn many_upgrades_leave_nothing_open_and_nothing_behind() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &["--tick", "5ms"]);
    home.apply(&format!("components: {{ api: {{ command: {api}, replicas: 1 }} }}"));
    let pid = home.pid_of("api");
    let stigmer = home.stigmer().to_owned();
    let again = || {
        let program = stigmer.to_str().unwrap();
        home.run(["upgrade", "--program", program, "--force"]).expect_code(0);
        home.daemon_pids().unwrap()
    };
    let settled = again();
    let (keeper, engine) = (descriptors(settled.keeper), descriptors(settled.engine));
    for _ in 0..10 {
        let now = again();
        assert_eq!(now.keeper, settled.keeper);
        home.wait_for("as many descriptors as before", || {
            (descriptors(now.keeper) <= keeper && descriptors(now.engine) <= engine).then_some(())
        });
    }
    assert_eq!(home.pid_of("api"), pid);
    assert_eq!(home.births("api").len(), 1);
    let log = String::from_utf8(home.log_of("api")).unwrap();
    for (number, line) in log.lines().enumerate() {
        assert_eq!(line, format!("tick {number}"));
    }
    let at_once: Vec<_> = thread::scope(|scope| {
        let program = stigmer.to_str().unwrap();
        let run = || home.run(["upgrade", "--program", program, "--force"]);
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(at_once.iter().any(|output| output.code == Some(0)), "{at_once:#?}");
    assert_eq!(home.pid_of("api"), pid);
    // It is still a daemon that an `apply` has started, and ends with its last project.
    let daemon = home.daemon_pids().unwrap();
    home.run(["down"]).expect_code(0);
    wait_gone(pid);
    wait_gone(daemon.keeper);
    wait_gone(daemon.engine);
}
