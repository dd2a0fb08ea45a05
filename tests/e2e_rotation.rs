//! Rotation with the real daemon: numbered lines at full speed through many rotations, on file systems
//! of both kinds; every line once over all files together, whoever is killed meanwhile.
//!
//! `STIGMER_TEST_KILLS` says how many kills each of those tests makes, `STIGMER_TEST_FLOOD` how many MiB
//! a flood has.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::command::Running;
use support::disk::SmallDisk;
use support::home::TestHome;
use support::look::signal;
use support::rotated::{find as rotated, together};
use support::wait::poll;

/// A home on the disk, and one in memory, where logs can only be emptied.
fn both_kinds() -> Vec<(&'static str, TestHome)> {
    let memory = Path::new("/dev/shm");
    let mut kinds = vec![("disk", TestHome::new())];
    if memory.is_dir() {
        kinds.push(("memory", TestHome::on(memory)));
    }
    kinds
}

/// How many lines each process has written, which must be there in order, once, and whole.
#[track_caller]
fn counted<'a>(lines: impl Iterator<Item = &'a [u8]>) -> BTreeMap<u64, u64> {
    let mut next = BTreeMap::new();
    for line in lines {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let text = || String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned();
        assert!(words.len() == 3 && line.len() == 99, "a torn line: {}", text());
        let number = |word: &[u8]| std::str::from_utf8(word).unwrap().parse::<u64>().unwrap();
        let count = next.entry(number(words[0])).or_insert(0);
        assert_eq!(number(words[1]), *count, "lost or doubled: {}", text());
        *count += 1;
    }
    next
}

fn log_of(home: &TestHome, name: &str) -> PathBuf {
    home.component(name)["log_file"].as_str().unwrap().into()
}

/// Waits until a log is rotated as far as it will be, and no rotation is under way.
fn wait_rest(home: &TestHome, log: &Path, limit: u64) {
    let part = log.with_extension("log.part");
    home.wait_for("the last rotation", || {
        let is_short = fs::metadata(log).is_ok_and(|log| log.len() <= limit);
        (is_short && !part.exists()).then_some(())
    });
}

/// A follower's lines of a component, checked as they come.
struct Follower {
    running: Running,
    seen: BTreeMap<u64, u64>,
}

impl Follower {
    fn start(home: &TestHome, name: &str) -> Self {
        let running = home.follow(["logs", "-f", name, "--no-prefix", "-n", "all"]);
        Self { running, seen: BTreeMap::new() }
    }

    /// Reads on until a process has said so many lines.
    #[track_caller]
    fn read_until(&mut self, pid: u64, count: u64) {
        while self.seen.get(&pid).copied().unwrap_or(0) < count {
            let line = self.running.next_line().unwrap();
            if line.len() == 99 && line.starts_with('0') {
                let mut words = line.split(' ').map(|word| word.parse::<u64>().unwrap_or(u64::MAX));
                let (pid, number) = (words.next().unwrap(), words.next().unwrap());
                let next = self.seen.entry(pid).or_insert(0);
                assert_eq!(number, *next, "lost or doubled for the follower: {line}");
                *next += 1;
            }
        }
    }
}

fn manifest(home: &TestHome, flags: &[&str], logs: &str) -> String {
    let command = home.troublemaker("api", flags);
    format!(
        "components:\n  api:\n    command: {command}\n    logs: {logs}\n    restart: {{ backoff: {{ initial: 10ms }} }}\n    stop: {{ timeout: 5s }}\n"
    )
}

/// What is written while a rotation copies is the next one's: on a busy machine they are few and large. There
/// the writer takes a breath after every hundred lines.
#[test]
fn fault_36_s49_full_speed_through_many_rotations() {
    let mut seen = Vec::new();
    for pace in [&[][..], &["--pace", "1ms"], &["--pace", "5ms"]] {
        let kinds = both_kinds().into_iter();
        seen = kinds.map(|(kind, home)| full_speed(kind, &home, pace)).collect();
        if seen.iter().all(|count| *count > 3) {
            return;
        }
    }
    panic!("so few rotations, however slowly it is written: {seen:?}");
}

/// Writes very many lines, and finds each of them once. Gives the number of rotations.
fn full_speed(kind: &str, home: &TestHome, pace: &[&str]) -> usize {
    const LINES: u64 = 300_000;
    let lines = LINES.to_string();
    let flags = [&["--lines", &lines, "--say-ready", "all is said"], pace].concat();
    home.apply(&manifest(home, &flags, "{ max_size: 64KiB, max_files: 1000 }"));
    let mut follower = Follower::start(home, "api");
    let (log, pid) = (log_of(home, "api"), u64::from(home.pid_of("api")));
    follower.read_until(pid, LINES);
    follower.running.line_with("all is said");
    wait_rest(home, &log, 64 * 1024);
    let all = together(&log);
    let said = all.strip_suffix(b"all is said\n").unwrap();
    let seen = counted(said.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n'));
    assert_eq!(seen, BTreeMap::from([(pid, LINES)]), "{kind}");
    let told = home.run(["logs", "api", "-n", "all", "--no-prefix"]).expect_code(0);
    assert_eq!(told.stdout.lines().count() as u64, LINES + 1, "{kind}");
    assert!(home.component("api")["log_problem"].is_null());
    rotated(&log).len()
}

/// Numbers that look like chance, the same at each run of a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Whom one of the tests below kills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Engine,
    Keeper,
    Both,
    /// A restart that is asked for, and a death of the component.
    Component,
}

fn kills() -> u64 {
    std::env::var("STIGMER_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// The daemon that answers, once it does.
fn wait_daemon(home: &TestHome) {
    home.wait_for("a daemon that answers", || home.daemon_pids());
}

/// A writer at a steady pace, rotated all the time, while somebody is killed at moments of chance.
#[expect(clippy::print_stderr, reason = "who reads the tests' output wants to know")]
fn survive(victim: Victim) {
    for (kind, home) in both_kinds() {
        let seed = std::env::var("STIGMER_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(0x5eed_0001 + victim as u64);
        let mut dice = Dice(seed);
        let endless = "100000000";
        home.apply(&manifest(
            &home,
            &["--lines", endless, "--pace", "5ms"],
            // Enough for everything that is written meanwhile.
            "{ max_size: 256KiB, max_files: 1000 }",
        ));
        let mut follower = Follower::start(&home, "api");
        let log = log_of(&home, "api");
        let mut pids = vec![u64::from(home.pid_of("api"))];
        let mut made = 0;
        while made < kills() {
            // Chance decides what the daemon is in the middle of.
            let pause = Duration::from_micros(dice.below(60_000));
            poll(pause, || None::<()>);
            match victim {
                Victim::Engine => {
                    let before = home.kill_engine();
                    home.wait_for("another engine", || {
                        home.daemon_pids().filter(|pids| pids.engine != before.engine)
                    });
                }
                Victim::Keeper => {
                    let before = home.kill_keeper();
                    home.wait_for("another keeper", || {
                        home.daemon_pids().filter(|pids| pids.keeper != before.keeper)
                    });
                }
                Victim::Both => {
                    home.kill_daemon();
                    home.run(["apply", "--no-wait"]).expect_code(0);
                }
                Victim::Component => {
                    let before = home.pid_of("api");
                    if dice.below(2) == 0 {
                        home.run(["restart", "api"]).expect_code(0);
                    } else {
                        home.kill(before);
                    }
                    let now = home.wait_replaced("api", before);
                    pids.push(now["pid"].as_u64().unwrap());
                }
            }
            wait_daemon(&home);
            made += 1;
        }
        // Whatever was frozen goes on.
        let pid = *pids.last().unwrap();
        let last = follower.seen.get(&pid).copied().unwrap_or(0) + 2_000;
        follower.read_until(pid, last);
        if victim != Victim::Component {
            assert_eq!(u64::from(home.pid_of("api")), pid, "{kind}: the same process");
        }
        home.run(["stop", "api"]).expect_code(0);
        wait_rest(&home, &log, 256 * 1024);
        let all = together(&log);
        let runs = counted(all.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n'));
        assert_eq!(runs.len(), pids.len(), "{kind}, seed {seed:#x}");
        let written: u64 = runs.values().sum();
        let files = rotated(&log).len();
        let said = home.daemon_log();
        let told = |what: &str| said.matches(&format!("broken off is {what}")).count();
        let (undone, finished) = (told("undone"), told("finished"));
        eprintln!(
            "{victim:?}, {kind}: {made} kills, {written} lines once, {files} rotations, \
             {undone} undone, {finished} finished"
        );
        assert!(files as u64 >= made.min(5), "{kind}: {files} rotations");
    }
}

#[test]
fn s41_no_line_is_lost_or_doubled_when_the_engine_is_killed_while_it_rotates() {
    survive(Victim::Engine);
}

#[test]
fn s41_no_line_is_lost_or_doubled_when_the_keeper_is_killed_while_it_rotates() {
    survive(Victim::Keeper);
}

#[test]
fn s41_no_line_is_lost_or_doubled_when_both_are_killed_while_it_rotates() {
    survive(Victim::Both);
}

#[test]
fn s41_no_line_is_lost_or_doubled_when_components_end_and_begin_while_it_rotates() {
    survive(Victim::Component);
}

#[test]
fn fault_20_an_engine_that_stands_still_leaves_nobody_frozen() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return eprintln!("there is no /dev/shm");
    }
    let home = TestHome::on(memory);
    home.apply(&manifest(
        &home,
        &["--lines", "100000000", "--pace", "5ms"],
        "{ max_size: 64KiB, max_files: 1000 }",
    ));
    let mut follower = Follower::start(&home, "api");
    let (log, pid) = (log_of(&home, "api"), u64::from(home.pid_of("api")));
    for _ in 0..5 {
        let engine = home.daemon_pids().unwrap().engine;
        signal(engine, rustix::process::Signal::STOP);
        // It may be in the middle of a rotation, which the component outlives all the same.
        let before = together_length(&log);
        home.wait_for("the component to go on", || {
            (together_length(&log) > before + 20_000).then_some(())
        });
        if let Some(process) = support::processes::Process::open(engine) {
            process.signal(rustix::process::Signal::CONT);
        }
        wait_daemon(&home);
    }
    follower.read_until(pid, 10_000);
    home.run(["stop", "api"]).expect_code(0);
    wait_rest(&home, &log, 64 * 1024);
    let all = together(&log);
    counted(all.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n'));
}

/// How much there is, without reading it: compressed files count as they are.
fn together_length(log: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    rotated(log).iter().map(|path| length(path)).sum::<u64>() + length(log)
}

/// Memory that a process has in use.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0)
}

#[test]
fn fault_31_a_flood_leaves_memory_bounded_and_others_alone() {
    let wish = std::env::var("STIGMER_TEST_FLOOD").ok();
    let home = TestHome::new();
    let flood = wish.unwrap_or_else(|| "512".to_owned());
    let yaml = manifest(
        &home,
        &["--flood", &flood, "--lines", "1", "--say-ready", "it is over"],
        "{ max_size: 8MB, max_files: 3 }",
    );
    let port = support::ports::free_port();
    let other = home.troublemaker("web", &["--http", &port.to_string()]);
    home.apply(&format!(
        "{yaml}  web:\n    command: {other}\n    probes: {{ readiness: {{ http: {{ port: {port} }}, interval: 100ms, timeout: 1s, failure_threshold: 1 }} }}\n  mortal: {{ command: [sleep, '1000'], restart: {{ max_restarts: 1000, backoff: {{ initial: 10ms, max: 10ms }} }} }}\n"
    ));
    let log = log_of(&home, "api");
    let engine = home.daemon_pids().unwrap().engine;
    // It may have been asked before it listened.
    home.wait_ready("web");
    let unready = home.told("web", "not_ready").len();
    let mut most = 0;
    let began = Instant::now();
    home.wait_for("the end of the flood and of its rotations", || {
        most = most.max(resident(engine));
        assert_eq!(home.component("web")["ready"], true);
        let mortal = home.pid_of("mortal");
        home.kill(mortal);
        home.wait_replaced("mortal", mortal);
        let tail = home.run(["logs", "api", "-n", "1", "--no-prefix"]).expect_code(0).stdout;
        let is_short = fs::metadata(&log).is_ok_and(|log| log.len() <= 8_000_000);
        (tail == "it is over\n" && is_short).then_some(())
    });
    let kept = home.run(["logs", "api", "-n", "all", "--no-prefix"]).expect_code(0).stdout.len();
    most = most.max(resident(engine));
    eprintln!("at most {most} kB, {kept} bytes kept, {:?}", began.elapsed());
    assert!(most < 100_000, "the engine used {most} kB");
    assert!((24_000_000..48_000_000).contains(&kept), "{kept} bytes");
    let on_disk = together_length(&log);
    assert!(on_disk < 6 * 8_000_000, "{on_disk} bytes on the disk");
    assert_eq!(home.told("web", "not_ready").len(), unready, "{:#?}", home.story("web"));
    // Others are started again as fast as ever.
    let (exits, launches) = (home.told("mortal", "exited"), home.told("mortal", "launched"));
    let away = exits.iter().zip(&launches[1..]).map(|(exit, launch)| launch.since(exit));
    let longest = away.max().unwrap();
    eprintln!("{} restarts meanwhile, the slowest after {longest:?}", exits.len());
    assert!(longest < Duration::from_secs(3), "{:#?}", home.story("mortal"));
}

#[test]
fn fault_32_33_35_endless_lines_and_any_bytes_come_back_from_rotated_files() {
    for (kind, home) in both_kinds() {
        // In the order of the troublemaker: the long line, the garbage, the open end.
        let flags = ["--say", "first", "--long-line", "100", "--garbage", "--unterminated", "open"];
        home.apply(&format!(
            "components:\n  api:\n    command: {}\n    logs: {{ max_size: 1MB, max_files: 1000 }}\n",
            home.troublemaker("api", &flags),
        ));
        let log = log_of(&home, "api");
        wait_rest(&home, &log, 1_000_000);
        let garbage = b"garbage: \0 \x1b[31mred\x1b[0m \x07 \xff\xfe \xc3( end\n";
        let wide = 100 * 1024 * 1024;
        home.wait_for("all of it", || {
            let all = together(&log);
            (all.len() == 6 + wide + garbage.len() + 4).then_some(())
        });
        // A rotation that is under way shows some of it twice, or not at all.
        wait_rest(&home, &log, 1_000_000);
        let all = together(&log);
        assert!(!rotated(&log).is_empty(), "{kind}");
        assert!(all.starts_with(b"first\nyyyy") && all.ends_with(b"open"), "{kind}");
        assert!(all.windows(garbage.len()).rev().any(|part| part == garbage), "{kind}");
        let shown = home.command(["logs", "api", "-n", "all", "--no-prefix"]).output().unwrap();
        let ys: usize = shown.stdout.iter().map(|byte| usize::from(*byte == b'y')).sum();
        assert_eq!(ys, wide, "{kind}");
        assert!(shown.stdout.windows(16).rev().any(|part| part == &garbage[..16]), "{kind}");
        let engine = home.daemon_pids().unwrap().engine;
        assert!(resident(engine) < 100_000, "{kind}: {} kB", resident(engine));
    }
}

/// The texts of a component's lines.
fn texts(home: &TestHome, arguments: &[&str]) -> Vec<String> {
    let all: Vec<&str> = ["logs", "api", "-o", "json"].iter().chain(arguments).copied().collect();
    let lines = home.run(all).expect_code(0).stdout;
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let texts = lines.filter(|line| line["event"] == false);
    texts.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lines_times_runs_and_the_log_probe_reach_into_rotated_files() {
    for (kind, home) in both_kinds() {
        // The line that the probe waits for is rotated away long before it looks.
        home.apply(&format!(
            "components:\n  api:\n    command: {}\n    logs: {{ max_size: 64KiB, max_files: 1000 }}\n    probes: {{ startup: {{ log: '^it is up$', interval: 300ms, initial_delay: 1s }} }}\n",
            home.troublemaker("api", &["--say", "it is up", "--flood", "3"]),
        ));
        let log = log_of(&home, "api");
        let count = 3 * 1024 * 1024 / 100 + 1;
        // A log is short, and at rest, also while its writer has its breath.
        let said = |runs: usize| {
            home.wait_for("all that is said", || {
                (together(&log).len() == runs * (count * 100 - 91)).then_some(())
            });
            wait_rest(&home, &log, 64 * 1024);
        };
        said(1);
        assert!(!rotated(&log).is_empty(), "{kind}");
        assert_eq!(texts(&home, &["-n", "all"]).len(), count, "{kind}");
        let last = texts(&home, &["-n", "20000"]);
        assert_eq!((last.len(), &last[0][..17]), (20_000, "line 000000011457"), "{kind}");
        assert_eq!(texts(&home, &["--grep", "^it is up"]), ["it is up"], "{kind}");
        let first = home.pid_of("api");
        home.run(["restart", "api"]).expect_code(0);
        home.wait_replaced("api", first);
        said(2);
        let launched = home.events_of("api", "launched");
        let second = launched[1]["at"].as_str().unwrap();
        let since = texts(&home, &["--since", second]);
        assert_eq!(since.len(), count, "{kind}: since {second}, from {:?}", since.first());
        assert_eq!(texts(&home, &["--until", second, "-n", "all"]).len(), count, "{kind}");
        assert_eq!(texts(&home, &["--previous", "-n", "all"]).len(), count, "{kind}");
        assert_eq!(texts(&home, &["-n", "all"]).len(), 2 * count, "{kind}");
        // And all that is still known to another engine.
        let before = home.kill_engine();
        home.wait_for("a new engine", || {
            home.daemon_pids().filter(|pids| pids.engine != before.engine)
        });
        assert_eq!(texts(&home, &["--until", second, "-n", "all"]).len(), count, "{kind}");
    }
}

#[test]
fn how_a_log_is_kept_is_changed_in_place_and_removed_components_leave_their_files() {
    let home = TestHome::new();
    let yaml = |logs: &str| manifest(&home, &["--flood", "1"], logs);
    home.apply(&yaml("{ max_size: 64KiB, max_files: 3, compress: false }"));
    let (log, pid) = (log_of(&home, "api"), home.pid_of("api"));
    wait_rest(&home, &log, 64 * 1024);
    home.wait_for("uncompressed files", || {
        let files = rotated(&log);
        let plain = |path: &PathBuf| path.extension().is_none_or(|extension| extension != "gz");
        (!files.is_empty() && files.iter().all(plain)).then_some(())
    });
    home.apply(&yaml("{ max_size: 64KiB, max_files: 0 }"));
    home.wait_for("no files", || rotated(&log).is_empty().then_some(()));
    assert_eq!(home.pid_of("api"), pid, "it was not restarted");
    home.apply(&yaml("{ max_size: 64KiB, max_files: 3 }"));
    home.run(["restart", "api"]).expect_code(0);
    home.wait_for("compressed files", || (!rotated(&log).is_empty()).then_some(()));
    wait_rest(&home, &log, 64 * 1024);
    // The last rotation ends with the removal of what is one too many.
    let kept = home.wait_for("three compressed files at most", || {
        let files = rotated(&log);
        let is_compressed =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gz");
        ((1..=3).contains(&files.len()) && files.iter().all(is_compressed)).then_some(files)
    });
    home.run(["down"]).expect_code(0);
    assert_eq!(rotated(&log), kept);
    assert!(log.exists());
}

#[test]
fn fault_12_a_full_log_disk_is_said_in_the_status_and_others_go_on() {
    let home = TestHome::new();
    let logs = home.home().join("logs");
    fs::create_dir(&logs).unwrap();
    let owner = home.user().map_or(0, |user| user.uid);
    let Some(disk) = SmallDisk::on(&logs, 4 * 1024 * 1024, owner) else { return };
    let yaml = |max_size: &str| {
        let logs = format!("{{ max_size: {max_size}, max_files: 1000 }}");
        let api = manifest(&home, &["--noise", "1500"], &logs);
        format!("{api}  web: {{ command: 'while :; do echo tick; sleep 0.02; done' }}\n")
    };
    home.apply(&yaml("2MB"));
    let (log, pid) = (log_of(&home, "api"), home.pid_of("api"));
    home.wait_for("all lines", || (together_length(&log) == 1500 * 1024).then_some(()));
    let before = together(&log);
    let filler = disk.fill();
    // Now it is to be rotated, and cannot be.
    home.apply(&yaml("256KiB"));
    home.wait_for("the problem in the status", || {
        let problem = home.try_component("api")?["log_problem"].as_str()?.to_owned();
        problem.contains("No space left").then_some(())
    });
    let shown = home.run(["status"]).stdout;
    assert!(shown.contains("api: its log cannot be rotated: No space left"), "{shown}");
    assert!(home.daemon_log().contains("its log cannot be rotated"));
    assert!(together(&log) == before, "nothing is lost");
    assert_eq!((home.pid_of("api"), &home.component("web")["state"]), (pid, &"running".into()));
    fs::remove_file(&filler).unwrap();
    wait_rest(&home, &log, 256 * 1024);
    home.wait_for("the end of the problem", || {
        home.try_component("api")?["log_problem"].is_null().then_some(())
    });
    assert!(together(&log) == before, "nothing is lost or doubled");
    let web = home.log_of("web").len();
    home.wait_for("ticks", || (home.log_of("web").len() > web + 50).then_some(()));
    home.run(["down"]).expect_code(0);
    home.wait_for("the end of the daemon", || home.daemon_pids().is_none().then_some(()));
}

/// A home whose state has little room, and its run folder a disk of its own, as on every machine where they
/// are not on one. `None` where no disk can be made.
fn state_on_a_small_disk(home: &TestHome) -> Option<(SmallDisk, SmallDisk)> {
    let owner = home.user().map_or(0, |user| user.uid);
    let disk = SmallDisk::on(&home.home(), 16 * 1024 * 1024, owner)?;
    let run = home.home().join("run");
    fs::create_dir(&run).unwrap();
    Some((disk, SmallDisk::on(&run, 1024 * 1024, owner)?))
}

#[test]
fn fault_13_a_full_state_disk_refuses_changes_and_supervision_goes_on() {
    let home = TestHome::new();
    let Some((disk, _run)) = state_on_a_small_disk(&home) else { return };
    let yaml = |name: &str| {
        format!(
            "components:\n  {name}: {{ command: [sleep, '1000'], restart: {{ backoff: {{ initial: 10ms }} }} }}\n"
        )
    };
    home.apply(&yaml("api"));
    home.write("other.yaml", yaml("web"));
    let filler = disk.fill();
    for _ in 0..3 {
        let before = home.pid_of("api");
        home.kill(before);
        home.wait_replaced("api", before);
    }
    let refused = home.run(["apply", "-f", "other.yaml", "-p", "other"]).expect_code(1);
    assert!(refused.stderr.contains("cannot write the state"), "{refused:#?}");
    assert_eq!(home.component("api")["state"], "running");
    let pid = home.pid_of("api");
    fs::remove_file(&filler).unwrap();
    home.wait_for("an apply that is taken", || {
        (home.run(["apply", "-f", "other.yaml", "-p", "other"]).code == Some(0)).then_some(())
    });
    assert_eq!((home.pid_of("api"), &home.component("web")["state"]), (pid, &"running".into()));
    home.run(["down", "--all"]).expect_code(0);
    home.wait_for("the end of the daemon", || home.daemon_pids().is_none().then_some(()));
}

#[test]
fn fault_13_what_was_done_while_the_state_disk_was_full_is_written_once_it_has_room() {
    let home = TestHome::new();
    let Some((disk, _run)) = state_on_a_small_disk(&home) else { return };
    home.apply(
        "components: { api: { command: [sleep, '1000'] }, web: { command: [sleep, '1000'] } }",
    );
    let web = home.pid_of("web");
    let filler = disk.fill();
    home.run(["stop", "api"]).expect_code(0);
    fs::remove_file(&filler).unwrap();
    home.wait_for("the state to be written", || {
        home.daemon_log().contains("the state can be written again").then_some(())
    });
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    let api = home.component("api");
    assert_eq!((&api["state"], &api["wanted"]), (&"stopped".into(), &"stopped".into()), "{api:#}");
    assert_eq!(home.pid_of("web"), web);
}
