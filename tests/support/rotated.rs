//! The files of a log that was rotated, as anybody would put them together.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The rotated files of a log, the oldest first.
pub(crate) fn find(log: &Path) -> Vec<PathBuf> {
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".20";
    let is_one = |path: &PathBuf| {
        let found = path.file_name().unwrap_or_default().to_string_lossy();
        found.starts_with(&name) && !found.ends_with(".idx")
    };
    let entries = log.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_one).collect();
    files.sort();
    files
}

/// Everything that was ever written, as anybody would put it together.
pub(crate) fn together(log: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for path in find(log).into_iter().chain([log.to_owned()]) {
        add(&path, &mut all).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    all
}

fn add(path: &Path, all: &mut Vec<u8>) -> io::Result<()> {
    let mut file = fs::File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::MultiGzDecoder::new(file).read_to_end(all)?;
    } else {
        file.read_to_end(all)?;
    }
    Ok(())
}
