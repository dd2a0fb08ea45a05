//! Rotation by the watcher: under load, with a follower, on file systems of both kinds, on a full disk.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use regex::bytes::Regex;
use stigmer::logs::{
    Extent, Held, Holding, Keep, Line, LogSource, LogStream, LogWatcher, Query, Stillness,
    end_position,
};
use stigmer::model::InstanceId;
use stigmer::model::spec::LogSpec;
use tokio::sync::Mutex;

use crate::disk::SmallDisk;
use crate::support::{Logs, at, following, instance, seen, soon, texts};

const KIB: u64 = 1024;

/// Whoever writes with this lock in the hand is held still by whoever has it.
#[derive(Clone, Default)]
struct Lock(Arc<Mutex<()>>);

impl Stillness for Lock {
    fn hold(&self, _: &InstanceId) -> Holding {
        let lock = Arc::clone(&self.0);
        Box::pin(async move { Ok(Box::new(lock.lock_owned().await) as Held) })
    }
}

/// Nobody can be held still.
struct Restless;

impl Stillness for Restless {
    fn hold(&self, _: &InstanceId) -> Holding {
        Box::pin(async { Err(std::io::Error::other("they cannot be held still")) })
    }
}

fn keep(lock: &Lock, spec: LogSpec) -> Keep {
    Keep { spec, writers: Arc::new(lock.clone()) }
}

fn spec(max_size: u64, max_files: u32) -> LogSpec {
    LogSpec { max_size, max_files, ..LogSpec::default() }
}

/// The names of the rotated files of a log, the oldest first.
fn rotated(logs: &Logs, name: &str) -> Vec<String> {
    let begin = format!("{name}.log.2");
    let begin_early = format!("{name}.log.1");
    let mut names: Vec<_> = fs::read_dir(logs.path("x").parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(&begin) || name.starts_with(&begin_early))
        .filter(|name| !name.ends_with(".idx"))
        .collect();
    names.sort();
    names
}

/// The rotated files and the log, put together as anybody would.
fn together(logs: &Logs, name: &str) -> Vec<u8> {
    let folder = logs.path("x").parent().unwrap().to_owned();
    let mut all = Vec::new();
    for file in rotated(logs, name) {
        let packed = fs::File::open(folder.join(&file)).unwrap();
        if Path::new(&file).extension().is_some_and(|extension| extension == "gz") {
            flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut all).unwrap();
        } else {
            (&packed).read_to_end(&mut all).unwrap();
        }
    }
    all.extend(fs::read(logs.path(name)).unwrap());
    all
}

/// Every byte is in one of the files, and in its place.
fn assert_complete(logs: &Logs, name: &str, wanted: &[u8]) {
    let found = together(logs, name);
    let same = found.iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
    let (has, should) = (found.len(), wanted.len());
    let files = rotated(logs, name);
    assert!(found == wanted, "{has} bytes for {should}, the same up to {same}: {files:?}");
}

/// Waits until a log begins at or behind a position.
async fn begins(watcher: &LogWatcher, name: &str, base: u64) {
    let mut log = watcher.subscribe(&instance(name)).unwrap();
    soon("a rotation", log.wait_for(|extent| extent.base >= base)).await.unwrap();
}

/// Waits until all of a log of this length is rotated that will be, and no rotation is under way: what one
/// has copied is in two files.
async fn rests(watcher: &LogWatcher, name: &str, length: usize, limit: u64) {
    let mut log = watcher.subscribe(&instance(name)).unwrap();
    let is_at_rest =
        |extent: &Extent| extent.end == length as u64 && extent.end - extent.base <= limit;
    soon("the last rotation", log.wait_for(is_at_rest)).await.unwrap();
}

/// A folder on the disk, and one in memory, whose files can only be emptied.
#[expect(clippy::print_stderr, reason = "who reads the tests' output wants to know")]
fn both_kinds() -> Vec<Logs> {
    let memory = Path::new("/dev/shm");
    let mut kinds = vec![Logs::new()];
    if memory.is_dir() {
        kinds.push(Logs::new_in(memory));
    } else {
        eprintln!("there is no /dev/shm: only one kind of file system is tried");
    }
    kinds
}

#[tokio::test]
async fn fault_36_s49_full_load_loses_and_doubles_no_line_in_files_or_for_a_follower() {
    for logs in both_kinds() {
        let lock = Lock::default();
        logs.append("api", "");
        let watcher = logs.watcher();
        watcher.keep(instance("api"), logs.path("api"), keep(&lock, spec(64 * KIB, 1_000_000)));
        let mut stream = LogStream::new(vec![logs.source("api")], &following(), &watcher);
        let enough = Arc::new(AtomicBool::new(false));
        let (path, writing, over) = (logs.path("api"), lock.clone(), Arc::clone(&enough));
        let writer = std::thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            let mut number = 0_u64;
            while !over.load(Ordering::SeqCst) {
                // Faster than it can be copied away for ever is a disk that gets full.
                if number.is_multiple_of(64) && file.metadata().unwrap().len() > 2048 * KIB {
                    std::thread::yield_now();
                    continue;
                }
                let still = writing.0.blocking_lock();
                file.write_all(&long(number)).unwrap();
                drop(still);
                number += 1;
            }
            number
        });
        let mut next = 0;
        let mut check = |lines: Vec<Line>| {
            for line in lines {
                assert!(long(next).strip_suffix(b"\n") == Some(&line.text), "line {next}");
                next += 1;
            }
            next
        };
        while rotated(&logs, "api").len() < 12 {
            check(soon("lines", stream.next()).await.unwrap().unwrap());
        }
        enough.store(true, Ordering::SeqCst);
        // Not here: who holds the writer still may have to run on this thread to let it go.
        let count = tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
        while check(Vec::new()) < count {
            check(soon("lines", stream.next()).await.unwrap().unwrap());
        }
        let wanted: Vec<u8> = (0..count).flat_map(long).collect();
        let end = end_position(&logs.path("api")).unwrap();
        assert_eq!(end, wanted.len() as u64);
        // The follower may be ahead of the watcher, who knows the times, and of the last rotation.
        rests(&watcher, "api", wanted.len(), 64 * KIB).await;
        assert_complete(&logs, "api", &wanted);
        let read = logs.read(&["api"], &Query::default());
        assert_eq!(read.len() as u64, count);
        assert!(read.iter().all(|line| line.at.is_some()), "each line has its time");
        assert_eq!(watcher.problem(&instance("api")), None);
    }
}

#[tokio::test]
async fn a_follower_that_comes_late_reads_what_was_rotated_away() {
    for logs in both_kinds() {
        let watcher = logs.watcher();
        logs.append("api", numbered(0..20_000));
        watcher.keep(
            instance("api"),
            logs.path("api"),
            keep(&Lock::default(), spec(64 * KIB, 100)),
        );
        begins(&watcher, "api", 128 * KIB).await;
        let mut stream = LogStream::new(vec![logs.source("api")], &following(), &watcher);
        let mut next = 0;
        while next < 40_000 {
            if next == 20_000 {
                // All at once, and rotated away before it is looked at.
                logs.append("api", numbered(20_000..40_000));
            }
            let lines = soon("lines", stream.next()).await.unwrap().unwrap();
            for line in lines {
                assert_eq!(line.text, format!("line {next}").into_bytes());
                next += 1;
            }
        }
    }
}

/// A line of 1,000 bytes.
fn long(number: u64) -> Vec<u8> {
    let mut line = format!("line {number} ").into_bytes();
    line.resize(999, b'x');
    line.push(b'\n');
    line
}

fn numbered(numbers: std::ops::Range<u64>) -> Vec<u8> {
    numbers.flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

#[tokio::test]
async fn last_lines_times_and_patterns_reach_into_rotated_files() {
    let sevens = Regex::new("7777$").unwrap();
    for logs in both_kinds() {
        let watcher = logs.watcher();
        for round in 0..4 {
            let lines = numbered(round * 10_000..(round + 1) * 10_000);
            logs.append_at(&watcher_for(&logs, &watcher, round), "api", at_round(round), &lines)
                .await;
            let end = end_position(&logs.path("api")).unwrap();
            begins(&watcher, "api", end.saturating_sub(2 * 64 * KIB)).await;
        }
        let read = |query: Query| texts(&logs.read(&["api"], &query));
        let last = read(Query { lines: Some(15_000), ..Query::default() });
        assert_eq!(last.len(), 15_000);
        assert_eq!(last[0], "line 25000");
        let grep = Some(sevens.clone());
        assert_eq!(
            read(Query { grep: grep.clone(), ..Query::default() }),
            ["line 7777", "line 17777", "line 27777", "line 37777"]
        );
        assert_eq!(
            read(Query { grep, lines: Some(2), ..Query::default() }),
            ["line 27777", "line 37777"]
        );
        let span = |since: i64, until: i64| Query {
            since: Some(at(since)),
            until: Some(at(until)),
            ..Query::default()
        };
        let middle = read(span(at_round(1), at_round(2)));
        assert_eq!((middle.len(), &*middle[0]), (20_000, "line 10000"));
        assert_eq!(middle.last().unwrap(), "line 29999");
        let first = read(span(at_round(0), at_round(0)));
        assert_eq!((first.len(), &*first[0]), (10_000, "line 0"));
        let newest = read(Query { since: Some(at(at_round(3))), ..Query::default() });
        assert_eq!((newest.len(), &*newest[0]), (10_000, "line 30000"));
        let line = &logs.read(&["api"], &Query { lines: Some(39_999), ..Query::default() })[0];
        assert_eq!((line.text.as_slice(), line.at), (&b"line 1"[..], Some(at(at_round(0)))));
    }
}

fn at_round(round: u64) -> i64 {
    1000 + 100 * i64::try_from(round).unwrap()
}

fn watcher_for(logs: &Logs, watcher: &LogWatcher, round: u64) -> LogWatcher {
    if round == 0 {
        logs.append("api", "");
        watcher.keep(
            instance("api"),
            logs.path("api"),
            keep(&Lock::default(), spec(64 * KIB, 100)),
        );
    }
    watcher.clone()
}

#[tokio::test]
async fn retention_keeps_so_many_files_and_none_if_so_declared() {
    for logs in both_kinds() {
        let lock = Lock::default();
        let watcher = logs.watcher();
        let path = logs.path("api");
        logs.append("api", "");
        watcher.keep(instance("api"), path.clone(), keep(&lock, spec(64 * KIB, 2)));
        let mut written = 0;
        for round in 0..5 {
            let lines = numbered(round * 10_000..(round + 1) * 10_000);
            written += lines.len() as u64;
            logs.append("api", &lines);
            begins(&watcher, "api", written.saturating_sub(2 * 64 * KIB)).await;
        }
        let mut log = watcher.subscribe(&instance("api")).unwrap();
        let kept = soon("retention", log.wait_for(|extent| extent.first > 0)).await.unwrap().first;
        soon("two files", async {
            while rotated(&logs, "api").len() > 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let lines = logs.read(&["api"], &Query::default());
        assert!(lines[0].offset >= kept);
        assert_eq!(lines.last().unwrap().text, b"line 49999");
        // What is changed in place takes effect at once.
        watcher.keep(instance("api"), path.clone(), keep(&lock, spec(64 * KIB, 0)));
        let mut log = watcher.subscribe(&instance("api")).unwrap();
        soon("no files", log.wait_for(|extent| extent.first == extent.base)).await.unwrap();
        assert_eq!(rotated(&logs, "api"), [""; 0]);
        let lines = numbered(50_000..70_000);
        written += lines.len() as u64;
        logs.append("api", &lines);
        begins(&watcher, "api", written.saturating_sub(2 * 64 * KIB)).await;
        soon("no files", log.wait_for(|extent| extent.first == extent.base)).await.unwrap();
        assert_eq!(rotated(&logs, "api"), [""; 0]);
        // Where it is emptied, nothing is left.
        let left = texts(&logs.read(&["api"], &Query::default()));
        assert!(left.last().is_none_or(|line| line == "line 69999"), "{left:?}");
    }
}

#[tokio::test]
async fn what_has_grown_far_beyond_all_that_is_kept_is_not_copied() {
    let logs = Logs::new();
    let watcher = logs.watcher();
    let lines = numbered(0..500_000);
    logs.append("api", &lines);
    watcher.keep(instance("api"), logs.path("api"), keep(&Lock::default(), spec(256 * KIB, 3)));
    rests(&watcher, "api", lines.len(), 256 * KIB).await;
    let kept = together(&logs, "api");
    assert!(lines.ends_with(&kept), "the newest");
    assert!((768 * KIB..=1280 * KIB).contains(&(kept.len() as u64)), "{} bytes", kept.len());
}

#[tokio::test]
async fn a_log_is_rotated_when_it_is_old_and_rotated_files_go_when_they_are() {
    for logs in both_kinds() {
        let day = 86_400;
        let watcher = logs.watcher();
        logs.append("api", "");
        let weekly =
            LogSpec { max_age: Some(Duration::from_secs(7 * 86_400)), ..LogSpec::default() };
        watcher.keep(instance("api"), logs.path("api"), keep(&Lock::default(), weekly));
        logs.append_at(&watcher, "api", 1000 * day, &numbered(0..1000)).await;
        logs.append_at(&watcher, "api", 1006 * day, &numbered(1000..1001)).await;
        assert_eq!(rotated(&logs, "api"), [""; 0], "not old enough");
        logs.append_at(&watcher, "api", 1007 * day, &numbered(1001..1002)).await;
        begins(&watcher, "api", 4096).await;
        assert_eq!(rotated(&logs, "api").len(), 1);
        assert_eq!(logs.read(&["api"], &Query::default()).len(), 1002);
        // The first line of what is left is old as well, but there is too little of it to cut off,
        // or it is new; so the file stays as it is until it grows.
        logs.append_at(&watcher, "api", 1013 * day, &numbered(2000..3000)).await;
        logs.append_at(&watcher, "api", 1014 * day, &numbered(3000..3001)).await;
        let mut log = watcher.subscribe(&instance("api")).unwrap();
        soon("the end of the first file", log.wait_for(|extent| extent.first > 0)).await.unwrap();
        let lines = logs.read(&["api"], &Query::default());
        assert_ne!(lines[0].text, b"line 0");
        assert_eq!(lines.last().unwrap().text, b"line 3000");
    }
}

#[tokio::test]
async fn a_stopped_components_log_is_rotated_and_one_that_is_not_kept_is_left_alone() {
    let logs = Logs::new();
    let lines = numbered(0..20_000);
    logs.append("old", &lines);
    logs.append("free", &lines);
    let watcher = logs.watched(&["free"]);
    watcher.keep(instance("old"), logs.path("old"), keep(&Lock::default(), spec(64 * KIB, 100)));
    begins(&watcher, "old", 64 * KIB).await;
    assert_eq!(seen(&watcher, "free", lines.len() as u64).await.base, 0);
    assert_eq!(rotated(&logs, "free"), [""; 0]);
    // Uncompressed, if so declared.
    let plain = LogSpec { compress: false, ..spec(64 * KIB, 100) };
    watcher.keep(instance("free"), logs.path("free"), keep(&Lock::default(), plain));
    rests(&watcher, "free", lines.len(), 64 * KIB).await;
    assert!(rotated(&logs, "free").iter().all(|name| !name.ends_with(".gz")));
    assert_complete(&logs, "free", &lines);
}

#[tokio::test]
async fn a_log_that_is_forgotten_and_known_again_meanwhile_loses_nothing() {
    for logs in both_kinds() {
        let watcher = logs.watcher();
        let lock = Lock::default();
        let mut lines = Vec::new();
        for round in 0..30 {
            let more = numbered(round * 5_000..(round + 1) * 5_000);
            logs.append("api", &more);
            lines.extend(more);
            watcher.keep(instance("api"), logs.path("api"), keep(&lock, spec(64 * KIB, 1000)));
            seen(&watcher, "api", lines.len() as u64).await;
            watcher.unwatch(&instance("api"));
        }
        watcher.keep(instance("api"), logs.path("api"), keep(&lock, spec(64 * KIB, 1000)));
        rests(&watcher, "api", lines.len(), 64 * KIB).await;
        assert_complete(&logs, "api", &lines);
    }
}

#[tokio::test]
async fn who_cannot_be_held_still_keeps_a_long_log_and_that_is_said() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return eprintln!("there is no /dev/shm");
    }
    let logs = Logs::new_in(memory);
    let lines = numbered(0..20_000);
    logs.append("api", &lines);
    let watcher = logs.watcher();
    let api = instance("api");
    let restless = Keep { spec: spec(64 * KIB, 10), writers: Arc::new(Restless) };
    watcher.keep(api.clone(), logs.path("api"), restless);
    soon("a problem", async {
        while watcher.problem(&api).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let problem = watcher.problem(&api).unwrap();
    assert_eq!(problem, "its log cannot be rotated: they cannot be held still");
    assert_complete(&logs, "api", &lines);
    // It is tried again by itself, once it can be done.
    watcher.keep(api.clone(), logs.path("api"), keep(&Lock::default(), spec(64 * KIB, 10)));
    begins(&watcher, "api", 128 * KIB).await;
    soon("the end of the problem", async {
        while watcher.problem(&api).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_complete(&logs, "api", &lines);
}

#[tokio::test]
async fn a_rotated_file_that_is_damaged_is_said_and_passed_over() {
    let logs = Logs::new();
    let watcher = logs.watcher();
    watcher.keep(instance("api"), logs.path("api"), keep(&Lock::default(), spec(64 * KIB, 100)));
    for round in 0..3 {
        logs.append("api", numbered(round * 7_000..(round + 1) * 7_000));
        begins(&watcher, "api", (round + 1) * 64 * KIB).await;
    }
    let names = rotated(&logs, "api");
    let damaged = logs.path("x").with_file_name(&names[1]);
    fs::write(&damaged, b"\x1f\x8bnonsense and more of it").unwrap();
    let source = || vec![logs.source("api")];
    let items: Vec<_> = stigmer::logs::read(source(), &Query::default()).collect();
    let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].to_string().contains(&names[1]), "{}", errors[0]);
    let lines: Vec<_> = items.iter().filter_map(|item| item.as_ref().ok()).collect();
    assert_eq!(lines[0].text, b"line 0");
    assert_eq!(lines.last().unwrap().text, b"line 20999");
    assert!(lines.len() > 10_000);
    let last: LogSource = logs.source("api");
    let query = Query { lines: Some(20_000), ..Query::default() };
    let found = stigmer::logs::read(vec![last], &query).filter_map(Result::ok).count();
    assert!(found > 5_000, "{found} lines in spite of the damage");
}

#[tokio::test]
async fn fault_12_a_full_disk_stops_the_rotation_and_loses_nothing() {
    let Some(disk) = SmallDisk::new(4 * 1024 * 1024) else { return };
    let logs = Logs::new_in(disk.path());
    let watcher = logs.watcher();
    let api = instance("api");
    // What cannot be compressed: its copy takes as much as it does.
    let noise: Vec<u8> = (0_u64..200_000)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17).to_le_bytes())
        .collect();
    logs.append("api", &noise);
    watcher.keep(api.clone(), logs.path("api"), keep(&Lock::default(), LogSpec::default()));
    seen(&watcher, "api", noise.len() as u64).await;
    let filler = disk.fill();
    watcher.keep(api.clone(), logs.path("api"), keep(&Lock::default(), spec(64 * KIB, 100)));
    soon("a problem", async {
        while !watcher.problem(&api).is_some_and(|problem| problem.contains("No space left")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(fs::read(logs.path("api")).unwrap() == noise, "the log is as it was");
    fs::remove_file(filler).unwrap();
    begins(&watcher, "api", noise.len() as u64).await;
    assert_complete(&logs, "api", &noise);
    soon("the end of the problem", async {
        while watcher.problem(&api).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
