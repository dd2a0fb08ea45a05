//! What a keeper makes ready for the launch that comes next.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use stigmer::keeper::wire::{Spawned, ToKeeper};
use stigmer::model::RunId;

use crate::bench::{Bench, until};

fn record_of(bench: &Bench, run: RunId) -> PathBuf {
    bench.config.records.join(format!("{run}.run"))
}

/// The record that is made before its run, once it is there.
#[track_caller]
pub(crate) fn made(bench: &Bench, run: RunId) -> Metadata {
    until("a record is made ahead", || fs::metadata(record_of(bench, run)).ok())
}

pub(crate) fn next(run: RunId) -> RunId {
    RunId(run.0 + 1)
}

/// A process that lives on, as this run.
#[track_caller]
fn live_as(bench: &mut Bench, run: RunId, aux: bool) -> Spawned {
    let mut spawn = bench.shell("exec sleep 1000");
    (spawn.run, spawn.aux) = (run, aux);
    bench.spawn(spawn)
}

/// Where the group of another run lies.
fn group_of(group: &Path, run: RunId) -> PathBuf {
    group.with_file_name(run.to_string())
}

#[test]
fn the_next_launch_takes_what_was_made_for_it() {
    for best_effort in [false, true] {
        let mut bench = Bench::with(|config| config.best_effort = best_effort);
        let first = bench.spawn_shell("exec sleep 1000");
        let ready = made(&bench, next(first.run));
        assert_eq!((ready.len(), ready.mode() & 0o777), (0, 0o600));
        let group = bench.record(first.run).unwrap().cgroup;
        assert!(!best_effort || group.is_none());
        if let Some(group) = &group {
            until("its group is made", || group_of(group, next(first.run)).is_dir().then_some(()));
        }
        let second = bench.spawn_shell("exec sleep 1000");
        assert_eq!(second.run, next(first.run));
        let record = bench.record(second.run).unwrap();
        assert_eq!(record.identity.pid, second.pid);
        let file = fs::metadata(record_of(&bench, second.run)).unwrap();
        assert_eq!((file.ino(), file.mode() & 0o777), (ready.ino(), 0o600));
        if let Some(group) = &group {
            assert_eq!(record.cgroup, Some(group_of(group, second.run)));
            let members = fs::read_to_string(record.cgroup.unwrap().join("cgroup.procs")).unwrap();
            assert_eq!(members.trim(), second.pid.to_string());
        }
        made(&bench, next(second.run));
        // With the last run it goes as well.
        for run in [first.run, second.run] {
            bench.kill_tree(run);
            bench.send(&ToKeeper::Ack { run });
        }
        let count = || fs::read_dir(&bench.config.records).unwrap().count();
        until("no record is left", || (count() == 0).then_some(()));
        if let Some(group) = group {
            let groups = || fs::read_dir(group.parent().unwrap()).unwrap().flatten();
            let is_left = || groups().any(|entry| entry.path().is_dir());
            until("no group is left", || (!is_left()).then_some(()));
        }
    }
}

#[test]
fn what_another_launch_takes_the_place_of_is_removed() {
    let mut bench = Bench::new();
    let first = bench.spawn_shell("exec sleep 1000");
    made(&bench, next(first.run));
    let group = bench.record(first.run).unwrap().cgroup;
    let later = live_as(&mut bench, RunId(17), false);
    made(&bench, next(later.run));
    let is_gone = |path: &Path| !path.exists();
    until("the record is removed", || is_gone(&record_of(&bench, next(first.run))).then_some(()));
    if let Some(group) = group {
        until("the group is removed", || is_gone(&group_of(&group, next(first.run))).then_some(()));
    }
    bench.kill_tree(first.run);
    bench.kill_tree(later.run);
}

#[test]
fn a_launch_that_was_overtaken_and_one_beside_a_helper_find_what_was_made_for_them() {
    let mut bench = Bench::new();
    let first = bench.spawn_shell("exec sleep 1000");
    made(&bench, next(first.run));
    let overtaken = bench.shell("exec sleep 1000");
    assert_eq!(overtaken.run, next(first.run));
    let overtaking = live_as(&mut bench, RunId(17), false);
    let second = bench.spawn(overtaken);
    assert_eq!(bench.record(second.run).unwrap().identity.pid, second.pid);

    let after = made(&bench, RunId(18));
    let helper = live_as(&mut bench, RunId(1 << 55), true);
    let third = live_as(&mut bench, RunId(18), false);
    assert_eq!(fs::metadata(record_of(&bench, third.run)).unwrap().ino(), after.ino());
    // Nothing is made for other helpers.
    made(&bench, RunId(19));
    assert!(!record_of(&bench, next(helper.run)).exists());
    for run in [first.run, second.run, overtaking.run, third.run, helper.run] {
        bench.kill_tree(run);
    }
}

#[test]
fn a_record_that_was_there_before_is_left_alone() {
    let mut bench = Bench::new();
    // Of a run whose number is given once more, because the state was lost.
    let number = bench.shell("").run;
    let other = record_of(&bench, RunId(number.0 + 2));
    fs::write(&other, "not mine").unwrap();
    let first = bench.spawn_shell("exec sleep 1000");
    // A calm moment lies in between.
    if let Some(group) = bench.record(first.run).unwrap().cgroup {
        until("a group is made", || group_of(&group, next(first.run)).is_dir().then_some(()));
    }
    let later = live_as(&mut bench, RunId(17), false);
    made(&bench, next(later.run));
    assert_eq!(fs::read_to_string(&other).unwrap(), "not mine");
    bench.kill_tree(first.run);
    bench.kill_tree(later.run);
}

#[test]
fn what_somebody_has_removed_is_made_all_the_same() {
    let mut bench = Bench::new();
    let first = bench.spawn_shell("exec sleep 1000");
    let group = bench.record(first.run).unwrap().cgroup;
    made(&bench, next(first.run));
    // As an engine does that begins, and takes it for one of a launch that was broken off.
    fs::remove_file(record_of(&bench, next(first.run))).unwrap();
    if let Some(group) = &group {
        until("the group is removed", || fs::remove_dir(group_of(group, next(first.run))).ok());
    }
    let second = bench.spawn_shell("exec sleep 1000");
    assert_eq!(second.run, next(first.run));
    let record = bench.record(second.run).unwrap();
    assert_eq!(record.identity.pid, second.pid);
    assert_eq!(record.cgroup, group.map(|group| group_of(&group, second.run)));
    assert!(record.cgroup.is_none_or(|group| group.is_dir()));
    bench.kill_tree(first.run);
    bench.kill_tree(second.run);
}

#[test]
fn a_launch_that_fails_or_wants_no_group_leaves_nothing_of_it() {
    let mut bench = Bench::new();
    let first = bench.spawn_shell("exec sleep 1000");
    let group = bench.record(first.run).unwrap().cgroup;
    for program in ["", "/does/not/exist"] {
        let spawn = bench.program(&[program]);
        made(&bench, spawn.run);
        let failure = bench.fail(spawn);
        until("its record is gone", || (!record_of(&bench, failure.run).exists()).then_some(()));
        if let Some(group) = &group {
            until("its group is gone", || (!group_of(group, failure.run).exists()).then_some(()));
        }
    }
    let mut spawn = bench.shell("exec sleep 1000");
    made(&bench, spawn.run);
    spawn.own_group = false;
    let second = bench.spawn(spawn);
    assert_eq!(bench.record(second.run).unwrap().cgroup, None);
    if let Some(group) = &group {
        assert!(!group_of(group, second.run).exists());
    }
    bench.kill_tree(first.run);
    bench.kill_tree(second.run);
}
