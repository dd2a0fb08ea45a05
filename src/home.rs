//! Where stigmer keeps things: the home folder and what lies in it.
//!
//! `STIGMER_HOME` if it is set; else, for root, the folders of the file system hierarchy; else
//! `~/.stigmer`. Folders are made with mode 0700; a folder that is a symlink or belongs to somebody
//! else is refused.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The folders of one daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Home {
    /// The database and what must outlive a boot.
    pub state: PathBuf,
    /// Log files: `PROJECT/NAME.log`, and `daemon.log`.
    pub logs: PathBuf,
    /// The socket, the lock and the records of what runs.
    pub run: PathBuf,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Making it or looking at it failed.
    #[error("cannot use the folder {path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not ours, or not a folder.
    #[error("refusing to use {path}: {why}")]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Neither `STIGMER_HOME` nor `HOME` is set.
    #[error("neither STIGMER_HOME nor HOME is set; set STIGMER_HOME to a folder of your own")]
    Unknown,
}

impl Home {
    /// The home folder of this process.
    pub fn from_environment() -> Result<Self, HomeError> {
        let is_root = nix::unistd::geteuid().is_root();
        Self::resolve(env::var_os("STIGMER_HOME"), env::var_os("HOME"), is_root)
    }

    fn resolve(
        stigmer_home: Option<OsString>,
        home: Option<OsString>,
        is_root: bool,
    ) -> Result<Self, HomeError> {
        if let Some(home) = stigmer_home.filter(|home| !home.is_empty()) {
            let path = PathBuf::from(home);
            let path = std::path::absolute(&path)
                .map_err(|source| HomeError::Io { path: path.clone(), source })?;
            return Ok(Self::at(&path));
        }
        if is_root {
            return Ok(Self {
                state: "/var/lib/stigmer".into(),
                logs: "/var/log/stigmer".into(),
                run: "/run/stigmer".into(),
            });
        }
        let home = home.filter(|home| !home.is_empty()).ok_or(HomeError::Unknown)?;
        Ok(Self::at(&Path::new(&home).join(".stigmer")))
    }

    /// A home folder that holds everything.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { state: path.to_owned(), logs: path.join("logs"), run: path.join("run") }
    }

    /// Makes the folders that are missing and checks those that are there.
    pub fn prepare(&self) -> Result<(), HomeError> {
        for path in [&self.state, &self.logs, &self.run] {
            private_folder(path)?;
        }
        Ok(())
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join("stigmer.sock")
    }

    /// Locked for as long as a daemon lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join("daemon.lock")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// The folder of the records of runs (see `keeper`).
    #[must_use]
    pub fn records(&self) -> PathBuf {
        self.run.join("runs")
    }

    /// What the daemon itself writes when it runs detached.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.logs.join("daemon.log")
    }

    /// The log file of an instance: `NAME.log`, and `NAME.1.log` for the second replica.
    #[must_use]
    pub fn component_log(&self, instance: &crate::model::InstanceId) -> PathBuf {
        self.logs.join(&*instance.project).join(format!("{}.log", instance.display_name()))
    }
}

/// Makes `path` with mode 0700, or checks that it is a folder of this user that others cannot enter.
pub fn private_folder(path: &Path) -> Result<(), HomeError> {
    let io_error = |source| HomeError::Io { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error)?;
    let metadata = fs::symlink_metadata(path).map_err(io_error)?;
    let refuse = |why: &str| HomeError::Unsafe { path: path.to_owned(), why: why.to_owned() };
    if !metadata.is_dir() {
        return Err(refuse("it is not a folder of its own (a symbolic link?)"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(refuse("it belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stigmer_home_outranks_root_and_home() {
        let home = Home::resolve(Some("/x".into()), Some("/home/u".into()), true).unwrap();
        assert_eq!(home, Home::at(Path::new("/x")));
    }

    #[test]
    fn root_and_users_have_different_defaults() {
        let root = Home::resolve(None, Some("/root".into()), true).unwrap();
        assert_eq!(root.socket(), Path::new("/run/stigmer/stigmer.sock"));
        let user = Home::resolve(None, Some("/home/u".into()), false).unwrap();
        assert_eq!(user.logs, Path::new("/home/u/.stigmer/logs"));
        assert!(matches!(Home::resolve(None, None, false), Err(HomeError::Unknown)));
    }

    #[test]
    fn a_symlink_is_refused_and_a_wide_mode_is_narrowed() {
        let scratch = tempfile::tempdir().unwrap();
        let real = scratch.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
        private_folder(&real).unwrap();
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o700);
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(private_folder(&link), Err(HomeError::Unsafe { .. })));
    }
}
