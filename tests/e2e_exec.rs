//! `stigmer exec` beside process components: what the command is given is what the component has, and its
//! terminal, signals and exit code are its own.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use support::command::Running;
use support::home::TestHome;
use support::processes::belonging_to;
use support::terminal::Terminal;

const VALUES: [&str; 3] =
    ["hunter2-of-the-file", "hunter2-of-the-daemon", "hunter2-of-the-command"];

fn script(home: &TestHome, name: &str, text: &str) {
    home.executable(name, format!("#!/bin/sh\n{text}\n"));
}

/// A component `api` with a secret of each kind that reports what it was given.
fn with_secrets() -> TestHome {
    let home = TestHome::new();
    home.write("password", format!("{}\n", VALUES[0]));
    script(&home, "token", &format!("echo {}", VALUES[2]));
    let command = home.troublemaker("api", &["--report", "report"]);
    home.manifest(&format!(
        "
project: shop
components:
  api:
    command: {command}
    env:
      PLAIN: plain
      EMPTY: ''
      OF_FILE: {{ secret: {{ file: password }} }}
      OF_ENV: {{ secret: {{ env: DAEMON_SECRET }} }}
      OF_COMMAND: {{ secret: {{ command: [./token] }} }}
"
    ));
    let mut apply = home.command(["apply"]);
    apply.env("DAEMON_SECRET", VALUES[1]).env("TZ", "Asia/Tokyo");
    home.run_command(apply).expect_code(0);
    home
}

fn variables(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_command_has_the_environment_of_the_component_whether_it_runs_or_not() {
    let home = with_secrets();
    let report = home.wait_for("the report", || fs::read(home.file("report")).ok());
    let report: Value = serde_json::from_slice(&report).unwrap();
    let mut expected: BTreeMap<String, String> =
        serde_json::from_value(report["environment"].clone()).unwrap();
    // By it the keeper finds its own again, and the command is none of them.
    assert!(expected.remove("STIGMER_RUN").is_some());
    assert_eq!([&expected["OF_FILE"], &expected["OF_ENV"], &expected["OF_COMMAND"]], VALUES);
    let given = home.run(["exec", "api", "env"]).expect_code(0);
    assert_eq!((variables(&given.stdout), &*given.stderr), (expected.clone(), ""));

    home.run(["stop", "api"]).expect_code(0);
    home.write("password", "another");
    let given = variables(&home.run(["exec", "api", "env"]).expect_code(0).stdout);
    // Resolved anew, as a launch would.
    expected.insert("OF_FILE".into(), "another".into());
    assert_eq!(given, expected);
    assert_eq!(home.component("api")["state"], "stopped");
}

#[test]
fn s39_the_secrets_of_a_command_are_in_no_log_and_no_other_answer() {
    let home = with_secrets();
    home.run(["exec", "api", "true"]).expect_code(0);
    home.run(["exec", "api", "no-such-program"]).expect_code(127);
    let log = home.daemon_log();
    assert!(log.contains("shop/api.0: a command is run"), "{log}");
    let said = home.run(["events"]).stdout + &home.run(["status", "api"]).stdout + &log;
    for value in VALUES {
        assert!(!said.contains(value), "{value}: {said}");
    }
}

#[test]
fn a_secret_that_cannot_be_had_is_told_and_nothing_is_run() {
    let home = with_secrets();
    script(&home, "token", "echo leaked-output; exit 3");
    let said = home.run(["exec", "api", "touch", "was-run"]).expect_code(1);
    assert!(
        said.stderr.contains("OF_COMMAND") && said.stderr.contains("exit 3"),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("leaked"), "{}", said.stderr);
    assert!(!home.file("was-run").exists());
    assert_eq!(home.component("api")["state"], "running");
}

#[test]
fn a_secret_that_takes_its_time_holds_up_nobody_else_and_ends_with_who_waits() {
    let home = TestHome::new();
    let fifo = home.file("answer");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    home.user().into_iter().for_each(|user| user.own(&fifo));
    // The launch finds the answer in a file, and every later one waits.
    script(&home, "token", "test -e first && { rm first; echo at-once; exit; }; cat answer");
    home.write("first", "");
    home.apply(
        "components:
  api: { command: [sleep, infinity], env: { T: { secret: { command: [./token] } } } }
  web: { command: [sleep, infinity] }
",
    );
    let asked = || belonging_to(home.root()).iter().any(|found| found.command == "cat answer");
    let mut waiting = Running::start(home.command(["exec", "api", "env"]));
    home.wait_for("the command of the secret", || asked().then_some(()));
    // Meanwhile everything else is answered, and started.
    home.run(["restart", "web"]).expect_code(0);
    home.run(["exec", "web", "true"]).expect_code(0);
    fs::write(&fifo, "later\n").unwrap();
    waiting.line_with("T=later");
    assert_eq!(waiting.wait(), (Some(0), None));

    let mut waiting = Running::start(home.command(["exec", "api", "env"]));
    home.wait_for("the command of the secret", || asked().then_some(()));
    waiting.signal(Signal::INT);
    assert_eq!(waiting.wait(), (Some(130), None));
    home.wait_for("the end of the secret's command", || (!asked()).then_some(()));
}

#[test]
fn streams_and_exit_codes_and_signals_are_those_of_the_command() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity], env: { CODE: '7' } } }\n");
    let said = home.run(["exec", "api", "--", "sh", "-c", "echo out; echo err >&2; exit $CODE"]);
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (Some(7), "out\n", "err\n"));
    let said = home.run(["exec", "api", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!((said.code, said.signal), (None, Some(9)));
    // A signal to the command line is one to the command, for it is the same process.
    let trap = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done";
    let mut running = home.follow(["exec", "api", "sh", "-c", trap]);
    drop(running.line_with("up"));
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), (Some(5), None));
    let mut running = home.follow(["exec", "api", "sh", "-c", "echo up; exec sleep 600"]);
    drop(running.line_with("up"));
    running.signal(Signal::INT);
    assert_eq!(running.wait(), (None, Some(Signal::INT.as_raw())));
    // It is no part of the component: it outlives its end, and is none of what the daemon ends.
    let mut running = home.follow(["exec", "api", "sh", "-c", "echo up; exec sleep 600"]);
    drop(running.line_with("up"));
    home.run(["stop", "api"]).expect_code(0);
    assert!(support::processes::Process::open(running.pid()).is_some());
    running.signal(Signal::KILL);
    running.wait();
}

#[test]
fn standard_input_is_the_command_s() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let mut command = home.command(["exec", "api", "wc", "-c"]);
    let file = fs::File::open(home.write("input", vec![b'x'; 100_000])).unwrap();
    let output = command.stdin(file).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "100000");
    assert!(output.status.success());
}

#[test]
fn it_runs_in_the_folder_of_the_component_with_its_mask_and_limits() {
    let home = TestHome::new();
    fs::create_dir(home.file("sub")).unwrap();
    home.user().into_iter().for_each(|user| user.own(&home.file("sub")));
    script(&home, "sub/here", "pwd; umask; nice; ulimit -Sn; ulimit -Hn; echo $STIGMER_REPLICA");
    home.apply(
        "components:
  api:
    command: [sleep, infinity]
    working_dir: sub
    umask: '037'
    nice: 4
    rlimits: { nofile: { soft: 99, hard: 111 } }
    replicas: 2
  plain: { command: 'umask > mask; exec sleep infinity' }
",
    );
    let said = home.run(["exec", "api.1", "./here"]).expect_code(0);
    let folder = home.file("sub").canonicalize().unwrap();
    assert_eq!(said.stdout, format!("{}\n0037\n4\n99\n111\n1\n", folder.display()));
    let said = home.run(["exec", "-w", "..", "api.0", "sh", "-c", "pwd"]).expect_code(0);
    assert_eq!(said.stdout.trim(), home.project().canonicalize().unwrap().to_str().unwrap());
    // Where none is declared, files are made with the mask that the component's are made with.
    home.wait_lines("mask", 1);
    let expected = fs::read_to_string(home.file("mask")).unwrap();
    let wrapper = ["/bin/sh", "-c", "umask 0; exec \"$@\"", "sh"];
    let masked = home.command_through(&wrapper, &["exec", "plain", "sh", "-c", "umask"]);
    assert_eq!(home.run_command(masked).expect_code(0).stdout, expected);
}

#[test]
fn root_runs_it_as_the_component_s_user_or_another() {
    let home = TestHome::new();
    if !home.is_root() {
        home.apply("components: { api: { command: [sleep, infinity] } }\n");
        let said = home.run(["exec", "-u", "0", "api", "id"]).expect_code(126);
        assert!(said.stderr.contains("only root can run a command as user 0"), "{}", said.stderr);
        let own = home.run(["exec", "api", "id", "-u"]).expect_code(0).stdout;
        let same = home.run(["exec", "-u", own.trim(), "api", "id", "-u"]).expect_code(0).stdout;
        assert_eq!(own, same);
        return;
    }
    home.apply(
        "components:
  api: { command: [sleep, infinity], user: daemon, working_dir: /, env: { SHELL: /bin/declared } }
",
    );
    let who = "id -un; id -gn; echo $USER $HOME $SHELL";
    let said = home.run(["exec", "api", "sh", "-c", who]).expect_code(0);
    assert_eq!(said.stdout, "daemon\ndaemon\ndaemon /usr/sbin /bin/declared\n");
    let said = home.run(["exec", "-u", "bin:sys", "api", "sh", "-c", who]).expect_code(0);
    assert_eq!(said.stdout, "bin\nsys\nbin /bin /bin/declared\n");
    let said = home.run(["exec", "-u", "4242", "api", "sh", "-c", "id -u; id -g; id -G"]);
    assert_eq!(said.expect_code(0).stdout, "4242\n4242\n4242\n");
    let said = home.run(["exec", "-u", "no-such-user", "api", "id"]).expect_code(2);
    assert!(said.stderr.contains("there is no user no-such-user"), "{}", said.stderr);
    let said = home.run(["exec", "-u", "bin:no-such-group", "api", "id"]).expect_code(2);
    assert!(said.stderr.contains("there is no group no-such-group"), "{}", said.stderr);
}

#[test]
fn root_becomes_the_user_of_an_ordinary_daemon() {
    let home = TestHome::new();
    if home.user().is_none() {
        // Only where the daemon is an ordinary user's and the test is root's.
        return;
    }
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let ordinary = home.command(["exec", "api", "sh", "-c", "id -u; id -g; id -G"]);
    let mut by_root = std::process::Command::new(ordinary.get_program());
    by_root.args(ordinary.get_args()).env_clear().current_dir(home.project());
    for (name, value) in ordinary.get_envs() {
        by_root.env(name, value.unwrap_or_default());
    }
    let expected = home.run_command(ordinary).expect_code(0).stdout;
    assert_eq!(home.run_command(by_root).expect_code(0).stdout, expected);
    assert!(!expected.starts_with("0\n"), "{expected}");
}

#[test]
fn a_command_runs_in_one_component_that_stigmer_starts() {
    let home = TestHome::new();
    home.apply(
        "components:
  api: { command: [sleep, infinity], replicas: 2 }
  app: { command: [sleep, infinity] }
  db: { external: true }
",
    );
    for (arguments, code, words) in [
        (&["exec", "api", "env"][..], 2, "means 2: api.0, api.1; name one"),
        (&["exec", "ap*", "env"], 2, "means 3: api.0, api.1, app.0; name one"),
        (&["exec", "db", "env"], 2, "db is external: others run it"),
        (&["exec", "apo", "env"], 4, "did you mean"),
        (&["exec", "api.7", "env"], 4, "no component is named api.7"),
    ] {
        let said = home.run(arguments).expect_code(code);
        assert!(said.stderr.contains(words), "{arguments:?}: {}", said.stderr);
        assert_eq!(said.stdout, "");
    }
    home.run(["exec", "app*", "true"]).expect_code(0);
    home.run(["exec", "api.1", "true"]).expect_code(0);
    let said = home.run(["exec", "-p", "no-such-project", "api", "env"]).expect_code(4);
    assert!(said.stderr.contains("no-such-project"), "{}", said.stderr);
}

#[test]
fn a_shell_beside_a_component_has_the_terminal() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity], env: { SHELL: /bin/sh, WORD: told } } }\n");
    let mut terminal = Terminal::start(&home, &["exec", "api"]);
    terminal.keys("test -t 0 && test -t 1 && test -t 2 && echo \"all $((40 + 2)) $WORD $TERM\"\n");
    terminal.wait_for("all 42 told vt100");
    terminal.keys("stty size\n");
    terminal.wait_for("40 100");
    // Ctrl-C reaches the command in front, and the shell goes on. The shell says that it will not end by
    // it before the key is pressed.
    terminal
        .keys("trap : INT; sh -c 'echo in-$((1 + 1))-front; exec sleep 600'; echo \"after $?\"\n");
    terminal.wait_for("in-2-front");
    terminal.keys("\x03");
    terminal.wait_for("after 130");
    terminal.keys("exit 9\n");
    assert_eq!(terminal.wait(), (Some(9), None));
    assert!(terminal.is_cooked());
}

#[test]
fn a_new_engine_answers_as_well() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity], env: { A: b } } }\n");
    home.kill_engine();
    // The keeper holds the socket until another engine is there.
    let said = home.run(["exec", "api", "sh", "-c", "echo $A"]).expect_code(0);
    assert_eq!(said.stdout, "b\n");
}
