//! A stigmer command on a terminal of its own: a pseudo-terminal whose other end the test holds.
//!
//! `setsid --ctty` makes it the controlling terminal, so that Ctrl-C is a signal there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use rustix::process::Signal;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::home::TestHome;
use super::processes::Process;
use super::wait::{patience, poll};

/// The command, its terminal, and everything that has come out of it.
#[derive(Debug)]
pub(crate) struct Terminal {
    keys: File,
    /// Held, so that the terminal outlives the command and its mode can be looked at.
    end: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a stigmer command on a terminal of 40 lines and 100 columns.
    pub(crate) fn start(home: &TestHome, arguments: &[&str]) -> Self {
        let (keys, end) = open();
        size_of(&end, 40, 100);
        // Whoever runs the tests may have SIGHUP ignored (`nohup`), which the command would respect.
        let through = ["env", "--default-signal=HUP", "setsid", "--ctty", "--wait"];
        let mut command = home.command_through(&through, arguments);
        command.env("TERM", "vt100");
        let stream = || Stdio::from(clone(&end));
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, all) = (clone(&keys), seen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend_from_slice(&buffer[..length]);
            }
        });
        Self { keys, end, child, seen }
    }

    /// Everything that has come so far.
    pub(crate) fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Types.
    pub(crate) fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("no terminal: {error}"));
    }

    /// Waits until these bytes have come.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        let came = poll(patience(), || {
            let seen = self.seen();
            seen.windows(text.len()).any(|window| window == text).then_some(())
        });
        let wanted = String::from_utf8_lossy(text);
        let seen = self.seen();
        assert!(came.is_some(), "no {wanted:?} came; it said {:?}", String::from_utf8_lossy(&seen));
    }

    /// Another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        size_of(&self.end, rows, columns);
    }

    /// Whether the terminal shows what is typed and makes signals of keys.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.end).unwrap_or_else(|error| panic!("no terminal: {error}"));
        modes.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Signals the command. It is a child that was not waited for, so that its pid means no other process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = Process::open(self.child.id()) {
            process.signal(signal);
        }
    }

    /// Waits for its end: the exit code and the signal.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> (Option<i32>, Option<i32>) {
        if let Some(process) = Process::open(self.child.id()) {
            let seen = String::from_utf8_lossy(&self.seen()).into_owned();
            assert!(process.wait_gone(patience()), "it did not end; it said {seen:?}");
        }
        match self.child.wait() {
            Ok(status) => (status.code(), status.signal()),
            Err(error) => panic!("cannot wait for it: {error}"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both ends. Marked close-on-exec from the start, for other tests start programs at the same time.
fn open() -> (File, File) {
    let failed = |error: nix::errno::Errno| -> ! { panic!("cannot make a terminal: {error}") };
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let keys = posix_openpt(flags).unwrap_or_else(|error| failed(error));
    grantpt(&keys).and_then(|()| unlockpt(&keys)).unwrap_or_else(|error| failed(error));
    let name = ptsname_r(&keys).unwrap_or_else(|error| failed(error));
    let mut options = OpenOptions::new();
    let end = options.read(true).write(true).custom_flags(libc::O_NOCTTY).open(&name);
    let end = end.unwrap_or_else(|error| panic!("cannot open {name}: {error}"));
    (clone(keys), end)
}

fn clone(descriptor: impl AsFd) -> File {
    let cloned = descriptor.as_fd().try_clone_to_owned();
    File::from(cloned.unwrap_or_else(|error| panic!("no descriptor: {error}")))
}

fn size_of(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap_or_else(|error| panic!("cannot size it: {error}"));
}
