//! Probes that need no network: process, uptime, command, log, file, and all of several.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::poll_immediate;
use stigmer::model::ExitStatus;
use stigmer::model::spec::{Check, CommandSpec};
use stigmer::runner::probe::{
    CommandFuture, CommandOutput, CommandRunner, Prober, Target, describe,
};
use tokio::time::Instant;

use crate::support::{probe, prober, refusing, target};

#[tokio::test]
async fn s31_process_is_looked_up_by_the_pid_of_the_target() {
    let here = Target { pid: Some(std::process::id()), ..target() };
    assert_eq!(Prober::new(&Check::Process, here).unwrap().probe().await, Ok(()));
    assert!(probe(&Check::Process).await.is_err(), "no process, no success");
    // No pid is this large.
    let gone = Target { pid: Some(u32::MAX), ..target() };
    let message =
        Prober::new(&Check::Process, gone).unwrap().probe().await.unwrap_err().to_string();
    assert!(message.contains("is gone"), "{message}");
}

#[tokio::test]
async fn s32_min_uptime_counts_from_the_launch() {
    let probed = |seconds| {
        let launched = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let check = Check::MinUptime(Duration::from_secs(600));
        let mut prober = Prober::new(&check, Target { launched, ..target() }).unwrap();
        async move { prober.probe().await }
    };
    assert_eq!(probed(125).await, Err("up for 2m 5s of 10m 0s".into()));
    assert_eq!(probed(600).await, Ok(()));
}

/// Answers as told and counts what was begun and what was abandoned.
#[derive(Default)]
struct Commands {
    running: Arc<AtomicUsize>,
}

impl CommandRunner for Commands {
    fn run(&self, argv: Vec<String>) -> CommandFuture {
        struct Running(Arc<AtomicUsize>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.running));
        Box::pin(async move {
            let _running = running;
            let output = |code, text: &str| {
                Ok(CommandOutput { status: ExitStatus::Code(code), output: text.into() })
            };
            match argv.join(" ").as_str() {
                "./ready.sh" => output(0, "fine\n"),
                "/bin/sh -c test -e x && exit 4" => output(4, "looking\nno such thing\n"),
                "hang" => std::future::pending().await,
                _ => Err("cannot execute it: no such file".into()),
            }
        })
    }
}

#[tokio::test]
async fn s32_exec_passes_with_0_and_quotes_the_last_line() {
    let commands = Arc::new(Commands::default());
    let target = Target { commands: Arc::clone(&commands) as _, ..target() };
    let run = |command| {
        let mut prober = Prober::new(&Check::Exec(command), target.clone()).unwrap();
        async move { prober.probe().await }
    };
    let list = |program: &str| CommandSpec::Exec(vec![program.into()]);
    assert_eq!(run(list("./ready.sh")).await, Ok(()));
    let shell = CommandSpec::Shell("test -e x && exit 4".into());
    assert_eq!(run(shell).await, Err("exit 4: no such thing".into()));
    assert_eq!(run(list("missing")).await, Err("cannot execute it: no such file".into()));
    {
        let mut hanging = Box::pin(run(list("hang")));
        assert_eq!(poll_immediate(&mut hanging).await, None);
        assert_eq!(commands.running.load(Ordering::SeqCst), 1);
    }
    assert_eq!(commands.running.load(Ordering::SeqCst), 0, "s10: dropped with the probe");
}

fn log_prober(log: &Path, start: u64, pattern: &str) -> Prober {
    let target = Target { log: log.to_owned(), log_start: start, ..target() };
    Prober::new(&Check::Log { pattern: pattern.into() }, target).unwrap()
}

fn append(log: &Path, text: &[u8]) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    file.write_all(text).unwrap();
}

#[tokio::test]
async fn s14_s32_log_looks_at_the_present_run_only_and_remembers_a_match() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("api.log");
    let mut prober = log_prober(&log, 9, "^ready$");
    assert_eq!(prober.probe().await, Err("no line matches /^ready$/ yet".into()), "no file yet");
    append(&log, b"old\nready\nnew\n");
    let mut prober = log_prober(&log, 10, "^ready$");
    assert!(prober.probe().await.is_err(), "that was the run before");
    append(&log, b"\xff\0 not it\nrea");
    assert!(prober.probe().await.is_err());
    append(&log, b"dy\r\n");
    assert_eq!(prober.probe().await, Ok(()), "a line that came in two parts");
    std::fs::write(&log, "").unwrap();
    assert_eq!(prober.probe().await, Ok(()), "once is enough for the run");
}

#[tokio::test]
async fn an_open_line_counts_once_it_no_longer_grows() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("api.log");
    append(&log, b"listening on 80");
    let mut prober = log_prober(&log, 0, "on 80$");
    assert!(prober.probe().await.is_err(), "it may be on its way to 8080");
    append(&log, b"80\n> ");
    assert!(prober.probe().await.is_err(), "it was");
    let mut prompt = log_prober(&log, 0, "^> $");
    assert!(prompt.probe().await.is_err());
    assert_eq!(prompt.probe().await, Ok(()), "a prompt that stays");
}

#[tokio::test]
async fn a_log_that_is_truncated_or_replaced_is_read_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("api.log");
    append(&log, &b"noise\n".repeat(100));
    let mut prober = log_prober(&log, 0, "ready");
    assert!(prober.probe().await.is_err());
    std::fs::write(&log, "ready\n").unwrap();
    assert_eq!(prober.probe().await, Ok(()));
}

#[tokio::test]
async fn s15_a_large_log_is_read_in_turns_and_a_dropped_run_is_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("api.log");
    append(&log, &b"0123456789abcde\n".repeat(64 * 1024));
    append(&log, &vec![b'x'; 300_000]);
    append(&log, b"\nready\n");
    let mut prober = log_prober(&log, 0, "^ready");
    let mut turns = 0;
    loop {
        // Dropped after its first turn: the next one goes on behind it.
        match prober.probe().now_or_never() {
            Some(result) => break assert_eq!(result, Ok(())),
            None => turns += 1,
        }
        assert!(turns < 100, "it begins anew each time");
    }
    assert!(turns > 10, "others had {turns} turns between");
}

#[tokio::test]
async fn s32_file_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("up");
    let check = Check::File {
        path: path.clone(),
        contains: Some("yes".into()),
        max_age: Some(Duration::from_secs(30)),
    };
    let mut prober = prober(&check);
    assert_eq!(prober.probe().await, Err(format!("no such file ({})", path.display()).into()));
    std::fs::write(&path, "yes").unwrap();
    assert_eq!(prober.probe().await, Ok(()));
    let words = describe(&check);
    assert_eq!(words, format!("file {} contains /yes/ at most 30s old", path.display()));
}

#[tokio::test]
async fn s32_all_fails_with_its_first_failure_and_names_it() {
    let (_socket, port) = refusing();
    let tcp = Check::Tcp { host: Some("127.0.0.1".into()), port };
    let up = Check::MinUptime(Duration::ZERO);
    let never = Check::MinUptime(Duration::from_secs(3600));
    assert_eq!(probe(&Check::All(vec![up.clone(), up.clone()])).await, Ok(()));
    let check = Check::All(vec![up.clone(), tcp.clone(), never]);
    let wanted = format!("tcp 127.0.0.1:{port}: connection refused (127.0.0.1:{port})");
    assert_eq!(probe(&check).await, Err(wanted));
    let nested = Check::All(vec![up, Check::All(vec![tcp])]);
    assert!(probe(&nested).await.unwrap_err().contains("connection refused"));
    assert!(Prober::new(&Check::All(Vec::new()), target()).is_err(), "nothing is not success");
}

#[test]
fn a_wrong_expression_is_refused_in_one_line() {
    let check = Check::Log { pattern: "(ready".into() };
    let message = Prober::new(&check, target()).map(drop).unwrap_err();
    assert_eq!(message, "/(ready/ is not a regular expression: unclosed group");
}

#[test]
fn a_description_is_one_line_whatever_is_declared() {
    let check = Check::Exec(CommandSpec::Shell(format!("echo\n\x1b[31m{}", "x".repeat(1000))));
    let words = describe(&check);
    assert!(words.starts_with("exec echo\\n\\u{1b}[31mxxx"), "{words}");
    assert_eq!(words.chars().count(), 300);
}
