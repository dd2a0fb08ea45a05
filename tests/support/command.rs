//! Running a command to its end, or following what it prints; always bounded in time.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::processes::Process;
use super::wait::patience;

/// After the end of a command its outputs must end as well, within this: whatever it leaves running
/// has no business with them.
const OUTPUT_ENDS: Duration = Duration::from_secs(5);

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// What was run.
    pub(crate) command: String,
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    /// From its start to its end.
    pub(crate) took: Duration,
}

impl Output {
    /// Fails the test unless the command ended with `code`.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "the exit code of {self:#?}");
        self
    }

    /// Its standard output, which must be one JSON document and nothing else.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}) from {self:#?}"))
    }
}

/// Runs `command` to its end.
///
/// # Errors
///
/// In plain words: it cannot be started, does not end in time, or leaves something running that
/// holds its output.
pub(crate) fn run(mut command: Command) -> Result<Output, String> {
    let name = format!("{command:?}");
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    let stdout = read_in_background(child.stdout.take());
    let stderr = read_in_background(child.stderr.take());
    let in_time = Process::open(child.id()).is_none_or(|process| {
        let in_time = process.wait_gone(patience());
        if !in_time {
            process.signal(Signal::KILL);
        }
        in_time
    });
    let status = child.wait().map_err(|error| format!("cannot wait for {name}: {error}"))?;
    let took = began.elapsed();
    let text = |output: &Receiver<Vec<u8>>| {
        output.recv_timeout(OUTPUT_ENDS).map_or_else(
            |_| Err(format!("something that {name} left running holds its output")),
            |bytes| Ok(String::from_utf8_lossy(&bytes).into_owned()),
        )
    };
    let (stdout, stderr) = (text(&stdout)?, text(&stderr)?);
    if !in_time {
        return Err(format!("{name} did not end; it said\n{stdout}\n{stderr}"));
    }
    Ok(Output { command: name, code: status.code(), signal: status.signal(), stdout, stderr, took })
}

fn read_in_background(source: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// A command that goes on, such as `logs -f`. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    command: String,
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts `command`; its standard error goes where the test's goes.
    pub(crate) fn start(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        Self { command: name, child, lines }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its standard output; `None` if that has ended.
    #[track_caller]
    pub(crate) fn next_line(&self) -> Option<String> {
        match self.lines.recv_timeout(patience()) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                panic!("no line came from {}", self.command)
            }
        }
    }

    /// Reads on until a line has `text` in it, and gives that line.
    #[track_caller]
    pub(crate) fn line_with(&self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.next_line() {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("{} ended without {text:?}; it said {seen:#?}", self.command);
    }

    /// Signals it. It is a child that was not waited for, so that its pid means no other process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = Process::open(self.child.id()) {
            process.signal(signal);
        }
    }

    /// Waits for its end: the exit code and the signal.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> (Option<i32>, Option<i32>) {
        if let Some(process) = Process::open(self.child.id()) {
            assert!(process.wait_gone(patience()), "{} did not end", self.command);
        }
        match self.child.wait() {
            Ok(status) => (status.code(), status.signal()),
            Err(error) => panic!("cannot wait for {}: {error}", self.command),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
