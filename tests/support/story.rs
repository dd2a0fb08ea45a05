//! What a home's events tell of one component, and the commands of the troublemaker.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::births::{Birth, Births};
use super::home::TestHome;

/// One event of one component.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The stable word: `launched`, `exited` ...
    pub(crate) kind: String,
    /// `info`, `warning` or `error`.
    pub(crate) severity: String,
    /// The sentence.
    pub(crate) message: String,
    /// When the daemon told it.
    pub(crate) at: Timestamp,
}

impl Told {
    fn read(event: &Value) -> Self {
        let text = |key: &str| match event[key].as_str() {
            Some(text) => text.to_owned(),
            None => panic!("an event without {key}: {event}"),
        };
        let at = text("at");
        Self {
            kind: text("kind"),
            severity: text("severity"),
            message: text("message"),
            at: at.parse().unwrap_or_else(|error| panic!("{at} is no time: {error}")),
        }
    }

    /// From an earlier event to this one.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let from = earlier.at;
        Duration::try_from(self.at.duration_since(from))
            .unwrap_or_else(|_| panic!("{self:?} was told before {earlier:?}"))
    }
}

impl TestHome {
    /// The events of one component, `NAME` or `NAME.REPLICA`, oldest first.
    #[track_caller]
    pub(crate) fn story(&self, name: &str) -> Vec<Told> {
        let (component, replica) = match name.split_once('.') {
            Some((component, replica)) => (component, replica.parse().unwrap_or(0)),
            None => (name, 0_u64),
        };
        let events = self.events();
        let of_it = events
            .iter()
            .filter(|event| event["component"] == component && event["replica"] == replica);
        of_it.map(Told::read).collect()
    }

    /// The events of one kind.
    #[track_caller]
    pub(crate) fn told(&self, name: &str, kind: &str) -> Vec<Told> {
        let mut story = self.story(name);
        story.retain(|told| told.kind == kind);
        story
    }

    /// Waits until `count` events of a kind were told, and gives them all.
    #[track_caller]
    pub(crate) fn wait_told(&self, name: &str, kind: &str, count: usize) -> Vec<Told> {
        self.wait_for(&format!("{count} times {kind} of {name}"), || {
            Some(self.told(name, kind)).filter(|told| told.len() >= count)
        })
    }

    /// Waits until `count` copies have written themselves down in this file of the project, and gives
    /// them: a copy is launched a moment before its own code runs. Fails if there were ever two at
    /// once, or if there are more.
    #[track_caller]
    pub(crate) fn wait_born(&self, file: &str, count: usize) -> Vec<Birth> {
        let path = self.file(file);
        let born = self.wait_for(&format!("{count} lives in {file}"), || {
            Some(Births::never_two(&path)).filter(|born| born.len() >= count)
        });
        assert_eq!(born.len(), count, "too many lives in {file}\n{}", self.what_is_known());
        born
    }

    /// A troublemaker with these flags as a `command:` of a manifest.
    pub(crate) fn trouble(&self, flags: &[&str]) -> String {
        let program = self.example("troublemaker").to_string_lossy().into_owned();
        let mut argv = vec![program];
        argv.extend(flags.iter().map(|flag| (*flag).to_owned()));
        // JSON is YAML.
        Value::from(argv).to_string()
    }
}
