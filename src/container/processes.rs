//! The processes of a command inside of a container, and how they are signalled.
//!
//! Engines cannot signal a command that was started. Where the engine runs on this machine its process is
//! known, and it is signalled with all its descendants, after a look whether it is in the container's cgroup;
//! without the right to (rootless is no trouble, the `docker` group is), `kill` inside of the container does
//! it, if the image has one. On another machine the command is left to itself.
//!
//! Who belongs to the command is looked up once: a descendant whose parents end in the meantime still
//! belongs to it.

use std::fs;
use std::os::fd::OwnedFd;

use bollard::exec::StartExecOptions;
use bollard::models::ExecConfig;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::engine::{Engine, QUICK};
use super::look::is_of;
use crate::model::ContainerId;

/// A command's processes.
#[derive(Debug)]
pub struct Processes {
    engine: Engine,
    container: ContainerId,
    /// The command's own first.
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    pidfd: OwnedFd,
    /// Its number inside of the container.
    inside: Option<u32>,
}

impl Processes {
    /// The processes of a command; `None` if it does not run, or on another machine.
    pub(super) async fn of(engine: &Engine, container: &ContainerId, exec: &str) -> Option<Self> {
        let looked =
            engine.ask("inspect exec", QUICK, async |client| client.inspect_exec(exec).await).await;
        let looked = looked.ok().filter(|looked| looked.running == Some(true))?;
        let root = number_of(engine, looked.pid)?;
        let (mut members, mut left) = (Vec::new(), vec![root]);
        while let Some(pid) = left.pop() {
            left.extend(children(pid));
            if let Some(pidfd) = open(container, pid) {
                members.push(Member { pidfd, inside: pid_inside(pid) });
            }
        }
        let (engine, container) = (engine.clone(), container.clone());
        (!members.is_empty()).then_some(Self { engine, container, members })
    }

    /// Signals all of them. Those that have ended are no failure.
    pub async fn signal(&self, signal: Signal) {
        let mut refused = Vec::new();
        for member in &self.members {
            match pidfd_send_signal(&member.pidfd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(_) => refused.extend(member.inside),
            }
        }
        if !refused.is_empty() {
            self.signal_from_inside(signal, &refused).await;
        }
    }

    /// They belong to another user: the container's own `kill` may.
    async fn signal_from_inside(&self, signal: Signal, numbers: &[u32]) {
        let mut argv = vec!["kill".to_owned(), format!("-{}", signal.as_raw())];
        argv.extend(numbers.iter().map(ToString::to_string));
        // With the rights of the container's first user, whoever the command runs as.
        let user = Some("0".to_owned());
        let config = ExecConfig { cmd: Some(argv), user, ..ExecConfig::default() };
        let made = self
            .engine
            .ask("exec", QUICK, async |client| {
                client.create_exec(self.container.as_str(), config).await
            })
            .await;
        if let Ok(made) = made {
            let detached = StartExecOptions { detach: true, ..StartExecOptions::default() };
            drop(
                self.engine
                    .ask("start exec", QUICK, async |client| {
                        client.start_exec(&made.id, Some(detached)).await
                    })
                    .await,
            );
        }
    }
}

/// The process that an engine names, if its numbers mean the same here.
pub(super) fn number_of(engine: &Engine, pid: Option<i64>) -> Option<Pid> {
    let pid = i32::try_from(pid.filter(|_| engine.is_local())?).ok()?;
    Pid::from_raw(pid).filter(|pid| !pid.is_init())
}

/// A handle of a process, if it is one of the container's. Looked at after it was opened, so that what was
/// seen is about the process of the handle.
pub(super) fn open(container: &ContainerId, pid: Pid) -> Option<OwnedFd> {
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    let number = u32::try_from(pid.as_raw_nonzero().get()).ok()?;
    is_of(number, container).then_some(pidfd)
}

fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let listed = listed.unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// The number of a process in its own namespace.
fn pid_inside(pid: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}
