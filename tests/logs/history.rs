//! What is there: lines, tails, spans of time, runs, merging.

use proptest::prelude::*;
use regex::bytes::Regex;
use stigmer::logs::{Ending, Lines, LogSource, PIECE, Query, read, tail};

use crate::support::{Logs, at, instance, texts};

fn last(count: usize) -> Query {
    Query { lines: Some(count), ..Query::default() }
}

#[test]
fn fault_33_35_bytes_are_kept_and_the_open_line_is_shown() {
    let logs = Logs::new();
    logs.append("api", b"nul \0 and \xff\xfe\r\n\nopen");
    let lines = logs.read(&["api"], &Query::default());
    let got: Vec<_> = lines.iter().map(|line| (line.offset, line.text.as_slice())).collect();
    assert_eq!(got, [(0, &b"nul \0 and \xff\xfe\r"[..]), (14, b""), (15, b"open")]);
    assert!(lines.iter().all(|line| !line.continued && line.at.is_none()));
}

#[test]
fn a_log_that_is_not_there_holds_nothing_and_a_folder_is_an_error() {
    let logs = Logs::new();
    assert_eq!(logs.read(&["api"], &last(5)), []);
    assert_eq!(tail(&logs.path("api"), 5), Vec::<String>::new());
    std::fs::create_dir(logs.path("folder")).unwrap();
    logs.append("api", "fine\n");
    let sources = vec![logs.source("folder"), logs.source("api")];
    let items: Vec<_> = read(sources, &Query::default()).collect();
    assert!(items[0].as_ref().unwrap_err().to_string().contains("folder.log"));
    assert_eq!(items[1].as_ref().unwrap().text, b"fine", "the others go on");
    nix::unistd::mkfifo(&logs.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(read(vec![logs.source("fifo")], &last(1)).next().unwrap().is_err());
}

#[test]
fn fault_32_a_line_of_100_mb_comes_in_pieces() {
    use std::io::{Seek as _, SeekFrom, Write as _};
    let logs = Logs::new();
    logs.append("api", "before\n");
    let mut file = std::fs::OpenOptions::new().write(true).open(logs.path("api")).unwrap();
    // A hole reads as NUL bytes and takes no room on the disk.
    let length = 100 * 1024 * 1024;
    file.seek(SeekFrom::Start(7 + length)).unwrap();
    file.write_all(b"\nafter\n").unwrap();
    let mut lines = Lines::new(&logs.path("api"), 0, u64::MAX, PIECE);
    let (mut cut, mut whole, mut bytes) = (0, Vec::new(), 0);
    while let Some(piece) = lines.next_piece().unwrap() {
        assert!(piece.text.len() <= PIECE);
        match piece.ending {
            Ending::Cut => cut += 1,
            Ending::Newline | Ending::Open => whole.push(piece.text.len()),
        }
        bytes += piece.text.len() as u64;
    }
    assert_eq!((cut, whole.as_slice()), (1599, &[6, PIECE, 5][..]));
    assert_eq!(bytes, 6 + length + 5);
    let merged = logs.read(&["api"], &last(1));
    assert_eq!(texts(&merged), ["after"]);
    let two = read(vec![logs.source("api")], &last(2)).map(Result::unwrap);
    assert_eq!(two.map(|line| u64::from(line.continued)).sum::<u64>(), 1599);
}

#[test]
fn the_tail_for_reports_is_text_and_short() {
    let logs = Logs::new();
    logs.append("api", b"one\ntwo \xff\r\n");
    logs.append("api", "x".repeat(200_000));
    let lines = tail(&logs.path("api"), 2);
    assert_eq!(lines[0], "two \u{fffd}");
    assert_eq!(lines[1].chars().count(), 2001);
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn s50_lines_of_several_components_are_merged_by_time() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api", "db", "old"]);
    logs.append_at(&watcher, "db", 10, "db 1\n").await;
    logs.append_at(&watcher, "api", 20, "api 1\napi 2\n").await;
    logs.append_at(&watcher, "db", 30, "db 2\n").await;
    logs.append_at(&watcher, "api", 30, "api 3\n").await;
    logs.append_at(&watcher, "db", 40, "db 3\nopen").await;
    drop(watcher);
    let lines = logs.read(&["api", "db"], &Query::default());
    let order = ["db 1", "api 1", "api 2", "api 3", "db 2", "db 3", "open"];
    assert_eq!(texts(&lines), order, "at one time the first source comes first");
    let times: Vec<_> = lines.iter().map(|line| line.at.unwrap().as_second()).collect();
    assert_eq!(times, [10, 20, 20, 30, 30, 40, 40]);

    // Lines that no index knows stay behind their predecessors; those of a log without one come first.
    logs.append("api", "unknown\n");
    logs.append("foreign", "foreign\n");
    let lines = logs.read(&["api", "db", "foreign"], &Query::default());
    assert_eq!(
        texts(&lines),
        ["foreign", "db 1", "api 1", "api 2", "api 3", "unknown", "db 2", "db 3", "open"]
    );
}

#[tokio::test]
async fn since_and_until_find_their_lines() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api"]);
    for (seconds, text) in [(10, "a\nb\nha"), (20, "lf\nc\n"), (30, "d\n"), (40, "e\n")] {
        logs.append_at(&watcher, "api", seconds, text).await;
    }
    let read = |since: Option<i64>, until: Option<i64>, lines| {
        let query = Query { since: since.map(at), until: until.map(at), lines, ..Query::default() };
        texts(&logs.read(&["api"], &query))
    };
    assert_eq!(read(Some(10), None, None), ["a", "b", "half", "c", "d", "e"]);
    assert_eq!(read(Some(11), None, None), ["c", "d", "e"], "half was begun before");
    assert_eq!(read(Some(41), None, None), Vec::<String>::new());
    assert_eq!(read(None, Some(20), None), ["a", "b", "half", "c"]);
    assert_eq!(read(None, Some(10), None), ["a", "b", "half"]);
    assert_eq!(read(None, Some(9), None), Vec::<String>::new());
    assert_eq!(read(Some(20), Some(30), None), ["c", "d"]);
    assert_eq!(read(Some(10), Some(30), Some(2)), ["c", "d"]);
    assert_eq!(read(Some(30), Some(10), None), Vec::<String>::new());
}

#[tokio::test]
async fn fault_19_a_clock_that_is_set_back_keeps_the_order_of_a_log() {
    let logs = Logs::new();
    let watcher = logs.watched(&["api"]);
    for (seconds, text) in [(1000, "a\n"), (50, "b\n"), (60, "c\n")] {
        logs.append_at(&watcher, "api", seconds, text).await;
    }
    assert_eq!(texts(&logs.read(&["api"], &Query::default())), ["a", "b", "c"]);
    let query = Query { since: Some(at(55)), ..Query::default() };
    assert_eq!(texts(&logs.read(&["api"], &query)), ["c"]);
}

#[test]
fn runs_are_read_between_their_boundaries_and_rotated_files_come_first() {
    let logs = Logs::new();
    logs.append("api", "run 1\nhalf");
    let boundary = stigmer::logs::end_position(&logs.path("api")).unwrap();
    logs.append("api", "run 2\nmore\n");
    let bounded = |from, to| LogSource { from, to, ..logs.source("api") };
    let texts_of = |sources, query: &Query| -> Vec<_> {
        texts(&read(sources, query).map(Result::unwrap).collect::<Vec<_>>())
    };
    let all = Query::default();
    assert_eq!(texts_of(vec![bounded(None, Some(boundary))], &all), ["run 1", "half"]);
    assert_eq!(texts_of(vec![bounded(Some(boundary), None)], &all), ["run 2", "more"]);
    assert_eq!(texts_of(vec![bounded(Some(boundary), None)], &last(1)), ["more"]);
    let lost = texts_of(vec![bounded(Some(9999), None)], &last(1));
    assert_eq!(lost, ["more"], "a boundary that no longer makes sense hides nothing");

    logs.append("api.1", "older\n");
    let rotated = LogSource { instance: instance("api"), ..logs.source("api.1") };
    let both = || vec![rotated.clone(), bounded(None, None)];
    assert_eq!(texts_of(both(), &all), ["older", "run 1", "halfrun 2", "more"]);
    assert_eq!(texts_of(both(), &last(4)), ["older", "run 1", "halfrun 2", "more"]);
    assert_eq!(texts_of(both(), &last(2)), ["halfrun 2", "more"]);
}

#[test]
fn many_logs_are_merged_without_holding_descriptors() {
    let logs = Logs::new();
    let names: Vec<_> = (0..300).map(|number| format!("c{number}")).collect();
    for name in &names {
        logs.append(name, "1\n2\n3\n");
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(logs.read(&names, &last(2)).len(), 600);
    let sources = names.iter().map(|name| logs.source(name)).collect();
    let mut merged = read(sources, &Query::default());
    merged.next().unwrap().unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        std::fs::read_link(entry.ok()?.path())
            .ok()
            .filter(|link| link.starts_with(logs.folder.path()))
    });
    assert_eq!(open.count(), 0);
}

/// Lines as a plain program would split them.
fn model(content: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = content.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    // Lengths around the block, and runs of newlines.
    let line = prop_oneof![
        4 => (0_usize..40, any::<u8>()),
        1 => (PIECE - 2..PIECE + 1, any::<u8>()),
        1 => (4000_usize..9000, any::<u8>()),
    ];
    (proptest::collection::vec(line, 0..40), any::<bool>()).prop_map(|(lines, is_open)| {
        let mut content = Vec::new();
        for (length, byte) in lines {
            let byte = if byte == b'\n' { b'a' } else { byte };
            content.extend(std::iter::repeat_n(byte, length));
            content.push(b'\n');
        }
        if is_open {
            content.extend_from_slice(b"open");
        }
        content
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tails_and_matches_are_those_of_a_plain_program(content in content(), count in 0_usize..50) {
        let logs = Logs::new();
        logs.append("api", &content);
        let all = model(&content);
        let got = |query: &Query| -> Vec<_> {
            logs.read(&["api"], query).into_iter().map(|line| line.text).collect()
        };
        prop_assert_eq!(got(&Query::default()), all.clone());
        let skipped = all.len().saturating_sub(count);
        prop_assert_eq!(got(&last(count)), all[skipped..].to_vec());

        let grep = Regex::new("(?-u)^[a-z\\x80-\\xff]").unwrap();
        let matching: Vec<_> = all.into_iter().filter(|line| grep.is_match(line)).collect();
        let skipped = matching.len().saturating_sub(count);
        let query = Query { grep: Some(grep), ..last(count) };
        prop_assert_eq!(got(&query), matching[skipped..].to_vec());
    }

    #[test]
    fn pieces_hold_every_byte_between_any_two_positions(
        content in content(),
        from in 0_u64..100_000,
        length in 0_u64..200_000,
        block in 0_usize..70_000,
    ) {
        let logs = Logs::new();
        logs.append("api", &content);
        let mut lines = Lines::new(&logs.path("api"), from, from + length, block);
        let mut got = Vec::new();
        while let Some(piece) = lines.next_piece().unwrap() {
            prop_assert_eq!(piece.position, from + got.len() as u64);
            got.extend_from_slice(piece.text);
            got.extend((piece.ending == Ending::Newline).then_some(b'\n'));
        }
        let place = |at: u64| usize::try_from(at).unwrap().min(content.len());
        prop_assert_eq!(got.as_slice(), &content[place(from)..place(from + length)]);
    }
}
