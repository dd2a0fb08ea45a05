//! Following: across restarts, truncation, replacement, rotation and floods.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regex::bytes::Regex;
use rustix::fs::FallocateFlags;
use stigmer::logs::{LogStream, Query};

use crate::support::{Logs, following, instance, seen, soon, take, texts};

#[tokio::test]
async fn s49_a_follower_goes_on_through_appends_truncation_and_replacement() {
    let logs = Logs::new();
    logs.append("api", "1\n2\n3\n");
    let watcher = logs.watched(&["api"]);
    let query = Query { lines: Some(2), ..following() };
    let mut stream = LogStream::new(vec![logs.source("api")], &query, &watcher);
    assert_eq!(take(&mut stream, 2).await, ["2", "3"]);
    logs.append("api", "4\n5");
    assert_eq!(take(&mut stream, 1).await, ["4"]);
    logs.append("api", " whole\n");
    assert_eq!(take(&mut stream, 1).await, ["5 whole"]);
    let end = stigmer::logs::end_position(&logs.path("api")).unwrap();
    seen(&watcher, "api", end).await;
    OpenOptions::new().write(true).open(logs.path("api")).unwrap().set_len(0).unwrap();
    logs.append("api", "6\n");
    assert_eq!(take(&mut stream, 1).await, ["6"]);
    fs::remove_file(logs.path("api")).unwrap();
    logs.append("api", "7\n");
    assert_eq!(take(&mut stream, 1).await, ["7"]);
    watcher.unwatch(&instance("api"));
    assert!(soon("the end", stream.next()).await.is_none());
}

#[tokio::test]
async fn without_follow_it_ends_and_shows_the_open_line() {
    let logs = Logs::new();
    logs.append("api", "1\nopen");
    let watcher = logs.watched(&["api"]);
    let mut stream = LogStream::new(vec![logs.source("api")], &Query::default(), &watcher);
    assert_eq!(take(&mut stream, 2).await, ["1", "open"]);
    assert!(soon("the end", stream.next()).await.is_none());
    assert!(soon("the end again", stream.next()).await.is_none());
}

#[tokio::test]
async fn an_open_line_is_given_when_its_log_is_quiet_and_completed_later() {
    let logs = Logs::new();
    logs.append("api", "password: ");
    let watcher = logs.watched(&["api"]);
    let mut stream = LogStream::new(vec![logs.source("api")], &following(), &watcher);
    let lines = soon("the prompt", stream.next()).await.unwrap().unwrap();
    assert_eq!((texts(&lines), lines[0].continued), (vec!["password: ".to_owned()], true));
    logs.append("api", "thanks\nnext\n");
    assert_eq!(take(&mut stream, 2).await, ["thanks", "next"]);
}

#[tokio::test]
async fn only_matching_lines_of_several_logs() {
    let logs = Logs::new();
    logs.append("api", "error 1\nfine\n");
    let watcher = logs.watched(&["api", "db"]);
    let query = Query { grep: Some(Regex::new("^error [0-9]$").unwrap()), ..following() };
    let sources = vec![logs.source("api"), logs.source("db")];
    let mut stream = LogStream::new(sources, &query, &watcher);
    assert_eq!(take(&mut stream, 1).await, ["error 1"]);
    logs.append("db", "fine\nerror 2\r\n");
    assert_eq!(take(&mut stream, 1).await, ["error 2\r"]);
    logs.append("api", "no error\nerror 3\n");
    assert_eq!(take(&mut stream, 1).await, ["error 3"]);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_between_history_and_following() {
    let logs = Logs::new();
    let path = logs.path("api");
    let watcher = logs.watched(&["api"]);
    let writer = std::thread::spawn(move || {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        for number in 0..200_000 {
            file.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
    });
    // Begun somewhere in the middle of the flood, and dropped and taken up again all the time.
    seen(&watcher, "api", 100_000).await;
    let mut stream = LogStream::new(vec![logs.source("api")], &following(), &watcher);
    let mut next = 0;
    while next < 200_000 {
        let lines = soon("lines", async {
            loop {
                tokio::select! {
                    biased;
                    lines = stream.next() => break lines.unwrap().unwrap(),
                    () = tokio::task::yield_now() => {}
                }
            }
        });
        for line in lines.await {
            assert_eq!(line.text, format!("line {next}").into_bytes());
            next += 1;
        }
    }
    writer.join().unwrap();
}

/// Removes the head of a file that is being appended to; false where the file system cannot.
fn collapse(file: &File, bytes: u64) -> std::io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::COLLAPSE_RANGE, 0, bytes)?)
}

#[tokio::test]
async fn fault_36_rotation_under_full_load_disturbs_no_follower() {
    const LINES: u64 = 300_000;
    const BLOCK: u64 = 4096;
    let logs = Logs::new();
    let path = logs.path("api");
    File::create(&path).unwrap().write_all(&[b'\n'; 8192]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    if collapse(&file, BLOCK).is_err() {
        eprintln!("this file system cannot remove the head of a file");
        return;
    }
    file.set_len(0).unwrap();
    let watcher = logs.watched(&["api"]);
    let written = Arc::new(AtomicU64::new(0));
    let writer = {
        let (path, written) = (path.clone(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            for number in 0..LINES {
                file.write_all(format!("line {number}\n").as_bytes()).unwrap();
                written.store(number + 1, Ordering::SeqCst);
            }
        })
    };
    let mut stream = LogStream::new(vec![logs.source("api")], &following(), &watcher);
    let mut rotated = Vec::new();
    let (mut next, mut rotations) = (0, 0);
    while next < LINES {
        let lines = soon("lines", stream.next()).await.unwrap().unwrap();
        let mut position = 0;
        for line in lines {
            assert_eq!(line.text, format!("line {next}").into_bytes());
            next += 1;
            position = line.offset;
        }
        // What was followed is rotated away, in whole blocks, while the writer goes on.
        let bytes = (position - rotated.len() as u64) / BLOCK * BLOCK;
        let length = file.metadata().unwrap().len();
        if bytes >= 64 * BLOCK && bytes < length {
            let mut head = vec![0; usize::try_from(bytes).unwrap()];
            file.read_exact_at(&mut head, 0).unwrap();
            let same = file.try_clone().unwrap();
            let api = instance("api");
            let done = watcher.shorten(&api, bytes, move || collapse(&same, bytes));
            soon("rotation", done).await.unwrap();
            rotated.extend_from_slice(&head);
            rotations += 1;
        }
    }
    writer.join().unwrap();
    assert!(rotations > 3, "{rotations} rotations");
    rotated.extend(fs::read(&path).unwrap());
    let wanted: Vec<_> = (0..LINES).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    assert!(rotated == wanted, "rotated and present files together hold every byte");
}
