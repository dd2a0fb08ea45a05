use super::*;
use crate::logs::times::Times;

fn log(folder: &Path, length: u64) -> (PathBuf, u64) {
    let path = folder.join("api.log");
    let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    file.set_len(length).unwrap();
    (path, identity(&file.metadata().unwrap()))
}

fn open_index(log: &Path, identity: u64) -> Writer {
    Writer::open(log, identity, || Ok(0..0)).unwrap()
}

fn measure(identity: u64, length: u64) -> Measure {
    Measure { identity, length, is_marked: false }
}

/// Of a log that was never rotated.
fn extent(base: u64, end: u64) -> Extent {
    Extent { first: base, base, end }
}

fn at(log: &Path, position: u64) -> Option<i128> {
    Times::new(log).at(position).map(jiff::Timestamp::as_nanosecond)
}

#[test]
fn a_line_has_the_time_at_which_its_first_byte_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 0);
    let mut writer = open_index(&log, identity);
    assert_eq!(writer.oldest(), None);
    for (length, nanos) in [(10, 100), (10, 150), (25, 200)] {
        writer.observe(measure(identity, length), nanos).1.unwrap();
    }
    assert_eq!(at(&log, 0), Some(100));
    assert_eq!(at(&log, 9), Some(100));
    assert_eq!(at(&log, 10), Some(200));
    assert_eq!(at(&log, 24), Some(200));
    assert_eq!(at(&log, 25), None);
    assert_eq!(writer.oldest(), Some(100));
    assert_eq!(open_index(&log, identity).oldest(), Some(100));
}

#[test]
fn many_records_are_found_by_position_and_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 0);
    let mut writer = open_index(&log, identity);
    for number in 1..=2000 {
        let nanos = i64::try_from(number).unwrap() * 1000;
        writer.observe(measure(identity, number * 10), nanos).1.unwrap();
    }
    let mut times = Times::new(&log);
    for position in (0..20_000).step_by(7).chain([19_999, 0, 10_000]) {
        let wanted = i128::from(position / 10 + 1) * 1000;
        assert_eq!(times.at(position).unwrap().as_nanosecond(), wanted, "{position}");
    }
    let time = |nanos| jiff::Timestamp::from_nanosecond(nanos).unwrap();
    assert_eq!(times.before(time(500_000)), Some(4990));
    assert_eq!(times.before(time(500_001)), Some(5000));
    assert_eq!(times.before(time(1000)), None);
    assert_eq!(times.until(time(500_000)), Some(5000));
    assert_eq!(times.until(time(999)), Some(0));
    assert_eq!(times.until(time(9_000_000)), None);
}

#[test]
fn a_torn_tail_and_garbage_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 30);
    let mut writer = open_index(&log, identity);
    for length in [10, 20] {
        writer.observe(measure(identity, length), 5).1.unwrap();
    }
    for garbage in [&[7; 5][..], &[0; 32], &[0xff; 20]] {
        use std::io::Write as _;
        let mut index = OpenOptions::new().append(true).open(index_path(&log)).unwrap();
        index.write_all(garbage).unwrap();
        let mut writer = open_index(&log, identity);
        assert_eq!(writer.records, 2);
        assert_eq!(writer.observe(measure(identity, 20), 9).0, extent(0, 20));
    }
    let mut writer = open_index(&log, identity);
    writer.observe(measure(identity, 30), 9).1.unwrap();
    assert_eq!((at(&log, 10), at(&log, 20)), (Some(5), Some(9)));
}

#[test]
fn a_foreign_header_begins_a_new_index() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 10);
    for content in [&b""[..], b"short", &[b'x'; 200]] {
        std::fs::write(index_path(&log), content).unwrap();
        assert_eq!(Summary::load(&log).unwrap(), Summary::default());
        assert_eq!(at(&log, 0), None);
        let mut writer = open_index(&log, identity);
        assert_eq!(writer.observe(measure(identity, 10), 3).0, extent(0, 10));
        assert_eq!(at(&log, 0), Some(3));
    }
}

#[test]
fn positions_go_on_after_a_truncation_or_a_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 100);
    let mut writer = open_index(&log, identity);
    writer.observe(measure(identity, 100), 1).1.unwrap();
    assert_eq!(writer.observe(measure(identity, 0), 2).0, extent(100, 100));
    assert_eq!(writer.observe(measure(identity, 7), 3).0, extent(100, 107));
    assert_eq!(writer.observe(measure(identity + 1, 50), 4).0, extent(107, 157));
    let summary = Summary::load(&log).unwrap();
    assert_eq!(summary.view(measure(identity + 1, 60)).base, 107);
    assert_eq!(
        summary.view(measure(identity, 60)).base,
        157,
        "a reader sees a replacement before the writer does"
    );
}

#[test]
fn where_the_head_is_shows_at_every_step_of_its_removal() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 0);
    let mut writer = open_index(&log, identity);
    for length in 1..=1000 {
        let nanos = i64::try_from(length).unwrap();
        writer.observe(measure(identity, length), nanos).1.unwrap();
    }
    let view = |length, is_marked| {
        let view = Summary::load(&log).unwrap().view(Measure { identity, length, is_marked });
        (view.base, view.skip)
    };
    let copied = Header { step: Step::Copied, next_base: 600, ..writer.header() };
    writer.save_durably(copied).unwrap();
    assert_eq!(view(1010, false), (0, 0), "announced, and the log grows");
    assert_eq!(view(1010, true), (600, 600), "marked");
    writer.save_durably(Header { step: Step::Marked, ..copied }).unwrap();
    assert_eq!(view(1010, true), (600, 600), "confirmed");
    assert_eq!(view(410, false), (600, 0), "removed");
    let rotated = |end| Extent { first: 0, base: 600, end };
    assert_eq!(writer.observe(measure(identity, 410), 2000).0, rotated(1010));
    writer.begin_after_head().unwrap();
    assert_eq!(view(410, false), (600, 0), "over");
    assert_eq!(writer.observe(measure(identity, 420), 2001).0, rotated(1020));
    assert_eq!((at(&log, 600), at(&log, 999), at(&log, 1005)), (Some(601), Some(1000), Some(2000)));
    assert_eq!(at(&log, 1015), Some(2001));
    assert_eq!((writer.records, writer.header().dropped), (402, 600));
    assert_eq!(writer.oldest(), Some(601));
}

#[test]
fn an_index_that_is_removed_under_the_writer_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 10);
    let mut writer = open_index(&log, identity);
    writer.observe(measure(identity, 10), 1).1.unwrap();
    std::fs::remove_file(index_path(&log)).unwrap();
    let (seen, written) = writer.observe(measure(identity, 20), 2);
    written.unwrap();
    assert_eq!(seen, extent(0, 20));
    assert_eq!(at(&log, 15), Some(2));
}
