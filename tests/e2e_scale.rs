//! Very many components: limits are looked at before anything is started, and a thousand that end at once
//! neither make a second copy of anything nor keep anybody waiting who asks.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use support::groups::Group;
use support::home::TestHome;
use support::processes::Process;

/// A manifest of so many components, all alike.
fn many(count: usize) -> String {
    let mut yaml = String::from("components:\n");
    for number in 0..count {
        writeln!(yaml, "  c{number:05}: {{ command: [touch, started] }}").unwrap();
    }
    yaml
}

#[test]
fn fault_55_ten_thousand_components_are_refused_where_the_daemon_lacks_descriptors() {
    let home = TestHome::new();
    home.manifest(&many(10_000));
    let apply = home.after("ulimit -n 4096", &home.command(["apply"]));
    let refused = home.run_command(apply).expect_code(5);
    let said = &refused.stderr;
    for part in ["10000 programs", "descriptors", "may have 4096", "RLIMIT_NOFILE", "ulimit -n"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert!(said.contains("stigmer.yaml"), "{said}");
    assert!(!home.file("started").exists(), "nothing is half started");
    // What fits is taken by the same daemon, and one that fits no more changes nothing that runs.
    let daemon = home.after("ulimit -n 4096", &home.command(["daemon", "--detach"]));
    home.run_command(daemon).expect_code(0);
    home.apply("components: { api: { command: [sleep, '1000'] } }");
    let pid = home.pid_of("api");
    home.manifest(&(many(5_000) + "  api: { command: [sleep, '1000'] }\n"));
    let refused = home.run(["reload"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("5001 programs"), "{refused:#?}");
    let error = home.wait_for("the refusal in the status", || {
        let status = home.try_status_json()?;
        let error = status["projects"][0]["manifest"]["error"].clone();
        (!error.is_null()).then_some(error)
    });
    assert!(error.to_string().contains("5001 programs"), "{error:#}");
    assert_eq!(home.pid_of("api"), pid);
}

#[test]
fn fault_55_what_needs_more_processes_than_there_can_be_is_refused() {
    let Some(group) = Group::new("pids") else { return };
    group.set("pids.max", "1000");
    let home = TestHome::new();
    home.manifest(&many(2_000));
    let Some(apply) = home.with_mounts(&group.enter(), &home.command(["apply"])) else { return };
    let refused = home.run_command(apply).expect_code(5);
    let said = &refused.stderr;
    for part in ["2000 programs", "processes", "may have 1000", "pids.max", "at most 900"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert!(said.contains(group.path().to_str().unwrap()), "{said}");
}

/// The status as a map from the name to the component.
fn by_name(status: &Value) -> BTreeMap<String, Value> {
    let components = status["components"].as_array().unwrap().iter();
    components.map(|one| (one["name"].as_str().unwrap().to_owned(), one.clone())).collect()
}

/// Where a component writes its lives down, one a line.
fn life_of(name: &str) -> String {
    format!("lives/{}", &name[1..])
}

#[test]
fn fault_56_a_thousand_that_crash_at_once_all_come_back_and_the_interface_answers_meanwhile() {
    const COUNT: usize = 1000;
    let home = TestHome::new();
    // Each writes itself down before it becomes a small program.
    let mut yaml =
        String::from("defaults: { restart: { backoff: { initial: 100ms } } }\ncomponents:\n");
    for number in 0..COUNT {
        let command = format!("echo $$$$ >> lives/{number}; exec sleep 1000");
        writeln!(yaml, "  c{number}: {{ command: '{command}' }}").unwrap();
    }
    let lives = home.file("lives");
    fs::create_dir(&lives).unwrap();
    home.user().into_iter().for_each(|user| user.own(&lives));
    home.manifest(&yaml);
    home.run(["apply", "--no-wait"]).expect_code(0);
    let before = home.wait_for("a thousand that run", || {
        let now = by_name(&home.try_status_json()?);
        let born = now.keys().all(|name| !home.lines_of(&life_of(name)).is_empty());
        (now.len() == COUNT && now.values().all(|one| one["ready"] == true) && born).then_some(now)
    });
    let daemon = home.daemon_pids().unwrap();
    // Held beforehand, so that they die in one moment.
    let held: Vec<Process> = before
        .values()
        .map(|one| Process::open(u32::try_from(one["pid"].as_u64().unwrap()).unwrap()).unwrap())
        .collect();
    let began = Instant::now();
    for process in &held {
        process.signal(Signal::KILL);
    }
    let mut slowest = Duration::ZERO;
    let mut asked = 0;
    let after = home.wait_for("a thousand restarts", || {
        slowest = slowest.max(home.run(["ping"]).expect_code(0).took);
        asked += 1;
        let now = by_name(&home.try_status_json()?);
        let is_back = |(name, one): (&String, &Value)| {
            one["state"] == "running"
                && one["pid"] != before[name]["pid"]
                && home.lines_of(&life_of(name)).len() >= 2
        };
        now.iter().all(is_back).then_some(now)
    });
    eprintln!("back after {:?}; slowest of {asked} answers {slowest:?}", began.elapsed());
    // A process is started for each answer, on a machine that starts a thousand others.
    assert!(slowest < Duration::from_secs(5), "an answer took {slowest:?}");
    assert_eq!(home.daemon_pids(), Some(daemon), "nobody died of it");
    let pids: BTreeSet<u64> = after.values().map(|one| one["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), COUNT);
    for (name, one) in &after {
        assert_eq!(one["restarts"]["total"], 1, "{one:#}");
        assert_eq!(one["last_exit"]["signal"], "SIGKILL", "{one:#}");
        let own = home.lines_of(&life_of(name));
        let expected = [&before[name]["pid"], &one["pid"]].map(ToString::to_string);
        assert_eq!(own, expected, "each life of {name}, and no other");
    }
    // Who ends the last project hears of it, though the daemon ends as well.
    let down = home.run(["down"]).expect_code(0);
    assert!(down.stdout.ends_with("done\n"), "{down:#?}");
}

/// So many that a stop of all puts ends off.
fn sleepers(count: usize) -> String {
    let mut yaml = String::from("components:\n");
    for number in 0..count {
        writeln!(yaml, "  c{number}: {{ command: [sleep, infinity] }}").unwrap();
    }
    yaml
}

/// How often the log of the daemon says of each component that it is stopped.
fn stops_told(home: &TestHome) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for line in home.daemon_log().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, "INFO", name, "stopped", ..] = words[..] {
            *told.entry(name.to_owned()).or_default() += 1;
        }
    }
    told
}

/// With one among them that does not end by itself, so that ends wait.
fn sleepers_and_one_that_stays(count: usize) -> String {
    sleepers(count)
        + "  stays: { command: \"trap '' TERM; exec sleep infinity\", stop: { timeout: 10m } }\n"
}

#[test]
fn ends_of_many_are_told_also_while_one_takes_its_time() {
    const COUNT: usize = 250;
    let home = TestHome::new();
    home.apply(&sleepers_and_one_that_stays(COUNT));
    let stays = home.pid_of("stays");
    let keeper = home.daemon_pids().unwrap().keeper;
    home.run(["stop", "--no-wait"]).expect_code(0);
    home.wait_for("the others to be gone", || has_told_of_all(keeper).then_some(()));
    // What is asked for finds what has ended, whether or not that was told.
    home.run(["start", "c7", "--timeout", "60s"]).expect_code(0);
    let told = home.wait_for("the others to be told of", || {
        let told = stops_told(&home);
        (told.len() == COUNT).then_some(told)
    });
    assert!(!told.contains_key("stays"), "{told:?}");
    assert_eq!(home.pid_of("stays"), stays);
    let kinds: Vec<String> = home.story("c7").into_iter().map(|told| told.kind).collect();
    let expected = ["stopping", "exited", "stopped", "launched"];
    assert!(kinds.windows(4).any(|four| four == expected), "one after the other: {kinds:?}");
    home.kill(stays);
    home.wait_state("stays", "stopped");
    assert_eq!(home.component("c7")["state"], "running");
    let told = stops_told(&home);
    assert_eq!(told.len(), COUNT + 1);
    assert!(told.values().all(|times| *times == 1), "{told:?}");
}

/// Stops all, has `kill` do its work when one of them is gone, in each round another one, and waits until all are
/// stopped but the one that stays.
fn stop_and_kill(home: &TestHome, round: usize, kill: impl FnOnce(&TestHome)) {
    let names = ["c9", "c120", "c240"];
    let victim = Process::open(home.pid_of(names[round % names.len()])).unwrap();
    home.run(["stop", "--no-wait"]).expect_code(0);
    assert!(victim.wait_gone(Duration::from_secs(60)));
    kill(home);
    home.wait_for("all others to be stopped", || {
        let now = by_name(&home.try_status_json()?);
        now.iter().all(|(name, one)| name == "stays" || one["state"] == "stopped").then_some(())
    });
}

/// What was told of each end of each, but of the one that stays.
fn exits_told(home: &TestHome) -> BTreeMap<String, Vec<String>> {
    let mut exits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in home.events() {
        if event["kind"] == "exited" && event["component"] != "stays" {
            let message = event["message"].as_str().unwrap().to_owned();
            exits.entry(event["component"].as_str().unwrap().to_owned()).or_default().push(message);
        }
    }
    exits
}

#[test]
fn fault_01_ends_of_many_outlive_the_engine_that_puts_them_off() {
    const COUNT: usize = 250;
    let home = TestHome::new();
    home.apply(&sleepers_and_one_that_stays(COUNT));
    for round in 1..=3 {
        let engine = Process::open(home.daemon_pids().unwrap().engine).unwrap();
        stop_and_kill(&home, round, |_| engine.signal(Signal::KILL));
        let exits = exits_told(&home);
        assert_eq!(exits.len(), COUNT, "each is told of");
        for (name, messages) in exits {
            assert_eq!(messages.len(), round, "once for each stop of {name}: {messages:?}");
            assert!(messages.iter().all(|how| how.contains("SIGTERM")), "{name}: {messages:?}");
        }
        let stays = home.pid_of("stays");
        home.kill(stays);
        home.wait_state("stays", "stopped");
        home.run(["start", "--timeout", "60s"]).expect_code(0);
    }
    end_what_stays(&home);
}

#[test]
fn fault_02_ends_of_many_that_the_keeper_has_told_are_known_after_it_is_killed() {
    const COUNT: usize = 250;
    let home = TestHome::new();
    home.apply(&sleepers_and_one_that_stays(COUNT));
    let pids = home.daemon_pids().unwrap();
    let keeper = Process::open(pids.keeper).unwrap();
    stop_and_kill(&home, 1, |home| {
        home.wait_for("the keeper to have told of all that are gone", || {
            has_told_of_all(pids.keeper).then_some(())
        });
        keeper.signal(Signal::KILL);
    });
    let exits = exits_told(&home);
    assert_eq!(exits.len(), COUNT, "each is told of");
    for (name, messages) in exits {
        assert!(matches!(&messages[..], [how] if how.contains("SIGTERM")), "{name}: {messages:?}");
    }
    end_what_stays(&home);
}

/// Whether nothing is left that a keeper could tell of: its children are the engine and the one that stays.
fn has_told_of_all(keeper: u32) -> bool {
    // The list of a process whose children come or go may lack some.
    is_asleep(keeper) && children_of(keeper) == 2 && is_asleep(keeper)
}

/// How many children a process has, those included that it has not reaped.
fn children_of(pid: u32) -> usize {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().count()
}

/// Whether a process waits for something.
fn is_asleep(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('S')
}

/// A home ends its daemon in order, for which this one would not end.
fn end_what_stays(home: &TestHome) {
    home.run(["stop", "--no-wait"]).expect_code(0);
    home.kill(home.pid_of("stays"));
    home.wait_state("stays", "stopped");
}
