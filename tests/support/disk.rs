//! A small file system, to be filled: only root can make one.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system, gone when dropped.
pub(crate) struct SmallDisk {
    path: PathBuf,
    /// Where it is mounted on, or where its image is.
    _folder: Option<tempfile::TempDir>,
}

impl SmallDisk {
    /// One of so many bytes; `None`, said on standard error, for whoever may not mount one.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let folder =
            tempfile::tempdir().unwrap_or_else(|error| panic!("a folder for a disk: {error}"));
        let path = folder.path().to_owned();
        mount(&path, &format!("size={bytes},mode=0777"))?;
        Some(Self { path, _folder: Some(folder) })
    }

    /// The same on a folder that is there, and that belongs to this user.
    pub(crate) fn on(path: &Path, bytes: u64, owner: u32) -> Option<Self> {
        mount(path, &format!("size={bytes},mode=0700,uid={owner},gid={owner}"))?;
        Some(Self { path: path.to_owned(), _folder: None })
    }

    /// One of ext4 in a file, on a folder that is there: a disk as machines have it.
    pub(crate) fn ext4_on(path: &Path, bytes: u64, owner: u32) -> Option<Self> {
        let folder =
            tempfile::tempdir().unwrap_or_else(|error| panic!("a folder for a disk: {error}"));
        let image = folder.path().join("image");
        let file = fs::File::create(&image).and_then(|file| file.set_len(bytes));
        file.unwrap_or_else(|error| panic!("{}: {error}", image.display()));
        let root = format!("root_owner={owner}:{owner}");
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-m", "0", "-E", &root]).arg(&image);
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&image).arg(path);
        for mut command in [make, mount] {
            if !command.output().is_ok_and(|output| output.status.success()) {
                return None;
            }
        }
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(path, private).unwrap_or_else(|error| panic!("{error}"));
        Some(Self { path: path.to_owned(), _folder: Some(folder) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it to the last byte, with the file that is returned.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path.join("filler");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![b'.'; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a thread that still looks at a file of it keeps nobody from going on.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[expect(clippy::print_stderr, reason = "who reads the tests' output wants to know")]
fn mount(path: &Path, options: &str) -> Option<()> {
    let mut mount = Command::new("mount");
    let output = mount.args(["-t", "tmpfs", "-o", options, "small"]).arg(path).output();
    if output.is_ok_and(|output| output.status.success()) {
        return Some(());
    }
    eprintln!("no file system can be mounted here: only root can do this test");
    None
}
