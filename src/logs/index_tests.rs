use super::*;
use crate::logs::times::Times;

fn log(folder: &Path, length: u64) -> (PathBuf, u64) {
    let path = folder.join("api.log");
    let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    file.set_len(length).unwrap();
    (path, identity(&file.metadata().unwrap()))
}

fn at(log: &Path, position: u64) -> Option<i128> {
    Times::new(log).at(position).map(jiff::Timestamp::as_nanosecond)
}

#[test]
fn a_line_has_the_time_at_which_its_first_byte_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 0);
    let mut writer = Writer::open(&log, identity, 0).unwrap();
    for (length, nanos) in [(10, 100), (10, 150), (25, 200)] {
        writer.observe(identity, length, nanos).1.unwrap();
    }
    assert_eq!(at(&log, 0), Some(100));
    assert_eq!(at(&log, 9), Some(100));
    assert_eq!(at(&log, 10), Some(200));
    assert_eq!(at(&log, 24), Some(200));
    assert_eq!(at(&log, 25), None);
}

#[test]
fn many_records_are_found_by_position_and_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 0);
    let mut writer = Writer::open(&log, identity, 0).unwrap();
    for number in 1..=2000 {
        writer.observe(identity, number * 10, i64::try_from(number).unwrap() * 1000).1.unwrap();
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
    let mut writer = Writer::open(&log, identity, 0).unwrap();
    for length in [10, 20] {
        writer.observe(identity, length, 5).1.unwrap();
    }
    for garbage in [&[7; 5][..], &[0; 32], &[0xff; 20]] {
        use std::io::Write as _;
        let mut index = OpenOptions::new().append(true).open(index_path(&log)).unwrap();
        index.write_all(garbage).unwrap();
        let mut writer = Writer::open(&log, identity, 20).unwrap();
        assert_eq!(writer.records, 2);
        assert_eq!(writer.observe(identity, 20, 9).0, Extent { base: 0, end: 20 });
    }
    let mut writer = Writer::open(&log, identity, 20).unwrap();
    writer.observe(identity, 30, 9).1.unwrap();
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
        let mut writer = Writer::open(&log, identity, 0).unwrap();
        assert_eq!(writer.observe(identity, 10, 3).0, Extent { base: 0, end: 10 });
        assert_eq!(at(&log, 0), Some(3));
    }
}

#[test]
fn positions_go_on_after_a_truncation_or_a_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 100);
    let mut writer = Writer::open(&log, identity, 100).unwrap();
    writer.observe(identity, 100, 1).1.unwrap();
    assert_eq!(writer.observe(identity, 0, 2).0, Extent { base: 100, end: 100 });
    assert_eq!(writer.observe(identity, 7, 3).0, Extent { base: 100, end: 107 });
    assert_eq!(writer.observe(identity + 1, 50, 4).0, Extent { base: 107, end: 157 });
    let summary = Summary::load(&log).unwrap();
    assert_eq!(summary.base(identity + 1, 60), 107);
    assert_eq!(
        summary.base(identity, 60),
        157,
        "a reader sees a replacement before the writer does"
    );
}

#[test]
fn shortening_is_seen_by_readers_at_every_step_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 0);
    let mut writer = Writer::open(&log, identity, 0).unwrap();
    for length in 1..=1000 {
        writer.observe(identity, length, i64::try_from(length).unwrap()).1.unwrap();
    }
    let base = |length| Summary::load(&log).unwrap().base(identity, length);
    writer.begin_shortening(600, 1000).unwrap();
    assert_eq!(base(1000), 0, "announced, not done");
    assert_eq!(base(1010), 0, "it grows meanwhile");
    assert_eq!(base(400), 600, "done, not yet told");
    // The engine dies here, once before and once after the removal.
    assert_eq!(Writer::open(&log, identity, 400).unwrap().header.base, 600);
    writer.finish_shortening().unwrap();
    assert_eq!(writer.observe(identity, 410, 2000).0, Extent { base: 600, end: 1010 });
    assert_eq!((at(&log, 600), at(&log, 999), at(&log, 1005)), (Some(601), Some(1000), Some(2000)));
    assert_eq!(writer.records, 401);
    writer.begin_shortening(100, 410).unwrap();
    writer.abandon_shortening().unwrap();
    assert_eq!(writer.observe(identity, 420, 2001).0, Extent { base: 600, end: 1020 });
    assert_eq!(at(&log, 1015), Some(2001));
}

#[test]
fn an_index_that_is_removed_under_the_writer_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (log, identity) = log(folder.path(), 10);
    let mut writer = Writer::open(&log, identity, 0).unwrap();
    writer.observe(identity, 10, 1).1.unwrap();
    std::fs::remove_file(index_path(&log)).unwrap();
    let (extent, written) = writer.observe(identity, 20, 2);
    written.unwrap();
    assert_eq!(extent, Extent { base: 0, end: 20 });
    assert_eq!(at(&log, 15), Some(2));
}
