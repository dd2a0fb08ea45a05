//! What a rotation has left behind that somebody died in the middle of, or that failed.
//!
//! ```text
//!   journal   the marker is   the head is    so
//!   Rest      -               in the log     a copy without a name is discarded
//!   Copied    there or not    in the log     undone: what was marked is put back, the copy is removed
//!   Marked    there           in the log     undone, by way of Copied
//!   Marked    not there       gone           finished: the copy is all there is of it
//! ```
//! Each way can itself be died in at any point, and be gone again.
//!
//! Failure paths: whatever fails, the state stays one of these, and readers can deal with all of them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::copy::{discard, draft, draft_index, remove};
use super::removal;
use crate::logs::index::{Header, Measure, Step, Writer, identity};
use crate::logs::rotated::{self, Stamp};

/// Opens the index of a log and brings both to rest. `has_rotated` says whether rotated files may lie beside
/// it, which are looked for if the index is new.
///
/// # Errors
/// Also if another engine is in the middle of a step still.
pub(in crate::logs) fn open(
    log: &Path,
    has_rotated: impl FnOnce(&Path) -> io::Result<bool>,
) -> io::Result<Writer> {
    let metadata = fs::metadata(log)?;
    let mut writer = Writer::open(log, identity(&metadata), || {
        if !has_rotated(log)? {
            return Ok(0..0);
        }
        let files = rotated::find(log, None)?.files;
        // Those whose own index is gone as well have no positions; nothing can be said of them.
        let first = files.first().map_or(0, |file| file.start);
        Ok(first..files.last().map_or(0, |file| file.end))
    })?;
    recover(log, &mut writer)?;
    Ok(writer)
}

/// Brings a log and its index to rest.
pub(super) fn recover(log: &Path, writer: &mut Writer) -> io::Result<()> {
    let header = writer.header();
    if header.step == Step::Rest {
        return discard(log);
    }
    let file = match removal::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return keep_the_copy(log, writer, writer.header().next_base);
        }
        Err(error) => return Err(error),
    };
    let measure = Measure::take(&file, Some(&header))?;
    let view = writer.view(measure);
    if measure.identity != header.identity || ![header.base, header.next_base].contains(&view.base)
    {
        return keep_the_copy(log, writer, view.base);
    }
    let what = match (header.step, measure.is_marked) {
        (Step::Rest, _) => return Ok(()),
        (Step::Marked, false) => {
            writer.begin_after_head()?;
            "finished"
        }
        (Step::Copied | Step::Marked, is_marked) => {
            undo(log, &file, writer, is_marked)?;
            "undone"
        }
    };
    tracing::info!("a rotation of {} that was broken off is {what}", log.display());
    Ok(())
}

/// The head is still in the log: everything becomes what it was.
fn undo(log: &Path, file: &File, writer: &mut Writer, is_marked: bool) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let header = Header { step: Step::Copied, ..writer.header() };
    if is_marked {
        // While the journal says Marked, a log without the marker is one without its head.
        writer.save_durably(header)?;
        file.write_all_at(&header.head, 0)?;
        file.sync_data()?;
    }
    discard(log)?;
    if header.making != 0 {
        let stamp = Stamp(header.making);
        for packed in [true, false] {
            remove(&stamp.path(log, packed)?)?;
        }
        remove(&stamp.index(log)?)?;
    }
    writer.save_durably(header.at_rest(header.base))
}

/// Somebody has removed, replaced or emptied the log: only the copy has what was in its head.
fn keep_the_copy(log: &Path, writer: &mut Writer, base: u64) -> io::Result<()> {
    let header = writer.header();
    if header.making != 0 {
        let stamp = Stamp(header.making);
        let packed = is_packed(&draft(log))?;
        for (from, to) in
            [(draft_index(log), stamp.index(log)?), (draft(log), stamp.path(log, packed)?)]
        {
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    let identity = fs::metadata(log).map_or(header.identity, |metadata| identity(&metadata));
    let stamp = header.stamp.max(header.making);
    writer.save_durably(Header { identity, stamp, ..header.at_rest(base.max(header.next_base)) })
}

fn is_packed(copy: &Path) -> io::Result<bool> {
    use std::io::Read as _;
    let mut head = [0; 2];
    match File::open(copy) {
        Ok(mut file) => Ok(file.read(&mut head)? == 2 && head == *b"\x1f\x8b"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
