//! The same measurements on the real daemon, each in a home of its own, by the real commands.

use std::fmt::Write;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::Scale;
use crate::processes::{proportional_kib, voluntary_switches};
use crate::report::median;
use crate::stamps::Stamps;
use crate::support::ask::DaemonPids;
use crate::support::home::TestHome;

/// The life of a number of components, from their start to their stop.
pub(crate) struct Life {
    pub(crate) start: Duration,
    pub(crate) stop: Duration,
    /// Median of several.
    pub(crate) unchanged: Duration,
    /// Median of several.
    pub(crate) status: Duration,
    pub(crate) wakeups_per_second: f64,
    pub(crate) keeper_kib: f64,
    pub(crate) engine_kib: f64,
}

/// Components without probes that come back at once, as often as they die.
fn manifest(idle: &Path, stamps: Option<&Stamps>, count: usize) -> String {
    let argument = stamps.map(|stamps| format!(", {}", stamps.path().display()));
    let command = format!("[{}{}]", idle.display(), argument.unwrap_or_default());
    // A short min_uptime, so that the timers of the start are over before the idle daemon is
    // watched.
    let mut yaml = String::from(
        "project: bench\n\
         defaults:\n  \
           restart: { max_restarts: unlimited, min_uptime: 1s, backoff: { initial: 0s } }\n\
         components:\n",
    );
    for number in 0..count {
        let _ = writeln!(yaml, "  c{number:05}: {{ command: {command} }}");
    }
    yaml
}

/// A home with a daemon that has one component, so that its own start is in no measurement.
fn warm_home(idle: &Path) -> TestHome {
    let home = TestHome::new();
    let yaml =
        format!("project: warm\ncomponents: {{ one: {{ command: [{}] }} }}\n", idle.display());
    home.write("warm.yaml", yaml);
    home.run(["apply", "-f", "warm.yaml"]).expect_code(0);
    home
}

/// From each kill of the one component to the start of its next process, as that one stamped it.
pub(crate) fn replacements(idle: &Path, kills: usize) -> Vec<Duration> {
    let home = warm_home(idle);
    let stamps = Stamps::at(home.file("stamps"));
    home.apply(&manifest(idle, Some(&stamps), 1));
    stamps.kill_one_after_the_other(kills)
}

/// From the first of `count` kills at once until all have been replaced.
pub(crate) fn storm(idle: &Path, count: usize) -> Duration {
    let home = warm_home(idle);
    let stamps = Stamps::at(home.file("stamps"));
    home.apply(&manifest(idle, Some(&stamps), count));
    stamps.kill_all_at_once(count)
}

/// Start, rest and stop of `count` components.
pub(crate) fn life(idle: &Path, count: usize, scale: Scale) -> Life {
    let home = warm_home(idle);
    let start = home.apply(&manifest(idle, None, count)).took;
    let unchanged = median((0..scale.repeats.div_ceil(4)).map(|_| {
        let before = home.component("c00000")["pid"].clone();
        let took = home.run(["apply"]).expect_code(0).took;
        assert_eq!(home.component("c00000")["pid"], before, "an unchanged apply restarted it");
        took
    }));
    let status = median((0..scale.repeats).map(|_| home.run(["status"]).expect_code(0).took));
    home.wait_for("all components to be stable", || {
        let status = home.try_status_json()?;
        let components = status["components"].as_array()?;
        components.iter().all(|component| component["stage"] == "stable").then_some(())
    });
    let Some(pids) = home.daemon_pids() else { panic!("no daemon\n{}", home.what_is_known()) };
    let wakeups_per_second = wakeups(pids, scale.idle_seconds);
    let kib = |pid| f64::from(u32::try_from(proportional_kib(pid)).unwrap_or(u32::MAX));
    let (keeper_kib, engine_kib) = (kib(pids.keeper), kib(pids.engine));
    let stop = home.run(["stop"]).expect_code(0).took;
    Life { start, stop, unchanged, status, wakeups_per_second, keeper_kib, engine_kib }
}

/// Wake-ups a second of a daemon that nobody asks anything.
fn wakeups(pids: DaemonPids, seconds: u32) -> f64 {
    let both = [pids.keeper, pids.engine];
    // The answer to the last command is still being cleared away.
    let_pass(Duration::from_secs(1));
    let before = voluntary_switches(&both);
    let_pass(Duration::from_secs(seconds.into()));
    let switches = voluntary_switches(&both) - before;
    f64::from(u32::try_from(switches).unwrap_or(u32::MAX)) / f64::from(seconds)
}

/// Time itself is what is measured by here, so there is no state to wait for.
fn let_pass(duration: Duration) {
    let (_keeps_it_open, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(duration);
}
