//! Trying a program out: it gets copies in a folder, some time, and the chance to say who it is.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::check::Answer;
use super::{Identity, UpgradeError, estate_in, folder, state_in};
use crate::home::{Home, private_folder};
use crate::keeper::KeeperConfig;
use crate::model::exit::signal_name;
use crate::store;
use crate::trust;

/// How long a program may take. Most of it is the layout of a large state.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of what it says is read.
const LONGEST_ANSWER: usize = 32 * 1024;

/// A file as it was; any change to it makes another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint([i64; 6]);

/// A program that can take over.
pub(super) struct Tried {
    pub(super) identity: Identity,
    pub(super) file: Fingerprint,
}

/// Tries a program out. Blocks.
pub(super) fn run(program: &Path, home: &Home, estate: &OwnedFd) -> Result<Tried, UpgradeError> {
    let refused = |why: String| UpgradeError::Refused { program: program.to_owned(), why };
    let file = inspect(program).map_err(refused)?;
    let copies = Copies::make(home, estate).map_err(UpgradeError::Impossible)?;
    let identity = ask(program, home, &copies.folder).map_err(refused)?;
    Ok(Tried { identity, file })
}

/// What the file is now.
pub(super) fn fingerprint(program: &Path) -> io::Result<Fingerprint> {
    let found = fs::metadata(program)?;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (dev, ino, size) = (number(found.dev()), number(found.ino()), number(found.size()));
    Ok(Fingerprint([dev, ino, size, found.mtime(), found.mtime_nsec(), found.ctime()]))
}

fn inspect(program: &Path) -> Result<Fingerprint, String> {
    if !program.is_absolute() {
        return Err("its path is not absolute".into());
    }
    let found = fs::metadata(program).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if !found.is_file() {
        return Err("it is not a file".into());
    }
    if found.mode() & 0o111 == 0 {
        return Err(format!("it is not executable; type `chmod +x {}`", program.display()));
    }
    if nix::unistd::geteuid().is_root() {
        trust::only_root_writes(program)
            .map_err(|untrusted| format!("{untrusted}; type `{}`", untrusted.remedy))?;
    }
    fingerprint(program).map_err(|error| error.to_string())
}

/// The folder with the copies, gone when this is dropped.
struct Copies {
    folder: PathBuf,
}

impl Copies {
    fn make(home: &Home, estate: &OwnedFd) -> Result<Self, String> {
        let folder = folder(home);
        let failed =
            |error: io::Error| format!("cannot copy its state to {}: {error}", folder.display());
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        private_folder(&folder).map_err(|error| error.to_string())?;
        let copies = Self { folder: folder.clone() };
        let mut bytes = Vec::new();
        estate
            .try_clone()
            .and_then(|memory| {
                // The keeper has written it, and left the position at its end.
                let mut memory = File::from(memory);
                io::Seek::rewind(&mut memory)?;
                memory.read_to_end(&mut bytes)
            })
            .and_then(|_| fs::write(estate_in(&folder), &bytes))
            .map_err(failed)?;
        store::copy(&home.database(), &state_in(&folder)).map_err(|error| error.to_string())?;
        Ok(copies)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What is left is removed by the next one.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn ask(program: &Path, home: &Home, folder: &Path) -> Result<Identity, String> {
    let mut child = Command::new(program)
        .arg0("stigmer")
        .arg("__check")
        .arg(folder)
        // What a keeper is started with, so that it is seen whether it knows all of it.
        .args(arguments(home))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| cannot_execute(&error))?;
    let in_time = wait(&child);
    // Its group, so that nothing of it stays. The child has not been waited for: the number is its own.
    if let Some(group) = pid(&child) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !in_time {
        return Err(format!("it gave no answer within {} s", PATIENCE.as_secs()));
    }
    let said = child.stdout.take().map(|pipe| available(&pipe.into())).unwrap_or_default();
    let complained = child.stderr.take().map(|pipe| available(&pipe.into())).unwrap_or_default();
    judge(status, &said, &complained)
}

/// What it has said, in the words of the upgrade.
fn judge(status: ExitStatus, said: &[u8], complained: &[u8]) -> Result<Identity, String> {
    let Ok(answer) = serde_json::from_slice::<Answer>(said) else {
        let complained = String::from_utf8_lossy(complained);
        let first = complained.lines().map(str::trim).find(|line| !line.is_empty());
        let words = first.map_or_else(String::new, |line| format!(": {line}"));
        return Err(match (status.code(), status.signal()) {
            (Some(2), _) if first.is_some_and(|line| line.contains("__check")) => {
                "it is a stigmer that is too old to take over".to_owned()
            }
            (Some(code), _) => format!("it is no stigmer, or broken (exit {code}{words})"),
            (None, signal) => {
                format!("it crashes ({}{words})", signal_name(signal.unwrap_or_default()))
            }
        });
    };
    match answer.refused {
        Some(why) => Err(format!("version {} says: {why}", answer.identity.version)),
        None if status.success() => Ok(answer.identity),
        None => Err(format!("it ended with {status} after it had answered")),
    }
}

fn arguments(home: &Home) -> Vec<std::ffi::OsString> {
    let config = KeeperConfig {
        estate_fd: Some(3),
        previous_fd: Some(4),
        foreground: true,
        ..KeeperConfig::for_home(home)
    };
    config.to_arguments().split_off(1)
}

fn cannot_execute(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "it is not a program for this machine".into(),
        Some(libc::EACCES) => "it may not be executed".into(),
        Some(libc::ENOENT) => "the loader or interpreter that it names is not there".into(),
        Some(libc::ETXTBSY) => "it is being written; try again when that is done".into(),
        _ => format!("it cannot be executed: {error}"),
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Waits for its end; false if it takes too long.
fn wait(child: &Child) -> bool {
    let pidfd = pid(child).map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
    let Some(Ok(pidfd)) = pidfd else { return false };
    let Ok(timeout) = Timespec::try_from(PATIENCE) else { return false };
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// What is in a pipe by now. Not until its end: something that got away may hold it open.
fn available(pipe: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; LONGEST_ANSWER];
    let length = rustix::io::ioctl_fionbio(pipe.as_fd(), true)
        .and_then(|()| rustix::io::read(pipe, &mut bytes))
        .unwrap_or(0);
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_judged() {
        let good = ExitStatus::from_raw(0);
        let line = br#"{"version":"9.0.0","build":"abc","more":1}"#;
        assert_eq!(judge(good, line, b"").unwrap().version, "9.0.0");
        let bad = |status: i32, said: &[u8], complained: &[u8]| {
            judge(ExitStatus::from_raw(status), said, complained).unwrap_err()
        };
        let refusal = br#"{"version":"9.0.0","build":"abc","refused":"too new"}"#;
        assert_eq!(bad(1 << 8, refusal, b""), "version 9.0.0 says: too new");
        let old = b"\nerror: unrecognized subcommand '__check'\n";
        assert_eq!(bad(2 << 8, b"", old), "it is a stigmer that is too old to take over");
        assert_eq!(bad(0, b"hello", b""), "it is no stigmer, or broken (exit 0)");
        let loader = b"x: error while loading shared libraries: libz";
        assert!(bad(127 << 8, b"", loader).contains("(exit 127: x: error while loading"));
        assert_eq!(bad(libc::SIGSEGV, b"", b""), "it crashes (SIGSEGV)");
        assert!(bad(libc::SIGSEGV, line, b"").contains("after it had answered"));
    }
}
