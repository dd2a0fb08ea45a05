//! Where the programs under test are, and who runs them.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user `nobody`, who owns nothing on any machine.
const NOBODY: u32 = 65_534;

/// An ordinary user as whom a test run by root runs stigmer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TestUser {
    /// Also the number of the group.
    pub(crate) uid: u32,
}

impl TestUser {
    /// The user that `STIGMER_TEST_USER` asks for: 1 for `nobody`, or a number above it. `None` if it
    /// asks for none, or if the tests are run by an ordinary user anyway.
    pub(crate) fn from_environment() -> Option<Self> {
        let wish = env::var("STIGMER_TEST_USER").ok()?;
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let number: u32 = wish.parse().unwrap_or_else(|error| {
            panic!("STIGMER_TEST_USER is 0, 1 or the number of a user, not {wish:?}: {error}")
        });
        match number {
            0 => None,
            1 => Some(Self { uid: NOBODY }),
            uid => Some(Self { uid }),
        }
    }

    /// Makes `command` run as this user, with no other groups.
    pub(crate) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.uid);
    }

    /// Gives `path` to this user.
    pub(crate) fn own(self, path: &Path) {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.uid))
            .unwrap_or_else(|error| panic!("cannot give {} away: {error}", path.display()));
    }
}

/// The paths of what was built.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    stigmer: PathBuf,
    examples: PathBuf,
}

impl Programs {
    /// The programs that cargo built beside this test, or their copies in `STIGMER_TEST_PROGRAMS`.
    pub(crate) fn built() -> Self {
        let stigmer = env::var_os("STIGMER_TEST_PROGRAMS").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_stigmer")),
            |folder| PathBuf::from(folder).join("stigmer"),
        );
        let examples = stigmer.with_file_name("examples");
        Self { stigmer, examples }
    }

    /// These examples with another program in the place of stigmer.
    pub(crate) fn with_stigmer(self, stigmer: PathBuf) -> Self {
        Self { stigmer, ..self }
    }

    /// The program under test.
    pub(crate) fn stigmer(&self) -> &Path {
        &self.stigmer
    }

    /// The example of this name.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        let path = self.examples.join(name);
        assert!(
            path.is_file(),
            "{} is not there; `cargo build --examples` (with --release for benchmarks) makes it",
            path.display()
        );
        path
    }

    /// Fails where `user` could not execute the programs, rather than with a riddle later on.
    pub(crate) fn assert_reachable_by(&self, user: TestUser) {
        for folder in self.stigmer.ancestors().skip(1) {
            let mode = fs::metadata(folder).map_or(0, |metadata| metadata.permissions().mode());
            assert!(
                mode & 0o001 != 0,
                "user {} cannot enter {}; name a folder with copies of the programs in \
                 STIGMER_TEST_PROGRAMS, as .ci/run does",
                user.uid,
                folder.display()
            );
        }
    }
}
