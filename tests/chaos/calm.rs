//! Nobody disturbs: the fleet must become what is declared, the status must say what /proc says, and
//! nothing may have grown.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{Fleet, Kind, Member};
use crate::monkey::Monkey;
use crate::support::command;
use crate::support::home::TestHome;
use crate::support::wait::{patience, poll};

/// Descriptors that may come and go: connections of commands, logs that are being rotated.
const SPARE: usize = 32;
/// Memory that may come and go, in KiB.
const SLACK: u64 = 8 * 1024;

/// Makes the wishes certain, and waits until they are fulfilled. Gives how long that took.
pub(crate) fn settle(
    home: &TestHome,
    fleet: &mut Fleet,
    monkey: &mut Monkey<'_>,
) -> Result<Duration, String> {
    let began = Instant::now();
    monkey.ensure_daemon();
    // The last edit may have been a mistake.
    monkey.edit(fleet, 1);
    certainly(home, &["apply", "--no-wait"])?;
    let mut stopped = vec!["stop", "--no-wait"];
    for member in &mut fleet.members {
        member.is_stopped = member.kind == Kind::Steady && monkey.dice.below(8) == 0;
        if member.is_stopped && member.is_declared {
            stopped.push(&member.name);
        }
    }
    if stopped.len() > 2 {
        certainly(home, &stopped)?;
    }
    let mut wrong = Vec::new();
    let is_settled = poll(patience(), || {
        wrong = mismatches(home, fleet);
        wrong.is_empty().then_some(())
    });
    match is_settled {
        Some(()) => Ok(began.elapsed()),
        None => Err(format!("not as declared after {:?}:\n{}", began.elapsed(), wrong.join("\n"))),
    }
}

/// Stops everything; nothing of it may be left.
pub(crate) fn stop_all(
    home: &TestHome,
    fleet: &Fleet,
    monkey: &mut Monkey<'_>,
) -> Result<(), String> {
    monkey.ensure_daemon();
    certainly(home, &["stop", "--all"])?;
    let left: Vec<_> = fleet.members.iter().filter(|one| one.living(home).is_some()).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("left after stop: {left:?}")) }
}

/// A command that is to succeed, if need be at the second try: somebody was killed just now.
fn certainly(home: &TestHome, arguments: &[&str]) -> Result<(), String> {
    let mut last = String::new();
    poll(patience(), || {
        match command::run(home.command(arguments)) {
            Ok(output) if output.code == Some(0) => return Some(()),
            Ok(output) => last = format!("{output:#?}"),
            Err(problem) => last = problem,
        }
        None
    })
    .ok_or_else(|| format!("{arguments:?} does not succeed: {last}"))
}

/// What is not as it should be, if anything.
fn mismatches(home: &TestHome, fleet: &Fleet) -> Vec<String> {
    let Some(status) = home.try_status_json() else { return vec!["no status".to_owned()] };
    let components = status["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said: HashMap<&str, &Value> =
        components.iter().filter_map(|one| Some((one["name"].as_str()?, one))).collect();
    fleet
        .members
        .iter()
        .filter_map(|member| {
            mismatch(member, said.get(member.name.as_str()).copied(), home)
                .map(|problem| format!("{} ({:?}): {problem}", member.name, member.kind))
        })
        .collect()
}

/// The status of a member, against its declaration and against what /proc says.
fn mismatch(member: &Member, said: Option<&Value>, home: &TestHome) -> Option<String> {
    let living = member.living(home);
    let Some(said) = said else {
        return match (member.is_declared, living) {
            (true, _) => Some("not in the status".to_owned()),
            (false, Some(birth)) => Some(format!("lives, and is not declared: {birth:?}")),
            (false, None) => None,
        };
    };
    if !member.is_declared {
        return Some("in the status, and not declared".to_owned());
    }
    let state = said["state"].as_str().unwrap_or_default();
    let pid = said["pid"].as_u64();
    let told = || Some(format!("state {state}, pid {pid:?}, lives: {living:?}"));
    if member.is_stopped {
        return if state == "stopped" && living.is_none() { None } else { told() };
    }
    match member.kind {
        Kind::Crash | Kind::Signal => {
            if matches!(state, "running" | "starting" | "restarting") {
                None
            } else {
                told()
            }
        }
        Kind::Once => {
            if state == "stopped" && living.is_none() {
                None
            } else {
                told()
            }
        }
        Kind::Limited => {
            if state == "failed" && living.is_none() {
                None
            } else {
                told()
            }
        }
        Kind::Bystander
        | Kind::Steady
        | Kind::Hang
        | Kind::Fork
        | Kind::Flood
        | Kind::Stubborn
        | Kind::Slow => {
            let is_it = living.is_some_and(|birth| Some(u64::from(birth.pid)) == pid);
            if state != "running" || said["ready"] != true || !is_it {
                return told();
            }
            let version = format!("CHAOS_VERSION={}", member.version);
            let environment = fs::read(format!("/proc/{}/environ", pid?)).unwrap_or_default();
            let is_new = environment.split(|byte| *byte == 0).any(|one| one == version.as_bytes());
            (!is_new).then(|| format!("runs, but not with {version}"))
        }
    }
}

/// Descriptors and memory of engine and keeper, at the first calm and at the last one.
#[derive(Default)]
pub(crate) struct Growth {
    first: Option<Size>,
    last: Size,
}

#[derive(Clone, Copy, Default)]
struct Size {
    descriptors: usize,
    /// In KiB.
    memory: u64,
}

impl Growth {
    /// A component that has outlived its keeper is no child of the next one, which holds a descriptor of it.
    pub(crate) fn look(&mut self, home: &TestHome, components: usize) -> Result<(), String> {
        let pids = home.daemon_pids().ok_or("no daemon")?;
        let each = [pids.keeper, pids.engine].map(size);
        self.last = Size {
            descriptors: each.iter().map(|size| size.descriptors).sum(),
            memory: each.iter().map(|size| size.memory).sum(),
        };
        let first = *self.first.get_or_insert(self.last);
        let most = first.descriptors + components + SPARE;
        if self.last.descriptors > most || self.last.memory > first.memory * 3 / 2 + SLACK {
            return Err(format!("grown: {self}"));
        }
        Ok(())
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first.unwrap_or_default(), self.last);
        write!(
            f,
            "{} descriptors at first, {} at last; {} KiB at first, {} at last",
            first.descriptors, last.descriptors, first.memory, last.memory
        )
    }
}

fn size(pid: u32) -> Size {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let memory = rollup.lines().find_map(|line| {
        line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse().ok()
    });
    Size { descriptors, memory: memory.unwrap_or_default() }
}
