//! The process is alive: it exists and is not a zombie (S31). Of a container: it runs.
//!
//! A stopped (SIGSTOP) or uninterruptible process is alive. `kill(pid, 0)` would not do: it succeeds on
//! zombies. Whether the pid is still the component's is not asked here: the keeper reports an exit
//! before it reaps, and the machine drops the prober with it.

use std::io;

use super::{Kind, Run, Target, text};

pub(super) struct Process;

impl Kind for Process {
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a> {
        Box::pin(async move {
            match &target.container {
                // Its processes belong to its engine, which may be on another machine.
                Some(container) => container.look(false).await,
                None => Ok(check(target.pid)?),
            }
        })
    }
}

fn check(pid: Option<u32>) -> Result<(), String> {
    let pid = pid.ok_or("it has no process that stigmer knows")?;
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => match state(&stat) {
            Some(b'Z' | b'X' | b'x') => Err(format!("process {pid} is dead (zombie)")),
            Some(_) => Ok(()),
            None => Err(format!("process {pid}: its state cannot be read")),
        },
        // ESRCH: it ended between the opening and the reading.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Err(format!("process {pid} is gone"))
        }
        Err(error) => Err(format!("process {pid}: {}", text::io_error(&error))),
    }
}

/// The state letter: behind the last parenthesis, for a program may have any in its name.
fn state(stat: &[u8]) -> Option<u8> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_end + 2).copied()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_may_hold_parentheses() {
        assert_eq!(state(b"12 (a) Z (b) S 1 1"), Some(b'S'));
        assert_eq!(state(b""), None);
        assert_eq!(state(b"12 (a)"), None);
    }

    #[test]
    fn s31_alive_then_zombie_then_gone() {
        assert_eq!(check(Some(std::process::id())), Ok(()));
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert_eq!(check(Some(pid)), Ok(()));
        drop(child.stdin.take());
        let exited = rustix::process::WaitIdOptions::EXITED;
        let status = rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
            exited | rustix::process::WaitIdOptions::NOWAIT,
        );
        status.unwrap();
        assert_eq!(check(Some(pid)), Err(format!("process {pid} is dead (zombie)")));
        child.wait().unwrap();
        assert_eq!(check(Some(pid)), Err(format!("process {pid} is gone")));
        assert!(check(None).is_err());
    }
}
