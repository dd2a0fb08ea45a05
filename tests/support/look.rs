//! What several end-to-end tests look at: events of one kind, results of probes, births of a
//! component; and the manifest's line that starts a troublemaker.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::births::{Birth, Births};
use super::home::TestHome;
use super::processes::Process;
use super::wait::{patience, poll};

impl TestHome {
    /// A `command:` in YAML: the troublemaker with these flags, and births in `births-NAME`.
    pub(crate) fn troublemaker(&self, name: &str, flags: &[&str]) -> String {
        let births = format!("births-{name}");
        let program = self.example("troublemaker");
        let mut command = vec![json!(program), json!("--births"), json!(births)];
        command.extend(flags.iter().map(|flag| json!(flag)));
        Value::Array(command).to_string()
    }

    /// Everybody who was born as `name`, oldest first. Fails the test if two lived at the same time.
    ///
    /// A process runs from its fork on, and tells of its birth when its own code does: the one that the
    /// status shows is waited for.
    #[track_caller]
    pub(crate) fn births(&self, name: &str) -> Vec<Birth> {
        let shown = self.try_component(name).and_then(|component| component["pid"].as_u64());
        let process = shown.and_then(|pid| Process::open(u32::try_from(pid).ok()?));
        poll(patience(), || {
            let births = Births::never_two(&self.births_file(name));
            let is_awaited = process.as_ref().is_some_and(|process| {
                births.iter().all(|birth| birth.pid != process.pid()) && process.is_alive()
            });
            (!is_awaited).then_some(births)
        })
        .unwrap_or_else(|| panic!("{name} never told of its birth"))
    }

    /// The births file of a component that was declared by `troublemaker`.
    pub(crate) fn births_file(&self, name: &str) -> PathBuf {
        self.file(format!("births-{name}"))
    }

    /// The first event that is liked, once there is one.
    #[track_caller]
    pub(crate) fn wait_event(&self, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(&format!("an event: {what}"), || self.events().into_iter().find(&like))
    }

    /// The events of one kind of one component, oldest first.
    #[track_caller]
    pub(crate) fn events_of(&self, name: &str, kind: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["component"] == name && event["kind"] == kind);
        events
    }

    /// The last result of a probe, once it is this one: `success` or `failure`.
    #[track_caller]
    pub(crate) fn wait_probe(&self, name: &str, role: &str, result: &str) -> Value {
        self.wait_for(&format!("the {role} probe of {name} to be a {result}"), || {
            let component = self.try_component(name)?;
            Some(component["probes"][role].clone()).filter(|probe| probe["result"] == result)
        })
    }

    /// Waits until a probe has failed with `words` in its message.
    #[track_caller]
    pub(crate) fn wait_message(&self, name: &str, role: &str, words: &str) -> Value {
        self.wait_for(&format!("the {role} probe of {name} to say {words:?}"), || {
            let component = self.try_component(name)?;
            let probe = component["probes"][role].clone();
            let message = probe["message"].as_str()?;
            message.contains(words).then_some(probe)
        })
    }

    /// Lines of a file of the project; none if it is not there.
    pub(crate) fn lines_of(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a file of the project has at least so many lines, and gives them.
    #[track_caller]
    pub(crate) fn wait_lines(&self, name: &str, count: usize) -> Vec<String> {
        self.wait_for(&format!("{count} lines in {name}"), || {
            Some(self.lines_of(name)).filter(|lines| lines.len() >= count)
        })
    }

    /// The only project of this home in the status.
    #[track_caller]
    pub(crate) fn only_project(&self) -> Value {
        let status = self.status_json();
        let projects = status["projects"].as_array().cloned().unwrap_or_default();
        match <[Value; 1]>::try_from(projects) {
            Ok([project]) => project,
            Err(others) => panic!("one project was expected: {others:#?}"),
        }
    }

    /// How often what is declared has changed.
    #[track_caller]
    pub(crate) fn generation(&self) -> u64 {
        self.only_project()["manifest"]["generation"].as_u64().unwrap_or_default()
    }

    /// Waits until what is declared has changed since `before`.
    #[track_caller]
    pub(crate) fn wait_generation(&self, before: u64) -> u64 {
        self.wait_for("another generation", || {
            let status = self.try_status_json()?;
            let now = status["projects"][0]["manifest"]["generation"].as_u64()?;
            (now > before).then_some(now)
        })
    }
}

/// Signals a process that a test knows to be a component of its own home.
#[track_caller]
pub(crate) fn signal(pid: u32, signal: Signal) {
    let Some(process) = Process::open(pid) else { panic!("there is no process {pid}") };
    process.signal(signal);
}

/// Waits until a process is gone.
#[track_caller]
pub(crate) fn wait_gone(pid: u32) {
    if let Some(process) = Process::open(pid) {
        assert!(process.wait_gone(patience()), "process {pid} is still there");
    }
}
