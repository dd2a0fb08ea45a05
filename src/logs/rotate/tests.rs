//! Every byte once, wherever a rotation is broken off.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::copy::{Copier, Copy, draft};
use super::removal::{Removal, Stage, Way};
use super::*;
use crate::logs::file::{Log, extent};
use crate::logs::index::{Header, Measure, Step, Writer, index_path};
use crate::logs::rotated::{self, Stamp};

const BLOCK: u64 = 4096;

const STAGES: [Stage; 7] = [
    Stage::Announce,
    Stage::NameIndex,
    Stage::NameCopy,
    Stage::Mark,
    Stage::Confirm,
    Stage::Remove,
    Stage::Finish,
];

/// A log, and all that was ever written to it.
struct Bench {
    folder: tempfile::TempDir,
    log: PathBuf,
    written: Vec<u8>,
    clock: i64,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("api.log");
        Self { folder, log, written: Vec::new(), clock: 1_000_000 }
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        file.write_all(bytes).unwrap();
        self.written.extend_from_slice(bytes);
    }

    fn write_lines(&mut self, count: usize) {
        for _ in 0..count {
            let line = format!("line {}\n", self.written.len());
            self.write(line.as_bytes());
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock).unwrap()
    }

    fn measure(&self, writer: &Writer) -> Measure {
        Measure::take(&File::open(&self.log).unwrap(), Some(&writer.header())).unwrap()
    }

    /// As an engine does when it starts; each look is a second after the one before.
    fn engine(&mut self) -> Writer {
        let mut writer = open(&self.log, |_| Ok(true)).unwrap();
        self.look(&mut writer);
        writer
    }

    fn look(&mut self, writer: &mut Writer) {
        self.clock += 1;
        let measure = self.measure(writer);
        let (extent, written) = writer.observe(measure, self.clock * 1_000_000_000);
        written.unwrap();
        assert_eq!(extent.end, self.written.len() as u64);
    }

    fn copy(&mut self, writer: &Writer, way: Way, packed: bool) -> (File, Copy) {
        let file = removal::open(&self.log).unwrap();
        let measure = self.measure(writer);
        let view = writer.view(measure);
        let length = match way {
            Way::Collapse => (measure.length - 1) / BLOCK * BLOCK,
            Way::Truncate => measure.length,
        };
        let source = file.try_clone().unwrap();
        let mut copier =
            Copier::begin(&self.log, source, view, writer.header(), view.base, packed).unwrap();
        copier.copy_to(view.base + length / 2).unwrap();
        copier.hurry().unwrap();
        copier.copy_to(view.base + length).unwrap();
        (file, copier.finish(self.now()).unwrap())
    }

    /// Rotates up to some step, after which everybody is dead. False: this file system cannot do it.
    fn rotate(&mut self, writer: &mut Writer, way: Way, packed: bool, steps: usize) -> bool {
        let (file, copy) = self.copy(writer, way, packed);
        if way == Way::Collapse && !collapses(self.folder.path()) {
            return false;
        }
        let removal =
            Removal::new(&self.log, file, writer, way, copy.end, Some(copy), 7_777_777).unwrap();
        for stage in &STAGES[..steps] {
            removal.take(*stage, writer).unwrap();
            self.check_readers(&format!("{way:?} after {stage:?}"));
        }
        true
    }

    /// Whoever reads by position finds every byte once.
    fn check_readers(&self, when: &str) {
        let extent = extent(&self.log).unwrap();
        assert_eq!((extent.first, extent.end), (0, self.written.len() as u64), "{when}");
        assert!(read_all(&self.log, extent.first) == self.written, "{when}: not every byte once");
    }

    /// So does whoever puts the files together, once everything is at rest.
    fn check_files(&self, when: &str) {
        let base = extent(&self.log).unwrap().base;
        let mut all = Vec::new();
        for rotated in rotated::find(&self.log, Some(base)).unwrap().files {
            all.extend(plain(&rotated.path, rotated.packed));
        }
        all.extend(fs::read(&self.log).unwrap());
        assert!(all == self.written, "{when}: {} and {} bytes", all.len(), self.written.len());
        let names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| [".part", ".new"].iter().any(|mark| name.contains(mark)))
            .collect();
        assert_eq!(names, [""; 0], "{when}");
        let (files, indexes) = (self.count(|name| !name.contains(".idx")), self.count(|_| true));
        assert_eq!(files * 2, indexes, "{when}: each file has its index");
    }

    fn count(&self, like: impl Fn(&str) -> bool) -> usize {
        let names = fs::read_dir(self.folder.path()).unwrap();
        names.filter(|entry| like(entry.as_ref().unwrap().file_name().to_str().unwrap())).count()
    }
}

fn collapses(folder: &Path) -> bool {
    use rustix::fs::{FallocateFlags, fallocate};
    let file = tempfile::tempfile_in(folder).unwrap();
    file.set_len(4 * BLOCK).unwrap();
    let can = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, BLOCK).is_ok();
    if !can {
        eprintln!("this file system cannot remove the head of a file");
    }
    can
}

fn read_all(log: &Path, from: u64) -> Vec<u8> {
    let mut reader = Log::new(log);
    let (mut all, mut buffer) = (Vec::new(), vec![0; 10_000]);
    loop {
        let wanted = from + all.len() as u64;
        let block = reader.read_at(wanted, &mut buffer).unwrap();
        if block.length == 0 {
            return all;
        }
        assert_eq!(block.position, wanted, "a gap");
        all.extend_from_slice(&buffer[..block.length]);
    }
}

fn plain(path: &Path, packed: bool) -> Vec<u8> {
    let mut all = Vec::new();
    let file = File::open(path).unwrap();
    if packed {
        flate2::read::MultiGzDecoder::new(file).read_to_end(&mut all).unwrap();
    } else {
        (&file).read_to_end(&mut all).unwrap();
    }
    all
}

#[test]
fn fault_36_every_byte_is_there_once_whatever_step_everybody_dies_after() {
    for way in [Way::Collapse, Way::Truncate] {
        for steps in 0..=STAGES.len() {
            for (before, meanwhile) in [(0, 0), (0, 3), (1, 3000), (2, 10)] {
                let when = format!("{way:?}, {steps} steps, {before} before, {meanwhile} since");
                let mut bench = Bench::new();
                bench.write_lines(1500);
                let mut writer = bench.engine();
                let mut able = true;
                for number in 0..before {
                    able &= bench.rotate(&mut writer, way, number % 2 == 0, STAGES.len());
                    bench.write_lines(1500);
                    bench.look(&mut writer);
                }
                able &= bench.rotate(&mut writer, way, true, steps);
                if !able {
                    continue;
                }
                drop(writer);
                // The component lives on.
                bench.write_lines(meanwhile);
                bench.check_readers(&when);
                let mut writer = bench.engine();
                assert_eq!(writer.header().step, Step::Rest, "{when}");
                bench.check_readers(&when);
                bench.check_files(&when);
                // And it can be rotated again.
                bench.write_lines(1500);
                bench.look(&mut writer);
                bench.rotate(&mut writer, way, true, STAGES.len());
                bench.check_files(&when);
            }
        }
    }
}

#[test]
fn the_way_back_can_be_died_in_at_any_point() {
    for way in [Way::Collapse, Way::Truncate] {
        for (steps, undone) in (4..=5).flat_map(|steps| (0..4).map(move |undone| (steps, undone))) {
            let when = format!("{way:?}, {steps} steps, {undone} of them undone");
            let mut bench = Bench::new();
            bench.write_lines(2000);
            let mut writer = bench.engine();
            if !bench.rotate(&mut writer, way, true, steps) {
                continue;
            }
            bench.write_lines(10);
            let header = writer.header();
            if undone >= 1 {
                writer.save(Header { step: Step::Copied, ..header }).unwrap();
                bench.check_readers(&when);
            }
            if undone >= 2 {
                let log = OpenOptions::new().write(true).open(&bench.log).unwrap();
                log.write_all_at(&header.head, 0).unwrap();
                bench.check_readers(&when);
            }
            if undone >= 3 {
                fs::remove_file(Stamp(header.making).path(&bench.log, true).unwrap()).unwrap();
                bench.check_readers(&when);
            }
            bench.engine();
            bench.check_readers(&when);
            bench.check_files(&when);
        }
    }
}

#[test]
fn lines_that_are_all_the_same_are_not_taken_for_their_copy() {
    for way in [Way::Collapse, Way::Truncate] {
        for steps in 0..=STAGES.len() {
            let mut bench = Bench::new();
            bench.write(&b"y\n".repeat(10_000));
            let mut writer = bench.engine();
            if bench.rotate(&mut writer, way, true, steps) {
                bench.write(&b"y\n".repeat(20_000));
                bench.engine();
                bench.check_files(&format!("{way:?}, {steps} steps"));
            }
        }
    }
}

#[test]
fn what_another_engine_is_in_the_middle_of_is_left_alone() {
    let mut bench = Bench::new();
    bench.write_lines(2000);
    let mut writer = bench.engine();
    let (file, copy) = bench.copy(&writer, Way::Truncate, true);
    let removal =
        Removal::new(&bench.log, file, &writer, Way::Truncate, copy.end, Some(copy), 5).unwrap();
    removal.take(Stage::Announce, &mut writer).unwrap();
    let refused = open(&bench.log, |_| Ok(true)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "{refused}");
    drop(removal);
    open(&bench.log, |_| Ok(true)).unwrap();
    bench.check_files("after the other one has ended");
}

#[test]
fn a_log_that_somebody_changes_is_not_removed_from() {
    let mut bench = Bench::new();
    bench.write_lines(2000);
    let mut writer = bench.engine();
    let (file, copy) = bench.copy(&writer, Way::Truncate, true);
    let again = file.try_clone().unwrap();
    let removal =
        Removal::new(&bench.log, file, &writer, Way::Truncate, copy.end, Some(copy), 5).unwrap();
    for stage in &STAGES[..5] {
        removal.take(*stage, &mut writer).unwrap();
    }
    // Somebody who could not be held still.
    bench.write_lines(1);
    assert!(removal.take(Stage::Remove, &mut writer).is_err());
    drop((removal, again));
    recover::recover(&bench.log, &mut writer).unwrap();
    bench.check_files("after a write that was too late");
    let (file, copy) = bench.copy(&writer, Way::Truncate, true);
    bench.write_lines(1);
    let late = Removal::new(&bench.log, file, &writer, Way::Truncate, copy.end, Some(copy), 5);
    assert!(late.is_err(), "written to since it was copied");
}

#[test]
fn a_log_that_is_removed_in_the_middle_leaves_its_copy() {
    for steps in 1..=6 {
        let mut bench = Bench::new();
        bench.write_lines(2000);
        let mut writer = bench.engine();
        assert!(bench.rotate(&mut writer, Way::Truncate, true, steps));
        fs::remove_file(&bench.log).unwrap();
        bench.write_lines(10);
        bench.engine();
        bench.check_readers(&format!("{steps} steps"));
        bench.check_files(&format!("{steps} steps"));
    }
}

#[test]
fn times_and_positions_go_with_what_is_rotated() {
    let mut bench = Bench::new();
    let mut known = Vec::new();
    let mut writer = None;
    for round in 0..4 {
        for _ in 0..50 {
            bench.write(&b"x".repeat(120));
            bench.write(b"\n");
            let at = bench.written.len() as u64 - 121;
            let opened = writer.take();
            let mut opened = opened.unwrap_or_else(|| open(&bench.log, |_| Ok(true)).unwrap());
            bench.look(&mut opened);
            known.push((at, bench.clock));
            writer = Some(opened);
        }
        let writer = writer.as_mut().unwrap();
        let way = if round % 2 == 0 { Way::Truncate } else { Way::Collapse };
        bench.rotate(writer, way, round < 2, STAGES.len());
    }
    let mut times = crate::logs::times::Times::new(&bench.log);
    for (position, clock) in known.iter().rev().chain(&known) {
        let at = times.at(*position).map(Timestamp::as_second);
        assert_eq!(at, Some(*clock), "{position}");
    }
    let second = |second| Timestamp::from_second(second).unwrap();
    for (position, clock) in &known[1..] {
        assert_eq!(times.before(second(*clock)), Some(*position));
        assert_eq!(times.until(second(*clock - 1)), Some(*position));
    }
    assert_eq!(times.before(second(known[0].1)), None);
    assert_eq!(times.until(second(known[0].1 - 1)), Some(0));
    assert_eq!(times.until(second(bench.clock)), None);
}

#[test]
fn times_are_right_also_while_the_log_is_rotated() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    for way in [Way::Collapse, Way::Truncate] {
        let mut bench = Bench::new();
        let log = bench.log.clone();
        bench.write_lines(500);
        let mut writer = bench.engine();
        if way == Way::Collapse && !collapses(bench.folder.path()) {
            continue;
        }
        // A position up to which the log had grown at a time, and has grown since.
        let known = Mutex::new((bench.written.len() as u64, bench.now()));
        bench.write_lines(1);
        bench.look(&mut writer);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut looks = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    let (end, at) = *known.lock().unwrap();
                    let mut times = crate::logs::times::Times::new(&log);
                    let since = at + Duration::from_millis(1);
                    assert_eq!(times.before(since), Some(end), "{way:?}, {looks} looks");
                    assert_eq!(times.until(at), Some(end), "{way:?}, {looks} looks");
                    assert_eq!(times.at(end - 1), Some(at), "{way:?}, {looks} looks");
                    looks += 1;
                }
                looks
            });
            for round in 0..100 {
                bench.write_lines(500);
                bench.look(&mut writer);
                let mark = (bench.written.len() as u64, bench.now());
                bench.write_lines(500);
                bench.look(&mut writer);
                *known.lock().unwrap() = mark;
                bench.rotate(&mut writer, way, round % 2 == 0, STAGES.len());
            }
            is_over.store(true, Ordering::Relaxed);
            let looks = reader.join().unwrap();
            assert!(looks > 0, "{way:?}");
        });
    }
}

#[test]
fn a_lost_index_costs_times_and_no_line() {
    let mut bench = Bench::new();
    let mut writer = bench.engine_of(3);
    fs::remove_file(index_path(&bench.log)).unwrap();
    bench.write_lines(10);
    writer = {
        drop(writer);
        bench.engine()
    };
    bench.check_readers("without its own index");
    bench.write_lines(1500);
    bench.look(&mut writer);
    assert!(bench.rotate(&mut writer, Way::Truncate, true, STAGES.len()));
    bench.check_files("rotated since");
    drop(writer);
    for entry in fs::read_dir(bench.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    bench.engine();
    bench.check_readers("without any index");
}

impl Bench {
    /// An engine, after so many rotations.
    fn engine_of(&mut self, rotations: usize) -> Writer {
        self.write_lines(1500);
        let mut writer = self.engine();
        for number in 0..rotations {
            assert!(self.rotate(&mut writer, Way::Truncate, number % 2 == 0, STAGES.len()));
            self.write_lines(1500);
            self.look(&mut writer);
        }
        writer
    }

    fn spans(&self) -> Vec<(u64, u64)> {
        let found = rotated::find(&self.log, None).unwrap();
        found.files.iter().map(|file| (file.start, file.end)).collect()
    }
}

#[test]
fn so_many_files_are_kept_and_none_for_too_long() {
    let mut bench = Bench::new();
    let mut writer = bench.engine_of(5);
    let spans = bench.spans();
    let mut spec = LogSpec { max_files: 3, ..LogSpec::default() };
    let retain = |bench: &Bench, writer: &mut Writer, spec: &LogSpec, now: Timestamp| {
        let left = retain::retain(&bench.log, writer, spec, now).unwrap();
        assert_eq!(extent(&bench.log).unwrap().first, writer.header().first);
        left
    };
    assert_eq!(retain(&bench, &mut writer, &spec, bench.now()), None);
    assert_eq!(bench.spans(), spans[2..]);
    assert_eq!(writer.header().first, spans[2].0);
    // The looks are a second apart, and so are the rotations.
    spec.max_age = Some(Duration::from_millis(2_500));
    let left = retain(&bench, &mut writer, &spec, bench.now());
    assert_eq!(bench.spans(), spans[3..]);
    assert_eq!(left, Some(bench.now() + Duration::from_millis(500)));
    let later = bench.now() + Duration::from_secs(60);
    assert_eq!(retain(&bench, &mut writer, &spec, later), None);
    assert_eq!(bench.spans(), []);
    assert_eq!(writer.header().first, writer.header().base);
    assert_eq!(bench.count(|_| true), 2, "the log and its index");
    bench.written.drain(..usize::try_from(writer.header().base).unwrap());
    assert!(read_all(&bench.log, writer.header().base) == bench.written);
}

#[test]
fn a_copy_that_is_left_over_is_discarded_and_made_anew() {
    let mut bench = Bench::new();
    bench.write_lines(1000);
    let writer = bench.engine();
    drop(bench.copy(&writer, Way::Truncate, true));
    assert!(draft(&bench.log).exists());
    bench.engine();
    bench.check_files("an engine that died while copying");
    drop(bench.copy(&writer, Way::Truncate, false));
    drop(bench.copy(&writer, Way::Truncate, true));
}

/// What may happen to a log.
#[derive(Clone, Debug)]
enum Happening {
    Lines(usize),
    Look,
    /// An engine that rotates, and dies after so many steps.
    Rotation(bool, bool, usize),
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (1_usize..600).prop_map(Happening::Lines),
        Just(Happening::Look),
        (any::<bool>(), any::<bool>(), 0..=STAGES.len())
            .prop_map(|(collapse, packed, steps)| Happening::Rotation(collapse, packed, steps)),
        Just(Happening::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_byte_is_there_once_whatever_happens(story in prop::collection::vec(happening(), 1..25)) {
        let mut bench = Bench::new();
        bench.write_lines(1);
        let mut writer = bench.engine();
        for happening in story {
            match happening {
                Happening::Lines(count) => bench.write_lines(count),
                Happening::Look => bench.look(&mut writer),
                Happening::Restart => writer = bench.engine(),
                Happening::Rotation(collapse, packed, steps) => {
                    let way = if collapse { Way::Collapse } else { Way::Truncate };
                    let length = fs::metadata(&bench.log).unwrap().len();
                    if length > BLOCK {
                        bench.look(&mut writer);
                        bench.rotate(&mut writer, way, packed, steps);
                    }
                    if steps < STAGES.len() {
                        writer = bench.engine();
                    }
                }
            }
            bench.check_readers("in the story");
        }
        bench.engine();
        bench.check_files("at the end of the story");
    }
}
