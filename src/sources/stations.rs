//! Where a change can make a path lead elsewhere: the file itself, each symlink on the way to it, and
//! what is missing of it.
//!
//! ```text
//!   /etc/app/stigmer.yaml ─▶ ..data/stigmer.yaml ─▶ ..2024/stigmer.yaml
//!        station 1               station 2 (..data)      station 3
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows.
const LINKS: usize = 40;

/// The stations of an absolute path. The folder of each exists when this returns.
pub(super) fn stations(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest: VecDeque<OsString> = parts(path);
    let mut current = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            current.pop();
            continue;
        }
        let next = current.join(&part);
        let Ok(metadata) = fs::symlink_metadata(&next) else {
            found.push(next);
            return found;
        };
        if metadata.is_symlink() {
            found.push(next.clone());
            links += 1;
            let Ok(target) = fs::read_link(&next) else { return found };
            if links > LINKS {
                return found;
            }
            if target.is_absolute() {
                current = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                rest.push_front(part);
            }
        } else if rest.is_empty() {
            found.push(next);
        } else {
            current = next;
        }
    }
    found
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_a_station() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(root.join("v1")).unwrap();
        fs::write(root.join("v1/stigmer.yaml"), "").unwrap();
        symlink("v1", root.join("current")).unwrap();
        symlink(root.join("current/stigmer.yaml"), root.join("stigmer.yaml")).unwrap();
        let expected = ["stigmer.yaml", "current", "v1/stigmer.yaml"].map(|name| root.join(name));
        assert_eq!(stations(&root.join("stigmer.yaml")), expected);
    }

    #[test]
    fn what_is_missing_is_waited_for_where_it_would_appear() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        assert_eq!(stations(&root.join("a/b/stigmer.yaml")), [root.join("a")]);
        symlink("loop", root.join("loop")).unwrap();
        assert!(!stations(&root.join("loop/x")).is_empty());
    }
}
