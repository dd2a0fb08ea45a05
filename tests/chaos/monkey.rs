//! Whoever disturbs: kills, hangs, edits, commands and a full disk, as the dice fall.

use std::fmt;
use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::dice::Dice;
use crate::fleet::{Fleet, Kind, is_alive};
use crate::support::command;
use crate::support::disk::SmallDisk;
use crate::support::home::TestHome;
use crate::support::processes::Process;
use crate::support::wait::poll;

/// Between two deeds at most, in milliseconds.
const PAUSE: usize = 60;
/// How long the disk is full at most, in milliseconds.
const FULL: usize = 800;

/// What was done so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Told {
    engine: usize,
    keeper: usize,
    both: usize,
    components: usize,
    hangs: usize,
    edits: usize,
    mistakes: usize,
    commands: usize,
    full: usize,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills of the engine, {} of the keeper, {} of both, {} of components, {} hangs, \
             {} edits, {} mistakes, {} commands, {} times a full disk",
            self.engine,
            self.keeper,
            self.both,
            self.components,
            self.hangs,
            self.edits,
            self.mistakes,
            self.commands,
            self.full,
        )
    }
}

pub(crate) struct Monkey<'a> {
    home: &'a TestHome,
    pub(crate) dice: Dice,
    disk: Option<&'a SmallDisk>,
    pub(crate) told: Told,
}

impl<'a> Monkey<'a> {
    pub(crate) fn new(home: &'a TestHome, dice: Dice, disk: Option<&'a SmallDisk>) -> Self {
        Self { home, dice, disk, told: Told::default() }
    }

    /// One deed, and a pause.
    pub(crate) fn act(&mut self, fleet: &mut Fleet) {
        match self.dice.below(100) {
            0..33 => self.kill_daemon(true, false),
            33..66 => self.kill_daemon(false, true),
            66..68 => self.kill_daemon(true, true),
            68..80 => self.kill_component(fleet),
            80..85 => self.hang(fleet),
            85..91 => {
                let count = 1 + self.dice.below(5);
                self.edit(fleet, count);
            }
            91..94 => self.mistake(fleet),
            94..98 => self.command(fleet),
            _ => self.fill_disk(),
        }
        let pause = self.dice.below(PAUSE);
        thread::park_timeout(Duration::from_millis(pause as u64));
    }

    /// Kills engine, keeper, or one right after the other, once there are any.
    fn kill_daemon(&mut self, engine: bool, keeper: bool) {
        let Some((keeper_pid, engine_pid)) = poll(Duration::from_secs(10), || self.pids()) else {
            // After both were killed nobody starts another one.
            self.ensure_daemon();
            return;
        };
        let is_killed = (keeper && self.kill_own(keeper_pid), engine && self.kill_own(engine_pid));
        match is_killed {
            (true, true) => {
                self.told.both += 1;
                self.ensure_daemon();
            }
            (true, false) => self.told.keeper += 1,
            (false, true) => self.told.engine += 1,
            (false, false) => {}
        }
    }

    /// Keeper and engine, as the daemon says.
    pub(crate) fn pids(&self) -> Option<(u32, u32)> {
        let output = command::run(self.home.command(["ping", "-o", "json"])).ok()?;
        let said: Value = serde_json::from_str(&output.stdout).ok()?;
        let pid = |name: &str| u32::try_from(said["daemon"][name].as_u64()?).ok();
        Some((pid("pid")?, pid("engine_pid")?))
    }

    /// Kills a process that executes the program under test.
    fn kill_own(&self, pid: u32) -> bool {
        let Some(process) = Process::open(pid) else { return false };
        let is_ours = fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|program| program == self.home.stigmer());
        if is_ours {
            process.signal(Signal::KILL);
        }
        is_ours
    }

    /// Starts a daemon if there is none.
    pub(crate) fn ensure_daemon(&self) {
        let is_there = poll(Duration::from_secs(30), || {
            let output = command::run(self.home.command(["daemon", "--detach"])).ok()?;
            (output.code == Some(0)).then_some(())
        });
        if is_there.is_none() {
            // The calm that follows says so, with everything that is known.
            self.say("no daemon can be started");
        }
    }

    #[expect(clippy::print_stdout, reason = "a part of the report")]
    fn say(&self, what: &str) {
        println!("  {what}, in {}", self.home.root().display());
    }

    /// One whom somebody may do something to, other than the bystanders.
    fn victim(&mut self, fleet: &Fleet, like: impl Fn(Kind) -> bool) -> Option<usize> {
        let members = fleet.members.iter().enumerate();
        let all: Vec<usize> = members
            .filter(|(_, member)| member.kind != Kind::Bystander && like(member.kind))
            .map(|(index, _)| index)
            .collect();
        self.dice.pick(&all)
    }

    fn signal(&mut self, fleet: &Fleet, signal: Signal, like: impl Fn(Kind) -> bool) -> bool {
        let Some(index) = self.victim(fleet, like) else { return false };
        let Some(birth) = fleet.members[index].living(self.home) else { return false };
        let Some(process) = Process::open(birth.pid) else { return false };
        // Looked at after the pidfd was opened: it is that one and no other.
        let is_same = is_alive(birth);
        if is_same {
            process.signal(signal);
        }
        is_same
    }

    fn kill_component(&mut self, fleet: &Fleet) {
        let is_killed = self.signal(fleet, Signal::KILL, |_| true);
        self.told.components += usize::from(is_killed);
    }

    fn hang(&mut self, fleet: &Fleet) {
        let is_hung = self.signal(fleet, Signal::STOP, |kind| kind == Kind::Hang);
        self.told.hangs += usize::from(is_hung);
    }

    /// Edits the manifest in so many places: versions, what changes in place, and who is there at all.
    pub(crate) fn edit(&mut self, fleet: &mut Fleet, count: usize) {
        for _ in 0..count {
            let Some(index) = self.victim(fleet, |_| true) else { continue };
            let (what, grace) = (self.dice.below(4), 400 + self.dice.below(300));
            let member = &mut fleet.members[index];
            match what {
                0 | 1 => member.version += 1,
                2 => member.grace = grace,
                _ => member.is_declared = !member.is_declared,
            }
        }
        self.told.edits += count;
        self.home.manifest(&fleet.manifest(self.home));
    }

    /// Breaks the manifest in one of the ways in which people do.
    fn mistake(&mut self, fleet: &Fleet) {
        self.told.mistakes += 1;
        let good = fleet.manifest(self.home);
        let bad = match self.dice.below(5) {
            // Half a file, in the middle of a line: at the end of one it would be a manifest of half the
            // components, which must be obeyed.
            0 => good[..=good[..good.len() / 2].rfind('{').unwrap_or_default()].to_owned(),
            1 => good.replace("command:", "comand:"),
            2 => good + "  c000:\n    command: [\"true\"]\n",
            3 => String::new(),
            _ => {
                let _ = fs::remove_file(self.home.file("stigmer.yaml"));
                return;
            }
        };
        self.home.manifest(&bad);
    }

    /// A command of a user's, at a moment at which nobody may answer.
    fn command(&mut self, fleet: &mut Fleet) {
        let Some(index) = self.victim(fleet, |kind| kind != Kind::Once) else { return };
        let member = &mut fleet.members[index];
        let verb = ["stop", "start", "restart"][self.dice.below(3)];
        self.told.commands += 1;
        // Whether it was heard is unknown if nobody answered; the calm makes it certain.
        let _ = command::run(self.home.command([verb, &member.name, "--no-wait"]));
        member.is_stopped = verb == "stop";
    }

    fn fill_disk(&mut self) {
        let pause = self.dice.below(FULL);
        let Some(disk) = self.disk else { return };
        let filler = disk.fill();
        thread::park_timeout(Duration::from_millis(pause as u64));
        if let Err(error) = fs::remove_file(&filler) {
            self.say(&format!("the disk stays full: {error}"));
        }
        self.told.full += 1;
    }
}
