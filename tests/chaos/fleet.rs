//! The components, what each of them is like, and the manifest that declares them.

use std::fmt::Write as _;
use std::fs;

use crate::support::births::{Birth, Births};
use crate::support::home::TestHome;

/// What a component is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Nobody touches it, ever.
    Bystander,
    /// Runs until somebody does something to it.
    Steady,
    /// Ends with an exit code after a while.
    Crash,
    /// Ends by a signal of its own.
    Signal,
    /// May be stopped by SIGSTOP, which its liveness probe must find out.
    Hang,
    /// Forks a grandchild away, which leads a session of its own.
    Fork,
    /// Writes a thousand lines a second.
    Flood,
    /// Ignores SIGTERM.
    Stubborn,
    /// Takes a second to start, and waits for another component.
    Slow,
    /// Ends well, and stays so.
    Once,
    /// Ends at once, and may be started again three times.
    Limited,
}

/// Twenty in a row, again and again.
const KINDS: [Kind; 20] = [
    Kind::Bystander,
    Kind::Steady,
    Kind::Crash,
    Kind::Steady,
    Kind::Hang,
    Kind::Fork,
    Kind::Steady,
    Kind::Stubborn,
    Kind::Slow,
    Kind::Crash,
    Kind::Bystander,
    Kind::Steady,
    Kind::Signal,
    Kind::Hang,
    Kind::Steady,
    Kind::Flood,
    Kind::Slow,
    Kind::Once,
    Kind::Limited,
    Kind::Steady,
];

/// One component.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Is in its environment: another one replaces its process.
    pub(crate) version: usize,
    /// How long its stop may take, in milliseconds: another one replaces nothing.
    pub(crate) grace: usize,
    /// Whether the manifest has it.
    pub(crate) is_declared: bool,
    /// Whether it was stopped by hand.
    pub(crate) is_stopped: bool,
}

/// All of them.
pub(crate) struct Fleet {
    pub(crate) members: Vec<Member>,
}

impl Fleet {
    pub(crate) fn new(count: usize) -> Self {
        let member = |(index, kind): (usize, &Kind)| Member {
            name: format!("c{index:03}"),
            kind: *kind,
            version: 0,
            grace: 500,
            is_declared: true,
            is_stopped: false,
        };
        Self { members: KINDS.iter().cycle().take(count).enumerate().map(member).collect() }
    }

    /// Those whom nobody touches.
    pub(crate) fn bystanders(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.kind == Kind::Bystander)
    }

    /// The manifest as it should be.
    pub(crate) fn manifest(&self, home: &TestHome) -> String {
        let mut yaml = String::from("project: chaos\ncomponents:\n");
        for (index, member) in self.members.iter().enumerate() {
            if member.is_declared {
                member.declare(index, home, &mut yaml);
            }
        }
        yaml
    }

    /// Whoever is nobody's victim has been born once.
    pub(crate) fn check_bystanders(&self, home: &TestHome) -> Result<(), String> {
        for member in self.bystanders() {
            let births = Births::read(&home.births_file(&member.name));
            if births.born.len() != 1 {
                return Err(format!(
                    "{}, whom nobody touched: {births:?}\n{:#?}",
                    member.name,
                    home.story(&member.name)
                ));
            }
        }
        Ok(())
    }
}

impl Member {
    fn declare(&self, index: usize, home: &TestHome, yaml: &mut String) {
        let name = &self.name;
        let ledger = format!("ledgers/{name}");
        let mut flags = vec!["--ledger", &ledger];
        // So that they do not all end at the same time.
        let life = format!("{}ms", 300 + index * 37 % 3000);
        let socket = format!("sockets/{name}");
        let grandchild = format!("--births births-{name}.g");
        let mut more = String::new();
        match self.kind {
            Kind::Bystander | Kind::Steady => {}
            Kind::Crash => flags.extend(["--exit-after", &life, "--exit-code", "3"]),
            Kind::Signal => flags.extend(["--exit-after", &life, "--die-by", "SEGV"]),
            Kind::Hang => {
                more = format!(
                    "    probes: {{ liveness: {{ file: {{ path: {ledger}, max_age: 2s }}, interval: 500ms, failure_threshold: 2 }} }}\n"
                );
            }
            Kind::Fork => flags.extend(["--grandchild", &grandchild]),
            Kind::Flood => flags.extend(["--ledger-pace", "1ms"]),
            Kind::Stubborn => flags.extend(["--on-term", "ignore"]),
            Kind::Slow => {
                flags.extend(["--ready-after", "1s", "--unix", &socket]);
                more = format!(
                    "    depends_on: {{ {}: ready }}\n    probes: {{ startup: {{ unix: {socket}, interval: 300ms, failure_threshold: 200 }} }}\n",
                    // The first of all is a bystander.
                    "c000"
                );
            }
            Kind::Once => flags.extend(["--exit-after", &life]),
            Kind::Limited => flags.extend(["--exit-after", "50ms", "--exit-code", "1"]),
        }
        let restart = match self.kind {
            Kind::Limited => "max_restarts: 3, backoff: { initial: 50ms, max: 200ms }",
            Kind::Once => "policy: on-failure, max_restarts: unlimited",
            _ => "max_restarts: unlimited, min_uptime: 1s, backoff: { initial: 100ms, max: 1s }",
        };
        let _ = write!(
            yaml,
            "  {name}:\n    command: {}\n    env: {{ CHAOS_VERSION: {} }}\n    restart: {{ {restart} }}\n    stop: {{ timeout: {}ms }}\n    logs: {{ max_size: 256KiB, max_files: 1000 }}\n{more}",
            home.troublemaker(name, &flags),
            self.version,
            self.grace,
        );
    }

    /// The last one that was born, if it lives.
    pub(crate) fn living(&self, home: &TestHome) -> Option<Birth> {
        let last = Births::read(&home.births_file(&self.name)).born.pop()?;
        is_alive(last).then_some(last)
    }
}

/// Whether it is that very process that has the pid, and not as a zombie.
pub(crate) fn is_alive(birth: Birth) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", birth.pid)) else { return false };
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let mut fields = fields.split(' ');
    let is_dead = fields.next().is_none_or(|state| state == "Z" || state == "X");
    !is_dead && fields.nth(18).and_then(|ticks| ticks.parse().ok()) == Some(birth.start_ticks)
}
