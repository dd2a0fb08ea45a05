//! What a test asks a home and waits for, and whom it kills in it.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use super::command;
use super::home::TestHome;
use super::processes::{Process, belonging_to};
use super::wait::{patience, poll};

/// The two processes of a daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DaemonPids {
    /// The parent of all components.
    pub(crate) keeper: u32,
    /// The one that decides.
    pub(crate) engine: u32,
}

impl TestHome {
    /// `status -o json` of all projects; `None` while no daemon answers.
    pub(crate) fn try_status_json(&self) -> Option<Value> {
        let output = command::run(self.command(["status", "--all", "-o", "json"])).ok()?;
        if !matches!(output.code, Some(0 | 3)) {
            return None;
        }
        serde_json::from_str(&output.stdout).ok()
    }

    /// `status -o json` of all projects.
    #[track_caller]
    pub(crate) fn status_json(&self) -> Value {
        let output = self.run(["status", "--all", "-o", "json"]);
        assert!(matches!(output.code, Some(0 | 3)), "{output:#?}\n{}", self.what_is_known());
        output.json()
    }

    /// One component in the status, by `NAME` or `NAME.REPLICA`; `None` while it is not there.
    pub(crate) fn try_component(&self, name: &str) -> Option<Value> {
        let (component, replica) = match name.split_once('.') {
            Some((component, replica)) => (component, replica.parse().ok()?),
            None => (name, 0_u64),
        };
        let status = self.try_status_json()?;
        let found = status["components"]
            .as_array()?
            .iter()
            .find(|one| one["name"] == component && one["replica"] == replica);
        found.cloned()
    }

    /// One component in the status.
    #[track_caller]
    pub(crate) fn component(&self, name: &str) -> Value {
        self.try_component(name)
            .unwrap_or_else(|| panic!("no component {name}\n{}", self.what_is_known()))
    }

    /// The pid of a component that runs.
    #[track_caller]
    pub(crate) fn pid_of(&self, name: &str) -> u32 {
        pid(&self.component(name)["pid"])
            .unwrap_or_else(|| panic!("{name} has no process\n{}", self.what_is_known()))
    }

    /// Waits until `look` gives something. Fails the test, with all that is known, if it never does.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        match poll(patience(), look) {
            Some(found) => found,
            None => panic!("waited in vain for {what}\n{}", self.what_is_known()),
        }
    }

    /// Waits until a component is in this state, and gives it.
    #[track_caller]
    pub(crate) fn wait_state(&self, name: &str, state: &str) -> Value {
        self.wait_for(&format!("{name} to be {state}"), || {
            self.try_component(name).filter(|component| component["state"] == state)
        })
    }

    /// Waits until a component is ready, and gives it.
    #[track_caller]
    pub(crate) fn wait_ready(&self, name: &str) -> Value {
        self.wait_for(&format!("{name} to be ready"), || {
            self.try_component(name).filter(|component| component["ready"] == true)
        })
    }

    /// Waits until a component runs as another process than `before`, and gives it.
    #[track_caller]
    pub(crate) fn wait_replaced(&self, name: &str, before: u32) -> Value {
        self.wait_for(&format!("{name} to be replaced"), || {
            self.try_component(name).filter(|component| {
                component["state"] == "running"
                    && pid(&component["pid"]).is_some_and(|now| now != before)
            })
        })
    }

    /// All events that the daemon remembers, oldest first.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let output = self.run(["events", "--all", "-o", "json"]).expect_code(0);
        output
            .stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
            })
            .collect()
    }

    /// What a component has written so far.
    #[track_caller]
    pub(crate) fn log_of(&self, name: &str) -> Vec<u8> {
        let component = self.component(name);
        let Some(path) = component["log_file"].as_str() else { panic!("no log: {component}") };
        fs::read(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
    }

    /// What the daemon has written so far; empty if there is nothing.
    pub(crate) fn daemon_log(&self) -> String {
        let bytes = fs::read(self.home().join("logs/daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The daemon's processes, as it says itself.
    pub(crate) fn daemon_pids(&self) -> Option<DaemonPids> {
        let status = self.try_status_json()?;
        let daemon = &status["daemon"];
        Some(DaemonPids { keeper: pid(&daemon["pid"])?, engine: pid(&daemon["engine_pid"])? })
    }

    /// Kills the engine with SIGKILL and waits until it is gone. Gives what it was.
    #[track_caller]
    pub(crate) fn kill_engine(&self) -> DaemonPids {
        let pids = self.living_daemon();
        self.kill(pids.engine);
        pids
    }

    /// Kills the keeper with SIGKILL and waits until it is gone. Gives what it was.
    #[track_caller]
    pub(crate) fn kill_keeper(&self) -> DaemonPids {
        let pids = self.living_daemon();
        self.kill(pids.keeper);
        pids
    }

    /// Kills both. The keeper is held meanwhile, which would start another engine otherwise; an engine
    /// cannot be held so, for the end of the keeper would set it going again.
    #[track_caller]
    pub(crate) fn kill_daemon(&self) -> DaemonPids {
        let pids = self.living_daemon();
        self.hold(pids.keeper);
        self.kill(pids.engine);
        self.kill(pids.keeper);
        pids
    }

    /// Stops a process of this home with SIGSTOP and waits until it stands still.
    #[track_caller]
    pub(crate) fn hold(&self, pid: u32) {
        let mine = belonging_to(self.root());
        let Some(found) = mine.iter().find(|found| found.process.pid() == pid) else {
            panic!("no process {pid} in this home\n{}", self.what_is_known());
        };
        found.process.signal(Signal::STOP);
        self.wait_for("a process that stands still", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        });
    }

    #[track_caller]
    fn living_daemon(&self) -> DaemonPids {
        self.daemon_pids().unwrap_or_else(|| panic!("no daemon answers\n{}", self.what_is_known()))
    }

    /// Kills a process of this home with SIGKILL and waits until it is gone. Refuses any other.
    #[track_caller]
    pub(crate) fn kill(&self, pid: u32) {
        let mine = belonging_to(self.root());
        if let Some(found) = mine.iter().find(|found| found.process.pid() == pid) {
            found.process.signal(Signal::KILL);
            assert!(found.process.wait_gone(patience()), "{found:?} does not die");
            return;
        }
        assert!(Process::open(pid).is_none(), "process {pid} does not belong to this home");
    }
}

fn pid(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}
