//! Want of what the machine provides: space on the only disk, processes, memory, watches; and a process
//! that no signal ends. What is short is short for real; where only root can make it so, the test says it.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use support::disk::SmallDisk;
use support::groups::Group;
use support::home::TestHome;
use support::look::signal;
use support::processes::Process;

/// What `status` says of the last mishap.
fn last_error(component: &Value) -> &str {
    component["last_error"]["message"].as_str().unwrap_or_default()
}

#[test]
fn fault_13_one_full_disk_for_everything_charges_nobody_and_heals() {
    let home = TestHome::new();
    let owner = home.user().map_or(0, |user| user.uid);
    // Everything that is kept is on it: state, records of runs, logs.
    let Some(disk) = SmallDisk::on(&home.home(), 16 * 1024 * 1024, owner) else { return };
    let quick = "restart: { max_restarts: 3, backoff: { initial: 10ms, max: 10ms } }";
    home.apply(&format!(
        "components:
  api: {{ command: [sleep, '1000'], {quick} }}
  web: {{ command: [sleep, '1000'] }}
"
    ));
    let (api, web) = (home.pid_of("api"), home.pid_of("web"));
    let filler = disk.fill();
    // Not even the daemon's own words find room.
    let mut words =
        OpenOptions::new().append(true).open(disk.path().join("logs/daemon.log")).unwrap();
    while words.write_all(b"\n").is_ok() {}
    let daemon = home.daemon_pids().unwrap();
    home.kill(api);
    // A run without a record would be lost by the next keeper, so there is none for the time being; for
    // longer than its limit of restarts would last.
    let mut tried = BTreeSet::new();
    home.wait_for("launches that lack space", || {
        let api = home.try_component("api")?;
        if last_error(&api).contains("no space left") {
            tried.insert(api["last_error"]["at"].to_string());
        }
        (tried.len() >= 5).then_some(())
    });
    let waiting = home.component("api");
    assert_eq!(waiting["state"], "restarting", "{waiting:#}");
    assert_eq!(waiting["restarts"]["in_window"], 1, "a full disk is not its fault: {waiting:#}");
    assert_eq!((home.pid_of("web"), home.daemon_pids()), (web, Some(daemon)), "nobody died of it");
    home.run(["ping"]).expect_code(0);
    fs::remove_file(filler).unwrap();
    home.wait_replaced("api", api);
    home.run(["apply"]).expect_code(0);
    assert_eq!(home.pid_of("web"), web);
    home.run(["down"]).expect_code(0);
    home.wait_for("the end of the daemon", || home.daemon_pids().is_none().then_some(()));
}

#[test]
fn fault_16_a_fork_that_fails_for_want_of_processes_is_tried_again_and_not_charged() {
    let Some(group) = Group::new("pids") else { return };
    let home = TestHome::new();
    let (api, port) = (home.troublemaker("api", &[]), support::ports::free_port());
    let probed = home.troublemaker("probed", &["--tcp", &port.to_string()]);
    home.manifest(&format!(
        "components:
  api: {{ command: {api}, restart: {{ max_restarts: 3, backoff: {{ initial: 10ms, max: 10ms }} }} }}
  probed:
    command: {probed}
    probes:
      startup: {{ tcp: {{ port: {port} }}, interval: 20ms, failure_threshold: 1000 }}
      liveness: {{ exec: ['true'], interval: 100ms, timeout: 5s, failure_threshold: 1 }}
"
    ));
    let Some(apply) = home.with_mounts(&group.enter(), &home.command(["apply"])) else { return };
    home.run_command(apply).expect_code(0);
    home.wait_probe("probed", "liveness", "success");
    let (daemon, victim) = (home.daemon_pids().unwrap(), home.pid_of("api"));
    let probed = home.pid_of("probed");
    // Less than there are: whoever ends makes no room.
    group.set("pids.max", "1");
    home.kill(victim);
    let waiting = home.wait_for("a fork that failed", || {
        home.try_component("api").filter(|api| last_error(api).contains("limit of processes"))
    });
    assert_eq!(waiting["state"], "restarting", "{waiting:#}");
    home.wait_told("api", "launch_failed", 5);
    // Whoever asks is answered, and the engine can do without another thread.
    home.run(["ping"]).expect_code(0);
    assert_eq!(home.component("api")["state"], "restarting");
    home.run(["logs", "api", "-n", "3"]).expect_code(0);
    assert_eq!(home.daemon_pids(), Some(daemon), "nobody died of it");
    group.set("pids.max", "max");
    let api = home.wait_replaced("api", victim);
    assert_eq!(api["restarts"]["in_window"], 1, "the want of processes is not charged: {api:#}");
    assert_eq!(home.births("api").len(), 2);
    home.wait_probe("probed", "liveness", "success");
    let probe = home.component("probed");
    assert_eq!((&probe["pid"], &probe["restarts"]["total"]), (&probed.into(), &0.into()));
    assert!(home.events_of("probed", "unhealthy").is_empty(), "{:#?}", home.story("probed"));
    home.run(["down"]).expect_code(0);
    home.wait_for("the end of the daemon", || home.daemon_pids().is_none().then_some(()));
}

#[test]
fn fault_17_a_kill_for_want_of_memory_is_named_as_such() {
    let Some(group) = Group::new("memory") else { return };
    group.limit_memory(256 * 1024 * 1024);
    let home = TestHome::new();
    // It keeps what has no end, for it has no line.
    home.manifest(
        "components:
  greedy: { command: [tail, /dev/zero], restart: { policy: never } }
  modest: { command: [sleep, '1000'], restart: { policy: never } }
",
    );
    let apply = home.command(["apply", "--no-wait"]);
    let Some(apply) = home.with_mounts(&group.enter(), &apply) else { return };
    home.run_command(apply).expect_code(0);
    let greedy = home.wait_state("greedy", "failed");
    let expected = ("SIGKILL", true);
    let exit = &greedy["last_exit"];
    assert_eq!((exit["signal"].as_str().unwrap(), exit["oom"] == true), expected, "{greedy:#}");
    assert_eq!(greedy["last_error"]["reason"], "oom", "{greedy:#}");
    assert!(home.run(["status"]).stdout.contains("SIGKILL (out of memory)"));
    let told = home.events_of("greedy", "exited");
    assert!(told[0]["message"].as_str().unwrap().contains("out of memory"), "{told:#?}");
    // What somebody else kills is not.
    home.kill(home.pid_of("modest"));
    let modest = home.wait_state("modest", "failed");
    assert_eq!(
        (&modest["last_exit"]["oom"], &modest["last_exit"]["signal"]),
        (&false.into(), &"SIGKILL".into())
    );
    home.run(["down"]).expect_code(0);
    home.wait_for("the end of the daemon", || home.daemon_pids().is_none().then_some(()));
}

#[test]
fn fault_23_what_cannot_be_killed_is_named_and_not_replaced() {
    let home = TestHome::new();
    // Whoever is frozen by it takes no signal, in state D. Made after the home, to be thawed before it.
    let Some(ice) = Group::new("freezer") else { return };
    let stubborn = home.troublemaker("stubborn", &["--on-term", "ignore"]);
    let web = home.troublemaker("web", &[]);
    home.apply(&format!(
        "components:
  stubborn: {{ command: {stubborn}, stop: {{ timeout: 300ms }} }}
  web: {{ command: {web}, restart: {{ backoff: {{ initial: 10ms }} }} }}
"
    ));
    let pid = home.pid_of("stubborn");
    ice.take(pid);
    ice.set("freezer.state", "FROZEN");
    home.wait_for("ice", || (ice.get("freezer.state") == "FROZEN").then_some(()));
    let refused = home.run(["restart", "stubborn"]).expect_code(3);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(
        said.contains(&format!("process {pid}")) && said.contains("cannot be killed"),
        "{said}"
    );
    let stuck = home.component("stubborn");
    assert_eq!(stuck["state"], "restarting", "{stuck:#}");
    assert_eq!(stuck["pid"], pid, "{stuck:#}");
    assert!(stuck["reason"].as_str().unwrap().contains("cannot be killed"), "{stuck:#}");
    assert_eq!(stuck["last_error"]["reason"], "unkillable", "{stuck:#}");
    assert_eq!(home.events_of("stubborn", "unkillable").len(), 1);
    assert_eq!(home.births("stubborn").len(), 1, "nothing is started in its place");
    let detail = home.run(["status", "stubborn"]).stdout;
    assert!(detail.contains("state D"), "{detail}");
    // Others are as if nothing was the matter, also after an engine and a keeper.
    let victim = home.pid_of("web");
    home.kill(victim);
    home.wait_replaced("web", victim);
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    let stuck = home.component("stubborn");
    assert!(stuck["reason"].as_str().unwrap().contains("cannot be killed"), "{stuck:#}");
    assert_eq!(home.births("stubborn").len(), 1);
    // Once it can end, it does, and is replaced.
    ice.set("freezer.state", "THAWED");
    home.wait_replaced("stubborn", pid);
    assert_eq!(home.births("stubborn").len(), 2);
    // Whoever only wants it stopped is told as well.
    let pid = home.pid_of("stubborn");
    ice.take(pid);
    ice.set("freezer.state", "FROZEN");
    home.wait_for("ice", || (ice.get("freezer.state") == "FROZEN").then_some(()));
    home.run(["stop", "stubborn"]).expect_code(3);
    ice.set("freezer.state", "THAWED");
    let stopped = home.wait_state("stubborn", "stopped");
    assert_eq!(stopped["wanted"], "stopped");
    assert_eq!(home.births("stubborn").len(), 2);
}

/// A daemon whose user may have only so many inotify instances or watches, with one component.
fn without_watches(limit: &str) -> Option<TestHome> {
    let home = TestHome::new();
    home.manifest("components: { api: { command: 'echo one; exec sleep 1000' } }");
    let script = format!("echo 0 > /proc/sys/user/{limit}");
    // Of a user namespace of its own: the limits of the machine are everybody's.
    let daemon = home.in_user_namespace(&script, &home.command(["daemon", "--detach"]))?;
    home.run_command(daemon).expect_code(0);
    home.run(["apply"]).expect_code(0);
    Some(home)
}

#[test]
fn fault_43_without_inotify_manifests_are_reloaded_and_logs_followed_all_the_same() {
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let Some(home) = without_watches(limit) else { return };
        let follower = home.follow(["logs", "-f", "api", "--no-prefix", "-n", "all"]);
        follower.line_with("one");
        let generation = home.generation();
        home.manifest("components: { api: { command: 'echo two; exec sleep 1000' } }");
        home.wait_generation(generation);
        follower.line_with("two");
        let said = home.daemon_log();
        assert!(said.contains("cannot be watched"), "{limit}: {said}");
        assert!(said.contains("every two seconds"), "{limit}: {said}");
        // A component takes its time with a log whose growth must be looked for, and loses nothing.
        let lines = home.run(["logs", "api", "--no-prefix", "-n", "all"]).expect_code(0).stdout;
        assert_eq!(lines, "one\ntwo\n", "{limit}");
    }
}

#[test]
fn fault_43_after_an_overflow_of_the_queue_everything_is_looked_at() {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    if most > 100_000 {
        eprintln!("the queue of this machine holds {most} events, too many for this test");
        return;
    }
    let home = TestHome::new();
    home.apply("components: { api: { command: 'echo one; exec sleep 1000' } }");
    // It watches the folder, as a change shows.
    let generation = home.generation();
    home.manifest("components: { api: { command: 'echo two; exec sleep 1000' } }");
    home.wait_generation(generation);
    let (generation, engine) = (home.generation(), home.daemon_pids().unwrap().engine);
    home.hold(engine);
    // Each makes events of its own, and none is like the one before; then the one that is dropped.
    let names: [PathBuf; 2] = [home.file("noise-1"), home.file("noise-2")];
    for turn in 0..most / 2 + 1000 {
        fs::write(&names[turn % 2], "x").unwrap();
        fs::remove_file(&names[turn % 2]).unwrap();
    }
    home.manifest("components: { api: { command: 'echo three; exec sleep 1000' } }");
    signal(engine, Signal::CONT);
    home.wait_generation(generation);
    home.wait_for("the new command", || home.log_of("api").ends_with(b"three\n").then_some(()));
    assert_eq!(home.daemon_pids().unwrap().engine, engine);
    assert!(Process::open(engine).is_some());
}
