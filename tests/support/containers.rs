//! Container engines of tests, and an image made of busybox.
//!
//! ```text
//!   Engine::shared()   the engine of this machine, or None: the test is skipped, and says so
//!   Engine::private()  a dockerd of this test's own, which may be killed, frozen and started again
//! ```
//!
//! `STIGMER_TEST_CONTAINERS=required` makes a missing engine a failure. No image is fetched: one is made of
//! the machine's static busybox, with the variants that tests need.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::command::{self, Output};
use super::processes::Process;
use super::programs::TestUser;
use super::wait::{patience, poll};

/// The image of the tests: busybox, with all its applets in `/bin`.
pub(crate) const IMAGE: &str = "stigmer-test:busybox";

/// An engine and how `docker` reaches it.
#[derive(Debug)]
pub(crate) struct Engine {
    host: Option<String>,
    own: Option<Own>,
}

/// A dockerd of one test.
#[derive(Debug)]
struct Own {
    root: TempDir,
    daemon: Child,
}

/// Whether a missing engine is a failure.
fn is_required() -> bool {
    std::env::var("STIGMER_TEST_CONTAINERS").is_ok_and(|word| word == "required")
}

/// Says that a test is skipped, or fails it where it must not be.
fn skip<T>(why: &str) -> Option<T> {
    assert!(!is_required(), "containers are required: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    None
}

impl Engine {
    /// The engine of this machine.
    pub(crate) fn shared() -> Option<Self> {
        let host = std::env::var("DOCKER_HOST").ok();
        let engine = Self { host, own: None };
        let asked = engine.try_docker(["version", "--format", "{{.Server.Version}}"]);
        if !asked.is_ok_and(|output| output.code == Some(0)) {
            return skip("no container engine answers");
        }
        if let Some(user) = TestUser::from_environment() {
            let mut asking = engine.command(["version"]);
            user.run(&mut asking);
            if !command::run(asking).is_ok_and(|output| output.code == Some(0)) {
                return skip("the test user may not use the container engine");
            }
        }
        engine.make_image();
        Some(engine)
    }

    /// An engine of this test alone. Its networks are those that need no firewall: `none` and `host`.
    pub(crate) fn private() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || which("dockerd").is_none() {
            return skip("no dockerd that this user can start");
        }
        let root = tempfile::Builder::new()
            .prefix("stigmer-engine-")
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot make a folder: {error}"));
        let daemon = start(root.path());
        let host = Some(format!("unix://{}", root.path().join("docker.sock").display()));
        let mut engine = Self { host, own: Some(Own { root, daemon }) };
        engine.wait_up();
        engine.make_image();
        Some(engine)
    }

    /// `DOCKER_HOST` for a daemon that is to use this engine.
    pub(crate) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    fn own(&mut self) -> &mut Own {
        self.own.as_mut().unwrap_or_else(|| panic!("the shared engine is left alone"))
    }

    /// The pid of a private dockerd.
    fn pid(&mut self) -> u32 {
        self.own().daemon.id()
    }

    /// Freezes a private engine: it takes connections, and answers nothing.
    pub(crate) fn freeze(&mut self) {
        self.send(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&mut self) {
        self.send(Signal::CONT);
    }

    fn send(&mut self, signal: Signal) {
        if let Some(process) = Process::open(self.pid()) {
            process.signal(signal);
        }
    }

    /// Kills a private engine; its containers run on for the moment.
    pub(crate) fn kill(&mut self) {
        let own = self.own();
        let _ = own.daemon.kill();
        let _ = own.daemon.wait();
    }

    /// Stops a private engine in order, which ends its containers.
    pub(crate) fn stop(&mut self) {
        self.send(Signal::TERM);
        let pid = self.pid();
        if let Some(process) = Process::open(pid) {
            assert!(process.wait_gone(patience()), "dockerd does not end");
        }
        let _ = self.own().daemon.wait();
    }

    /// Starts a private engine again that was killed or stopped.
    pub(crate) fn start_again(&mut self) {
        let own = self.own();
        let root = own.root.path().to_owned();
        // The one that was killed has left its mark.
        for mark in ["docker.pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(root.join(mark));
        }
        own.daemon = start(&root);
        self.wait_up();
    }

    fn wait_up(&mut self) {
        let up = poll(patience(), || {
            let asked = self.try_docker(["version", "--format", "{{.Server.Version}}"]).ok()?;
            (asked.code == Some(0)).then_some(())
        });
        let log = self.own.as_ref().map(|own| own.root.path().join("dockerd.log"));
        let log = log.and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
        assert!(up.is_some(), "dockerd does not come up: {log}");
    }

    /// A `docker` command, not run yet.
    pub(crate) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments);
        match &self.host {
            Some(host) => command.env("DOCKER_HOST", host),
            None => command.env_remove("DOCKER_HOST"),
        };
        command
    }

    fn try_docker<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<Output, String> {
        command::run(self.command(arguments))
    }

    /// Runs `docker`, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let output = self.try_docker(arguments).unwrap_or_else(|problem| panic!("{problem}"));
        output.expect_code(0).stdout.trim_end().to_owned()
    }

    /// What `docker inspect` says, through a template; `None` if it is not there.
    pub(crate) fn inspect(&self, what: &str, template: &str) -> Option<String> {
        let output = self.try_docker(["inspect", "--format", template, what]).ok()?;
        (output.code == Some(0)).then(|| output.stdout.trim_end().to_owned())
    }

    /// The identifiers of all containers with a label, whatever they do.
    pub(crate) fn with_label(&self, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let listed = self.docker(["ps", "-aq", "--no-trunc", "--filter", &filter]);
        listed.lines().map(str::to_owned).collect()
    }

    /// An image of busybox with changes in the words of a Dockerfile, made once.
    pub(crate) fn variant(&self, name: &str, changes: &[&str]) -> String {
        let image = format!("stigmer-test:{name}");
        if self.inspect(&image, "{{.Id}}").is_none() {
            let mut arguments = vec!["import"];
            for change in changes {
                arguments.extend(["--change", change]);
            }
            arguments.extend(["-", &image]);
            self.import(&arguments);
        }
        image
    }

    fn make_image(&self) {
        self.variant("busybox", &[]);
    }

    fn import(&self, arguments: &[&str]) {
        let mut importing = self
            .command(arguments.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run docker: {error}"));
        if let Some(mut input) = importing.stdin.take() {
            input.write_all(archive()).unwrap_or_else(|error| panic!("docker import: {error}"));
        }
        let status = importing.wait();
        assert!(status.is_ok_and(|status| status.success()), "docker {arguments:?} failed");
    }

    /// Removes what a home has left behind, and says what that was.
    pub(crate) fn clean(&self, home_id: &str, project: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let label = format!("stigmer.home={home_id}");
        let filter = format!("label={label}");
        // An engine that a failing test has ended has nothing to be cleaned.
        let list = |arguments: &[&str]| -> Vec<String> {
            let listed = self.try_docker(arguments.iter().copied().chain(["--filter", &filter]));
            let listed = listed.map(|output| output.stdout).unwrap_or_default();
            listed.lines().map(str::to_owned).collect()
        };
        for id in list(&["ps", "-aq"]) {
            problems.push(format!("left by `down --all`: container {id}"));
            drop(self.try_docker(["rm", "-f", "-v", &id]));
        }
        for id in list(&["network", "ls", "-q"]) {
            problems.push(format!("left by `down --all`: network {id} of {project}"));
            drop(self.try_docker(["network", "rm", &id]));
        }
        // Volumes stay, as they should.
        for id in list(&["volume", "ls", "-q"]) {
            drop(self.try_docker(["volume", "rm", "-f", &id]));
        }
        problems
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.own.is_none() {
            return;
        }
        self.thaw();
        self.send(Signal::TERM);
        if let Some(process) = Process::open(self.pid())
            && !process.wait_gone(Duration::from_secs(20))
        {
            process.signal(Signal::KILL);
        }
        let _ = self.own().daemon.wait();
        // What lived on when it was killed.
        if let Some(own) = &self.own {
            end_belonging_to(own.root.path());
        }
    }
}

/// Kills what a dockerd has left: containerd, its shims, and what ran in containers.
fn end_belonging_to(root: &Path) {
    let folder = std::fs::read_dir(root.join("data/containers"));
    let ids: Vec<String> = folder
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let gone = poll(Duration::from_secs(20), || {
        let mut left = super::processes::belonging_to(root);
        left.extend(super::processes::in_cgroups_named(&ids));
        for found in &left {
            found.process.signal(Signal::KILL);
        }
        left.is_empty().then_some(())
    });
    if gone.is_none() {
        let _ = writeln!(std::io::stderr(), "something of {} is left", root.display());
    }
    // Mounts of containers would keep the folder.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for mount in ours.filter(|mount| Path::new(mount).starts_with(root)) {
        let _ = Command::new("umount").args(["-l", mount]).status();
    }
}

fn start(root: &Path) -> Child {
    let path = |name: &str| root.join(name).display().to_string();
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(root.join("dockerd.log"))
        .unwrap_or_else(|error| panic!("cannot make a log: {error}"));
    let errors = log.try_clone().unwrap_or_else(|error| panic!("cannot use a log: {error}"));
    // In a network of its own: a second dockerd would take the first one's bridge away.
    let mut command = Command::new("unshare");
    command
        .args(["--net", "dockerd"])
        .args(["--host", &format!("unix://{}", path("docker.sock"))])
        .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
        .args(["--pidfile", &path("docker.pid")])
        .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
        .args(["--storage-driver", "vfs"])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    if let Some(user) = TestUser::from_environment() {
        command.args(["--group", &user.uid.to_string()]);
    }
    command.spawn().unwrap_or_else(|error| panic!("cannot start dockerd: {error}"))
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The root file system of the image, as a tar archive.
fn archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let busybox = which("busybox").unwrap_or_else(|| panic!("busybox-static is not installed"));
        let mut archive = tar::Builder::new(Vec::new());
        let fail = |error: std::io::Error| -> ! { panic!("cannot make an image: {error}") };
        let mut file = std::fs::File::open(&busybox).unwrap_or_else(|error| fail(error));
        archive.append_file("bin/busybox", &mut file).unwrap_or_else(|error| fail(error));
        let listed = Command::new(&busybox).arg("--list").output();
        let listed = listed.unwrap_or_else(|error| fail(error)).stdout;
        let mut entry = |kind: tar::EntryType, name: &str, to: &str, mode: u32| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(mode);
            if to.is_empty() {
                header.set_cksum();
                archive.append_data(&mut header, name, std::io::empty())
            } else {
                archive.append_link(&mut header, name, to)
            }
            .unwrap_or_else(|error| panic!("cannot make an image: {error}"));
        };
        for applet in String::from_utf8_lossy(&listed).lines().filter(|name| *name != "busybox") {
            entry(tar::EntryType::Symlink, &format!("bin/{applet}"), "busybox", 0o777);
        }
        for (folder, mode) in [("tmp/", 0o1777), ("etc/", 0o755), ("var/", 0o755), ("root/", 0o700)]
        {
            entry(tar::EntryType::Directory, folder, "", mode);
        }
        archive.into_inner().unwrap_or_else(|error| fail(error))
    })
}
