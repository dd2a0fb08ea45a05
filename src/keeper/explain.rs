//! A launch that came to nothing, in plain words: what was tried, what came back, what to type.
//!
//! Pure: what the error number does not say, the child has found out on the spot and reported (see
//! [`super::wire::Detail`]).

use std::borrow::Cow;
use std::path::Path;

use rustix::io::Errno;

use super::wire::{Detail, LaunchFailure};
use crate::model::{LaunchError, LaunchStage, Retry};

/// What was asked for, as far as an explanation speaks of it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The program, as it was declared.
    pub program: &'a str,
    /// The component's `PATH`.
    pub search_path: Option<&'a str>,
    /// The component's working directory.
    pub working_dir: &'a Path,
}

/// A message, and what to do about it.
type Words = (String, Option<String>);

/// Explains a failure.
#[must_use]
pub fn explain(failure: &LaunchFailure, asked: &Asked<'_>) -> LaunchError {
    let errno = errno_of(failure.errno);
    let (message, hint) = match failure.stage {
        LaunchStage::Exec => executing(failure, errno, asked),
        LaunchStage::WorkingDir => entering(errno, asked.working_dir),
        LaunchStage::Fork => forking(errno),
        LaunchStage::User => (
            format!("cannot become the declared user: {}", text_of(errno)),
            Some(
                "only a daemon that runs as root can change the user; remove `user:` and \
                  `group:`, or start the daemon as root"
                    .to_owned(),
            ),
        ),
        LaunchStage::Limits => (
            format!("cannot set the declared limits or priority: {}", text_of(errno)),
            Some(
                "only root can raise a hard limit or lower `nice`; declare values that \
                  `ulimit -H -a` allows"
                    .to_owned(),
            ),
        ),
        LaunchStage::Log => logging(failure, errno),
        LaunchStage::Record => recording(errno),
        LaunchStage::Cgroup => (
            format!("cannot enter a cgroup of its own: {}", text_of(errno)),
            Some("start the daemon with a delegated cgroup (`Delegate=yes` in its unit)".into()),
        ),
        LaunchStage::Prepare
        | LaunchStage::Engine
        | LaunchStage::Image
        | LaunchStage::Container => preparing(errno, asked),
    };
    let is_scarcity = match failure.stage {
        LaunchStage::Fork => {
            matches!(errno, Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE)
        }
        LaunchStage::Exec => matches!(errno, Errno::TXTBSY | Errno::AGAIN),
        LaunchStage::Log => {
            matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::DQUOT)
        }
        LaunchStage::Record => matches!(errno, Errno::NOSPC | Errno::DQUOT),
        _ => false,
    };
    LaunchError {
        stage: failure.stage,
        errno: Some(failure.errno).filter(|errno| *errno != 0),
        message,
        hint,
        retry: if is_scarcity { Retry::Soon } else { Retry::Counted },
    }
}

/// A number that came over the wire: zero where no call failed, and `Errno` holds no such number.
fn errno_of(number: i32) -> Errno {
    match number {
        1..=4095 => Errno::from_raw_os_error(number),
        _ => Errno::CANCELED,
    }
}

fn executing(failure: &LaunchFailure, errno: Errno, asked: &Asked<'_>) -> Words {
    let program = asked.program;
    let subject = shown(&failure.subject);
    match (failure.detail, errno) {
        (Detail::Died, _) => (
            format!("{program} ended before it was executed: {subject}"),
            Some(
                "it was killed while it was being started; look at the kernel's log with \
                  `dmesg`"
                    .to_owned(),
            ),
        ),
        (Detail::InterpreterMissing, _) if subject.ends_with('\r') => (
            format!(
                "the script {program} has Windows line endings: its first line asks for the \
                 interpreter {subject:?}"
            ),
            Some(format!("convert it: sed -i 's/\\r$//' {}", quoted(program))),
        ),
        (Detail::InterpreterMissing, _) => (
            format!("the interpreter {subject} of the script {program} does not exist"),
            Some(format!(
                "install it, or correct the first line of the script; `command -v {}` says where \
                 it is",
                Path::new(&*subject).file_name().unwrap_or_default().to_string_lossy()
            )),
        ),
        (Detail::LoaderMissing, _) => (
            format!("the program {program} needs the loader {subject}, which does not exist"),
            Some(format!(
                "it was built for another system or C library; `file {}` says for which",
                quoted(program)
            )),
        ),
        (Detail::Directory, _) => {
            (format!("{subject} is a folder, not a program"), Some("name the program in it".into()))
        }
        (Detail::NotExecutable, _) => (
            format!("no permission to execute {subject}: it has no execute bit"),
            Some(format!("chmod +x {}", quoted(&subject))),
        ),
        (Detail::None, Errno::NOENT | Errno::NOTDIR) => not_found(asked),
        (Detail::None, Errno::ACCESS | Errno::PERM) => (
            format!("no permission to execute {subject}"),
            Some(format!(
                "`namei -l {}` shows which folder or file refuses; a file system mounted noexec \
                 refuses as well",
                quoted(&subject)
            )),
        ),
        (Detail::None, Errno::NOEXEC) => (
            format!("{subject} is not a program that this machine can execute (bad format)"),
            Some(format!(
                "a script needs a first line such as `#!/bin/sh`; `file {}` says what it is",
                quoted(&subject)
            )),
        ),
        (Detail::None, Errno::TXTBSY) => (
            format!("{subject} is still being written by another process (text file busy)"),
            Some("it is tried again; replace programs by renaming a new file over the old".into()),
        ),
        (Detail::None, Errno::TOOBIG) => (
            "the arguments and the environment together are too long".to_owned(),
            Some("pass large values in a file".into()),
        ),
        (Detail::None, Errno::LOOP) => (
            format!("{subject} leads through too many symbolic links"),
            Some(format!("`namei {}` shows them", quoted(&subject))),
        ),
        (Detail::None, Errno::AGAIN) => (
            format!("cannot execute {program}: its user may have no more processes"),
            Some("raise `nproc` in the component's rlimits, or the user's `ulimit -u`".into()),
        ),
        (Detail::None, _) => (format!("cannot execute {subject}: {}", text_of(errno)), None),
    }
}

fn not_found(asked: &Asked<'_>) -> Words {
    let Asked { program, search_path, working_dir } = asked;
    if !program.contains('/') {
        let path = search_path.unwrap_or("the default PATH");
        return (
            format!("the program {program} was not found in {path}"),
            Some(format!(
                "install it, give its full path, or set PATH in the component's env; \
                 `command -v {}` says where your shell finds it",
                quoted(program)
            )),
        );
    }
    if Path::new(program).is_absolute() {
        let hint = format!("`ls -l {}` shows what is there", quoted(program));
        return (format!("the program {program} does not exist"), Some(hint));
    }
    (
        format!("the program {program} does not exist in {}", working_dir.display()),
        Some("a relative command is looked up from the component's `working_dir`".into()),
    )
}

fn entering(errno: Errno, folder: &Path) -> Words {
    let folder = folder.display().to_string();
    match errno {
        Errno::NOENT => (
            format!("the working directory {folder} does not exist"),
            Some(format!("mkdir -p {}, or correct `working_dir`", quoted(&folder))),
        ),
        Errno::NOTDIR => (
            format!("the working directory {folder} is not a folder"),
            Some("correct `working_dir`".into()),
        ),
        Errno::ACCESS => (
            format!("no permission to enter the working directory {folder}"),
            Some(format!("`namei -l {}` shows which folder refuses", quoted(&folder))),
        ),
        Errno::INVAL => (
            format!("the working directory {folder} is not an absolute path"),
            Some("give the full path".into()),
        ),
        _ => (format!("cannot enter the working directory {folder}: {}", text_of(errno)), None),
    }
}

fn forking(errno: Errno) -> Words {
    let (what, hint) = match errno {
        Errno::AGAIN => (
            "the limit of processes is reached",
            "`ulimit -u`, /proc/sys/kernel/pid_max and the cgroup's pids.max are the limits",
        ),
        Errno::NOMEM => ("there is not enough memory", "`free -m` shows what is left"),
        Errno::MFILE | Errno::NFILE => (
            "no file descriptor is left",
            "raise `ulimit -n` of the daemon (`LimitNOFILE=` in its unit)",
        ),
        _ => return (format!("cannot make a process: {}", text_of(errno)), None),
    };
    (format!("cannot make a process: {what}; it is tried again"), Some(hint.to_owned()))
}

fn logging(failure: &LaunchFailure, errno: Errno) -> Words {
    let path = shown(&failure.subject);
    let hint = match errno {
        Errno::NOSPC | Errno::DQUOT => Some(format!("free some space: `df -h {}`", quoted(&path))),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            Some(format!("`namei -l {}` shows what refuses", quoted(&path)))
        }
        Errno::ISDIR => Some(format!("a folder is in the way: {path}")),
        Errno::LOOP => Some(format!("it is a symbolic link; remove it: `rm {}`", quoted(&path))),
        _ => None,
    };
    (format!("cannot open the log file {path}: {}", text_of(errno)), hint)
}

fn recording(errno: Errno) -> Words {
    let hint = match errno {
        Errno::NOSPC | Errno::DQUOT => {
            Some("free some space in the daemon's run folder: `df -h`".to_owned())
        }
        Errno::EXIST => {
            Some("a run of this number has a record already; reported as a bug?".into())
        }
        _ => None,
    };
    (format!("cannot write the record of the run: {}", text_of(errno)), hint)
}

fn preparing(errno: Errno, asked: &Asked<'_>) -> Words {
    let program = asked.program;
    if errno == Errno::INVAL {
        return (
            format!(
                "{program:?} cannot be launched: the command is empty, or it or the \
                     environment has a NUL character in it"
            ),
            Some("correct `command` and `env`".into()),
        );
    }
    (format!("cannot prepare the launch of {program}: {}", text_of(errno)), None)
}

fn shown(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The kernel's words for an error number.
fn text_of(errno: Errno) -> String {
    nix::errno::Errno::from_raw(errno.raw_os_error()).desc().to_lowercase()
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::RunId;

    fn explained(stage: LaunchStage, errno: Errno, detail: Detail, subject: &str) -> LaunchError {
        let failure = LaunchFailure {
            run: RunId(1),
            stage,
            errno: errno.raw_os_error(),
            detail,
            subject: subject.into(),
        };
        let asked = Asked {
            program: "./bin/api",
            search_path: Some("/usr/bin"),
            working_dir: Path::new("/srv/my app"),
        };
        explain(&failure, &asked)
    }

    #[test]
    fn s26_the_usual_mistakes_have_messages_of_their_own() {
        use LaunchStage::{Exec, WorkingDir};
        let all = [
            explained(Exec, Errno::NOENT, Detail::None, "./bin/api"),
            explained(Exec, Errno::NOENT, Detail::InterpreterMissing, "/usr/bin/pyton3"),
            explained(Exec, Errno::NOENT, Detail::InterpreterMissing, "/bin/sh\r"),
            explained(Exec, Errno::NOENT, Detail::LoaderMissing, "/lib/ld-musl-x86_64.so.1"),
            explained(Exec, Errno::ACCESS, Detail::NotExecutable, "./bin/api"),
            explained(Exec, Errno::ACCESS, Detail::Directory, "./bin/api"),
            explained(Exec, Errno::NOEXEC, Detail::None, "./bin/api"),
            explained(Exec, Errno::TXTBSY, Detail::None, "./bin/api"),
            explained(WorkingDir, Errno::NOENT, Detail::None, ""),
            explained(WorkingDir, Errno::ACCESS, Detail::None, ""),
        ];
        let messages: BTreeSet<_> = all.iter().map(|error| error.message.clone()).collect();
        assert_eq!(messages.len(), all.len());
        for error in &all {
            assert!(error.hint.is_some(), "{error:?}");
        }
        assert!(all[8].hint.as_deref().unwrap().contains("mkdir -p '/srv/my app'"));
        assert!(all[4].hint.as_deref().unwrap().contains("chmod +x ./bin/api"));
        assert!(all[2].hint.as_deref().unwrap().contains("sed -i"));
    }

    #[test]
    fn a_child_that_was_killed_on_its_way_has_no_error_number() {
        let failure = LaunchFailure {
            run: RunId(1),
            stage: LaunchStage::Exec,
            errno: 0,
            detail: Detail::Died,
            subject: b"SIGKILL".to_vec(),
        };
        let asked =
            Asked { program: "./bin/api", search_path: None, working_dir: Path::new("/srv") };
        let error = explain(&failure, &asked);
        assert_eq!(error.errno, None);
        assert_eq!(error.message, "./bin/api ended before it was executed: SIGKILL");
    }

    #[test]
    fn only_shortages_are_transient() {
        let transient =
            |stage, errno| explained(stage, errno, Detail::None, "x").retry == Retry::Soon;
        assert!(transient(LaunchStage::Fork, Errno::AGAIN));
        assert!(transient(LaunchStage::Exec, Errno::TXTBSY));
        assert!(transient(LaunchStage::Record, Errno::NOSPC));
        assert!(transient(LaunchStage::Log, Errno::DQUOT));
        assert!(!transient(LaunchStage::Exec, Errno::NOENT));
        assert!(!transient(LaunchStage::User, Errno::PERM));
    }

    #[test]
    fn words_are_quoted_for_the_shell_where_needed() {
        assert_eq!(quoted("/a/b-1.sh"), "/a/b-1.sh");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
