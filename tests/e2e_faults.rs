//! Faults of the daemon and of what it stands on, each made for real and seen from outside. The list of
//! all faults, and which test shows each, is `docs/faults.md`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Uid;
use rustix::process::Signal;

use support::ask::DaemonPids;
use support::home::TestHome;
use support::look::{signal, wait_gone};
use support::processes::Process;

fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

#[track_caller]
fn wait_engine(home: &TestHome, before: DaemonPids) -> DaemonPids {
    home.wait_for("a new engine", || home.daemon_pids().filter(|pids| pids.engine != before.engine))
}

#[test]
fn fault_03_a_stop_is_completed_at_its_first_deadline_whoever_dies_meanwhile() {
    for victim in ["engine", "keeper", "both"] {
        let home = TestHome::new();
        let stubborn = home.troublemaker("stubborn", &["--on-term", "ignore"]);
        home.apply(&format!(
            "components: {{ stubborn: {{ command: {stubborn}, stop: {{ timeout: 3s }} }} }}"
        ));
        let pid = home.pid_of("stubborn");
        home.run(["stop", "stubborn", "--no-wait"]).expect_code(0);
        home.wait_event("stopping", |event| event["kind"] == "stopping");
        match victim {
            "engine" => drop(home.kill_engine()),
            "keeper" => drop(home.kill_keeper()),
            _ => {
                home.kill_daemon();
                home.run(["daemon", "--detach"]).expect_code(0);
            }
        }
        wait_gone(pid);
        home.wait_state("stubborn", "stopped");
        let story = home.story("stubborn");
        let at = |kind: &str| story.iter().find(|told| told.kind == kind).unwrap();
        let grace = at("killed").since(at("stopping"));
        assert!((2_950..4_500).contains(&grace.as_millis()), "{victim}: {grace:?}");
        assert_eq!(home.births("stubborn").len(), 1, "{victim}");
    }
}

#[test]
fn fault_05_a_probe_that_was_under_way_when_the_engine_died_is_no_failure() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    // Each turn writes itself down, and waits until it may pass.
    let check = "echo >> turns; while ! [ -e pass ]; do sleep 0.02; done";
    home.manifest(&format!(
        "components:
  api:
    command: {api}
    probes:
      liveness: {{ exec: '{check}', interval: 50ms, timeout: 60s, failure_threshold: 1 }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_lines("turns", 1);
    let pid = home.pid_of("api");
    for turns in 2..4 {
        let before = home.kill_engine();
        wait_engine(&home, before);
        // The next engine performs it anew.
        home.wait_lines("turns", turns);
    }
    home.write("pass", "");
    home.wait_probe("api", "liveness", "success");
    let api = home.component("api");
    assert_eq!((&api["pid"], &api["restarts"]["total"]), (&pid.into(), &0.into()), "{api:#}");
    assert!(home.events_of("api", "unhealthy").is_empty());
    assert_eq!(home.births("api").len(), 1);
}

/// Where the keeper keeps what a later one needs to find a process again.
fn record_of(home: &TestHome, pid: u32) -> Option<PathBuf> {
    let records = fs::read_dir(home.home().join("run/runs")).unwrap().flatten();
    let is_of_it = |path: &PathBuf| {
        fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("pid {pid}\n")))
    };
    records.map(|entry| entry.path()).find(is_of_it)
}

#[test]
fn fault_11_after_another_boot_nothing_is_adopted_or_signalled_and_everything_is_started() {
    let home = TestHome::new();
    home.manifest(
        "components:
  api: { command: [sleep, '1000'], restart: { backoff: { initial: 10ms } } }
  off: { command: [sleep, '1000'] }
  waiting: { command: 'exit 1', restart: { backoff: { initial: 1h, max: 1h } } }
",
    );
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_state("waiting", "restarting");
    home.run(["stop", "off"]).expect_code(0);
    let victim = home.pid_of("api");
    home.kill(victim);
    let old = home.wait_replaced("api", victim)["pid"].as_u64().unwrap();
    let old = Process::open(u32::try_from(old).unwrap()).unwrap();
    home.kill_daemon();
    // That what it finds still runs would not be so after a boot, and shows who is touched.
    let Some(daemon) = home.after_a_boot(&home.command(["daemon", "--detach"])) else {
        home.run(["daemon", "--detach"]).expect_code(0);
        return;
    };
    home.run_command(daemon).expect_code(0);
    home.wait_ready("api");
    assert!(old.is_alive(), "nothing of another boot is signalled");
    assert_ne!(home.pid_of("api"), old.pid(), "nothing of another boot is adopted");
    let states = |name: &str| home.component(name)["state"].as_str().unwrap().to_owned();
    assert_eq!((states("api").as_str(), states("off").as_str()), ("running", "stopped"));
    // Times of another boot mean nothing: what waited for an hour is started as well.
    home.wait_for("a start of what waited", || {
        (home.events_of("waiting", "launched").len() >= 2).then_some(())
    });
    let api = home.component("api");
    assert_eq!(api["restarts"]["in_window"], 0, "{api:#}");
    assert_eq!(record_of(&home, old.pid()), None, "a record of another boot is of no use");
    old.signal(Signal::KILL);
    assert!(old.wait_gone(Duration::from_secs(60)));
}

/// Everything of the database but its copies.
fn damage(home: &TestHome, how: impl Fn(&PathBuf)) {
    for name in ["state.db", "state.db-wal"] {
        let path = home.home().join(name);
        if path.exists() {
            how(&path);
        }
    }
}

#[test]
fn fault_14_a_damaged_state_is_replaced_by_the_last_good_one_and_what_runs_is_taken_over() {
    type Damage = (&'static str, fn(&PathBuf));
    let damages: [Damage; 3] = [
        ("garbage", |path| fs::write(path, "x".repeat(20_000)).unwrap()),
        ("cut short", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(if path.ends_with("state.db") { 5_000 } else { 0 }).unwrap();
        }),
        ("gone", |path| fs::remove_file(path).unwrap()),
    ];
    for (name, how) in damages {
        let home = TestHome::new();
        let (api, web) = (home.troublemaker("api", &[]), home.troublemaker("web", &[]));
        home.apply(&format!(
            "components:
  api: {{ command: {api}, restart: {{ backoff: {{ initial: 10ms }} }} }}
  web: {{ command: {web} }}
"
        ));
        let backup = home.home().join("state.db.backup-1");
        home.wait_for("a copy of the state", || backup.exists().then_some(()));
        // What happens now is in no copy: a new run of the one, and the stop of neither.
        let victim = home.pid_of("api");
        home.kill(victim);
        home.wait_replaced("api", victim);
        let running = [home.pid_of("api"), home.pid_of("web")];
        home.kill_daemon();
        damage(&home, how);
        home.run(["daemon", "--detach"]).expect_code(0);
        home.wait_ready("api");
        home.wait_ready("web");
        assert_eq!([home.pid_of("api"), home.pid_of("web")], running, "{name}: not restarted");
        assert_eq!((home.births("api").len(), home.births("web").len()), (2, 1), "{name}");
        assert!(home.daemon_log().contains("the last good copy"), "{}", home.daemon_log());
        // They are supervised as ever.
        home.kill(running[0]);
        home.wait_replaced("api", running[0]);
        home.run(["apply"]).expect_code(0);
        assert_eq!(home.pid_of("web"), running[1], "{name}");
    }
}

/// What is left of a run that is over is removed in a calm moment; who is killed before leaves it.
#[test]
fn fault_14_the_run_that_is_alive_counts_and_not_the_one_before_it_that_left_a_record() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    home.apply(&format!(
        "components: {{ api: {{ command: {api}, restart: {{ backoff: {{ initial: 10ms }} }} }} }}\n"
    ));
    let backup = home.home().join("state.db.backup-1");
    home.wait_for("a copy of the state", || backup.exists().then_some(()));
    let victim = home.pid_of("api");
    let path = record_of(&home, victim).unwrap();
    let record = fs::read(&path).unwrap();
    home.kill(victim);
    home.wait_replaced("api", victim);
    let running = home.pid_of("api");
    home.kill_daemon();
    damage(&home, |path| fs::remove_file(path).unwrap());
    fs::write(&path, record).unwrap();
    home.user().into_iter().for_each(|user| user.own(&path));
    home.run(["daemon", "--detach"]).expect_code(0);
    home.wait_ready("api");
    assert_eq!((home.pid_of("api"), home.births("api").len()), (running, 2), "not restarted");
    home.wait_for("the end of the old record", || (!path.exists()).then_some(()));
    home.kill(running);
    home.wait_replaced("api", running);
}

#[test]
fn fault_14_a_newer_state_is_refused_untouched_and_what_runs_goes_on() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let pid = home.pid_of("api");
    home.kill_daemon();
    let path = home.home().join("state.db");
    let state = rusqlite::Connection::open(&path).unwrap();
    let layout: i64 = state.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    state.pragma_update(None, "user_version", 99).unwrap();
    drop(state);
    home.user().into_iter().for_each(|user| user.own(&path));
    let before = fs::read(&path).unwrap();
    let refused = home.run(["daemon", "--detach"]).expect_code(1);
    assert!(refused.stderr.contains("has layout 99, written by stigmer"), "{refused:#?}");
    assert!(refused.stderr.contains("Nothing was touched"), "{refused:#?}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(Process::open(pid).is_some());
    // A daemon that has runs keeps trying; this one is ended, for the right stigmer to come.
    let left = support::processes::belonging_to(home.root());
    for found in left.iter().filter(|found| found.command.contains("__")) {
        found.process.signal(Signal::KILL);
        assert!(found.process.wait_gone(Duration::from_secs(60)));
    }
    let state = rusqlite::Connection::open(&path).unwrap();
    state.pragma_update(None, "user_version", layout).unwrap();
    drop(state);
    home.run(["daemon", "--detach"]).expect_code(0);
    assert_eq!(home.pid_of("api"), pid);
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The number that the next file would get: as a limit, it leaves not one.
fn free_descriptor(pid: u32) -> usize {
    let is_free = |number: &usize| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists();
    (0..100_000).find(is_free).unwrap()
}

fn limit(home: &TestHome, pid: u32, descriptors: usize) {
    let soft = format!("--nofile={descriptors}:");
    let mut prlimit = std::process::Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &soft]);
    // Not every root may do that to a process of somebody else.
    home.user().into_iter().for_each(|user| user.run(&mut prlimit));
    let done = prlimit.output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn fault_15_out_of_descriptors_supervision_goes_on_and_the_control_socket_answers() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    let port = support::ports::free_port();
    let probed = home.troublemaker("probed", &["--tcp", &port.to_string()]);
    home.apply(&format!(
        "components:
  api: {{ command: {api}, restart: {{ backoff: {{ initial: 10ms }} }} }}
  probed:
    command: {probed}
    probes:
      startup: {{ tcp: {{ port: {port} }}, interval: 20ms, failure_threshold: 1000 }}
      liveness: {{ tcp: {{ port: {port} }}, interval: 100ms, timeout: 5s, failure_threshold: 1 }}
"
    ));
    home.wait_probe("probed", "liveness", "success");
    let daemon = home.daemon_pids().unwrap();
    // Not one more for the engine than it has while it idles.
    let open = (0..200).map(|_| descriptors(daemon.engine)).min().unwrap();
    limit(&home, daemon.engine, open);
    for lives in 2..7 {
        let pid = home.pid_of("api");
        home.kill(pid);
        home.wait_replaced("api", pid);
        assert_eq!(home.births("api").len(), lives);
        home.run(["ping"]).expect_code(0);
    }
    assert_eq!(home.daemon_pids(), Some(daemon), "nobody died of it");
    let probed = home.component("probed");
    assert_eq!(
        probed["restarts"]["total"], 0,
        "a probe without a descriptor says nothing: {probed:#}"
    );
    assert!(home.events_of("probed", "unhealthy").is_empty());
    limit(&home, daemon.engine, 1024);
    home.wait_probe("probed", "liveness", "success");
    // And none for the keeper: nothing can be launched, which is no fault of the component's.
    let pid = home.pid_of("api");
    limit(&home, daemon.keeper, free_descriptor(daemon.keeper));
    home.kill(pid);
    home.wait_for("a launch that failed", || {
        let api = home.try_component("api")?;
        let error = api["last_error"]["message"].as_str()?;
        error.contains("no file descriptor is left").then_some(())
    });
    limit(&home, daemon.keeper, 1024);
    let api = home.wait_replaced("api", pid);
    assert_eq!(api["restarts"]["in_window"], 6, "the want of descriptors is not charged: {api:#}");
    assert_eq!(home.daemon_pids(), Some(daemon));
}

#[test]
fn fault_18_a_state_folder_that_cannot_be_written_is_named_and_nothing_is_started() {
    let home = TestHome::new();
    home.manifest("components: { api: { command: [touch, started] } }");
    let folder = home.home();
    let apply = home.command(["apply"]);
    let read_only =
        format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", folder.display());
    let failed = if let Some(command) = home.with_mounts(&read_only, &apply) {
        home.run_command(command)
    } else {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
        let failed = home.run(["apply"]);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        failed
    };
    let failed = failed.expect_code(1);
    assert!(failed.stderr.contains(folder.to_str().unwrap()), "{failed:#?}");
    assert!(!home.file("started").exists());
    home.run(["ping"]).expect_code(4);
    // It was written before, and cannot be any more.
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.run(["down"]).expect_code(0);
    home.wait_for("the end of the daemon", || (home.run(["ping"]).code == Some(4)).then_some(()));
    fs::remove_file(home.file("started")).unwrap();
    let database = folder.join("state.db");
    let failed = if let Some(command) = home.with_mounts(&read_only, &apply) {
        home.run_command(command)
    } else {
        fs::set_permissions(&database, fs::Permissions::from_mode(0o400)).unwrap();
        let failed = home.run(["apply"]);
        fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).unwrap();
        failed
    };
    let failed = failed.expect_code(1);
    assert!(failed.stderr.contains(folder.to_str().unwrap()), "{failed:#?}");
    assert!(!home.file("started").exists());
    home.run(["apply", "--no-wait"]).expect_code(0);
}

/// Adds what a file says to every reading of the wall clock, and of no other.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long long *offset;
__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WALL_CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) offset = at;
    close(file);
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *offset;
    return result;
}
int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, time, zone);
    if (!result && offset) time->tv_sec += *offset;
    return result;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"#;

const YEAR: i64 = 365 * 86_400;

fn nanos_of(line: &str) -> u64 {
    line.trim().parse().unwrap()
}

#[test]
fn fault_19_a_wall_clock_that_jumps_by_a_year_moves_no_timer() {
    let home = TestHome::new();
    let library = home.root().join("clock.so");
    fs::write(home.root().join("clock.c"), CLOCK).unwrap();
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(home.root().join("clock.c"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::set_permissions(&library, fs::Permissions::from_mode(0o755)).unwrap();
    let offset = home.root().join("offset");
    fs::write(&offset, 0_i64.to_ne_bytes()).unwrap();
    fs::set_permissions(&offset, fs::Permissions::from_mode(0o644)).unwrap();
    let jump = |seconds: i64| {
        let file = fs::OpenOptions::new().write(true).open(&offset).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0).unwrap();
    };
    let mut daemon = home.command(["daemon", "--detach"]);
    daemon.env("LD_PRELOAD", &library).env("WALL_CLOCK_OFFSET", &offset);
    home.run_command(daemon).expect_code(0);
    let crashing = home.troublemaker("crashing", &["--exit-after", "0s", "--exit-code", "1"]);
    let stubborn = home.troublemaker("stubborn", &["--on-term", "ignore"]);
    home.manifest(&format!(
        "components:
  crashing: {{ command: {crashing}, restart: {{ backoff: {{ initial: 2s, multiplier: 1 }} }} }}
  stubborn: {{ command: {stubborn}, stop: {{ timeout: 3s }} }}
  probed:
    command: [sleep, infinity]
    probes:
      liveness: {{ exec: 'cut -d\" \" -f1 /proc/uptime | tr -d . >> turns', interval: 200ms }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_ready("stubborn");
    home.wait_lines("turns", 3);
    let year_of_last = |home: &TestHome, name: &str| {
        let story = home.story(name);
        story.last().unwrap().at.to_string()[..4].parse::<i32>().unwrap()
    };
    let this_year = year_of_last(&home, "stubborn");
    home.wait_told("crashing", "launched", 2);
    jump(YEAR);
    home.wait_told("crashing", "launched", 3);
    assert!(year_of_last(&home, "crashing") > this_year, "the daemon sees the other clock");
    let stubborn = home.pid_of("stubborn");
    let uptime = home.component("stubborn")["uptime_seconds"].as_f64().unwrap();
    assert!(uptime < 120.0, "{uptime}");
    home.run(["stop", "stubborn", "--no-wait"]).expect_code(0);
    home.wait_event("stopping", |event| event["kind"] == "stopping");
    let began = std::time::Instant::now();
    jump(-YEAR);
    wait_gone(stubborn);
    let grace = began.elapsed();
    assert!((2_000..4_500).contains(&grace.as_millis()), "{grace:?}");
    home.wait_state("stubborn", "stopped");
    home.wait_told("crashing", "launched", 5);
    jump(0);
    // By the clock that does not jump: one after the other, and none at once.
    let births = home.births("crashing");
    for pair in births.windows(2) {
        let apart = Duration::from_nanos(pair[1].at_nanos - pair[0].at_nanos);
        assert!((1_900..4_000).contains(&apart.as_millis()), "{apart:?} of {births:?}");
    }
    let turns = home.lines_of("turns");
    let turns: Vec<u64> = turns.iter().map(|line| nanos_of(line)).collect();
    for pair in turns.windows(2) {
        // Hundredths of seconds.
        let apart = pair[1] - pair[0];
        assert!((15..200).contains(&apart), "{apart}0 ms of {turns:?}");
    }
    assert_eq!(home.component("probed")["restarts"]["total"], 0);
}

#[test]
fn fault_20_a_daemon_that_stood_still_makes_no_burst_of_probes_and_no_false_failure() {
    let home = TestHome::new();
    let port = support::ports::free_port();
    let api = home.troublemaker("api", &["--http", &port.to_string()]);
    let turn = "cut -d\" \" -f1 /proc/uptime | tr -d . >> turns";
    home.apply(&format!(
        "components:
  api:
    command: {api}
    probes:
      startup: {{ tcp: {{ port: {port} }}, interval: 20ms, failure_threshold: 1000 }}
      liveness: {{ exec: '{turn}; sleep 0.15', interval: 200ms, timeout: 1s, failure_threshold: 1 }}
      readiness: {{ http: {{ port: {port} }}, interval: 50ms, timeout: 500ms, failure_threshold: 1, success_threshold: 1 }}
  slow:
    command: [sleep, infinity]
    probes:
      liveness: {{ exec: 'sleep 0.5', interval: 1ms, timeout: 1s, failure_threshold: 1 }}
"
    ));
    let (api, slow) = (home.pid_of("api"), home.pid_of("slow"));
    let daemon = home.daemon_pids().unwrap();
    for _ in 0..3 {
        home.wait_lines("turns", home.lines_of("turns").len() + 3);
        // Both of them, for longer than many intervals and than every timeout.
        home.hold(daemon.engine);
        home.hold(daemon.keeper);
        let stood = std::time::Instant::now();
        let before = home.lines_of("turns").len();
        home.wait_for("some time", || (stood.elapsed() > Duration::from_secs(3)).then_some(()));
        let held = home.lines_of("turns").len();
        assert!(held <= before + 1, "nobody probes meanwhile");
        let went_on = std::time::Instant::now();
        signal(daemon.keeper, Signal::CONT);
        signal(daemon.engine, Signal::CONT);
        home.wait_lines("turns", held + 3);
        let took = went_on.elapsed();
        assert!(took > Duration::from_millis(300), "three turns within {took:?}: a burst");
    }
    home.wait_probe("api", "liveness", "success");
    home.wait_probe("api", "readiness", "success");
    home.wait_probe("slow", "liveness", "success");
    for (name, pid) in [("api", api), ("slow", slow)] {
        let component = home.component(name);
        assert_eq!(component["pid"], pid, "{component:#}");
        assert_eq!(component["restarts"]["total"], 0, "{component:#}");
        for kind in ["unhealthy", "not_ready", "restarting"] {
            let told = home.events_of(name, kind);
            assert!(told.is_empty(), "{told:#?}");
        }
    }
    assert_eq!(home.daemon_pids(), Some(daemon));
}

#[test]
fn fault_47_a_socket_file_is_replaced_only_if_nobody_answers_on_it() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let socket = home.home().join("run/stigmer.sock");
    // A number of an inode may be used again.
    let file = || {
        let found = fs::metadata(&socket).unwrap();
        (found.ino(), found.ctime(), found.ctime_nsec())
    };
    let first = file();
    // Somebody answers: it stays, whoever comes and whatever engine dies.
    home.run(["daemon"]).expect_code(1);
    let before = home.kill_engine();
    wait_engine(&home, before);
    assert_eq!(file(), first);
    // Nobody answers: what was killed has left it behind.
    home.kill_daemon();
    assert!(socket.exists());
    home.run(["ping"]).expect_code(4);
    home.run(["daemon", "--detach"]).expect_code(0);
    assert_ne!(file(), first);
    // Something else is in its place: it is said, and left alone.
    home.kill_daemon();
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "mine").unwrap();
    home.user().into_iter().for_each(|user| user.own(&socket));
    let refused = home.run(["daemon", "--detach"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("is not a socket; remove it"), "{refused:#?}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");
    fs::remove_file(&socket).unwrap();
    home.wait_for("a daemon", || (home.run(["daemon", "--detach"]).code == Some(0)).then_some(()));
}

#[test]
fn fault_49_a_process_of_another_user_is_refused_on_the_control_socket() {
    if !rustix::process::geteuid().is_root() {
        say("not root: nobody else can be pretended to be");
        return;
    }
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let socket = home.home().join("run/stigmer.sock");
    let as_other = |socket: &std::path::Path| {
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let other = Uid::from_raw(12_345);
                // Of this thread alone.
                rustix::thread::set_thread_res_uid(other, other, other).unwrap();
                let mut stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer)?;
                Ok::<_, std::io::Error>(answer)
            });
            asking.join().unwrap()
        })
    };
    // The folder is closed to others.
    let refused = as_other(&socket).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    // And were it open, who asks is looked at.
    for (path, mode) in [
        (home.root().to_owned(), 0o755),
        (home.home(), 0o755),
        (home.home().join("run"), 0o755),
        (socket.clone(), 0o777),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    match as_other(&socket) {
        Ok(answer) => assert_eq!(answer, b"", "not a word"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    home.wait_for("a word in the log", || {
        home.daemon_log().contains("refused: it belongs to user 12345").then_some(())
    });
    home.run(["ping"]).expect_code(0);
}
