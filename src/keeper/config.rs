//! How a keeper is told what to do: the arguments of `stigmer __keeper`.
//!
//! ```text
//!   __keeper --run DIR --records DIR --tag HEX [--lock-fd N] [--foreground] [--best-effort]
//!            [--adopt] [--hold-fd N NAME]... [--estate-fd N [--previous-fd N]] [-- ENGINE ARGUMENT...]
//! ```
//!
//! Written and read here. The two may be of different versions (see `succession`): an option keeps its
//! meaning for ever, and one that is not set is not written. Parsed by hand, because the keeper stays free
//! of parsers: this runs before anything else of the program.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::home::Home;

/// The name under which the descriptor of `--ready-fd` is held.
pub const READY: &str = "ready";

/// What a keeper needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeeperConfig {
    /// An inherited descriptor with the home's lock; without it the keeper takes the lock itself.
    pub lock_fd: Option<RawFd>,
    /// An inherited descriptor that is held for the engine under the name [`READY`]: whoever starts a
    /// daemon reads from its other end that it is ready, or why it is not.
    pub ready_fd: Option<RawFd>,
    /// Inherited descriptors that are held for the engine, with their names: those that the engine had
    /// which has become this keeper.
    pub held: Vec<(RawFd, String)>,
    /// The home's run folder, absolute; `daemon.lock` lies in it.
    pub run: PathBuf,
    /// The folder of the records, absolute; made if it is missing.
    pub records: PathBuf,
    /// Tells this home from others: in the name of the cgroup (`stigmer-TAG`) and in the environment
    /// of its processes (`STIGMER_RUN=TAG:RUN`). Letters and digits.
    pub tag: String,
    /// The engine's program and arguments; empty means this very program with `__engine`.
    pub engine: Vec<OsString>,
    /// It belongs to a terminal, and ends when that goes away.
    pub foreground: bool,
    /// Do without cgroups, even where there are some.
    pub best_effort: bool,
    /// A former keeper has just died: wait longer for the lock, which its children may still hold.
    pub adopt: bool,
    /// An inherited descriptor with what another program of this process hands over.
    pub estate_fd: Option<RawFd>,
    /// An inherited descriptor of that program, to be executed if this one cannot take over.
    pub previous_fd: Option<RawFd>,
}

/// Arguments that make no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A word that is no option.
    #[error("unknown option {0:?}; `stigmer __keeper` is started by `stigmer daemon`")]
    Unknown(OsString),
    /// An option without its value, or with one that it cannot have.
    #[error("{option} needs {expected}; `stigmer __keeper` is started by `stigmer daemon`")]
    Value {
        /// The option.
        option: &'static str,
        /// What it takes.
        expected: &'static str,
    },
}

impl KeeperConfig {
    /// The settings for a home, with everything else at its default.
    #[must_use]
    pub fn for_home(home: &Home) -> Self {
        Self {
            lock_fd: None,
            ready_fd: None,
            held: Vec::new(),
            run: home.run.clone(),
            records: home.records(),
            tag: tag_of(&home.run),
            engine: Vec::new(),
            foreground: false,
            best_effort: false,
            adopt: false,
            estate_fd: None,
            previous_fd: None,
        }
    }

    /// The arguments that follow the program's name.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["__keeper".into()];
        arguments.extend(["--run".into(), self.run.clone().into()]);
        arguments.extend(["--records".into(), self.records.clone().into()]);
        arguments.extend(["--tag".into(), OsString::from(&self.tag)]);
        let descriptors = [
            ("--lock-fd", self.lock_fd),
            ("--ready-fd", self.ready_fd),
            ("--estate-fd", self.estate_fd),
            ("--previous-fd", self.previous_fd),
        ];
        for (name, number) in descriptors {
            let Some(number) = number else { continue };
            arguments.extend([name.into(), number.to_string().into()]);
        }
        for (number, name) in &self.held {
            arguments.extend(["--hold-fd".into(), number.to_string().into(), name.into()]);
        }
        let flags = [
            ("--foreground", self.foreground),
            ("--best-effort", self.best_effort),
            ("--adopt", self.adopt),
        ];
        arguments.extend(flags.iter().filter(|(_, set)| *set).map(|(name, _)| name.into()));
        if !self.engine.is_empty() {
            arguments.push("--".into());
            arguments.extend(self.engine.iter().cloned());
        }
        arguments
    }

    /// Reads the arguments that follow `__keeper`.
    pub fn from_arguments(
        mut arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, ConfigError> {
        let (mut run, mut records, mut tag) = (None, None, None);
        let (mut lock_fd, mut ready_fd) = (None, None);
        let (mut estate_fd, mut previous_fd) = (None, None);
        let (mut foreground, mut best_effort, mut adopt) = (false, false, false);
        let (mut engine, mut held) = (Vec::new(), Vec::new());
        while let Some(option) = arguments.next() {
            match option.as_bytes() {
                b"--run" => run = arguments.next().map(PathBuf::from),
                b"--records" => records = arguments.next().map(PathBuf::from),
                b"--tag" => tag = arguments.next(),
                b"--lock-fd" => lock_fd = Some(number("--lock-fd", arguments.next())?),
                b"--ready-fd" => ready_fd = Some(number("--ready-fd", arguments.next())?),
                b"--estate-fd" => estate_fd = Some(number("--estate-fd", arguments.next())?),
                b"--previous-fd" => previous_fd = Some(number("--previous-fd", arguments.next())?),
                b"--hold-fd" => {
                    let number = number("--hold-fd", arguments.next())?;
                    let name = arguments.next().and_then(|name| name.into_string().ok());
                    let expected = "a number and a name";
                    let option = "--hold-fd";
                    held.push((number, name.ok_or(ConfigError::Value { option, expected })?));
                }
                b"--foreground" => foreground = true,
                b"--best-effort" => best_effort = true,
                b"--adopt" => adopt = true,
                b"--" => engine.extend(arguments.by_ref()),
                _ => return Err(ConfigError::Unknown(option)),
            }
        }
        let tag = tag.as_deref().and_then(OsStr::to_str).filter(|tag| {
            !tag.is_empty()
                && tag.len() <= 64
                && tag.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let tag = tag
            .ok_or(ConfigError::Value { option: "--tag", expected: "letters and digits" })?
            .to_owned();
        let run = absolute("--run", run)?;
        let records = absolute("--records", records)?;
        Ok(Self {
            lock_fd,
            ready_fd,
            held,
            run,
            records,
            tag,
            engine,
            foreground,
            best_effort,
            adopt,
            estate_fd,
            previous_fd,
        })
    }
}

fn absolute(option: &'static str, path: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    path.filter(|path| path.is_absolute())
        .ok_or(ConfigError::Value { option, expected: "an absolute path" })
}

fn number(option: &'static str, value: Option<OsString>) -> Result<RawFd, ConfigError> {
    value
        .and_then(|value| value.to_str()?.parse().ok())
        .ok_or(ConfigError::Value { option, expected: "a number" })
}

/// Two homes on one machine have different tags; the same home always has the same.
fn tag_of(run: &Path) -> String {
    let digest = Sha256::digest(run.as_os_str().as_bytes());
    crate::model::id::hex(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<KeeperConfig, ConfigError> {
        KeeperConfig::from_arguments(arguments.iter().map(OsString::from))
    }

    #[test]
    fn what_is_written_is_read() {
        let plain = KeeperConfig::for_home(&Home::at(Path::new("/h")));
        let full = KeeperConfig {
            lock_fd: Some(7),
            ready_fd: Some(9),
            held: vec![(13, "listen:a/b/127.0.0.1:1".into()), (14, "--x y".into())],
            engine: vec!["/bin/x".into(), "--".into(), "--tag".into()],
            foreground: true,
            best_effort: true,
            adopt: true,
            estate_fd: Some(11),
            previous_fd: Some(12),
            ..plain.clone()
        };
        for config in [plain, full] {
            let mut arguments = config.to_arguments().into_iter();
            assert_eq!(arguments.next(), Some("__keeper".into()));
            assert_eq!(KeeperConfig::from_arguments(arguments), Ok(config));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = ["--run", "/r", "--records", "/r/runs", "--tag", "ab12"];
        assert!(parse(&good).is_ok());
        assert!(matches!(parse(&[]), Err(ConfigError::Value { .. })));
        assert!(matches!(parse(&["--help"]), Err(ConfigError::Unknown(_))));
        for bad in [
            ["--run", "r", "--records", "/r/runs", "--tag", "ab12"],
            ["--run", "/r", "--records", "/r/runs", "--tag", "../x"],
            ["--run", "/r", "--records", "/r/runs", "--tag", ""],
        ] {
            assert!(matches!(parse(&bad), Err(ConfigError::Value { .. })), "{bad:?}");
        }
        let lock = [&good[..], &["--lock-fd", "x"]].concat();
        assert!(matches!(parse(&lock), Err(ConfigError::Value { .. })));
        let held = [&good[..], &["--hold-fd", "5"]].concat();
        assert!(matches!(parse(&held), Err(ConfigError::Value { .. })));
    }

    #[test]
    fn homes_have_tags_of_their_own() {
        let tag = |path: &str| KeeperConfig::for_home(&Home::at(Path::new(path))).tag;
        assert_eq!(tag("/a"), tag("/a"));
        assert_ne!(tag("/a"), tag("/b"));
        assert_eq!(tag("/a").len(), 16);
    }
}
