//! Descriptors: twenty dead engines leave nothing open in the keeper or in the engine that follows, and
//! clients cannot take them all. In a file of its own: the keeper takes its time with an engine that dies again and again, which makes it a minute.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use support::home::TestHome;
use support::look::wait_gone;

/// The open descriptors of a process.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn s40_twenty_dead_engines_leave_no_descriptor_behind() {
    let home = TestHome::new();
    home.apply(
        "components:
  api:
    command: [sleep, infinity]
    replicas: 5
    probes: { readiness: { process: {}, interval: 100ms } }
",
    );
    let pids: Vec<u32> = (0..5).map(|replica| home.pid_of(&format!("api.{replica}"))).collect();
    let kill = || {
        let before = home.kill_engine();
        home.wait_for("a new engine", || {
            let now = home.daemon_pids().filter(|pids| pids.engine != before.engine)?;
            home.try_component("api")?["ready"].as_bool().filter(|ready| *ready).map(|_| now)
        })
    };
    // The first one has never been anybody's successor.
    let settled = kill();
    let keeper = descriptors(settled.keeper);
    let engine = descriptors(settled.engine);
    for _ in 0..20 {
        let now = kill();
        assert_eq!(now.keeper, settled.keeper);
        home.wait_for("as many descriptors of the keeper as before", || {
            (descriptors(now.keeper) <= keeper).then_some(())
        });
        // Connections of this test's own commands come and go.
        home.wait_for("as many descriptors of the engine as before", || {
            (descriptors(now.engine) <= engine).then_some(())
        });
    }
    let after: Vec<u32> = (0..5).map(|replica| home.pid_of(&format!("api.{replica}"))).collect();
    assert_eq!(after, pids);
}

#[test]
fn a_queue_that_is_full_when_an_engine_starts_does_not_hold_it_up() {
    let home = TestHome::new();
    home.apply("components: { api: { command: [sleep, infinity] } }\n");
    let (before, pid) = (home.daemon_pids().unwrap(), home.pid_of("api"));
    home.hold(before.engine);
    let socket = SocketAddrUnix::new(home.home().join("run/stigmer.sock")).unwrap();
    let knock = || {
        let stream =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)
                .unwrap();
        connect(&stream, &socket)
    };
    // Whoever has gone again is in the queue all the same.
    while knock().is_ok() {}
    home.kill(before.engine);
    home.wait_for("the next engine", || {
        home.daemon_pids().filter(|now| now.engine != before.engine)
    });
    assert_eq!(home.pid_of("api"), pid);
}

#[test]
fn fault_15_clients_without_number_leave_the_supervision_its_descriptors() {
    let home = TestHome::new();
    let api = home.troublemaker("api", &[]);
    home.manifest(&format!(
        "components: {{ api: {{ command: {api}, restart: {{ backoff: {{ initial: 10ms }} }} }} }}"
    ));
    home.run_command(home.after("ulimit -n 128", &home.command(["apply"]))).expect_code(0);
    let pid = home.pid_of("api");
    // More than fit, and then those that wait to be accepted.
    let socket = home.home().join("run/stigmer.sock");
    let connections: Vec<_> = (0..200).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    home.kill(pid);
    wait_gone(pid);
    home.wait_for("the restart", || (home.births("api").len() == 2).then_some(()));
    drop(connections);
    let api = home.wait_ready("api");
    assert_eq!(api["restarts"]["total"], 1, "{api}");
}
