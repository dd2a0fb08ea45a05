//! Bytes of files, and what of them can be text.
//!
//! Whatever a path leads to, reading it neither blocks nor fills the memory: it is opened without
//! waiting, must be a file, and is read up to a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::report::{Diagnostic, Place};

/// A manifest larger than this is something else.
pub(super) const LARGEST: u64 = 16 * 1024 * 1024;

/// The content of a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let error = |message: String| Diagnostic::error(path, Place::default(), message);
    let file = open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => error("there is no such file".into()),
        ErrorKind::PermissionDenied => error("it may not be read: permission denied".into())
            .help(format!("let this user read it: chmod u+r {}", path.display())),
        // A socket, or a device without a driver.
        _ if source.raw_os_error() == Some(libc::ENXIO) => {
            error("this is a socket or a device, not a file".into())
        }
        _ => error(format!("it cannot be opened: {source}")),
    })?;
    let meta = file.metadata().map_err(|source| error(format!("it cannot be read: {source}")))?;
    let kind = meta.file_type();
    let other = if kind.is_dir() {
        Some("this is a folder, not a file")
    } else if kind.is_fifo() {
        Some("this is a named pipe, not a file")
    } else if kind.is_file() {
        None
    } else if kind.is_socket() {
        Some("this is a socket, not a file")
    } else {
        Some("this is a device, not a file")
    };
    if let Some(other) = other {
        return Err(error(other.into()));
    }
    if meta.len() > LARGEST {
        return Err(too_large(path, &format!("{} MB", meta.len() / 1_000_000)));
    }
    let mut content = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    file.take(LARGEST + 1)
        .read_to_end(&mut content)
        .map_err(|source| error(format!("it cannot be read: {source}")))?;
    if content.len() as u64 > LARGEST {
        return Err(too_large(path, "larger"));
    }
    Ok(content)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

fn too_large(path: &Path, size: &str) -> Diagnostic {
    Diagnostic::error(path, Place::default(), format!("the file is too large: {size}"))
        .expected(format!("at most {} MiB", LARGEST / 1024 / 1024))
}

/// The text of a file, without a byte order mark.
pub(super) fn text<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, Diagnostic> {
    let error = |place, message: String| Diagnostic::error(path, place, message);
    if bytes.len() as u64 > LARGEST {
        return Err(too_large(path, &format!("{} MB", bytes.len() / 1_000_000)));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(error(Place::default(), "the file is UTF-16".into())
            .expected("UTF-8")
            .help("save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|wrong| {
        let (good, bad) = bytes.split_at(wrong.valid_up_to());
        let place = place_after(std::str::from_utf8(good).unwrap_or_default());
        let byte = bad.first().copied().unwrap_or_default();
        error(place, format!("the byte 0x{byte:02x} is not UTF-8"))
            .expected("UTF-8")
            .help("save the file as UTF-8")
    })?;
    let characters = text.char_indices().zip(text.chars().skip(1).map(Some).chain([None]));
    for ((index, found), next) in characters {
        let bad = match found {
            '\n' | '\t' | '\u{85}' => false,
            '\r' => next != Some('\n'),
            '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
            found => found.is_control(),
        };
        if bad {
            let name = if found == '\0' {
                "a NUL character".into()
            } else {
                format!("the control character U+{:04X}", u32::from(found))
            };
            return Err(error(place_after(&text[..index]), format!("the file contains {name}"))
                .expected("text")
                .help("in double quotes such a character is written as an escape, such as \\e or \\u0001"));
        }
    }
    Ok(text)
}

fn place_after(text: &str) -> Place {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX - 1);
    let line = text.bytes().filter(|byte| *byte == b'\n').count();
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count();
    Place { line: number(line) + 1, column: number(column) + 1, length: 1 }
}

/// The digest of some files, in this order.
pub(super) fn digest<'a>(contents: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for content in contents {
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    let digits = hash.finalize();
    let digits = digits.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// `stigmer.yaml` or `stigmer.yml` in this folder or above it.
pub(super) fn find(start: &Path) -> Option<PathBuf> {
    let start = std::path::absolute(start).ok()?;
    start.ancestors().find_map(|folder| {
        ["stigmer.yaml", "stigmer.yml"]
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.exists())
    })
}
