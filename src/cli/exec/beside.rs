//! A command beside a process component: this process becomes it, so that the terminal, signals and the
//! exit code are those of the command by nature.
//!
//! It is a process of whoever typed it: in no cgroup of the daemon, and not ended with the component.
//!
//! Failure paths: told in the words of a launch. Only root can become somebody else; it always becomes the
//! component's user, also where the daemon is that of an ordinary one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Wish;
use crate::api::v1;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::keeper::explain::{Asked, explain};
use crate::keeper::here::{Program, become_program};
use crate::keeper::wire::{Credentials, Detail, LaunchFailure};
use crate::model::LaunchStage;
use crate::model::spec::{LimitSpec, Rlimit};

/// The shell of those who have none that lets them in.
const DEFAULT_SHELL: &str = "/bin/sh";

/// Becomes the command. Comes back only with the reason why not.
pub(super) fn run(place: v1::ProcessPlace, wish: Wish) -> CliError {
    match attempt(place, wish) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn attempt(place: v1::ProcessPlace, wish: Wish) -> Result<std::convert::Infallible, CliError> {
    let own = Own::of_process();
    let user = place.user.unwrap_or_default();
    let wanted = Credentials { uid: user.uid, gid: user.gid, groups: user.groups };
    let user = own.change(wanted).map_err(|why| not_run(format!("{}: {why}", wish.name)))?;
    let mut env = place.env;
    env.extend(wish.env);
    add_terminal(&mut env);
    let folder = PathBuf::from(OsString::from_vec(place.working_dir));
    let folder = folder.join(wish.working_dir.unwrap_or_default());
    let argv: Vec<Vec<u8>> = if wish.command.is_empty() {
        vec![shell(&env).as_bytes().to_vec()]
    } else {
        wish.command.into_iter().map(OsString::into_vec).collect()
    };
    let program = String::from_utf8_lossy(argv.first().map_or(&[], Vec::as_slice)).into_owned();
    let search_path = env.get("PATH").cloned();
    let rlimits = place.rlimits.iter().map(limit).collect::<Result<_, _>>()?;
    let failure = become_program(Program {
        argv,
        env: env.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect(),
        working_dir: folder.as_os_str().as_bytes().to_vec(),
        user,
        umask: place.umask,
        nice: place.nice,
        rlimits,
    });
    let asked =
        Asked { program: &program, search_path: search_path.as_deref(), working_dir: &folder };
    Err(failed(&failure, &asked))
}

/// Why it was not executed, with the exit code of a shell.
fn failed(failure: &LaunchFailure, asked: &Asked<'_>) -> CliError {
    let errno = failure.errno;
    let is_absent = failure.stage == LaunchStage::Exec
        && failure.detail == Detail::None
        && [Errno::NOENT, Errno::NOTDIR].iter().any(|known| known.raw_os_error() == errno);
    let exit = if is_absent { Exit::NotFound } else { Exit::NotExecutable };
    let error = explain(failure, asked);
    let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    CliError::NotRun { exit, message: format!("{}{hint}", error.message) }
}

fn not_run(message: String) -> CliError {
    CliError::NotRun { exit: Exit::NotExecutable, message }
}

/// The shell that the environment names, if it is one to work in.
fn shell(env: &BTreeMap<String, String>) -> &str {
    let named = env.get("SHELL").map(String::as_str).filter(|shell| !shell.is_empty());
    // Users that nobody logs in as have a program in its place that says so.
    let lets_in = |shell: &&str| {
        let name = Path::new(shell).file_name().unwrap_or_default();
        name != "nologin" && name != "false"
    };
    named.filter(lets_in).unwrap_or(DEFAULT_SHELL)
}

/// Programs on a terminal must know of which kind it is; components have none, and so no TERM.
fn add_terminal(env: &mut BTreeMap<String, String>) {
    let is_terminal = std::io::stdin().is_terminal() || std::io::stdout().is_terminal();
    if let Some(term) = std::env::var("TERM").ok().filter(|_| is_terminal) {
        env.entry("TERM".to_owned()).or_insert(term);
    }
}

fn limit(limit: &v1::ProcessLimit) -> Result<(Rlimit, LimitSpec), CliError> {
    let v1::ProcessLimit { name, soft, hard } = limit;
    let known = serde_json::from_value::<Rlimit>(name.as_str().into());
    let resource = known.map_err(|_| {
        CliError::Daemon(format!("the daemon asks for a limit of {name}, which is not known here"))
    })?;
    Ok((resource, LimitSpec { soft: *soft, hard: *hard }))
}

/// Who this process is.
struct Own {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Own {
    fn of_process() -> Self {
        let groups = nix::unistd::getgroups().unwrap_or_default();
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        }
    }

    /// Whom to become; `None` if that is who we are. An ordinary user keeps its groups.
    fn change(self, wanted: Credentials) -> Result<Option<Credentials>, String> {
        let sorted = |mut groups: Vec<u32>| {
            groups.sort_unstable();
            groups
        };
        let is_same = wanted.uid == self.uid && wanted.gid == self.gid;
        if self.uid != 0 && !is_same {
            return Err(format!(
                "only root can run a command as user {} and group {}; this is user {} and group {}",
                wanted.uid, wanted.gid, self.uid, self.gid
            ));
        }
        if self.uid != 0 || (is_same && sorted(wanted.groups.clone()) == sorted(self.groups)) {
            return Ok(None);
        }
        Ok(Some(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_lets_nobody_in_is_none() {
        let of = |value: &str| BTreeMap::from([("SHELL".to_owned(), value.to_owned())]);
        assert_eq!(shell(&of("/bin/zsh")), "/bin/zsh");
        for none in ["", "/usr/sbin/nologin", "/bin/false"] {
            assert_eq!(shell(&of(none)), DEFAULT_SHELL, "{none:?}");
        }
        assert_eq!(shell(&BTreeMap::new()), DEFAULT_SHELL);
    }

    #[test]
    fn only_root_becomes_somebody_else() {
        let own = |uid, gid| Own { uid, gid, groups: vec![4, gid] };
        let wanted = |uid, gid| Credentials { uid, gid, groups: vec![gid, 4] };
        assert_eq!(own(0, 0).change(wanted(0, 0)), Ok(None));
        assert_eq!(own(0, 0).change(wanted(33, 33)), Ok(Some(wanted(33, 33))));
        let fewer = Credentials { groups: vec![0], ..wanted(0, 0) };
        assert_eq!(own(0, 0).change(fewer.clone()), Ok(Some(fewer)));
        let fewer = Credentials { groups: vec![7], ..wanted(7, 7) };
        assert_eq!(own(7, 7).change(fewer), Ok(None));
        assert!(own(7, 7).change(wanted(33, 33)).unwrap_err().contains("only root"));
        assert!(own(7, 7).change(wanted(0, 0)).is_err());
    }
}
