//! Following: across restarts, truncation, replacement, rotation and floods.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use regex::bytes::Regex;
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
