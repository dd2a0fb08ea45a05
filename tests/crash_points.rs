//! The daemon dies at every point of a scenario, one after the other, and nobody can tell afterwards.
//!
//! ```text
//!   count the points of each process, undisturbed
//!   for each: apply five ─ a crash ─ a stop ─ a reload, and at that point SIGKILL
//!             └► it converges ─► one copy of each, no orphan, each line once ─► down leaves nothing
//!   and so for an upgrade, and for rotations of a log that is written to
//! ```
//!
//! Needs the feature `crash-points`, which puts the points into the program (see `src/crash.rs`):
//! `cargo test --features crash-points --test crash_points`. `STIGMER_CRASH_SECONDS` bounds it, 100 if it
//! is not set, 0 for all points whatever it takes; which of them are left out then is told.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::births::Births;
use support::command::Output;
use support::home::TestHome;
use support::processes::{Found, belonging_to};
use support::rotated;

/// Scenarios at a time: they wait more than they work.
const AT_ONCE: usize = 4;

/// Stages of a child between fork and exec.
const STAGES: usize = 3;

/// A home whose daemon is to die at a point.
struct Doomed {
    home: TestHome,
    file: PathBuf,
}

impl Doomed {
    fn new(point: &str, place: &Path) -> Self {
        let home = TestHome::on(place);
        let file = home.root().join("crash");
        fs::write(&file, point).unwrap();
        home.user().into_iter().for_each(|user| user.own(&file));
        Self { home, file }
    }

    fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(what);
        name.into()
    }

    /// Where it died, if it did.
    fn hit(&self) -> Option<String> {
        fs::read_to_string(self.beside(".hit")).ok()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.home.command(arguments);
        command.env("STIGMER_CRASH_POINT", &self.file);
        self.home.run_command(command)
    }

    /// As a person does: says it again until it is done.
    fn insist(&self, arguments: &[&str]) {
        self.home.wait_for(&format!("{arguments:?} to be done"), || {
            (self.run(arguments).code == Some(0)).then_some(())
        });
    }

    /// What `logs` tells of a component. What was said before may be done, and the daemon have died of what it
    /// does after that: then another one is asked.
    fn told(&self, name: &str) -> String {
        self.home.wait_for("a daemon that tells", || {
            let told = self.run(&["logs", name, "-n", "all", "--no-prefix"]);
            if told.code != Some(0) {
                self.run(&["daemon", "--detach"]);
                return None;
            }
            Some(told.stdout)
        })
    }

    fn troublemaker(&self, name: &str) -> String {
        self.home.troublemaker(name, &["--tick", "10ms", "--on-term", "exit"])
    }

    fn ready(&self, names: &[&str]) {
        for name in names {
            self.home.wait_ready(name);
        }
    }

    /// One copy of each, nothing else, and each line once.
    fn check(&self, names: &[&str], stopped: &[&str]) {
        let home = &self.home;
        for name in names.iter().chain(stopped) {
            Births::never_two(&home.births_file(name));
            self.check_log(name);
        }
        let status = home.status_json();
        let pids: BTreeSet<u64> = status["components"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|component| component["pid"].as_u64())
            .collect();
        assert_eq!(pids.len(), names.len(), "{status:#}");
        let daemon: BTreeSet<u64> =
            ["pid", "engine_pid"].iter().filter_map(|key| status["daemon"][key].as_u64()).collect();
        let wanted: BTreeSet<u64> = pids.union(&daemon).copied().collect();
        // A manifest may be being read, and a probe on its way.
        home.wait_for("nothing but what is declared", || {
            let found: BTreeSet<u64> = belonging_to(home.root()).iter().map(pid_of).collect();
            (found == wanted).then_some(())
        });
        home.wait_for("no zombie and no record too many", || {
            let keeper = status["daemon"]["pid"].as_u64()?;
            // Besides that of the next launch, which is empty.
            let records = fs::read_dir(home.home().join("run/runs")).ok()?.flatten();
            let written =
                records.filter(|record| record.metadata().is_ok_and(|file| file.len() > 0));
            (written.count() == names.len() && zombies_of(keeper) == 0).then_some(())
        });
    }

    /// What is in the file is what `logs` tells, and each life counts from 0 without a gap.
    fn check_log(&self, name: &str) {
        let home = &self.home;
        let before = String::from_utf8(home.log_of(name)).unwrap();
        let told = self.told(name);
        let after = String::from_utf8(home.log_of(name)).unwrap();
        // The last line may have been read while it was written.
        let told = told.trim_end_matches('\n');
        assert!(after.starts_with(told), "{name}: lines that are not in the file, or not so");
        assert!(told.len() + 1 >= before.len(), "{name}: lines of the file that are not told");
        let mut expected = 0;
        for line in after.lines().filter_map(|line| line.strip_prefix("tick ")) {
            let number: u64 = line.parse().unwrap();
            assert!(number == expected || number == 0, "{name}: tick {number}, not {expected}");
            expected = number + 1;
        }
    }
}

fn pid_of(found: &Found) -> u64 {
    u64::from(found.process.pid())
}

fn zombies_of(parent: u64) -> usize {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_zombie = |stat: &String| {
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
    };
    stats.filter(is_zombie).count()
}

/// Five are applied, one crashes, one is stopped, one is changed by a reload.
fn story(doomed: &Doomed) {
    let home = &doomed.home;
    let manifest = |value: &str| {
        let components = ["a", "b", "c", "d", "e"].map(|name| {
            let command = doomed.troublemaker(name);
            format!("  {name}:\n    command: {command}\n    restart: {{ backoff: {{ initial: 10ms }} }}\n")
        });
        let yaml = format!("components:\n{}", components.concat());
        yaml.replace(
            "  c:\n",
            &format!("  c:\n    env: {{ VALUE: '{value}' }}\n    depends_on: {{ a: started }}\n"),
        )
    };
    home.manifest(&manifest("one"));
    doomed.insist(&["apply"]);
    doomed.ready(&["a", "b", "c", "d", "e"]);
    let victim = home.pid_of("a");
    home.kill(victim);
    home.wait_replaced("a", victim);
    doomed.insist(&["stop", "b"]);
    home.wait_state("b", "stopped");
    let before = home.pid_of("c");
    home.manifest(&manifest("two"));
    doomed.insist(&["reload"]);
    home.wait_replaced("c", before);
    let names = ["a", "c", "d", "e"];
    doomed.ready(&names);
    doomed.check(&names, &["b"]);
    assert_eq!(home.component("b")["state"], "stopped");
    let environment = fs::read(format!("/proc/{}/environ", home.pid_of("c"))).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("\0VALUE=two\0"));
}

/// The program is replaced by itself.
fn upgrade(doomed: &Doomed) {
    let home = &doomed.home;
    let command = doomed.troublemaker("a");
    home.manifest(&format!("components: {{ a: {{ command: {command} }} }}"));
    doomed.insist(&["apply"]);
    doomed.ready(&["a"]);
    let pid = home.pid_of("a");
    // It says so where it could not be done; the daemon is there in any case.
    let _ = doomed.run(&["upgrade", "--force"]);
    // Where it took both of them, the next one adopts what runs.
    doomed.insist(&["apply"]);
    doomed.ready(&["a"]);
    assert_eq!(home.pid_of("a"), pid, "it was not restarted");
    doomed.check(&["a"], &[]);
}

/// A log is rotated again and again while it is written to.
fn rotation(doomed: &Doomed) {
    const ROTATIONS: usize = 2;
    let home = &doomed.home;
    let command = home.troublemaker("a", &["--ledger", "ledger", "--ledger-pace", "1ms"]);
    home.manifest(&format!(
        "components:\n  a:\n    command: {command}\n    logs: {{ max_size: 64KiB, max_files: 1000 }}\n"
    ));
    doomed.insist(&["apply"]);
    doomed.ready(&["a"]);
    let log = PathBuf::from(home.component("a")["log_file"].as_str().unwrap());
    home.wait_for("rotations", || (rotated::find(&log).len() >= ROTATIONS).then_some(()));
    // The one that was broken off is undone or finished, and none is under way any more.
    doomed.insist(&["stop", "a"]);
    home.wait_state("a", "stopped");
    let part = log.with_extension("log.part");
    home.wait_for("the end of rotations", || {
        let is_short = fs::metadata(&log).is_ok_and(|log| log.len() <= 64 * 1024);
        (is_short && !part.exists()).then_some(())
    });
    assert_eq!(home.births("a").len(), 1, "nobody's death is the component's");
    let ledger = fs::read(home.file("ledger")).unwrap();
    let written = u64::from_le_bytes(ledger[16..24].try_into().unwrap());
    let all = String::from_utf8(rotated::together(&log)).unwrap();
    let told = doomed.told("a");
    assert_eq!(told.lines().count(), all.lines().count());
    for (expected, line) in all.lines().enumerate() {
        let number = line.split(' ').nth(2).and_then(|word| word.parse().ok());
        assert_eq!(number, Some(expected), "lost, doubled or torn: {line}");
    }
    // It may have been ended in the middle of one more.
    let more = all.lines().count() as u64 - written;
    assert!(more <= 1, "{more} lines more than were written");
}

type Scenario = fn(&Doomed);

/// How many points there are in each role.
fn count(scenario: Scenario, place: &Path) -> BTreeMap<&'static str, usize> {
    let doomed = Doomed::new("count", place);
    scenario(&doomed);
    ["engine", "keeper", "successor", "child"]
        .into_iter()
        .map(|role| {
            let counted = fs::metadata(doomed.beside(&format!(".{role}")));
            (role, counted.map_or(0, |found| usize::try_from(found.len()).unwrap()))
        })
        .collect()
}

/// What is tried, spread out, so that a run that is cut short has seen some of everything.
fn points(counted: &BTreeMap<&'static str, usize>, roles: &[&'static str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for role in roles {
        let count = counted[role];
        assert!(count > 0, "no point of a {role}: {counted:?}");
        match *role {
            "child" => {
                let launches = count / STAGES;
                for launch in 1..=launches {
                    all.extend((1..=STAGES).map(|stage| format!("child {}", launch * 100 + stage)));
                }
            }
            role => all.extend((1..=count).map(|number| format!("{role} {number}"))),
        }
    }
    // A stride that has no factor in common with the length visits each of them once.
    let length = all.len();
    let stride = (length * 5 / 8..=length * 2).find(|stride| gcd(*stride, length) == 1).unwrap();
    (0..length).map(|step| all[step * stride % length].clone()).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn budget() -> Option<Duration> {
    let seconds = std::env::var("STIGMER_CRASH_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(100);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Tries the points, several at a time, for as long as there is time.
fn try_all(scenario: Scenario, place: &Path, points: &[String], until: Option<Instant>) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let hits: Mutex<BTreeMap<String, usize>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until) {
                    let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let doomed = Doomed::new(point, place);
                    let outcome = catch_unwind(AssertUnwindSafe(|| scenario(&doomed)));
                    let hit = doomed.hit();
                    let ended = catch_unwind(AssertUnwindSafe(|| drop(doomed)));
                    if outcome.and(ended).is_err() {
                        failures.lock().unwrap().push(format!("{point} ({hit:?})"));
                    }
                    let name = hit.unwrap_or_else(|| "not reached".into());
                    *hits.lock().unwrap().entry(name).or_default() += 1;
                }
            });
        }
    });
    let tried = next.into_inner().min(points.len());
    let hits = hits.into_inner().unwrap();
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{tried} of {} points tried; died at: {hits:#?}", points.len());
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "at these points something was lost: {failures:#?}");
    let missed = hits.get("not reached").copied().unwrap_or(0);
    // Where the order of things differs, the last points of a count may not be there.
    assert!(missed * 10 <= tried, "{missed} of {tried} were not reached");
}

#[test]
fn s40_a_death_at_any_point_of_a_story_or_of_an_upgrade_costs_nothing() {
    let place = &std::env::temp_dir();
    let until = budget().map(|budget| Instant::now() + budget);
    let counted = count(upgrade, place);
    let mut of_upgrade = points(&counted, &["successor"]);
    // The last of its keeper's points are those of the upgrade.
    let last = counted["keeper"];
    of_upgrade.extend((last.saturating_sub(8)..=last).map(|number| format!("keeper {number}")));
    try_all(upgrade, place, &of_upgrade, until);
    let counted = count(story, place);
    let of_story = points(&counted, &["engine", "keeper", "child"]);
    let _ = writeln!(std::io::stderr(), "points of the story: {counted:?}");
    try_all(story, place, &of_story, until);
}

#[test]
fn s40_a_death_at_any_point_of_a_rotation_costs_no_line() {
    let disk = std::env::temp_dir();
    // Where a log cannot lose its head, it is copied and emptied while its writer stands still.
    let memory = Path::new("/dev/shm");
    let places: Vec<&Path> =
        [disk.as_path(), memory].into_iter().filter(|place| place.is_dir()).collect();
    for place in &places {
        let count_of_places = u32::try_from(places.len()).unwrap();
        let until = budget().map(|budget| Instant::now() + budget / 2 / count_of_places);
        let counted = count(rotation, place);
        let _ = writeln!(std::io::stderr(), "points of rotations in {place:?}: {counted:?}");
        try_all(rotation, place, &points(&counted, &["engine", "keeper"]), until);
    }
}
