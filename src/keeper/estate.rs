//! What a keeper hands to its successor: all that it knows and holds, as bytes.
//!
//! ```text
//!   keeper ── write ──► sealed memory ── exec ──► successor ── read ──► keeper
//!   descriptors: by their numbers, which an exec does not change
//! ```
//!
//! The successor may be another version, older or newer. Each run is a block with its length before it,
//! and so is the head: fields are only ever added at the end of a block, and what is not known there
//! is passed over. What cannot be added so needs another [`FORMAT`], which only those read who know it.
//!
//! Invariants: reading is total (an error, never a panic). A descriptor is taken over only through
//! `adopt`, so that a rehearsal in another process can read everything and touch nothing.
//!
//! Deliberately absent: news that have not been told. The engine of the successor asks for everything.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::Rlimit;

use super::spawn::Barrier;
use super::table::{Handle, Order, Origin, Owner, Phase, Run, Table, Tree, Watch};
use super::wire::codec::{Reader, Writer};
use super::wire::{Exited, WireError, read_exited, read_failure, write_exited, write_failure};
use crate::model::{RunId, Time};

/// The format that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

const MAGIC: &[u8] = b"stigmer-estate";

/// An estate that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum EstateError {
    /// It is of a newer kind.
    #[error(
        "what the running daemon hands over has format {0}, newer than {FORMAT}, the newest that this program knows"
    )]
    Newer(u32),
    /// It is none.
    #[error("what is handed over is not from a stigmer")]
    Foreign,
    /// It does not mean anything.
    #[error("what is handed over cannot be understood: {0}")]
    Wire(#[from] WireError),
    /// A descriptor that it tells of is not there.
    #[error("descriptor {number}, which is handed over, cannot be used: {source}")]
    Descriptor {
        /// Its number.
        number: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("what is handed over cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What is written.
pub(super) struct Contents<'a> {
    pub(super) started_at: u64,
    pub(super) nofile: Rlimit,
    /// The signal that asked for the end of the daemon, if one did.
    pub(super) ending: Option<i32>,
    /// The request to read the manifests again has not been passed on.
    pub(super) reload: bool,
    pub(super) lock: BorrowedFd<'a>,
    pub(super) engine: Option<(u32, BorrowedFd<'a>)>,
    pub(super) held: &'a BTreeMap<String, OwnedFd>,
    pub(super) table: &'a Table,
}

/// What is read.
#[derive(Debug)]
pub(super) struct Estate {
    pub(super) started_at: u64,
    pub(super) nofile: Rlimit,
    pub(super) ending: Option<i32>,
    pub(super) reload: bool,
    pub(super) lock: OwnedFd,
    pub(super) engine: Option<(u32, OwnedFd)>,
    pub(super) held: BTreeMap<String, OwnedFd>,
    pub(super) runs: Vec<(RunId, Run)>,
}

/// How the reader gets at a descriptor of this number.
pub(super) type Adopt<'a> = &'a mut dyn FnMut(RawFd) -> io::Result<OwnedFd>;

/// Writes everything down: the bytes, and the numbers of the descriptors that they tell of.
pub(super) fn write(contents: &Contents<'_>) -> (Vec<u8>, Vec<RawFd>) {
    let mut passed = Vec::new();
    let mut bytes = MAGIC.to_vec();
    let mut out = Writer(&mut bytes);
    out.u32(FORMAT);
    block(&mut out, |out| write_head(out, contents, &mut passed));
    let runs: Vec<(RunId, &Run)> = contents.table.iter().collect();
    out.list(&runs, |out, (id, run)| block(out, |out| write_run(out, *id, run, &mut passed)));
    (bytes, passed)
}

/// Reads an estate; each descriptor through `adopt`.
pub(super) fn read(bytes: &[u8], adopt: Adopt<'_>) -> Result<Estate, EstateError> {
    let mut input = Reader(bytes.strip_prefix(MAGIC).ok_or(EstateError::Foreign)?);
    let format = input.u32()?;
    if format > FORMAT {
        return Err(EstateError::Newer(format));
    }
    let mut estate = read_head(&mut Reader(input.bytes()?), adopt)?;
    for _ in 0..input.u32()? {
        estate.runs.push(read_run(&mut Reader(input.bytes()?), adopt)?);
    }
    Ok(estate)
}

/// Reads an estate as it would be read, and takes nothing over: `stand_in` is put in the place of each
/// descriptor.
pub(super) fn rehearse(bytes: &[u8], stand_in: BorrowedFd<'_>) -> Result<(), EstateError> {
    read(bytes, &mut |_| stand_in.try_clone_to_owned()).map(drop)
}

fn block(out: &mut Writer<'_>, fill: impl FnOnce(&mut Writer<'_>)) {
    let mut bytes = Vec::new();
    fill(&mut Writer(&mut bytes));
    out.bytes(&bytes);
}

fn pass(out: &mut Writer<'_>, descriptor: BorrowedFd<'_>, passed: &mut Vec<RawFd>) {
    passed.push(descriptor.as_raw_fd());
    out.i32(descriptor.as_raw_fd());
}

fn adopted(input: &mut Reader<'_>, adopt: Adopt<'_>) -> Result<OwnedFd, EstateError> {
    let number = input.i32()?;
    adopt(number).map_err(|source| EstateError::Descriptor { number, source })
}

fn write_head(out: &mut Writer<'_>, contents: &Contents<'_>, passed: &mut Vec<RawFd>) {
    out.u64(contents.started_at);
    out.option(contents.nofile.current, Writer::u64);
    out.option(contents.nofile.maximum, Writer::u64);
    out.option(contents.ending, Writer::i32);
    out.bool(contents.reload);
    pass(out, contents.lock, passed);
    out.option(contents.engine, |out, (pid, socket)| {
        out.u32(pid);
        pass(out, socket, passed);
    });
    let held: Vec<_> = contents.held.iter().collect();
    out.list(&held, |out, (name, descriptor)| {
        out.bytes(name.as_bytes());
        pass(out, descriptor.as_fd(), passed);
    });
}

fn read_head(input: &mut Reader<'_>, adopt: Adopt<'_>) -> Result<Estate, EstateError> {
    let started_at = input.u64()?;
    let nofile =
        Rlimit { current: input.option(Reader::u64)?, maximum: input.option(Reader::u64)? };
    let ending = input.option(Reader::i32)?;
    let reload = input.bool()?;
    let lock = adopted(input, adopt)?;
    let engine = if input.bool()? { Some((input.u32()?, adopted(input, adopt)?)) } else { None };
    let mut held = BTreeMap::new();
    for _ in 0..input.u32()? {
        let name = input.text()?;
        held.insert(name, adopted(input, adopt)?);
    }
    Ok(Estate { started_at, nofile, ending, reload, lock, engine, held, runs: Vec::new() })
}

fn write_run(out: &mut Writer<'_>, id: RunId, run: &Run, passed: &mut Vec<RawFd>) {
    out.u64(id.0);
    out.bytes(run.key.as_bytes());
    out.bool(run.aux);
    out.u32(run.pid);
    out.u64(run.inode);
    out.u64(run.spawned_at.as_nanos());
    out.u8(match run.origin {
        Origin::Child => 0,
        Origin::Survivor => 1,
        Origin::Unseen => 2,
    });
    out.option(run.group.as_deref(), |out, group| out.bytes(group.as_os_str().as_bytes()));
    out.bool(run.order == Order::Die);
    out.bool(run.owner == Owner::Nobody);
    match &run.phase {
        Phase::Launching(barrier) => {
            out.u8(0);
            pass(out, barrier.as_fd(), passed);
            out.bytes(barrier.received());
        }
        Phase::Refused(failure) => {
            out.u8(1);
            write_failure(out, failure);
        }
        Phase::Running(Handle::Child) => out.u8(2),
        Phase::Running(Handle::Survivor(pidfd)) => {
            out.u8(3);
            pass(out, pidfd.as_fd(), passed);
        }
        Phase::Failed(failure) => {
            out.u8(4);
            write_failure(out, failure);
        }
        Phase::Ended { exit, at, cpu } => {
            out.u8(5);
            let empty = matches!(run.tree, Tree::Empty);
            write_exited(out, &Exited { run: id, exit: *exit, at: *at, empty, cpu: *cpu });
        }
    }
    match &run.tree {
        Tree::WithMain => out.u8(0),
        Tree::Lingering(Watch::Events(events)) => {
            out.u8(1);
            pass(out, events.as_fd(), passed);
        }
        Tree::Lingering(Watch::Witness { pidfd, in_session }) => {
            out.u8(2);
            pass(out, pidfd.as_fd(), passed);
            out.bool(*in_session);
        }
        Tree::Lingering(Watch::Nothing) => out.u8(3),
        Tree::Empty => out.u8(4),
    }
}

fn read_run(input: &mut Reader<'_>, adopt: Adopt<'_>) -> Result<(RunId, Run), EstateError> {
    let id = RunId(input.u64()?);
    let key = input.text()?;
    let aux = input.bool()?;
    let pid = input.u32()?;
    let inode = input.u64()?;
    let spawned_at = Time::from_nanos(input.u64()?);
    let origin = match input.u8()? {
        0 => Origin::Child,
        1 => Origin::Survivor,
        2 => Origin::Unseen,
        other => return Err(unknown("an origin of a run", other)),
    };
    let group = input.option(|input| input.bytes().map(<[u8]>::to_vec))?;
    let order = if input.bool()? { Order::Die } else { Order::Live };
    let owner = if input.bool()? { Owner::Nobody } else { Owner::Engine };
    let phase = match input.u8()? {
        0 => {
            let pipe = adopted(input, adopt)?;
            Phase::Launching(Barrier::restored(pipe, input.bytes()?.to_vec()))
        }
        1 => Phase::Refused(read_failure(input)?),
        2 => Phase::Running(Handle::Child),
        3 => Phase::Running(Handle::Survivor(adopted(input, adopt)?)),
        4 => Phase::Failed(read_failure(input)?),
        5 => {
            let Exited { exit, at, cpu, .. } = read_exited(input)?;
            Phase::Ended { exit, at, cpu }
        }
        other => return Err(unknown("a phase of a run", other)),
    };
    let tree = match input.u8()? {
        0 => Tree::WithMain,
        1 => Tree::Lingering(Watch::Events(adopted(input, adopt)?)),
        2 => {
            let pidfd = adopted(input, adopt)?;
            Tree::Lingering(Watch::Witness { pidfd, in_session: input.bool()? })
        }
        3 => Tree::Lingering(Watch::Nothing),
        4 => Tree::Empty,
        other => return Err(unknown("a state of a tree", other)),
    };
    let group = group.map(|group| Path::new(std::ffi::OsStr::from_bytes(&group)).into());
    let mut run = Run::new(&key, aux, phase);
    (run.pid, run.inode, run.spawned_at, run.origin) = (pid, inode, spawned_at, origin);
    (run.group, run.tree, run.order, run.owner) = (group, tree, order, owner);
    Ok((id, run))
}

fn unknown(what: &'static str, value: u8) -> EstateError {
    EstateError::Wire(WireError::Value { what, value: value.into() })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::keeper::wire::{Detail, LaunchFailure};
    use crate::model::{Exit, LaunchStage};

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn failure(run: u64) -> LaunchFailure {
        LaunchFailure {
            run: RunId(run),
            stage: LaunchStage::Exec,
            errno: 2,
            detail: Detail::LoaderMissing,
            subject: b"/x".to_vec(),
        }
    }

    /// A run in each phase with each state of its tree.
    fn table() -> Table {
        let phases: [fn(u64) -> Phase; 6] = [
            |_| Phase::Launching(Barrier::restored(null(), b"R123".to_vec())),
            |run| Phase::Refused(failure(run)),
            |_| Phase::Running(Handle::Child),
            |_| Phase::Running(Handle::Survivor(null())),
            |run| Phase::Failed(failure(run)),
            |_| Phase::Ended {
                exit: Exit::code(7),
                at: Time::from_secs(9),
                cpu: Duration::from_millis(3),
            },
        ];
        let trees: [fn() -> Tree; 5] = [
            || Tree::WithMain,
            || Tree::Lingering(Watch::Events(null())),
            || Tree::Lingering(Watch::Witness { pidfd: null(), in_session: true }),
            || Tree::Lingering(Watch::Nothing),
            || Tree::Empty,
        ];
        let mut table = Table::default();
        for (row, phase) in phases.iter().enumerate() {
            for (column, tree) in trees.iter().enumerate() {
                let id = (row * 10 + column) as u64;
                let mut run = Run::new("shop/api.1", row == 1, phase(id));
                (run.pid, run.inode, run.spawned_at) = (4711, 99, Time::from_nanos(5));
                run.origin = [Origin::Child, Origin::Survivor, Origin::Unseen][row % 3];
                run.group = (column % 2 == 0).then(|| Path::new("/cg/stigmer-a/17").into());
                run.tree = tree();
                run.order = if row == 2 { Order::Die } else { Order::Live };
                run.owner = if row == 3 { Owner::Nobody } else { Owner::Engine };
                table.insert(RunId(id), run);
            }
        }
        table
    }

    fn written(table: &Table) -> (Vec<u8>, Vec<RawFd>) {
        let held = BTreeMap::from([("control".to_owned(), null())]);
        let (lock, socket) = (null(), null());
        write(&Contents {
            started_at: 17,
            nofile: Rlimit { current: Some(1024), maximum: None },
            ending: Some(15),
            reload: true,
            lock: lock.as_fd(),
            engine: Some((33, socket.as_fd())),
            held: &held,
            table,
        })
    }

    #[test]
    fn what_is_written_is_read() {
        let table = table();
        let (bytes, passed) = written(&table);
        let mut asked = Vec::new();
        let estate = read(&bytes, &mut |number| {
            asked.push(number);
            Ok(null())
        })
        .unwrap();
        assert_eq!(asked, passed, "each descriptor is taken over once");
        assert_eq!((estate.started_at, estate.ending, estate.reload), (17, Some(15), true));
        assert_eq!(estate.nofile, Rlimit { current: Some(1024), maximum: None });
        assert_eq!(estate.engine.map(|(pid, _)| pid), Some(33));
        assert_eq!(estate.held.keys().collect::<Vec<_>>(), ["control"]);
        // The same again, but for the numbers of descriptors.
        let plain = |run: &Run| {
            let text = format!("{run:?}");
            let digits = regex::Regex::new(r"(fd|pipe): [^,})]*|OwnedFd \{ [^}]*\}").unwrap();
            digits.replace_all(&text, "").into_owned()
        };
        let before: Vec<_> = table.iter().map(|(id, run)| (id, plain(run))).collect();
        let after: Vec<_> = estate.runs.iter().map(|(id, run)| (*id, plain(run))).collect();
        assert_eq!(after, before);
    }

    #[test]
    fn a_newer_format_and_a_foreign_one_are_refused() {
        let (mut bytes, _) = written(&Table::default());
        bytes[MAGIC.len()] = 2;
        let refused = rehearse(&bytes, null().as_fd()).unwrap_err();
        assert!(matches!(refused, EstateError::Newer(2)), "{refused}");
        let refused = rehearse(b"#!/bin/sh", null().as_fd()).unwrap_err();
        assert!(matches!(refused, EstateError::Foreign), "{refused}");
    }

    #[test]
    fn fields_that_were_added_are_passed_over() {
        let mut bytes = MAGIC.to_vec();
        let mut out = Writer(&mut bytes);
        out.u32(FORMAT);
        let table = Table::default();
        let (held, lock) = (BTreeMap::new(), null());
        let contents = Contents {
            started_at: 17,
            nofile: Rlimit { current: None, maximum: None },
            ending: None,
            reload: false,
            lock: lock.as_fd(),
            engine: None,
            held: &held,
            table: &table,
        };
        block(&mut out, |out| {
            write_head(out, &contents, &mut Vec::new());
            out.bytes(b"of a time to come");
        });
        let run = Run::new("p/c.0", false, Phase::Running(Handle::Child));
        out.u32(1);
        block(&mut out, |out| {
            write_run(out, RunId(4), &run, &mut Vec::new());
            out.u64(7);
        });
        let estate = read(&bytes, &mut |_| Ok(null())).unwrap();
        assert_eq!(estate.started_at, 17);
        assert_eq!(estate.runs[0].0, RunId(4));
    }

    #[test]
    fn an_estate_that_was_cut_short_is_an_error() {
        let (bytes, _) = written(&table());
        let null = null();
        for length in 0..bytes.len() {
            assert!(rehearse(&bytes[..length], null.as_fd()).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole = [MAGIC, &1_u32.to_le_bytes(), &bytes].concat();
            let _ = rehearse(&whole, null().as_fd());
        }
    }
}
