//! Where stigmer keeps things: the home folder and what lies in it.
//!
//! `STIGMER_HOME` if it is set; else, for root, the folders of the file system hierarchy; else
//! `~/.stigmer`. Folders are made with mode 0700, and narrowed to it; a folder that is a symlink or
//! belongs to somebody else is refused, and so are files in them that are symlinks or belong to
//! somebody else: others may have put them there while a folder was open to them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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

impl HomeError {
    /// Whether there is no space or no descriptor for the moment, rather than a mistake.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(
            source.raw_os_error(),
            Some(libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE)
        )
    }
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
        for path in [self.database(), self.lock(), self.daemon_log()] {
            own_file(&path)?;
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

    /// The folder in which it is kept how far the logs of containers have come.
    #[must_use]
    pub fn container_logs(&self) -> PathBuf {
        self.run.join("containers")
    }

    /// The identifier of this home folder, by which things outside of it are known to belong to it: a
    /// random number that is made once. It does not go by the path, because an engine may serve several
    /// machines.
    pub fn identity(&self) -> Result<String, HomeError> {
        let path = self.state.join("home-id");
        let io_error = |source| HomeError::Io { path: path.clone(), source };
        for _ in 0..2 {
            match fs::read_to_string(&path) {
                Ok(text) if is_identity(text.trim()) => return Ok(text.trim().to_owned()),
                // Cut off while it was written.
                Ok(_) => fs::remove_file(&path).map_err(io_error)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(error)),
            }
            let mut bytes = [0; 8];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(|errno| io_error(errno.into()))?;
            let text = crate::model::id::hex(&bytes);
            let mut options = fs::OpenOptions::new();
            match options.write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    file.write_all(format!("{text}\n").as_bytes()).map_err(io_error)?;
                    return Ok(text);
                }
                // Somebody else was quicker.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        Err(io_error(io::ErrorKind::InvalidData.into()))
    }

    /// What the daemon itself writes when it runs detached.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.logs.join("daemon.log")
    }

    /// The log file of an instance: `NAME.log`, and `NAME.1.log` for the second replica.
    #[must_use]
    pub fn component_log(&self, instance: &crate::model::InstanceId) -> PathBuf {
        let (folder, name) = (self.logs.as_os_str(), instance.display_name());
        let mut path =
            OsString::with_capacity(folder.len() + instance.project.len() + name.len() + 8);
        for part in [folder, "/".as_ref(), OsStr::new(&*instance.project), "/".as_ref()] {
            path.push(part);
        }
        path.push(name);
        path.push(".log");
        path.into()
    }

    /// Makes the folder of an instance's log, which the keeper opens files in but does not make.
    pub fn prepare_log(&self, instance: &crate::model::InstanceId) -> Result<(), HomeError> {
        private_folder(&self.logs.join(&*instance.project))
    }
}

/// Sixteen hexadecimal digits.
fn is_identity(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes `path` with mode 0700, or checks that it is a folder of this user that others cannot enter.
pub fn private_folder(path: &Path) -> Result<(), HomeError> {
    let io_error = |source| HomeError::Io { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error)?;
            fs::symlink_metadata(path)
        }
        found => found,
    }
    .map_err(io_error)?;
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

/// The file that lies beside another one, of its name with something behind it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Checks that a file in one of our folders is a file of this user's, if it is there. While a folder was
/// open to others, they may have put a symlink there, by which something else would be written.
pub fn own_file(path: &Path) -> Result<(), HomeError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(HomeError::Io { path: path.to_owned(), source }),
    };
    let refuse = |why: &str| HomeError::Unsafe { path: path.to_owned(), why: why.to_owned() };
    if metadata.is_symlink() {
        return Err(refuse("it is a symbolic link; remove it"));
    }
    if !metadata.is_file() {
        return Err(refuse("it is not a file; remove it"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(refuse("it belongs to another user; remove it"));
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
    fn a_home_knows_itself_again() {
        let scratch = tempfile::tempdir().unwrap();
        let home = Home::at(scratch.path());
        let identity = home.identity().unwrap();
        assert!(is_identity(&identity), "{identity}");
        assert_eq!(home.identity().unwrap(), identity);
        fs::write(scratch.path().join("home-id"), "12").unwrap();
        assert_ne!(home.identity().unwrap(), identity);
    }

    #[test]
    fn files_that_are_not_ours_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let home = Home::at(scratch.path());
        home.prepare().unwrap();
        for path in [home.database(), home.lock(), home.daemon_log()] {
            fs::write(&path, "").unwrap();
            home.prepare().unwrap();
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
            let refused = home.prepare().unwrap_err().to_string();
            assert!(refused.contains("symbolic link"), "{refused}");
            assert!(refused.contains(path.to_str().unwrap()), "{refused}");
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert!(home.prepare().unwrap_err().to_string().contains("not a file"));
            fs::remove_dir(&path).unwrap();
            if nix::unistd::geteuid().is_root() {
                fs::write(&path, "").unwrap();
                std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
                let refused = home.prepare().unwrap_err().to_string();
                assert!(refused.contains("another user"), "{refused}");
                fs::remove_file(&path).unwrap();
            }
        }
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
