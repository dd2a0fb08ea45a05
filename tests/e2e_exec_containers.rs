//! `stigmer exec` in containers: streams, terminal, signals and exit code are those of a command that is
//! run here, though an engine runs it.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use support::containers::{Engine, IMAGE};
use support::home::{TestHome, lock};
use support::terminal::Terminal;

struct Bench {
    engine: Arc<Mutex<Engine>>,
    home: TestHome,
}

impl Bench {
    /// A component `db` that waits in a container.
    fn new(engine: Option<Engine>) -> Option<Self> {
        let engine = Arc::new(Mutex::new(engine?));
        let home = TestHome::with_engine(&engine);
        let project = home.project_name();
        home.manifest(&format!(
            "
project: {project}
components:
  db:
    container:
      image: {IMAGE}
      command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 1 & wait $$!; done\"]
      environment: {{ TOKEN: hunter2, WORD: declared }}
      network_mode: none
"
        ));
        let mut apply = home.command(["apply"]);
        if let Some(host) = lock(&engine).host() {
            apply.env("DOCKER_HOST", host);
        }
        home.run_command(apply).expect_code(0);
        Some(Self { engine, home })
    }

    fn shared() -> Option<Self> {
        Self::new(Engine::shared())
    }

    /// Whether a process with this command line is in the container.
    fn runs(&self, command: &str) -> bool {
        let name = self.home.container("db");
        let listed = lock(&self.engine).docker(["top", &name, "-eo", "pid,args"]);
        let mut lines = listed.lines().filter_map(|line| line.trim().split_once(' '));
        lines.any(|(_, found)| found.trim() == command)
    }

    #[track_caller]
    fn wait_runs(&self, command: &str, runs: bool) {
        self.home
            .wait_for(&format!("{command}: {runs}"), || (self.runs(command) == runs).then_some(()));
    }
}

#[test]
fn streams_stay_apart_and_the_exit_code_is_the_command_s() {
    let Some(Bench { home, .. }) = Bench::shared() else { return };
    let said = home.run(["exec", "db", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (Some(7), "out\n", "err\n"));
    let said = home.run(["exec", "db", "sh", "-c", "kill -9 $$"]);
    assert_eq!((said.code, said.signal), (Some(137), None));
    let said = home.run(["exec", "db", "sh", "-c", "kill $$"]).expect_code(143);
    assert_eq!(said.stdout, "");
    // What ends its outputs has not ended yet.
    let said = home.run(["exec", "db", "sh", "-c", "echo out; exec >&- 2>&-; sleep 1; exit 5"]);
    assert_eq!((said.code, &*said.stdout), (Some(5), "out\n"));
    // What is left running holds nobody up.
    let said = home.run(["exec", "db", "sh", "-c", "sleep 1000 & echo left"]);
    assert_eq!((said.code, &*said.stdout), (Some(0), "left\n"));
}

#[test]
fn it_has_the_environment_of_the_container_and_what_is_asked_for() {
    let Some(Bench { home, .. }) = Bench::shared() else { return };
    let script = "echo $TOKEN $WORD $MORE; pwd; id -u; id -g";
    let said = home.run(["exec", "db", "sh", "-c", script]).expect_code(0);
    assert_eq!(said.stdout, "hunter2 declared\n/\n0\n0\n");
    let options = ["exec", "-e", "WORD=option", "-e", "MORE=x", "-w", "/tmp", "-u", "5:6", "db"];
    let said = home.run(options.into_iter().chain(["sh", "-c", script])).expect_code(0);
    assert_eq!(said.stdout, "hunter2 option x\n/tmp\n5\n6\n");
    // Without a command: a shell, whose script is the standard input.
    let mut command = home.command(["exec", "db"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"echo $WORD; exit 3\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b"declared\n"[..]));
}

#[test]
fn every_byte_passes_both_ways_and_the_end_of_the_input_is_told() {
    let Some(Bench { home, .. }) = Bench::shared() else { return };
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let file = std::fs::File::open(home.write("input", &bytes)).unwrap();
    let output = home.command(["exec", "db", "cat"]).stdin(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    // A command that wants none of it ends all the same.
    let mut command = home.command(["exec", "db", "true"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let held = child.stdin.take();
    assert!(child.wait().unwrap().success());
    drop(held);
}

#[test]
fn what_cannot_be_executed_ends_as_in_a_shell() {
    let Some(Bench { home, .. }) = Bench::shared() else { return };
    for (arguments, code, words) in [
        (&["exec", "db", "no-such-program"][..], 127, "no-such-program"),
        (&["exec", "db", "/no/such/program"], 127, "no such file"),
        (&["exec", "db", "/etc"], 126, "permission denied"),
        (&["exec", "-w", "/no/such/folder", "db", "true"], 126, "/no/such/folder"),
        (&["exec", "-u", "no-such-user", "db", "true"], 126, "no-such-user"),
    ] {
        let said = home.run(arguments).expect_code(code);
        assert_eq!(said.stdout, "", "{arguments:?}");
        assert!(said.stderr.contains("in the container of db"), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{arguments:?}: {}", said.stderr);
        assert!(!said.stderr.contains("OCI runtime"), "{arguments:?}: {}", said.stderr);
    }
    // A code alone is not taken for one that could not be started.
    let said = home.run(["exec", "db", "sh", "-c", "echo said; exit 127"]).expect_code(127);
    assert_eq!((&*said.stdout, &*said.stderr), ("said\n", ""));
}

#[test]
fn a_shell_in_a_container_has_a_terminal() {
    let Some(Bench { home, .. }) = Bench::shared() else { return };
    let mut terminal = Terminal::start(&home, &["exec", "db"]);
    assert!(terminal.is_cooked());
    terminal.keys("test -t 0 && test -t 1 && echo \"all $((40 + 2)) $WORD\"\n");
    terminal.wait_for("all 42 declared");
    assert!(!terminal.is_cooked());
    terminal.keys("stty size\n");
    terminal.wait_for("40 100");
    terminal.resize(33, 77);
    // The size is told at any time from now on.
    terminal
        .keys("until stty size | grep -q '33 77'; do sleep 0.05; done; echo sized-$((1 + 1))\n");
    terminal.wait_for("sized-2");
    // Bytes that look like the header of a frame are none.
    terminal.keys("printf '\\000\\001\\002\\000'; printf 'a\\000\\001b'; head -c 9 /dev/zero; echo end-$((1 + 1))\n");
    terminal.wait_for(b"\0\x01\x02\0a\0\x01b\0\0\0\0\0\0\0\0\0end-2");
    // Keys are the command's: Ctrl-C ends what is in front, Ctrl-P is not held back.
    terminal.keys("sh -c 'echo in-$((1 + 1))-front; exec sleep 600'\n");
    terminal.wait_for("in-2-front");
    terminal.keys("\x03");
    terminal.wait_for("^C");
    terminal.keys("echo \"after $?\"\n");
    terminal.wait_for("after 130");
    terminal.keys("stty raw -echo; echo raw-$((1 + 1)); head -c 1 | od -c; stty sane\n");
    terminal.wait_for("raw-2");
    terminal.keys("\x10");
    terminal.wait_for("020");
    terminal.keys("exit 9\n");
    assert_eq!(terminal.wait(), (Some(9), None));
    assert!(terminal.is_cooked(), "the mode was not restored");
}

#[test]
fn without_a_terminal_if_that_is_asked_for() {
    let Some(Bench { home, .. }) = Bench::shared() else { return };
    let mut terminal =
        Terminal::start(&home, &["exec", "-T", "db", "sh", "-c", "test -t 1; echo \"no $?\""]);
    terminal.wait_for("no 1");
    assert_eq!(terminal.wait(), (Some(0), None));
}

#[test]
fn the_mode_of_the_terminal_is_restored_whatever_happens() {
    let Some(bench) = Bench::shared() else { return };
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let mut terminal =
            Terminal::start(&bench.home, &["exec", "db", "sh", "-c", "echo up; exec sleep 611"]);
        terminal.wait_for("up");
        bench.home.wait_for("raw mode", || (!terminal.is_cooked()).then_some(()));
        terminal.signal(signal);
        assert_eq!(terminal.wait(), (Some(code), None), "{signal:?}");
        assert!(terminal.is_cooked(), "{signal:?}");
        bench.wait_runs("sleep 611", false);
    }
    // The container ends under it.
    let mut terminal =
        Terminal::start(&bench.home, &["exec", "db", "sh", "-c", "echo up; exec sleep 612"]);
    terminal.wait_for("up");
    bench.home.wait_for("raw mode", || (!terminal.is_cooked()).then_some(()));
    let name = bench.home.container("db");
    lock(&bench.engine).docker(["rm", "-f", &name]);
    assert_eq!(terminal.wait(), (Some(137), None));
    assert!(terminal.is_cooked());
}

#[test]
fn an_interrupted_command_is_ended_in_the_container() {
    let Some(bench) = Bench::shared() else { return };
    interrupted(&bench);
}

/// Also with an engine whose processes belong to somebody else.
#[test]
fn an_ordinary_user_interrupts_a_command_of_root_s() {
    if support::programs::TestUser::from_environment().is_none() {
        return;
    }
    let Some(bench) = Bench::new(Engine::private()) else { return };
    interrupted(&bench);
}

fn interrupted(bench: &Bench) {
    let home = &bench.home;
    // It hears the same signal, and has its word.
    let trap = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let mut running = home.follow(["exec", "db", "sh", "-c", trap]);
    drop(running.line_with("up"));
    running.signal(Signal::TERM);
    drop(running.line_with("bye"));
    assert_eq!(running.wait(), (Some(3), None));
    // It and what it has started.
    let mut running = home.follow(["exec", "db", "sh", "-c", "echo up; sleep 613; echo not-this"]);
    drop(running.line_with("up"));
    bench.wait_runs("sleep 613", true);
    running.signal(Signal::INT);
    assert_eq!(running.wait(), (Some(130), None));
    bench.wait_runs("sleep 613", false);
    // One that does not want to ends by the second signal.
    let mut running =
        home.follow(["exec", "db", "sh", "-c", "trap '' TERM; echo up; sleep 614 & wait; wait"]);
    drop(running.line_with("up"));
    bench.wait_runs("sleep 614", true);
    running.signal(Signal::TERM);
    running.signal(Signal::TERM);
    // Two that are pending at the same time are one.
    home.wait_for("its end", || {
        running.signal(Signal::TERM);
        (!bench.runs("sleep 614")).then_some(())
    });
    assert!(matches!(running.wait(), (Some(137 | 143), None)));
}

#[test]
fn a_command_whose_output_nobody_reads_is_ended() {
    let Some(bench) = Bench::shared() else { return };
    let mut child =
        bench.home.command(["exec", "db", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 2]).unwrap();
    bench.wait_runs("yes", true);
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(141));
    bench.wait_runs("yes", false);
}

#[test]
fn a_container_that_does_not_run_is_told_with_its_state() {
    let Some(bench) = Bench::shared() else { return };
    let name = bench.home.container("db");
    lock(&bench.engine).docker(["pause", &name]);
    let said = bench.home.run(["exec", "db", "true"]).expect_code(3);
    assert!(said.stderr.contains("paused"), "{}", said.stderr);
    lock(&bench.engine).docker(["unpause", &name]);
    bench.home.run(["stop", "db"]).expect_code(0);
    let said = bench.home.run(["exec", "db", "true"]).expect_code(3);
    assert!(said.stderr.contains("db is stopped"), "{}", said.stderr);
    assert!(said.stderr.contains("`stigmer start db`"), "{}", said.stderr);
}
