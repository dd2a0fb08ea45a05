//! How a keeper is told what to do: the arguments of `stigmer __keeper`.
//!
//! ```text
//!   __keeper --run DIR --records DIR --tag HEX [--lock-fd N] [--foreground] [--best-effort]
//!            [--adopt] [-- ENGINE ARGUMENT...]
//! ```
//!
//! Written and read here, so that the two cannot differ. Parsed by hand, because the keeper stays free
//! of parsers: this runs before anything else of the program.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::home::Home;

/// What a keeper needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeeperConfig {
    /// An inherited descriptor with the home's lock; without it the keeper takes the lock itself.
    pub lock_fd: Option<RawFd>,
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
            run: home.run.clone(),
            records: home.records(),
            tag: tag_of(&home.run),
            engine: Vec::new(),
            foreground: false,
            best_effort: false,
            adopt: false,
        }
    }

    /// The arguments that follow the program's name.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["__keeper".into()];
        arguments.extend(["--run".into(), self.run.clone().into()]);
        arguments.extend(["--records".into(), self.records.clone().into()]);
        arguments.extend(["--tag".into(), OsString::from(&self.tag)]);
        if let Some(lock) = self.lock_fd {
            arguments.extend(["--lock-fd".into(), lock.to_string().into()]);
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
        let (mut run, mut records, mut tag, mut lock_fd) = (None, None, None, None);
        let (mut foreground, mut best_effort, mut adopt) = (false, false, false);
        let mut engine = Vec::new();
        while let Some(option) = arguments.next() {
            match option.as_bytes() {
                b"--run" => run = arguments.next().map(PathBuf::from),
                b"--records" => records = arguments.next().map(PathBuf::from),
                b"--tag" => tag = arguments.next(),
                b"--lock-fd" => lock_fd = Some(number(arguments.next().as_deref())?),
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
        Ok(Self { lock_fd, run, records, tag, engine, foreground, best_effort, adopt })
    }
}

fn absolute(option: &'static str, path: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    path.filter(|path| path.is_absolute())
        .ok_or(ConfigError::Value { option, expected: "an absolute path" })
}

fn number(value: Option<&OsStr>) -> Result<RawFd, ConfigError> {
    value
        .and_then(OsStr::to_str)
        .and_then(|value| value.parse().ok())
        .ok_or(ConfigError::Value { option: "--lock-fd", expected: "a number" })
}

/// Two homes on one machine have different tags; the same home always has the same.
fn tag_of(run: &Path) -> String {
    let digest = Sha256::digest(run.as_os_str().as_bytes());
    digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
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
            engine: vec!["/bin/x".into(), "--".into(), "--tag".into()],
            foreground: true,
            best_effort: true,
            adopt: true,
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
    }

    #[test]
    fn homes_have_tags_of_their_own() {
        let tag = |path: &str| KeeperConfig::for_home(&Home::at(Path::new(path))).tag;
        assert_eq!(tag("/a"), tag("/a"));
        assert_ne!(tag("/a"), tag("/b"));
        assert_eq!(tag("/a").len(), 16);
    }
}
