//! The harness of the end-to-end tests: real programs in a home folder of their own.
//!
//! ```text
//!  TestHome::new() ── /tmp/stigmer-XXXXXX/          one for each test, gone at its end
//!       │               h/  STIGMER_HOME             p/  the project: stigmer.yaml, where commands run
//!       │               bin/  on the PATH of everything that stigmer starts here
//!       ├─ apply, run, follow ──> the real `stigmer`, bounded in time
//!       ├─ status_json, component, events, daemon_log ──> what it says
//!       ├─ wait_for, wait_state, wait_ready ──> a state, never a duration
//!       ├─ kill_engine, kill_keeper ──> what must be survived
//!       └─ Drop ──> `down --all`; nothing may be left then; the daemon is killed; nothing at all is left
//! ```
//!
//! Invariants: no two tests share a folder, a port or a process; only processes that belong to the
//! home are ever signalled, through a pidfd that was opened before the process was looked at; no
//! wait is without a bound. A wait that runs out, and a command that does, print the status, the
//! daemon's log and the events.
//!
//! The unique path of the home is on the `PATH` of whatever stigmer starts in it and so in its
//! environment; by that, its folder or its open files every process that is left over is found, also
//! one that stigmer itself has lost.
//!
//! With `STIGMER_TEST_USER=1` in the environment of a test run by root, every stigmer is run by an
//! ordinary user, who owns the home. `STIGMER_TEST_KEEP=1` keeps the folders of failed tests.
//! `STIGMER_TEST_PATIENCE` is the bound of a wait in seconds. `STIGMER_TEST_PROGRAMS` names a folder
//! with copies of the programs, for a user who cannot enter the build folder.
//!
//! Tests with containers get an engine from `containers` and a home from `TestHome::with_engine`; at its
//! end nothing of the home may be left in the engine either.
//!
//! A test crate that uses only a part of it says so where it declares the module:
//! `#[expect(dead_code, reason = "this crate uses a part of the harness")] mod support;`

pub(crate) mod ask;
pub(crate) mod births;
pub(crate) mod command;
pub(crate) mod containers;
pub(crate) mod disk;
pub(crate) mod elsewhere;
pub(crate) mod executable;
pub(crate) mod groups;
pub(crate) mod home;
pub(crate) mod look;
pub(crate) mod ports;
pub(crate) mod processes;
pub(crate) mod programs;
pub(crate) mod rotated;
pub(crate) mod story;
pub(crate) mod terminal;
pub(crate) mod wait;
