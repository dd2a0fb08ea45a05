//! Whether a file is root's alone to write.
//!
//! A daemon of root's executes what manifests say. Whoever can write one, or can put another in its
//! place, is root. So the file and every folder on the way to it, through every symlink, must be
//! root's; a folder like /tmp is fine, where only the owner of a file may replace it.
//!
//! Deliberately absent: access control lists, which can only give what the mask in the mode shows.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many symlinks in a row are followed; the kernel follows no more.
const MOST_LINKS: usize = 40;

/// A file that others may write.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}, and this daemon runs as root: whoever can write it decides what root executes")]
pub struct Untrusted {
    /// What is wrong, with the file or folder in it.
    pub why: String,
    /// What to type.
    pub remedy: String,
}

/// Fails if anybody but root may write this file, or replace it. What cannot be looked at is not
/// judged: whoever reads it will say what is wrong with it.
pub fn only_root_writes(path: &Path) -> Result<(), Untrusted> {
    let mut seen = BTreeSet::new();
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..MOST_LINKS {
        for folder in path.ancestors().skip(1) {
            if seen.insert(folder.to_owned())
                && let Ok(metadata) = folder.metadata()
            {
                judge_folder(folder, &metadata)?;
            }
        }
        match next_link(&path) {
            Ok(Some(target)) => path = target,
            Ok(None) => break,
            Err(_) => return Ok(()),
        }
    }
    path.metadata().map_or(Ok(()), |metadata| judge_file(&path, &metadata))
}

/// Where the first symlink of a path leads to, with the rest of the path behind it.
fn next_link(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    for step in steps {
        if step.symlink_metadata()?.is_symlink() {
            let target = step.read_link()?;
            let rest = path.strip_prefix(step).unwrap_or(Path::new(""));
            let folder = step.parent().unwrap_or(Path::new("/"));
            let whole = normal(&folder.join(target).join(rest));
            return Ok(Some(whole));
        }
    }
    Ok(None)
}

/// Without `.` and `..`; what was before them is no symlink any more.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn judge_file(path: &Path, metadata: &Metadata) -> Result<(), Untrusted> {
    let path = path.display();
    if metadata.uid() != 0 {
        return Err(Untrusted {
            why: format!("{path} belongs to user {}", metadata.uid()),
            remedy: format!("chown root {path}"),
        });
    }
    if is_writable_by_others(metadata) {
        return Err(Untrusted {
            why: format!("{path} may be written by others (mode {:04o})", metadata.mode() & 0o7777),
            remedy: format!("chmod go-w {path}"),
        });
    }
    Ok(())
}

fn judge_folder(path: &Path, metadata: &Metadata) -> Result<(), Untrusted> {
    let path = path.display();
    if metadata.uid() != 0 {
        return Err(Untrusted {
            why: format!("its folder {path} belongs to user {}", metadata.uid()),
            remedy: format!("chown root {path}, or keep the file in a folder of root's"),
        });
    }
    let is_sticky = metadata.mode() & 0o1000 != 0;
    if is_writable_by_others(metadata) && !is_sticky {
        return Err(Untrusted {
            why: format!(
                "its folder {path} may be written to by others (mode {:04o})",
                metadata.mode() & 0o7777
            ),
            remedy: format!("chmod go-w {path}"),
        });
    }
    Ok(())
}

/// The group of root counts as root.
fn is_writable_by_others(metadata: &Metadata) -> bool {
    let mode = metadata.mode();
    mode & 0o002 != 0 || (mode & 0o020 != 0 && metadata.gid() != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn remedy(path: &Path) -> Option<String> {
        only_root_writes(path).err().map(|untrusted| untrusted.remedy)
    }

    #[test]
    fn everything_on_the_way_must_be_of_root() {
        if !nix::unistd::geteuid().is_root() {
            // Nothing that an ordinary user makes is of root.
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("f");
            fs::write(&file, "").unwrap();
            assert!(only_root_writes(&file).is_err());
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("stigmer.yaml");
        fs::write(&file, "").unwrap();
        mode(&file, 0o644);
        assert_eq!(remedy(&file), None, "/tmp itself is fine: it is sticky");
        mode(&file, 0o664);
        assert_eq!(remedy(&file), None, "the group of root");
        chown(&file, None, Some(100)).unwrap();
        assert_eq!(remedy(&file), Some(format!("chmod go-w {}", file.display())));
        mode(&file, 0o646);
        assert_eq!(remedy(&file), Some(format!("chmod go-w {}", file.display())));
        mode(&file, 0o600);
        chown(&file, Some(1000), None).unwrap();
        assert_eq!(remedy(&file), Some(format!("chown root {}", file.display())));
        chown(&file, Some(0), None).unwrap();
        mode(&folder, 0o777);
        assert_eq!(remedy(&file), Some(format!("chmod go-w {}", folder.display())));
        mode(&folder, 0o1777);
        assert_eq!(remedy(&file), None);
        mode(&folder, 0o755);

        // A link is as good as the way to it and the way that it leads.
        let open = scratch.path().join("open");
        fs::create_dir(&open).unwrap();
        let link = open.join("link.yaml");
        symlink("../folder/stigmer.yaml", &link).unwrap();
        assert_eq!(remedy(&link), None);
        mode(&open, 0o777);
        assert_eq!(remedy(&link), Some(format!("chmod go-w {}", open.display())));
        let second = folder.join("second.yaml");
        symlink(&link, &second).unwrap();
        assert_eq!(remedy(&second), Some(format!("chmod go-w {}", open.display())));
        symlink("loop", folder.join("loop")).unwrap();
        assert_eq!(remedy(&folder.join("loop")), None, "whoever reads it will say so");
        assert_eq!(remedy(&folder.join("absent")), None);
    }
}
