//! A file exists, holds what it should, and was touched lately (a heartbeat file).
//!
//! Only a regular file is read, and of it only the first `READ` bytes; it is opened without blocking,
//! so that a FIFO in its place cannot hold the probe. The look happens on a blocking thread, for the
//! file may lie on a network file system that is gone.
//!
//! The age is the wall clock's, as the file's own time is: setting the date makes a heartbeat look old
//! until its next beat. A time in the future counts as fresh.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use regex::bytes::Regex;

use super::blocking::OneAtATime;
use super::{Kind, Run, Target, text};
use crate::model::event::human_duration;

/// How much of the file is looked at.
const READ: u64 = 1024 * 1024;

pub(super) struct File {
    wanted: Arc<Wanted>,
    look: OneAtATime<Result<(), String>>,
}

struct Wanted {
    path: PathBuf,
    contains: Option<Regex>,
    max_age: Option<Duration>,
}

impl File {
    pub(super) fn new(
        path: &Path,
        contains: Option<&str>,
        max_age: Option<Duration>,
    ) -> Result<Self, String> {
        let contains = contains.map(text::expression).transpose()?;
        let wanted = Arc::new(Wanted { path: path.to_owned(), contains, max_age });
        Ok(Self { wanted, look: OneAtATime::default() })
    }
}

pub(super) fn describe(path: &Path, contains: Option<&str>, max_age: Option<Duration>) -> String {
    let contains = contains.map(|pattern| format!(" contains /{pattern}/")).unwrap_or_default();
    let age = max_age.map(|age| format!(" at most {} old", human_duration(age)));
    format!("file {}{contains}{}", path.display(), age.unwrap_or_default())
}

impl Kind for File {
    fn run<'a>(&'a mut self, _target: &'a Target) -> Run<'a> {
        Box::pin(async move {
            let wanted = Arc::clone(&self.wanted);
            Ok(self.look.run(move || wanted.check(SystemTime::now())).await??)
        })
    }
}

impl Wanted {
    fn check(&self, now: SystemTime) -> Result<(), String> {
        self.look(now).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "no such file".to_owned(),
                _ => text::io_error(&error),
            };
            format!("{why} ({})", self.path.display())
        })?
    }

    fn look(&self, now: SystemTime) -> io::Result<Result<(), String>> {
        let path = self.path.display();
        let metadata = std::fs::metadata(&self.path)?;
        if let Some(max_age) = self.max_age {
            let age = now.duration_since(metadata.modified()?).unwrap_or_default();
            if age > max_age {
                let (age, max_age) = (human_duration(age), human_duration(max_age));
                return Ok(Err(format!("{path} is {age} old, at most {max_age} is allowed")));
            }
        }
        let Some(pattern) = &self.contains else { return Ok(Ok(())) };
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Ok(Err(format!("{path} is not a regular file")));
        }
        let mut content = Vec::new();
        file.take(READ).read_to_end(&mut content)?;
        if pattern.is_match(&content) {
            return Ok(Ok(()));
        }
        Ok(Err(format!("{path} does not contain /{pattern}/")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &Path, contains: Option<&str>, age: Option<u64>) -> Result<(), String> {
        let file = File::new(path, contains, age.map(Duration::from_secs)).unwrap();
        file.wanted.check(SystemTime::now())
    }

    #[test]
    fn missing_wrong_and_right_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(check(&path, None, None).unwrap_err().starts_with("no such file"));
        std::fs::write(&path, b"\xff\0state: READY\n").unwrap();
        assert_eq!(
            check(&path, Some("READY$"), None),
            Err(format!("{} does not contain /READY$/", path.display()))
        );
        assert_eq!(check(&path, Some("(?m)READY$"), None), Ok(()));
        assert!(File::new(&path, Some("("), None).is_err());
    }

    #[test]
    fn a_heartbeat_grows_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("beat");
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(check(&path, None, Some(60)), Ok(()));
        file.set_modified(SystemTime::now() - Duration::from_secs(90)).unwrap();
        assert!(check(&path, None, Some(60)).unwrap_err().contains("1m 30s old"));
        file.set_modified(SystemTime::now() + Duration::from_secs(90)).unwrap();
        assert_eq!(check(&path, None, Some(60)), Ok(()));
    }

    #[test]
    fn a_fifo_and_a_folder_hold_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(check(&fifo, Some("x"), None).unwrap_err().contains("not a regular file"));
        assert!(check(folder.path(), Some("x"), None).unwrap_err().contains("not a regular file"));
        assert_eq!(check(folder.path(), None, None), Ok(()));
    }

    #[test]
    fn only_the_beginning_of_an_endless_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(check(&path, Some("x"), None).is_err());
    }
}
