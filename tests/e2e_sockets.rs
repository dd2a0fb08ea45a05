//! Sockets that are held for components (fault 48).
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use support::ask::DaemonPids;
use support::executable::write_executable;
use support::home::TestHome;
use support::ports::free_port;
use support::wait::{patience, poll};

/// Those who ask all the time.
const CLIENTS: usize = 4;

/// What became of all requests.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    answered: AtomicUsize,
    /// No connection could be made.
    refused: Mutex<Vec<String>>,
    /// A connection was made, and came to nothing.
    lost: Mutex<Vec<String>>,
}

impl Load {
    fn client(&self, port: u16) {
        while !self.over.load(Ordering::Relaxed) {
            match TcpStream::connect(("127.0.0.1", port)) {
                Err(error) => note(&self.refused, error.to_string()),
                Ok(stream) => match ask(stream) {
                    Ok(answer) if answer.contains("Hello from process") => {
                        self.answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(answer) => note(&self.lost, format!("{answer:?}")),
                    Err(error) => note(&self.lost, error.to_string()),
                },
            }
        }
    }

    /// Waits until everybody has been answered several times more.
    #[track_caller]
    fn go_on(&self, home: &TestHome, after: &str) {
        let before = self.answered.load(Ordering::Relaxed);
        home.wait_for(&format!("answers after {after}"), || {
            (self.answered.load(Ordering::Relaxed) > before + 10 * CLIENTS).then_some(())
        });
        assert_eq!(noted(&self.refused), Vec::<String>::new(), "refused after {after}");
    }
}

fn note(list: &Mutex<Vec<String>>, what: String) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

fn noted(list: &Mutex<Vec<String>>) -> Vec<String> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn ask(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(patience()))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ends the load also if the test fails.
struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Asks all the time while `story` is told.
fn under_load(port: u16, story: impl FnOnce(&Load)) -> Load {
    let load = Load::default();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.client(port));
        }
        let _end = End(&load);
        story(&load);
    });
    load
}

fn wait_daemon(home: &TestHome, what: &str, like: impl Fn(DaemonPids) -> bool) {
    home.wait_for(what, || home.daemon_pids().filter(|pids| like(*pids)));
}

fn is_refused(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port))
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The numbers of a process's descriptors, with what they lead to.
fn descriptors(pid: u32) -> BTreeMap<u32, PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let one = |entry: io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        (number, fs::read_link(path).unwrap())
    };
    entries.map(one).collect()
}

fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    bytes.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one).into_owned()).collect()
}

#[test]
fn fault_48_no_connection_is_refused_whoever_is_restarted() {
    let home = TestHome::new();
    let port = free_port();
    let web = home.example("web").display().to_string();
    let manifest = |version: &str, replicas: u32| {
        format!(
            "components:
  web:
    command: [{web}]
    env: {{ VERSION: {version} }}
    replicas: {replicas}
    sockets: {{ http: {port} }}
    restart: {{ max_restarts: unlimited, backoff: {{ initial: 10ms }} }}
    probes: {{ startup: {{ http: {{ port: {port}, path: /healthz }}, interval: 50ms }} }}
"
        )
    };
    home.apply(&manifest("one", 1));
    let new = home.root().join("bin/stigmer-new");
    write_executable(&new, fs::read(home.stigmer()).unwrap(), 0o755);
    let upgrade = ["upgrade", "--force", "--program", new.to_str().unwrap()];
    let restart = || home.run(["restart", "web"]).expect_code(0);
    let load = under_load(port.number(), |load| {
        load.go_on(&home, "the start");
        restart();
        load.go_on(&home, "a restart");
        home.apply(&manifest("two", 1));
        load.go_on(&home, "a replacement");
        let before = home.kill_engine();
        wait_daemon(&home, "another engine", |pids| pids.engine != before.engine);
        restart();
        load.go_on(&home, "the engine's death and a restart");
        let before = home.kill_keeper();
        wait_daemon(&home, "another keeper", |pids| pids.keeper != before.keeper);
        restart();
        load.go_on(&home, "the keeper's death and a restart");
        home.run(upgrade).expect_code(0);
        restart();
        load.go_on(&home, "an upgrade and a restart");
        home.apply(&manifest("three", 2));
        home.run(["restart", "web"]).expect_code(0);
        load.go_on(&home, "two replicas");
        home.apply(&manifest("three", 1));
        load.go_on(&home, "one replica less");
        assert_eq!(noted(&load.lost), Vec::<String>::new(), "of those who were told to end");
        // Whoever is killed takes with him what he has accepted, and nothing else.
        for _ in 0..5 {
            let victim = home.pid_of("web");
            home.kill(victim);
            home.wait_replaced("web", victim);
            load.go_on(&home, "the component's death");
        }
        assert!(noted(&load.lost).len() <= 5 * CLIENTS, "{:?}", noted(&load.lost));
    });
    assert_eq!(noted(&load.refused), Vec::<String>::new());
    home.run(["down"]).expect_code(0);
    assert!(is_refused(port.number()));
}

#[test]
fn a_socket_that_only_the_component_has_left_is_taken_over_from_it() {
    let home = TestHome::new();
    let port = free_port();
    let yaml = format!(
        "components:
  api:
    command: [sleep, infinity]
    replicas: 2
    sockets: {{ http: {port}, local: {{ unix: api.sock }} }}
"
    );
    home.apply(&yaml);
    let first = descriptors(home.pid_of("api.0"));
    home.kill_daemon();
    home.apply(&yaml);
    let log = home.daemon_log();
    let was_found = log.contains(&format!("the socket 127.0.0.1:{port} is taken over"));
    let is_forbidden = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
        .is_ok_and(|scope| scope.trim() != "0" && !home.is_root());
    assert_eq!(was_found, !is_forbidden, "{log}");
    if was_found {
        // With one still alive, another one could not open it.
        let victim = home.pid_of("api.0");
        home.kill(victim);
        home.wait_replaced("api.0", victim);
        assert_eq!(descriptors(home.pid_of("api.0")), first);
        UnixStream::connect(home.file("api.sock")).unwrap();
        TcpStream::connect(("127.0.0.1", port.number())).unwrap();
    }
}

#[test]
fn a_program_gets_its_sockets_and_nothing_else() {
    let home = TestHome::new();
    let [http, admin] = [free_port(), free_port()];
    let manifest = format!(
        "components:
  api:
    command: [sleep, infinity]
    replicas: 2
    env: {{ LISTEN_FDS: 9 }}
    sockets:
      http: {{ tcp: 127.0.0.1:{http}, backlog: 7 }}
      local: {{ unix: api.sock, mode: 0660 }}
      admin: {admin}
    rlimits: {{ nofile: 64 }}
    probes: {{ readiness: {{ exec: 'test -z \"$LISTEN_FDNAMES\" && test ! -e /proc/self/fd/5', interval: 100ms }} }}
"
    );
    home.apply(&manifest);
    home.wait_ready("api");
    assert_eq!(home.component("api")["ports"], serde_json::json!([admin.number(), http.number()]));
    let [one, two] = ["api.0", "api.1"].map(|name| home.pid_of(name));
    let (found, others) = (descriptors(one), descriptors(two));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5], "{found:?}");
    for number in 3..6 {
        assert!(found[&number].display().to_string().starts_with("socket:"), "{found:?}");
        assert_eq!(found[&number], others[&number], "replicas share it");
    }
    for pid in [one, two] {
        let environment = environment(pid);
        let mut own: Vec<&str> = environment
            .iter()
            .map(String::as_str)
            .filter(|variable| variable.starts_with("LISTEN_"))
            .collect();
        own.sort_unstable();
        let listener = format!("LISTEN_PID={pid}");
        assert_eq!(own, ["LISTEN_FDNAMES=admin:http:local", "LISTEN_FDS=3", listener.as_str()]);
    }
    let inside = home.run(["exec", "api.0", "--", "env"]).expect_code(0);
    assert!(!inside.stdout.contains("LISTEN_FDNAMES"), "{}", inside.stdout);
    let socket = fs::symlink_metadata(home.file("api.sock")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    UnixStream::connect(home.file("api.sock")).unwrap();

    // A new name, backlog or mode is no new socket; another address is one.
    home.apply(&manifest.replace("0660", "0600").replace("admin:", "other:"));
    let now = descriptors(home.pid_of("api.0"));
    let sockets = |all: &BTreeMap<u32, PathBuf>| {
        let mut sockets: Vec<PathBuf> = all.range(3..).map(|(_, path)| path.clone()).collect();
        sockets.sort();
        sockets
    };
    assert_eq!(sockets(&now), sockets(&found));
    let mode = fs::symlink_metadata(home.file("api.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let third = free_port();
    home.apply(&manifest.replace(&format!("admin: {admin}"), &format!("admin: {third}")));
    assert!(is_refused(admin.number()));
    TcpStream::connect(("127.0.0.1", third.number())).unwrap();
}

#[test]
fn who_is_not_to_run_does_not_listen() {
    let home = TestHome::new();
    let port = free_port();
    let api = |socket: &str| {
        format!(
            "components:
  other: {{ command: [sleep, infinity] }}
  api:
    command: [sleep, infinity]
    sockets: {{ http: {port}, local: {{ unix: {socket} }} }}
"
        )
    };
    home.apply(&api("api.sock"));
    let file = home.file("api.sock");
    TcpStream::connect(("127.0.0.1", port.number())).unwrap();
    home.run(["stop", "api"]).expect_code(0);
    assert!(is_refused(port.number()));
    assert!(!file.exists());
    home.run(["start", "api"]).expect_code(0);
    TcpStream::connect(("127.0.0.1", port.number())).unwrap();
    UnixStream::connect(&file).unwrap();
    // Of another address the file of the one before is removed.
    home.apply(&api("second.sock"));
    assert!(!file.exists());
    UnixStream::connect(home.file("second.sock")).unwrap();
    home.apply("components: { other: { command: [sleep, infinity] } }\n");
    assert!(is_refused(port.number()));
    assert!(!home.file("second.sock").exists());
    home.wait_for("the address to be free", || {
        TcpListener::bind(("127.0.0.1", port.number())).ok()
    });
    // The file that a daemon and its component have left behind when both were killed.
    home.apply(&api("api.sock"));
    let victim = home.pid_of("api");
    home.kill_daemon();
    home.kill(victim);
    assert!(file.exists());
    home.apply(&api("api.sock"));
    UnixStream::connect(&file).unwrap();
    home.run(["down"]).expect_code(0);
    assert!(!file.exists());
}

#[test]
fn a_socket_that_cannot_be_had_is_a_failed_launch_that_says_what_to_do() {
    let home = TestHome::new();
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    let file = home.file("taken.sock");
    let answered = UnixListener::bind(&file).unwrap();
    home.user().into_iter().for_each(|user| user.own(&file));
    home.manifest(&format!(
        "defaults: {{ restart: {{ max_restarts: 1, backoff: {{ initial: 10ms }} }} }}
components:
  tcp: {{ command: [sleep, infinity], sockets: {{ http: {port} }} }}
  unix: {{ command: [sleep, infinity], sockets: {{ local: {{ unix: taken.sock }} }} }}
  nowhere: {{ command: [sleep, infinity], sockets: {{ local: {{ unix: no/such/folder/s }} }} }}
"
    ));
    let said = home.run(["apply"]).expect_code(3);
    let said = format!("{}{}", said.stdout, said.stderr);
    for part in [
        format!("cannot listen on 127.0.0.1:{port} for the socket `http`: the address is in use"),
        format!("sport = :{port}"),
        "taken.sock for the socket `local`: somebody answers on it".to_owned(),
        "no/such/folder is not there".to_owned(),
    ] {
        assert!(said.contains(&part), "{part:?} is not in {said}");
    }
    for name in ["tcp", "unix", "nowhere"] {
        assert_eq!(home.wait_state(name, "failed")["restarts"]["total"], 1);
    }
    drop((taken, answered));
    home.run(["start", "tcp", "unix"]).expect_code(0);
    for name in ["tcp", "unix"] {
        home.wait_state(name, "running");
    }
    TcpStream::connect(("127.0.0.1", port.number())).unwrap();
    UnixStream::connect(&file).unwrap();
}

#[test]
fn a_socket_outlives_the_program_that_removes_its_file_and_the_deaths_of_both_daemons() {
    let home = TestHome::new();
    home.apply(
        "components:
  api:
    command: 'trap \"rm -f api.sock; exit 0\" TERM; while :; do sleep 0.05; done'
    sockets: { local: { unix: api.sock } }
",
    );
    let file: &Path = &home.file("api.sock");
    let inode = |pid| descriptors(pid)[&3].clone();
    let first = inode(home.pid_of("api"));
    let before = home.kill_engine();
    wait_daemon(&home, "another engine", |pids| pids.engine != before.engine);
    let before = home.kill_keeper();
    wait_daemon(&home, "another keeper", |pids| pids.keeper != before.keeper);
    let victim = home.pid_of("api");
    home.kill(victim);
    home.wait_replaced("api", victim);
    assert_eq!(inode(home.pid_of("api")), first, "the same socket");
    home.run(["restart", "api"]).expect_code(0);
    UnixStream::connect(file).unwrap();
    // Nobody listens for whom nobody lives.
    home.run(["down"]).expect_code(0);
    assert!(poll(patience(), || (!file.exists()).then_some(())).is_some());
}
