//! A home folder of one test: its files, its commands, and its thorough end. What a test asks and
//! waits for is in `ask`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::ask::DaemonPids;
use super::command::{self, Output, Running};
use super::containers::Engine;
use super::executable::write_executable;
use super::groups;
use super::processes::{Found, belonging_to};
use super::programs::{Programs, TestUser};
use super::wait::poll;

/// A home folder and a project folder, with at most one daemon, that are gone when this is dropped.
#[derive(Debug)]
pub(crate) struct TestHome {
    root: TempDir,
    programs: Programs,
    user: Option<TestUser>,
    /// The engine of its containers, if it has any.
    engine: Option<Arc<Mutex<Engine>>>,
}

impl TestHome {
    /// A home for the programs that cargo built.
    pub(crate) fn new() -> Self {
        Self::with_programs(Programs::built())
    }

    /// A home on another file system.
    pub(crate) fn on(place: &Path) -> Self {
        Self::in_place(place, Programs::built())
    }

    /// A home for other programs.
    pub(crate) fn with_programs(programs: Programs) -> Self {
        Self::in_place(&std::env::temp_dir(), programs)
    }

    fn in_place(place: &Path, programs: Programs) -> Self {
        let root = tempfile::Builder::new()
            .prefix("stigmer-")
            .tempdir_in(place)
            .unwrap_or_else(|error| panic!("cannot make a folder: {error}"));
        let user = TestUser::from_environment();
        let home = Self { root, programs, user, engine: None };
        if let Some(user) = home.user {
            home.programs.assert_reachable_by(user);
            user.own(home.root.path());
        }
        for folder in ["h", "p", "bin"] {
            let path = home.root.path().join(folder);
            fs::create_dir(&path)
                .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
            home.user.into_iter().for_each(|user| user.own(&path));
        }
        home
    }

    /// A home whose containers are those of this engine.
    pub(crate) fn with_engine(engine: &Arc<Mutex<Engine>>) -> Self {
        let mut home = Self::new();
        home.engine = Some(engine.clone());
        home
    }

    /// A name for the project, which no other test's project has.
    pub(crate) fn project_name(&self) -> String {
        let name = self.root.path().file_name().unwrap_or_default().to_string_lossy();
        name.replace("stigmer-", "t").to_lowercase()
    }

    /// The name of a component's container.
    pub(crate) fn container(&self, component: &str) -> String {
        format!("{}.{component}", self.project_name())
    }

    /// The folder that holds all others.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// `STIGMER_HOME`.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.path().join("h")
    }

    /// The folder of the manifest, in which commands run.
    pub(crate) fn project(&self) -> PathBuf {
        self.root.path().join("p")
    }

    /// A file or folder of the project.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.project().join(name)
    }

    /// The path of an example, to be written into a manifest.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        self.programs.example(name)
    }

    /// The program under test.
    pub(crate) fn stigmer(&self) -> &Path {
        self.programs.stigmer()
    }

    /// The user as whom stigmer runs, if that is not the user of the test.
    pub(crate) fn user(&self) -> Option<TestUser> {
        self.user
    }

    /// Whether the stigmer of this home is run by root.
    pub(crate) fn is_root(&self) -> bool {
        self.user.is_none() && rustix::process::geteuid().is_root()
    }

    /// Makes a folder of the project.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.file(name);
        self.make_folder(&path);
        path
    }

    /// Makes a private folder for whoever runs stigmer.
    pub(crate) fn make_folder(&self, path: &Path) {
        fs::create_dir(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        self.user.into_iter().for_each(|user| user.own(path));
    }

    /// Writes a file of the project by renaming, so that nobody reads half of it.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        let draft = path.with_extension("draft");
        fs::write(&draft, content)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", draft.display()));
        self.put_in_place(&draft, &path);
        path
    }

    /// Writes a program or a script of the project, likewise, that anybody may execute.
    #[track_caller]
    pub(crate) fn executable(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        let draft = path.with_extension("draft");
        write_executable(&draft, content, 0o755);
        self.put_in_place(&draft, &path);
        path
    }

    fn put_in_place(&self, draft: &Path, path: &Path) {
        self.user.into_iter().for_each(|user| user.own(draft));
        fs::rename(draft, path)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Writes `stigmer.yaml`.
    pub(crate) fn manifest(&self, yaml: &str) -> PathBuf {
        self.write("stigmer.yaml", yaml)
    }

    /// A stigmer command, ready to be run: in the project's folder, with an environment that has
    /// nothing of the test's.
    pub(crate) fn command<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = Command::new(self.programs.stigmer());
        let bin = self.root.path().join("bin");
        command
            .args(arguments)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
            .env("HOME", self.root.path())
            .env("STIGMER_HOME", self.home())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env("RUST_BACKTRACE", "1");
        if let Some(engine) = &self.engine
            && let Some(host) = lock(engine).host()
        {
            command.env("DOCKER_HOST", host);
        }
        self.user.into_iter().for_each(|user| user.run(&mut command));
        command
    }

    /// The same by way of another program, such as `setsid` with its options.
    pub(crate) fn command_through(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let stigmer = self.command(arguments);
        let (program, options) = wrapper.split_first().unwrap_or_else(|| panic!("no wrapper"));
        let mut command = Command::new(program);
        command.args(options).arg(stigmer.get_program()).args(stigmer.get_args());
        command.current_dir(self.project()).env_clear();
        for (name, value) in stigmer.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        self.user.into_iter().for_each(|user| user.run(&mut command));
        command
    }

    /// Runs a stigmer command to its end, whatever that is.
    #[track_caller]
    pub(crate) fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Output {
        self.run_command(self.command(arguments))
    }

    /// Runs a command that was made by `command` and changed since.
    #[track_caller]
    pub(crate) fn run_command(&self, command: Command) -> Output {
        match command::run(command) {
            Ok(output) => output,
            Err(problem) => panic!("{problem}\n{}", self.what_is_known()),
        }
    }

    /// Starts a stigmer command that goes on.
    pub(crate) fn follow<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Running {
        Running::start(self.command(arguments))
    }

    /// Writes the manifest and applies it; fails the test unless everything becomes ready.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) -> Output {
        self.manifest(yaml);
        let output = self.run(["apply"]);
        assert_eq!(output.code, Some(0), "apply: {output:#?}\n{}", self.what_is_known());
        output
    }

    /// For the message of a test that fails: the status, the events, the daemon's log, the processes.
    pub(crate) fn what_is_known(&self) -> String {
        let said = |arguments: &[&str]| match command::run(self.command(arguments)) {
            Ok(output) => format!("{}{}", output.stdout, output.stderr),
            Err(problem) => problem,
        };
        let log = self.daemon_log();
        let lines: Vec<&str> = log.lines().collect();
        let processes: Vec<String> = belonging_to(self.root.path())
            .iter()
            .map(|found| format!("{} {}", found.process.pid(), found.command))
            .collect();
        format!(
            "--- status\n{}--- events\n{}--- the end of daemon.log\n{}\n--- processes\n{}\n",
            said(&["status", "--all", "-o", "wide"]),
            said(&["events", "--all"]),
            lines[lines.len().saturating_sub(60)..].join("\n"),
            processes.join("\n"),
        )
    }

    /// Ends everything, and says what should have ended before.
    fn end(&self) -> Vec<String> {
        let mut problems = self.end_processes();
        let left = groups::remove_those_of(&self.home());
        if !left.is_empty() {
            problems.push(format!("control groups that cannot be removed: {left:?}"));
        }
        problems
    }

    fn end_processes(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let root = self.root.path();
        if belonging_to(root).is_empty() {
            return problems;
        }
        let pids = self.daemon_pids();
        match command::run(self.command(["down", "--all"])) {
            Ok(output) if output.code == Some(0) => {
                let is_daemon = |found: &Found| {
                    found.program == self.programs.stigmer()
                        || pids.is_some_and(|pids| {
                            [pids.keeper, pids.engine].contains(&found.process.pid())
                        })
                };
                let left = || -> Vec<Found> {
                    belonging_to(root).into_iter().filter(|found| !is_daemon(found)).collect()
                };
                // A probe that was cut off may take a moment; a component may not, but a look
                // cannot tell the two apart.
                if poll(Duration::from_secs(5), || left().is_empty().then_some(())).is_none() {
                    problems.push(format!("left running by `down --all`: {:#?}", left()));
                }
            }
            // 4: no daemon. A test that killed it has killed it on purpose.
            Ok(output) if output.code == Some(4) => {}
            Ok(output) => problems.push(format!("down --all: {output:#?}")),
            Err(problem) => problems.push(problem),
        }
        if let Err(problem) = kill_all(root, pids) {
            problems.push(problem);
        }
        if let Some(engine) = &self.engine
            && let Ok(id) = fs::read_to_string(self.home().join("home-id"))
        {
            problems.extend(lock(engine).clean(id.trim(), &self.project_name()));
        }
        problems
    }
}

/// A test that failed has not broken the engine.
pub(crate) fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills whatever belongs to the home, again and again until nothing does; the keeper first, so
/// that it starts nothing in the meantime.
fn kill_all(root: &Path, pids: Option<DaemonPids>) -> Result<(), String> {
    let keeper = pids.map(|pids| pids.keeper);
    let mut stubborn: BTreeSet<u32> = BTreeSet::new();
    let gone = poll(Duration::from_secs(20), || {
        let mut left = belonging_to(root);
        left.sort_by_key(|found| Some(found.process.pid()) != keeper);
        for found in &left {
            found.process.signal(Signal::KILL);
        }
        stubborn = left.iter().map(|found| found.process.pid()).collect();
        left.is_empty().then_some(())
    });
    gone.ok_or_else(|| format!("these processes cannot be killed: {stubborn:?}"))
}

impl Drop for TestHome {
    fn drop(&mut self) {
        let failing = thread::panicking();
        let problems = self.end();
        if (failing || !problems.is_empty()) && std::env::var_os("STIGMER_TEST_KEEP").is_some() {
            self.root.disable_cleanup(true);
            let _ = writeln!(std::io::stderr(), "kept: {}", self.root.path().display());
        }
        if failing {
            let _ = writeln!(std::io::stderr(), "{}", problems.join("\n"));
        } else {
            assert!(problems.is_empty(), "{}", problems.join("\n"));
        }
    }
}
