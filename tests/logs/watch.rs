//! The watcher: growth, replacement, absence.

use std::fs::{self, OpenOptions};

use stigmer::logs::{Extent, Query, extent};

use crate::support::{Logs, at, instance, seen, soon, texts};

#[tokio::test]
async fn s50_a_line_has_the_time_at_which_it_came() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api"]);
    for number in 1..=20 {
        logs.append_at(&watcher, "api", number * 100, &format!("line {number}\n")).await;
    }
    let lines = logs.read(&["api"], &Query::default());
    let times: Vec<_> = lines.iter().map(|line| line.at.unwrap()).collect();
    assert_eq!(times, (1..=20).map(|number| at(number * 100)).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_came_while_nobody_watched_is_as_old_as_the_file() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api"]);
    logs.append_at(&watcher, "api", 100, "before\n").await;
    drop(watcher);
    logs.append("api", "meanwhile\n");
    let file = OpenOptions::new().append(true).open(logs.path("api")).unwrap();
    file.set_modified(at(500).try_into().unwrap()).unwrap();
    logs.set_clock(900);
    let watcher = logs.watched(&["api"]);
    seen(&watcher, "api", 17).await;
    logs.append_at(&watcher, "api", 1000, "after\n").await;
    let lines = logs.read(&["api"], &Query::default());
    let times: Vec<_> = lines.iter().map(|line| line.at.unwrap().as_second()).collect();
    assert_eq!(times, [100, 500, 1000]);
}

#[tokio::test]
async fn a_log_may_come_later_go_and_come_back() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api", "db"]);
    logs.append("api", "one\n");
    assert_eq!(seen(&watcher, "api", 4).await, Extent { first: 0, base: 0, end: 4 });
    // Moved away, as by another program's rotation, and made anew.
    fs::rename(logs.path("api"), logs.path("api.old")).unwrap();
    logs.append("api", "two two\n");
    assert_eq!(seen(&watcher, "api", 12).await, Extent { first: 4, base: 4, end: 12 });
    fs::remove_file(logs.path("api")).unwrap();
    logs.append("db", "db\n");
    seen(&watcher, "db", 3).await;
    logs.append("api", "three\n");
    assert_eq!(seen(&watcher, "api", 18).await, Extent { first: 12, base: 12, end: 18 });
    assert_eq!(texts(&logs.read(&["api"], &Query::default())), ["three"]);
}

#[tokio::test]
async fn a_truncation_moves_the_base() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api"]);
    logs.append("api", "0123456789\n");
    seen(&watcher, "api", 11).await;
    OpenOptions::new().write(true).open(logs.path("api")).unwrap().set_len(0).unwrap();
    logs.append("api", "new\n");
    assert_eq!(seen(&watcher, "api", 15).await, Extent { first: 11, base: 11, end: 15 });
    assert_eq!(extent(&logs.path("api")).unwrap(), Extent { first: 11, base: 11, end: 15 });
}

#[tokio::test]
async fn a_watch_that_is_ended_ends_its_subscriptions() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api"]);
    let mut log = watcher.subscribe(&instance("api")).unwrap();
    watcher.unwatch(&instance("api"));
    let ended = soon("the end", async { while log.changed().await.is_ok() {} });
    ended.await;
    assert!(watcher.subscribe(&instance("api")).is_none());
    // It can be watched again.
    watcher.watch(instance("api"), logs.path("api"));
    logs.append("api", "again\n");
    seen(&watcher, "api", 6).await;
}

#[tokio::test]
async fn a_log_in_a_folder_that_does_not_exist_yet_is_found() {
    let logs = Logs::new();
    let watcher = logs.watcher();
    let path = logs.folder.path().join("later/api.log");
    watcher.watch(instance("api"), path.clone());
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "here\n").unwrap();
    seen(&watcher, "api", 5).await;
}

#[tokio::test]
async fn fault_12_lines_are_followed_although_the_index_cannot_be_written() {
    let logs = Logs::new();
    // A folder in its place cannot be opened for writing, not even by root.
    fs::create_dir(stigmer::logs::index_path(&logs.path("api"))).unwrap();
    let watcher = logs.watched(&["api"]);
    logs.append("api", "one\n");
    soon("the watcher", async {
        let mut log = watcher.subscribe(&instance("api")).unwrap();
        while fs::metadata(logs.path("api")).is_ok_and(|log| log.len() < 8) {
            logs.append("api", "two\n");
            log.changed().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_thousand_logs_are_watched_with_one_descriptor() {
    let logs = Logs::new();
    let watcher = logs.watcher();
    let names: Vec<_> = (0..1000).map(|number| format!("c{number}")).collect();
    for name in &names {
        logs.append(name, "1\n");
        watcher.watch(instance(name), logs.path(name));
    }
    for name in &names {
        seen(&watcher, name, 2).await;
    }
    for name in &names {
        logs.append(name, "2\n");
    }
    for name in &names {
        seen(&watcher, name, 4).await;
    }
}

#[tokio::test]
async fn what_grows_on_and_on_is_not_armed_before_it_stands_still() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api"]);
    logs.append("api", "1\n");
    let mut end = 2;
    seen(&watcher, "api", end).await;
    // Each look is answered with a line, so that it has grown in each rest.
    for round in 0..20 {
        logs.append("api", "2\n");
        end += 2;
        seen(&watcher, "api", end).await;
        assert!(round < 4 || !logs.is_armed("api"), "armed in round {round}");
    }
    soon("a watch", async {
        while !logs.is_armed("api") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    logs.append("api", "3\n");
    seen(&watcher, "api", end + 2).await;
}
