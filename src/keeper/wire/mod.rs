//! The words that engine and keeper exchange.
//!
//! ```text
//!   engine --ToKeeper--> SOCK_SEQPACKET --FromKeeper--> engine
//!      one message a packet: [kind u8] [fields, little endian]
//!      several short ones:   see [`Several`]
//!      too long for a packet: [0x7f] and a sealed memfd that holds the message
//! ```
//!
//! Invariants: decoding is total (an error, never a panic, whatever the bytes); a message never takes
//! more memory than its bytes account for; bytes after the last known field are ignored, so that
//! fields can be added at the end without a new version.
//!
//! Both sides may be of different builds, because the keeper outlives an upgrade of the program. Each
//! says its [`VERSION`] first ([`ToKeeper::Hello`], [`Welcome`]); a message of an unknown kind is an
//! error that the receiver skips.
//!
//! Deliberately absent: compression, authentication (the socket is a pair without a name), replies to
//! single requests. What the keeper says is a statement about a run, not an answer.

pub(super) mod codec;
mod from_keeper;
mod to_keeper;
mod together;

pub(super) use from_keeper::{
    detail_code, detail_from, read_exited, read_failure, stage_code, stage_from, write_exited,
    write_failure,
};

pub use together::{SHORT, Several, messages};

use std::time::Duration;

use crate::model::spec::{LimitSpec, Rlimit};
use crate::model::{Exit, LaunchStage, RunId, Time};

/// The version of this protocol. 2: a keeper that can be replaced in place. 3: sockets that are handed
/// down. 4: several messages of the engine in one packet. 5: of the keeper as well.
pub const VERSION: u32 = 5;

/// From this version on an engine takes several messages in one packet.
pub const TAKES_SEVERAL: u32 = 5;

/// The longest message in bytes; beyond it a message is refused by both sides. The kernel refuses
/// arguments and environment of more than 6 MiB anyway.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// The longest message that travels as a packet of its own.
pub const MAX_PACKET: usize = 60 * 1024;

/// The longest key, name or subject in bytes.
pub const MAX_NAME: usize = 1024;

/// Bytes that are no message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The message ends in the middle of a field.
    #[error("the message is cut short")]
    Short,
    /// A field of text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// The kind of message is not known; the other side may be newer.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// A field holds a value that it cannot have.
    #[error("{value} is not {what}")]
    Value {
        /// What was expected.
        what: &'static str,
        /// What was there.
        value: u32,
    },
}

/// What the engine asks of the keeper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToKeeper {
    /// First of all: who asks. Answered with [`FromKeeper::Welcome`].
    Hello {
        /// The engine's [`VERSION`].
        version: u32,
    },
    /// Start a process. Answered with `Spawned` or `SpawnFailed`; with `RunState` where the run is
    /// known already, which starts nothing.
    Spawn(Box<Spawn>),
    /// Send a signal. No answer: its effect is what counts.
    Signal {
        /// Of which run.
        run: RunId,
        /// The signal's number.
        signal: i32,
        /// To whom.
        scope: Scope,
        /// Send SIGCONT after it, so that a stopped process handles it. For signals that shall end
        /// the process.
        resume: bool,
    },
    /// SIGKILL to everything that belongs to the run, until nothing is left. Answered with the
    /// `Exited` and `Gone` of the run.
    KillTree {
        /// Which run.
        run: RunId,
    },
    /// Forget a run that has ended and of which nothing is left, with its record and its cgroup.
    /// Ignored for any other run.
    Ack {
        /// Which run.
        run: RunId,
    },
    /// Watch a survivor of a former keeper. Answered with `RunState`.
    Adopt(Adopt),
    /// Tell everything: `RunState` for each run, `HeldFd` for each descriptor, then `ListEnd`.
    List,
    /// Keep the descriptor that comes with this message, in place of one of the same name.
    Hold {
        /// Under which name.
        name: String,
    },
    /// Close a descriptor that is kept.
    Release {
        /// Under which name.
        name: String,
    },
    /// Hold everything that belongs to an instance still, but for helpers, until the other end of the
    /// socket that comes with this message is closed. Answered through that socket, with
    /// [`crate::keeper::freezer::FROZEN`] once nothing moves; it is closed without a word if that cannot
    /// be had.
    Freeze {
        /// The text of the instance's id.
        key: String,
    },
    /// The engine is about to exit with code 0, and the daemon shall end with it. Runs that are left
    /// stay alive for the next daemon to adopt; helpers (`aux`) are ended.
    Shutdown,
    /// Show what a successor would be handed. Answered with `Estate`, or with `NotReplaced`.
    Rehearse,
    /// Hand everything over to this program, in this very process. Answered with `NotReplaced` where
    /// that cannot be; else with the end of the engine, which the successor replaces.
    Replace {
        /// The program's absolute path.
        program: Vec<u8>,
    },
    /// The engine is at work: there is no going back to the program before this one.
    AtWork,
}

/// Whom a signal is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The main process alone.
    Main,
    /// Everything that belongs to the run.
    Tree,
}

/// Everything that is needed to start a process. Bytes, because that is what the kernel takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spawn {
    /// Below 2^56, and never used before within the home folder.
    pub run: RunId,
    /// The text of the instance's id, for the record.
    pub key: String,
    /// The program and its arguments. A program without a slash is looked up on the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`; the whole environment but for the tag, which the keeper adds.
    pub env: Vec<Vec<u8>>,
    /// Absolute.
    pub working_dir: Vec<u8>,
    /// Whom to become; `None` stays who the keeper is.
    pub user: Option<Credentials>,
    /// File mode mask; `None` keeps the keeper's.
    pub umask: Option<u32>,
    /// -20 to 19; `None` keeps the keeper's.
    pub nice: Option<i32>,
    /// Resource limits. The number of open files is what it was before the keeper raised its own.
    pub rlimits: Vec<(Rlimit, LimitSpec)>,
    /// Where stdout and stderr go.
    pub log: LogTarget,
    /// Give it a cgroup of its own, where there are cgroups.
    pub own_group: bool,
    /// A helper, such as an exec probe: ended by the keeper when the engine that asked for it is gone.
    pub aux: bool,
    /// Descriptors that the keeper holds and hands down, from number 3 on in this order.
    pub sockets: Vec<HandedDown>,
}

/// A descriptor that a process gets as `sd_listen_fds(3)` tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandedDown {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: String,
    /// The name under which the keeper holds it.
    pub held: String,
}

/// User and groups as numbers; the keeper looks up no names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// Where stdout and stderr of a process go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogTarget {
    /// A file, opened for append and made with mode 0600.
    Path(Vec<u8>),
    /// The descriptor that comes with the message.
    Passed,
}

/// A process that a former keeper started, as its record describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adopt {
    /// Its run; the record of that run must exist.
    pub run: RunId,
    /// The text of the instance's id.
    pub key: String,
    /// Its pid.
    pub pid: u32,
    /// The inode of its pidfd; 0 where the kernel has no pidfs.
    pub inode: u64,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// What the keeper tells the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromKeeper {
    /// The answer to `Hello`.
    Welcome(Welcome),
    /// The program was executed.
    Spawned(Spawned),
    /// The program was not executed.
    SpawnFailed(LaunchFailure),
    /// The main process ended. Told again at each `List` until it is acknowledged.
    Exited(Exited),
    /// Nothing of the run is left. Only after an `Exited` whose `empty` was false.
    Gone {
        /// Which run.
        run: RunId,
    },
    /// All about a run, as it is now.
    RunState(Box<RunState>),
    /// A descriptor that is kept; it comes with the message.
    HeldFd {
        /// Under which name.
        name: String,
    },
    /// The end of what `List` asked for.
    ListEnd,
    /// The daemon was asked to end (SIGTERM, SIGINT, or the terminal went away).
    Terminate {
        /// By which signal.
        signal: i32,
    },
    /// The daemon was asked to read its manifests again (SIGHUP).
    ReloadRequested,
    /// What a successor would be handed; it comes with the message, in a sealed memory.
    Estate,
    /// Nothing was handed over, and everything is as before.
    NotReplaced {
        /// Why, in plain words.
        why: String,
    },
}

impl FromKeeper {
    /// The run that it is about, if it is about one.
    #[must_use]
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Spawned(spawned) => Some(spawned.run),
            Self::SpawnFailed(failure) => Some(failure.run),
            Self::Exited(exited) => Some(exited.run),
            Self::Gone { run } => Some(*run),
            Self::RunState(state) => Some(state.run),
            Self::Welcome(_)
            | Self::HeldFd { .. }
            | Self::ListEnd
            | Self::Terminate { .. }
            | Self::ReloadRequested
            | Self::Estate
            | Self::NotReplaced { .. } => None,
        }
    }
}

/// Who the keeper is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The keeper's [`VERSION`].
    pub version: u32,
    /// The keeper's pid.
    pub keeper_pid: u32,
    /// When it started: nanoseconds since 1970.
    pub started_at: u64,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// How well grandchildren are kept together.
    pub containment: Containment,
}

/// How the keeper knows what belongs to a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Containment {
    /// By a cgroup: nothing escapes.
    Cgroup,
    /// By session, descent and a tag in the environment: what changes all three escapes.
    BestEffort,
}

/// A program that was executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spawned {
    /// Which run.
    pub run: RunId,
    /// Its pid.
    pub pid: u32,
    /// The inode of its pidfd; 0 where the kernel has no pidfs.
    pub inode: u64,
    /// When it was forked, before the program could do anything.
    pub at: Time,
}

/// A program that was not executed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchFailure {
    /// Which run.
    pub run: RunId,
    /// The step that failed.
    pub stage: LaunchStage,
    /// The kernel's error number; 0 where there is none.
    pub errno: i32,
    /// What the number alone does not say.
    pub detail: Detail,
    /// The file that it is about, where there is one; for [`Detail::Died`] the signal's name.
    pub subject: Vec<u8>,
}

/// What an error number alone does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// Nothing more is known.
    None,
    /// The script is there, but the program after its `#!` (the subject) is not.
    InterpreterMissing,
    /// The program is there, but the loader that it names (the subject) is not.
    LoaderMissing,
    /// The subject is a folder.
    Directory,
    /// The subject may not be executed by anyone.
    NotExecutable,
    /// The process ended before it came to executing the program.
    Died,
}

/// A main process that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exited {
    /// Which run.
    pub run: RunId,
    /// How.
    pub exit: Exit,
    /// When.
    pub at: Time,
    /// Nothing else of the run is left. If false, `Gone` follows.
    pub empty: bool,
    /// CPU time of the process and of the children that it waited for; zero if unknown.
    pub cpu: Duration,
}

/// All about a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunState {
    /// Which run.
    pub run: RunId,
    /// The text of the instance's id.
    pub key: String,
    /// It is a helper.
    pub aux: bool,
    /// Pid of the main process, also after its end; 0 if there never was one.
    pub pid: u32,
    /// The inode of its pidfd; 0 where the kernel has no pidfs.
    pub inode: u64,
    /// When its program was executed; for an adopted one, when its record says so.
    pub spawned_at: Time,
    /// How its tree is known.
    pub containment: Containment,
    /// What it is doing.
    pub phase: RunPhase,
}

/// What a run is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunPhase {
    /// Between fork and exec.
    Launching,
    /// The program was executed and has not ended.
    Running,
    /// It was never executed.
    Failed(LaunchFailure),
    /// It has ended.
    Ended(Exited),
}
