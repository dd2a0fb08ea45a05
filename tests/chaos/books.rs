//! The log of each component, byte by byte against the ledger that its processes kept, and the births
//! against what may live at one time.

use std::fs;

use crate::fleet::{Fleet, Member};
use crate::support::births::Births;
use crate::support::home::TestHome;
use crate::support::rotated;

/// The length of a line, its newline included.
const LINE: usize = 100;

/// What was checked.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) processes: usize,
    pub(crate) lines: u64,
    pub(crate) files: usize,
    /// Lines in the middle of whose write a process was killed.
    pub(crate) cut: u64,
}

/// What one process says of itself.
struct Entry {
    pid: u64,
    ticks: u64,
    lines: u64,
}

/// Checks all members, also those that are not declared any more.
pub(crate) fn check(home: &TestHome, fleet: &Fleet) -> Result<Sums, String> {
    let mut sums = Sums::default();
    for member in &fleet.members {
        check_births(home, member, &mut sums)?;
        check_log(home, member, &mut sums)
            .map_err(|problem| format!("{}: {problem}", member.name))?;
    }
    Ok(sums)
}

fn check_births(home: &TestHome, member: &Member, sums: &mut Sums) -> Result<(), String> {
    for name in [member.name.clone(), format!("{}.g", member.name)] {
        let births = Births::read(&home.births_file(&name));
        if !births.doubles.is_empty() {
            return Err(format!("two lived at once: {name}, {:?}", births.doubles));
        }
        sums.processes += births.born.len();
    }
    Ok(())
}

fn check_log(home: &TestHome, member: &Member, sums: &mut Sums) -> Result<(), String> {
    let log = home.home().join("logs/chaos").join(format!("{}.log", member.name));
    let files = rotated::find(&log);
    sums.files += files.len() + 1;
    let entries = entries(home, member)?;
    // One that was never there has neither.
    let all =
        if entries.is_empty() && !log.exists() { Vec::new() } else { rotated::together(&log) };
    let mut reader = Reader { entries: &entries, cut: 0, furthest: (0, String::new()) };
    if !reader.read(0, &all) {
        return Err(reader.furthest.1);
    }
    sums.lines += entries.iter().map(|entry| entry.lines).sum::<u64>();
    sums.cut += reader.cut;
    Ok(())
}

/// Compares a log with what its processes say that they wrote.
struct Reader<'a> {
    entries: &'a [Entry],
    cut: u64,
    /// The furthest place at which it did not fit, and what was there.
    furthest: (usize, String),
}

impl Reader<'_> {
    /// Whether `rest` is what the processes from `index` on wrote, each its lines, and at most one more
    /// or a piece of one, in the middle of which it was killed.
    fn read(&mut self, index: usize, mut rest: &[u8]) -> bool {
        let Some(entry) = self.entries.get(index) else {
            if !rest.is_empty() {
                self.note(index, &format!("{} bytes too many", rest.len()), rest);
            }
            return rest.is_empty();
        };
        for number in 0..entry.lines {
            let Some(after) = rest.strip_prefix(entry.line(number).as_slice()) else {
                let what = format!(
                    "line {number} of {} of process {} is lost, doubled or torn",
                    entry.lines, entry.pid
                );
                self.note(index, &what, rest);
                return false;
            };
            rest = after;
        }
        let next = entry.line(entry.lines);
        let more = rest.iter().zip(&next).take_while(|(one, other)| one == other).count();
        // Where two processes have numbers that begin alike, a piece may be longer than it is.
        for cut in (0..=more).rev() {
            if self.read(index + 1, &rest[cut..]) {
                self.cut += u64::from(cut > 0);
                return true;
            }
        }
        false
    }

    fn note(&mut self, index: usize, what: &str, rest: &[u8]) {
        if index >= self.furthest.0 {
            let seen = String::from_utf8_lossy(&rest[..rest.len().min(2 * LINE)]).into_owned();
            self.furthest = (index, format!("{what}; there is {seen:?}"));
        }
    }
}

impl Entry {
    fn line(&self, number: u64) -> Vec<u8> {
        let line = format!("{} {} {number} ", self.pid, self.ticks);
        format!("{line:x<width$}\n", width = LINE - 1).into_bytes()
    }
}

fn entries(home: &TestHome, member: &Member) -> Result<Vec<Entry>, String> {
    let path = home.file("ledgers").join(&member.name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let entry = |bytes: &[u8]| {
        let mut numbers = bytes
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        Some(Entry { pid: numbers.next()?, ticks: numbers.next()?, lines: numbers.next()? })
    };
    Ok(bytes.chunks_exact(24).filter_map(entry).filter(|entry| entry.pid != 0).collect())
}
