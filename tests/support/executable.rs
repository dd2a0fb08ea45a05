//! Files that are executed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a file that is to be executed, with these permissions.
///
/// Another process does it. A descriptor for writing of this one would be inherited by whatever the thread
/// of another test forks at that moment, and until that has executed its program the kernel refuses
/// to execute the file (ETXTBSY, execve(2)).
#[track_caller]
pub(crate) fn write_executable(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", r#"cat >"$0" && chmod "$1" "$0""#])
        .arg(path)
        .arg(format!("{mode:o}"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run /bin/sh: {error}"));
    let sent = writer.stdin.take().map(|mut pipe| pipe.write_all(content.as_ref()));
    let ended = writer.wait();
    assert!(
        matches!((&sent, &ended), (Some(Ok(())), Ok(status)) if status.success()),
        "cannot write {}: {sent:?}, {ended:?}",
        path.display()
    );
}
