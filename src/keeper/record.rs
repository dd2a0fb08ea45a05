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
//! The file may be there already, empty: see `ahead`.
//!
//! A record without its last line is therefore of a program that was never executed; it may be
//! removed. A record of another boot describes nothing that can still run. Run numbers are never used
//! twice, so that an existing file is never overwritten.
//!
//! Deliberately absent: the environment and the arguments, which may hold secrets; fsync, because a
//! record means nothing after a loss of power.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Cursor, IoSlice, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

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

/// A record that lacks only what the process itself knows. Writing it takes no memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Draft {
    before: String,
    after: String,
}

/// Room for the lines of an [`Identity`]: three words and three numbers of at most twenty digits.
const IDENTITY: usize = 96;

impl Draft {
    /// Writes the record with one call. What does not go in by that has no room.
    pub(super) fn write(&self, identity: &Identity, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut room = [0; IDENTITY];
        let [before, own, after] = self.parts(identity, &mut room);
        let slices = [IoSlice::new(before), IoSlice::new(own), IoSlice::new(after)];
        let length = before.len() + own.len() + after.len();
        let written = rustix::io::writev(file, &slices)?;
        if written == length { Ok(()) } else { Err(Errno::NOSPC) }
    }

    fn parts<'a>(&'a self, identity: &Identity, room: &'a mut [u8; IDENTITY]) -> [&'a [u8]; 3] {
        let Identity { pid, inode, start_ticks } = identity;
        let mut own = Cursor::new(&mut room[..]);
        // There is room for every number.
        let _ = write!(own, "pid {pid}\ninode {inode}\nstart {start_ticks}\n");
        let length = usize::try_from(own.position()).unwrap_or(IDENTITY);
        [self.before.as_bytes(), room.get(..length).unwrap_or_default(), self.after.as_bytes()]
    }
}

impl Record {
    /// The same without the identity.
    pub(super) fn draft(&self) -> Draft {
        let cgroup = self.cgroup.as_deref().map_or("-".into(), Path::to_string_lossy);
        let (aux, started) = (u8::from(self.aux), self.started.as_nanos());
        Draft {
            before: format!("{FIRST_LINE}\nrun {}\nkey {}\n", self.run, self.key),
            after: format!(
                "boot {}\ncgroup {cgroup}\naux {aux}\nstarted {started}\n{LAST_LINE}\n",
                self.boot_id
            ),
        }
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

/// Makes the file of a record, which must not be there. Takes no memory.
pub(super) fn create(folder: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)
}

/// The name of a run's record inside the folder, for a call of the kernel.
pub(super) fn file_c_name(run: RunId) -> CString {
    // A number has no zero in it.
    CString::new(file_name(run)).unwrap_or_default()
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
    use std::io::Read;
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    fn text(record: &Record) -> String {
        let mut room = [0; IDENTITY];
        let parts = record.draft().parts(&record.identity, &mut room).concat();
        String::from_utf8(parts).unwrap()
    }

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
            let text = text(&record);
            assert_eq!(Record::parse(&text), Some(record));
            for length in 0..text.len() {
                assert_eq!(Record::parse(&text[..length]), None, "{length}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_largest_numbers_have_room() {
        let identity = Identity { pid: u32::MAX, inode: u64::MAX, start_ticks: u64::MAX };
        let record = Record { identity, ..sample() };
        let mut file = tempfile::tempfile().unwrap();
        record.draft().write(&identity, file.as_fd()).unwrap();
        let mut written = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut written).unwrap();
        assert_eq!(Record::parse(&written), Some(record));
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(sample().draft().write(&identity, full.as_fd()), Err(Errno::NOSPC));
    }

    #[test]
    fn a_folder_is_read_whatever_else_lies_in_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("17.run"), text(&sample())).unwrap();
        fs::write(folder.path().join("18.run"), text(&sample())).unwrap();
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
