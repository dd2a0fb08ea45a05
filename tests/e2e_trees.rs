//! What a component has started ends with it, however it hides; and nothing of it is left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::births::Births;
use support::home::TestHome;
use support::processes::{Process, belonging_to};

/// A component with a child, a grandchild in a session of its own, and a child of that one, each of
/// which holds a lock.
fn family(home: &TestHome, more: &str) -> String {
    let lock = |name: &str| format!("--lock {}", home.file(name).display());
    let command = home.trouble(&[
        "--births",
        "births",
        &format!("--child={} --on-term=ignore", lock("child")),
        &format!("--grandchild={} --on-term=ignore", lock("grandchild")),
    ]);
    format!(
        "
components:
  api:
    command: {command}
    stop: {{ timeout: 200ms }}
    restart: {{ backoff: {{ initial: 50ms }} }}
{more}"
    )
}

/// The processes of the family, the main one included, once all of them are there.
fn members(home: &TestHome) -> Vec<u32> {
    let main = home.pid_of("api");
    home.wait_for("the whole family", || {
        let found = belonging_to(home.root());
        let of = |lock: &str| {
            let of_it = found.iter().find(|found| {
                found.process.pid() != main
                    && found.command.contains("troublemaker --lock")
                    && found.command.contains(&format!("/{lock} "))
            });
            of_it.map(|found| found.process.pid())
        };
        Some(vec![main, of("child")?, of("grandchild")?])
    })
}

fn alive(pids: &[u32]) -> Vec<u32> {
    pids.iter().copied().filter(|pid| Process::open(*pid).is_some()).collect()
}

#[test]
fn s55_all_descendants_end_with_a_stop() {
    let home = TestHome::new();
    home.apply(&family(&home, ""));
    let members = members(&home);
    home.run(["stop", "api"]).expect_code(0);
    // Not soon after it: "stopped" says that nothing is left.
    assert_eq!(alive(&members), [0; 0]);
    assert_eq!(home.component("api")["state"], "stopped");
}

#[test]
fn s55_all_descendants_end_before_the_next_copy_begins_when_it_is_restarted() {
    let home = TestHome::new();
    home.apply(&family(&home, ""));
    let before = members(&home);
    home.run(["restart", "api"]).expect_code(0);
    assert_eq!(alive(&before), [0; 0]);
    // A survivor would hold its lock, and the new one would end with 98 at once.
    members(&home);
    home.wait_born("births", 2);
}

#[test]
fn s55_all_descendants_end_before_the_next_copy_begins_when_it_crashes() {
    let home = TestHome::new();
    home.apply(&family(&home, ""));
    let before = members(&home);
    home.kill(before[0]);
    home.wait_replaced("api", before[0]);
    assert_eq!(alive(&before), [0; 0]);
    members(&home);
    home.wait_born("births", 2);
}

#[test]
fn s55_all_descendants_end_when_it_is_given_up_or_has_completed() {
    let home = TestHome::new();
    let grandchild = format!("--grandchild=--lock {}", home.file("lock").display());
    for (name, code) in [("completed", "0"), ("failed", "1")] {
        let command = home.trouble(&["--exit-after", "50ms", "--exit-code", code, &grandchild]);
        home.manifest(&format!("components: {{ api: {{ command: {command}, restart: never }} }}"));
        home.run(["apply", "--no-wait"]).expect_code(0);
        home.wait_for(name, || {
            let component = home.try_component("api")?;
            (component["state"] == "failed" || component["reason"] == "completed").then_some(())
        });
        let left: Vec<String> = belonging_to(home.root())
            .into_iter()
            .filter(|found| found.command.contains("--lock"))
            .map(|found| found.command)
            .collect();
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn s55_in_a_cgroup_also_what_clears_its_environment_cannot_hide() {
    let home = TestHome::new();
    let mark = home.file("escaped");
    let script = format!(
        "env -i setsid /bin/sh -c '(echo $$$$ > {}; exec sleep infinity) & exec sleep 0' & \
         exec sleep infinity",
        mark.display()
    );
    home.apply(&format!("components: {{ api: {{ command: {script:?} }} }}"));
    let hidden: u32 =
        home.wait_for("the hidden process", || fs::read_to_string(&mark).ok()?.trim().parse().ok());
    // `$$` in the inner shell is the pid of its leader; what stays is its child.
    let hidden = home.wait_for("it to be alone", || child_that_sleeps(hidden));
    let cgroups = fs::read_to_string(format!("/proc/{hidden}/cgroup")).unwrap();
    home.run(["stop", "api"]).expect_code(0);
    if cgroups.contains("stigmer-") {
        assert_eq!(alive(&[hidden]), [0; 0]);
    } else {
        eprintln!("skipped: no cgroups here, and without them nothing holds such a process");
        if let Some(process) = Process::open(hidden) {
            process.signal(rustix::process::Signal::KILL);
        }
    }
}

/// The process of that session that sleeps.
fn child_that_sleeps(session: u32) -> Option<u32> {
    pids().into_iter().find(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        command.starts_with(b"sleep\0infinity")
            && stat_field(&stat, 3).is_some_and(|found| found == session.to_string())
    })
}

fn pids() -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// A field of /proc/PID/stat, counted from the state (0), behind the name in its brackets.
fn stat_field(stat: &str, index: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(index)
}

#[test]
fn s31_nothing_that_the_daemon_is_the_parent_of_stays_a_zombie() {
    let home = TestHome::new();
    let command = home.trouble(&[
        "--births",
        "births",
        "--child=--exit-after 0s",
        "--grandchild=--exit-after 0s",
        "--grandchild=--exit-after 10ms",
        "--exit-after",
        "30ms",
        "--exit-code",
        "1",
    ]);
    home.manifest(&format!(
        "
components:
  api:
    command: {command}
    restart: {{ max_restarts: unlimited, backoff: {{ initial: 0s }} }}
    probes: {{ liveness: {{ exec: \"sleep 0 & exit 0\", interval: 10ms }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_for("some lives", || {
        (Births::never_two(&home.file("births")).len() >= 8).then_some(())
    });
    home.run(["stop", "api"]).expect_code(0);
    let daemon = home.daemon_pids().unwrap();
    home.wait_for("every child to be reaped", || {
        let zombies = pids().into_iter().filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat_field(&stat, 1).and_then(|parent| parent.parse().ok());
            stat_field(&stat, 0) == Some("Z")
                && parent.is_some_and(|parent| [daemon.keeper, daemon.engine].contains(&parent))
        });
        (zombies.count() == 0).then_some(())
    });
}

#[test]
fn s55_what_ignores_the_stop_signal_is_killed_after_the_timeout_and_not_before() {
    let home = TestHome::new();
    let command = home.trouble(&["--on-term", "ignore", "--say-ready", "here"]);
    home.apply(&format!(
        "
components:
  api:
    command: {command}
    stop: {{ timeout: 500ms }}
    probes: {{ startup: {{ log: here, interval: 20ms }} }}
"
    ));
    let pid = home.pid_of("api");
    let output = home.run(["stop", "api"]).expect_code(0);
    assert!(output.took >= Duration::from_millis(500), "{output:?}");
    assert_eq!(alive(&[pid]), [0; 0]);
    let killed = home.told("api", "killed");
    assert_eq!(killed.len(), 1, "{killed:?}");
    assert_eq!(killed[0].message, "did not stop within 500ms, killed");
    let log = String::from_utf8(home.log_of("api")).unwrap();
    assert!(log.contains("got SIGTERM"), "{log}");
    let api = home.component("api");
    assert_eq!(api["last_exit"]["signal"], "SIGKILL", "{api}");
    assert_eq!(api["state"], "stopped", "{api}");
}

#[test]
fn the_declared_stop_signal_is_sent_and_its_grace_period_is_used() {
    let home = TestHome::new();
    let flags = ["--on-term", "exit", "--term-takes", "200ms", "--say-ready", "here"];
    let command = home.trouble(&flags);
    home.apply(&format!(
        "
components:
  api:
    command: {command}
    stop: {{ signal: SIGINT, timeout: 1m }}
    probes: {{ startup: {{ log: here, interval: 20ms }} }}
"
    ));
    let output = home.run(["stop", "api"]).expect_code(0);
    assert!(output.took < Duration::from_secs(30), "{output:?}");
    let log = String::from_utf8(home.log_of("api")).unwrap();
    assert!(log.contains("got SIGINT") && !log.contains("got SIGTERM"), "{log}");
    let api = home.component("api");
    assert_eq!(api["last_exit"]["code"], 0, "{api}");
    assert_eq!(home.told("api", "killed").len(), 0);
}

#[test]
fn the_stop_command_is_run_in_the_place_of_the_signal() {
    let home = TestHome::new();
    home.apply(
        "
components:
  api:
    command: \"trap 'echo got TERM' TERM; until [ -e end ]; do sleep 0.02; done; echo ended\"
    env: { WHERE: end }
    stop: { command: 'touch \"$WHERE\"', timeout: 1m }
  stubborn:
    command: [sleep, infinity]
    stop: { command: [./no-such-command], timeout: 1m }
",
    );
    home.run(["stop", "api"]).expect_code(0);
    let log = String::from_utf8(home.log_of("api")).unwrap();
    assert!(log.contains("ended") && !log.contains("TERM"), "{log}");
    assert!(home.file("end").exists(), "with its environment and in its folder");
    // A stop command that cannot be run: the signal is sent after all.
    let output = home.run(["stop", "stubborn"]).expect_code(0);
    assert!(output.took < Duration::from_secs(30), "{output:?}");
    assert_eq!(home.component("stubborn")["last_exit"]["signal"], "SIGTERM");
}

#[test]
fn an_exit_is_seen_while_a_grandchild_holds_the_log_open() {
    let home = TestHome::new();
    let command = home.trouble(&[
        "--births",
        "births",
        "--say",
        "one life",
        // It writes to the same log for ever.
        "--grandchild=--tick 10ms",
        "--exit-after",
        "100ms",
        "--exit-code",
        "4",
    ]);
    home.manifest(&format!(
        "
components:
  api: {{ command: {command}, restart: {{ max_restarts: 2, backoff: {{ initial: 20ms }} }} }}
"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    let api = home.wait_state("api", "failed");
    assert_eq!(api["last_exit"]["code"], 4, "{api}");
    let log = String::from_utf8(home.log_of("api")).unwrap();
    assert_eq!(log.matches("one life").count(), 3, "{log}");
    // Whoever wrote is gone: the log does not grow any more.
    assert_eq!(String::from_utf8(home.log_of("api")).unwrap(), log);
}

#[test]
fn down_leaves_nothing_neither_components_nor_the_daemon_that_apply_started() {
    let home = TestHome::new();
    home.apply(&family(&home, "  other: { command: [sleep, infinity] }\n"));
    members(&home);
    let daemon = home.daemon_pids().unwrap();
    home.run(["down"]).expect_code(0);
    let components = belonging_to(home.root())
        .into_iter()
        .filter(|found| ![daemon.keeper, daemon.engine].contains(&found.process.pid()));
    let left: Vec<String> = components.map(|found| found.command).collect();
    assert_eq!(left, [""; 0]);
    home.wait_for("the daemon to end", || belonging_to(home.root()).is_empty().then_some(()));
    home.run(["status"]).expect_code(4);
    assert!(groups_of(&home).is_empty(), "{:?}", groups_of(&home));
    // And it starts afresh.
    home.apply("components: { api: { command: [sleep, infinity] } }");
    assert_eq!(home.component("api")["restarts"]["total"], 0);
}

/// The records of runs that are left in the home.
fn groups_of(home: &TestHome) -> Vec<String> {
    let folder = home.home().join("run/runs");
    let Ok(entries) = fs::read_dir(Path::new(&folder)) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
