//! The record of a run: what a later daemon needs to find it again.
//!
//! The child itself writes the record between fork and exec, so that it is complete before the
//! program's own code runs (S38), whoever dies meanwhile:
//!
//! ```text
//!   fork ── child: write RUNS/17.run ── "end" ── exec
//!            │ killed here: no "end", the program never ran
//! ```
//!
//! A record without its last line is therefore of a program that was never executed; it may be
//! removed. A record of another boot describes nothing that can still run. Run numbers are never used
//! twice, so that an existing file is never overwritten.
//!
//! Deliberately absent: the environment and the arguments, which may hold secrets; fsync, because a
//! record means nothing after a loss of power.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::identity::Identity;
use crate::model::{RunId, Time};

const FIRST_LINE: &str = "stigmer-run 1";
const LAST_LINE: &str = "end";

/// The content of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The run.
    pub run: RunId,
    /// The text of the instance's id.
    pub key: String,
    /// Its main process.
    pub identity: Identity,
    /// The kernel's id of the boot.
    pub boot_id: String,
    /// The folder of its cgroup, if it has one.
    pub cgroup: Option<PathBuf>,
    /// It is a helper that ends with the engine.
    pub aux: bool,
    /// When it was made.
    pub started: Time,
}

impl Record {
    /// The text of the file.
    pub(super) fn to_text(&self) -> String {
        let Identity { pid, inode, start_ticks } = self.identity;
        let mut text = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{FIRST_LINE}\nrun {}\nkey {}\npid {pid}\ninode {inode}\nstart {start_ticks}\n\
             boot {}\ncgroup {}\naux {}\nstarted {}\n{LAST_LINE}\n",
            self.run,
            self.key,
            self.boot_id,
            self.cgroup.as_deref().map_or("-".into(), Path::to_string_lossy),
            u8::from(self.aux),
            self.started.as_nanos(),
        );
        text
    }

    /// Reads the text of a file; `None` if it is not complete.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split_terminator('\n');
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let run = RunId(field("run")?.parse().ok()?);
        let key = field("key")?.to_owned();
        let identity = Identity {
            pid: field("pid")?.parse().ok()?,
            inode: field("inode")?.parse().ok()?,
            start_ticks: field("start")?.parse().ok()?,
        };
        let boot_id = field("boot")?.to_owned();
        let cgroup = Some(field("cgroup")?).filter(|path| *path != "-").map(PathBuf::from);
        let aux = field("aux")? == "1";
        let started = Time::from_nanos(field("started")?.parse().ok()?);
        let is_complete = lines.next() == Some(LAST_LINE) && text.ends_with('\n');
        is_complete.then_some(Self { run, key, identity, boot_id, cgroup, aux, started })
    }
}

/// What lies in the folder of records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Records {
    /// Complete records, by run.
    pub complete: Vec<Record>,
    /// Files of runs whose program was not executed so far. Once their keeper is gone they never will be,
    /// and may be removed.
    pub torn: Vec<(RunId, PathBuf)>,
}

/// The name of a run's record inside the folder.
#[must_use]
pub fn file_name(run: RunId) -> String {
    format!("{run}.run")
}

/// Reads all records. A folder that does not exist holds none; files of other names are ignored.
pub fn read_all(folder: &Path) -> io::Result<Records> {
    let mut records = Records::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let Some(run) = run_of(&path) else { continue };
        match read(&path) {
            Ok(Some(record)) if record.run == run => records.complete.push(record),
            Ok(_) => records.torn.push((run, path)),
            // Removed while we were reading: the run has been acknowledged.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    records.complete.sort_by_key(|record| record.run);
    records.torn.sort();
    Ok(records)
}

/// The cgroup of a run, if it has one.
#[must_use]
pub fn group_of(folder: &Path, run: RunId) -> Option<PathBuf> {
    read(&folder.join(file_name(run))).ok()??.cgroup
}

/// Reads one record; `None` if it is not complete.
pub(super) fn read(path: &Path) -> io::Result<Option<Record>> {
    let bytes = fs::read(path)?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(Record::parse))
}

fn run_of(path: &Path) -> Option<RunId> {
    path.file_name()?.to_str()?.strip_suffix(".run")?.parse().ok().map(RunId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Record {
        Record {
            run: RunId(17),
            key: "shop/api.0".into(),
            identity: Identity { pid: 4711, inode: 99, start_ticks: 123_456 },
            boot_id: "0b6ac0d4-5a6c-4f2e-9a53-000000000000".into(),
            cgroup: Some("/sys/fs/cgroup/a b/17".into()),
            aux: false,
            started: Time::from_nanos(5),
        }
    }

    #[test]
    fn s38_a_record_survives_the_trip_and_a_torn_one_is_known_as_such() {
        for record in [sample(), Record { cgroup: None, aux: true, ..sample() }] {
            let text = record.to_text();
            assert_eq!(Record::parse(&text), Some(record));
            for length in 0..text.len() {
                assert_eq!(Record::parse(&text[..length]), None, "{length}");
            }
        }
    }

    #[test]
    fn a_folder_is_read_whatever_else_lies_in_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("17.run"), sample().to_text()).unwrap();
        fs::write(folder.path().join("18.run"), sample().to_text()).unwrap();
        fs::write(folder.path().join("19.run"), "stigmer-run 1\nrun 19\n").unwrap();
        fs::write(folder.path().join("20.run"), [0xff, 0xfe]).unwrap();
        fs::write(folder.path().join("readme"), "").unwrap();
        let records = read_all(folder.path()).unwrap();
        assert_eq!(records.complete, vec![sample()]);
        // The record of run 17 under another run's name is not believed.
        let torn = [18, 19, 20].map(|run| {
            let run = RunId(run);
            (run, folder.path().join(file_name(run)))
        });
        assert_eq!(records.torn, torn);
        assert_eq!(read_all(&folder.path().join("absent")).unwrap(), Records::default());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in ".{0,300}") {
            let _ = Record::parse(&text);
        }
    }
}
