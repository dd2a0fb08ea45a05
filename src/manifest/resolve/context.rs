//! What resolving needs to know of the world, and where its mistakes go.
//!
//! Answers about the world (folders, env files, users, regular expressions) are kept, because ten
//! thousand components ask the same.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use regex::bytes::Regex;

use super::at::At;
use crate::manifest::plugins::Search;
use crate::manifest::report::{Diagnostic, MOST_DIAGNOSTICS, Place};
use crate::manifest::schema::scalars;
use crate::manifest::tree::{Node, Scalar, short};
use crate::manifest::words::nearest;
use crate::manifest::{dotenv, read, units};

pub(in crate::manifest) struct Context<'a> {
    pub(in crate::manifest) file: &'a Path,
    /// The folder of the manifest.
    pub(in crate::manifest) folder: &'a Path,
    /// For variables without a value.
    pub(in crate::manifest) values: &'a BTreeMap<String, String>,
    pub(in crate::manifest) found: Vec<Diagnostic>,
    pub(in crate::manifest) files: &'a mut EnvFiles,
    /// Finds programs of probe kinds.
    pub(in crate::manifest) search: &'a Search,
    seen: HashSet<Diagnostic>,
    folders: HashMap<PathBuf, bool>,
    users: HashMap<String, Option<Uid>>,
    groups: HashMap<String, Option<Gid>>,
    patterns: HashMap<String, Option<(String, usize)>>,
    home: OnceCell<Option<PathBuf>>,
    compared: usize,
    ports: usize,
}

/// Names that are compared to find the nearest ones; later mistakes are told without.
const MOST_COMPARED: usize = 500_000;
/// Published ports of all containers together.
const MOST_PORTS: usize = 100_000;

/// Env files, each read once.
#[derive(Default)]
pub(in crate::manifest) struct EnvFiles {
    /// What was read, in the order of the reading.
    pub(in crate::manifest) contents: Vec<(PathBuf, Vec<u8>)>,
    parsed: HashMap<PathBuf, Result<BTreeMap<String, String>, Diagnostic>>,
}

impl EnvFiles {
    pub(in crate::manifest) fn get(
        &mut self,
        path: &Path,
    ) -> Result<&BTreeMap<String, String>, Diagnostic> {
        if !self.parsed.contains_key(path) {
            let parsed = read::bytes(path).and_then(|bytes| {
                let parsed = read::text(path, &bytes)
                    .and_then(|text| dotenv::parse(path, text))
                    .map(|pairs| pairs.into_iter().collect());
                self.contents.push((path.to_owned(), bytes));
                parsed
            });
            self.parsed.insert(path.to_owned(), parsed);
        }
        match self.parsed.get(path) {
            Some(Ok(parsed)) => Ok(parsed),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Diagnostic::error(path, Place::default(), "it cannot be read")),
        }
    }
}

impl<'a> Context<'a> {
    pub(in crate::manifest) fn new(
        file: &'a Path,
        folder: &'a Path,
        values: &'a BTreeMap<String, String>,
        files: &'a mut EnvFiles,
        search: &'a Search,
    ) -> Self {
        Self {
            search,
            file,
            folder,
            values,
            found: Vec::new(),
            files,
            seen: HashSet::new(),
            folders: HashMap::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
            patterns: HashMap::new(),
            home: OnceCell::new(),
            compared: 0,
            ports: 0,
        }
    }

    /// Notes a mistake; one in `defaults:` is met in every component, and noted once.
    pub(in crate::manifest) fn push(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MOST_DIAGNOSTICS && self.seen.insert(diagnostic.clone()) {
            self.found.push(diagnostic);
        }
    }

    pub(in crate::manifest) fn error(
        &mut self,
        place: Place,
        message: impl Into<String>,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) {
        let error = Diagnostic::error(self.file, place, message);
        self.push(error.expected(expected).help(help));
    }

    pub(in crate::manifest) fn warning(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let warning = Diagnostic::warning(self.file, place, message).help(help);
        self.push(warning);
    }

    /// Absolute; what is relative is seen from the manifest's folder.
    pub(in crate::manifest) fn path(&self, path: &scalars::FilePath) -> PathBuf {
        absolute(self.folder, &path.0.0)
    }

    /// The same, and `~` is the home folder of this user, as with Compose.
    pub(in crate::manifest) fn path_from_home(&mut self, at: At<'_>, path: &str) -> PathBuf {
        let Some(rest) = path.strip_prefix('~') else { return absolute(self.folder, path) };
        if !rest.is_empty() && !rest.starts_with('/') {
            let message = format!("`{}`: folders of other users are not looked up", short(path));
            self.error(at.place(), message, "`~/` or the whole path", "");
            return absolute(self.folder, path);
        }
        // Not that of the environment: the daemon and the command line have different ones.
        let home = self.home.get_or_init(|| {
            User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir)
        });
        if let Some(home) = home {
            return absolute(home, rest.trim_start_matches('/'));
        }
        let help = "write the whole path";
        self.error(at.place(), "this user has no home folder for `~`", "", help);
        absolute(self.folder, path)
    }

    /// The name that was probably meant, of names that may be many.
    pub(in crate::manifest) fn nearest<'b>(
        &mut self,
        found: &str,
        known: impl Iterator<Item = &'b str>,
    ) -> Option<&'b str> {
        let left = MOST_COMPARED.saturating_sub(self.compared);
        let compared = &mut self.compared;
        nearest(found, known.take(left).inspect(|_| *compared += 1))
    }

    /// Whether so many more published ports are not too many.
    pub(in crate::manifest) fn take_ports(&mut self, count: usize) -> bool {
        self.ports = self.ports.saturating_add(count);
        self.ports <= MOST_PORTS
    }

    /// The value that a variable has in the shell of the apply.
    pub(in crate::manifest) fn value_of_apply(&mut self, at: At<'_>, name: &str) -> Option<String> {
        let value = self.values.get(name).cloned();
        if value.is_none() {
            let message = format!("the variable `{name}` has no value here, and none in the shell");
            let help = format!(
                "set {name} in the shell before the apply, or give it a value: `{name}: \"\"`"
            );
            self.error(at.key_place(), message, "", help);
        }
        value
    }

    pub(in crate::manifest) fn is_folder(&mut self, path: &Path) -> bool {
        *self.folders.entry(path.to_owned()).or_insert_with(|| path.is_dir())
    }

    pub(in crate::manifest) fn uid(&mut self, user: &str) -> Option<Uid> {
        *self.users.entry(user.to_owned()).or_insert_with(|| {
            let by_number = user.parse().ok().map(Uid::from_raw);
            by_number.or_else(|| User::from_name(user).ok().flatten().map(|user| user.uid))
        })
    }

    pub(in crate::manifest) fn gid(&mut self, group: &str) -> Option<Gid> {
        *self.groups.entry(group.to_owned()).or_insert_with(|| {
            let by_number = group.parse().ok().map(Gid::from_raw);
            by_number.or_else(|| Group::from_name(group).ok().flatten().map(|group| group.gid))
        })
    }

    pub(in crate::manifest) fn duration(
        &mut self,
        at: At<'_>,
        raw: Option<&scalars::Duration>,
        default: std::time::Duration,
    ) -> std::time::Duration {
        let Some(raw) = raw else { return default };
        units::duration(&raw.0.0).unwrap_or_else(|message| {
            self.error(at.place(), message, "a duration such as 500ms, 10s or 1m30s", "");
            default
        })
    }

    /// A duration that may not be zero.
    pub(in crate::manifest) fn positive(
        &mut self,
        at: At<'_>,
        raw: Option<&scalars::Duration>,
        default: std::time::Duration,
        name: &str,
    ) -> std::time::Duration {
        let value = self.duration(at, raw, default);
        if value.is_zero() {
            let message = format!("`{name}` is 0");
            self.error(at.place(), message, "a duration of at least 1ms", "");
            return default;
        }
        value
    }

    pub(in crate::manifest) fn port(&mut self, at: At<'_>, raw: &scalars::Port) -> u16 {
        let port = match at.node().and_then(Node::typed) {
            Some(Scalar::Int(value)) => u16::try_from(value).ok(),
            _ => raw.0.0.parse().ok(),
        };
        port.filter(|port| *port > 0).unwrap_or_else(|| {
            let message = format!("`{}` is no port", short(&raw.0.0));
            self.error(at.place(), message, "a port from 1 to 65535", "");
            1
        })
    }

    pub(in crate::manifest) fn signal(&mut self, at: At<'_>, text: &str) -> Option<i32> {
        let by_number = text.parse().ok().filter(|number| (1..=64).contains(number));
        let signal = by_number.or_else(|| units::signal_by_name(text));
        if signal.is_none() {
            let full = if text.to_ascii_uppercase().starts_with("SIG") {
                text.to_ascii_uppercase()
            } else {
                format!("SIG{}", text.to_ascii_uppercase())
            };
            let help = nearest(&full, units::signal_names())
                .map(|near| format!("did you mean `{near}`?"))
                .unwrap_or_default();
            let message = format!("`{}` is no signal", short(text));
            self.error(at.place(), message, "a signal such as SIGTERM, TERM or 15", help);
        }
        signal
    }

    pub(in crate::manifest) fn pattern(&mut self, at: At<'_>, raw: &scalars::Pattern) -> String {
        let pattern = &raw.0.0;
        let wrong = self
            .patterns
            .entry(pattern.clone())
            .or_insert_with(|| Regex::new(pattern).err().map(|error| explain(&error)))
            .clone();
        if let Some((message, offset)) = wrong {
            let mut place = at.place();
            let written = u32::try_from(pattern.chars().count()).unwrap_or(u32::MAX);
            let offset = u32::try_from(offset).unwrap_or_default();
            // Exact where the text stands as it is: plain, or in quotes without escapes.
            if place.length == written {
                place.column += offset;
                place.length = place.length.saturating_sub(offset).max(1);
            } else if place.length == written.saturating_add(2) {
                place.column += offset + 1;
                place.length = place.length.saturating_sub(offset + 2).max(1);
            }
            let message = format!("this is no regular expression: {message}");
            let help =
                "a character that has a meaning, such as `(`, is written with a backslash: `\\(`";
            self.error(place, message, "", help);
        }
        pattern.clone()
    }
}

/// What is relative is seen from this folder; `.` is taken out.
pub(in crate::manifest) fn absolute(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

/// The last line of the message of `regex`, and the character that it points to.
fn explain(error: &regex::Error) -> (String, usize) {
    let text = error.to_string();
    let message = text.lines().last().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message).to_owned();
    let offset = match text.lines().collect::<Vec<_>>().as_slice() {
        [_, _, caret, _] => caret.find('^').map_or(0, |at| at.saturating_sub(4)),
        _ => 0,
    };
    (message, offset)
}

/// Names that something may have.
pub(in crate::manifest) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 63
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|one| one.is_ascii_alphanumeric() || matches!(one, b'-' | b'_'))
}
