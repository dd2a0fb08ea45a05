//! What supervision costs: the real daemon, beside a bare loop of `posix_spawn` and `waitpid` that is
//! measured in the same run with the same program (`examples/idle.rs`).
//!
//! ```text
//! cargo build --release --examples && cargo bench --bench supervise [-- --quick] [-- --json FILE]
//!
//!   bare    ── posix_spawn, waitpid ─────────────────────────> idle  ─┐ each run of it stamps its
//!   daemon  ── stigmer apply ──> engine ──> keeper ── spawn ─> idle  ─┘ own start on the clock
//! ```
//!
//! What is measured is what somebody outside sees: whole commands, and the time at which a process
//! that was started has run, as that process itself wrote it down. Nothing inside stigmer is asked.
//! A ratio to the bare loop says more than a time, which is mostly about the machine.
//!
//! It fails where stigmer does not do what it was told, and never because something was slow: slow
//! is for a reader to judge. docs/benchmarks.md tells what each row means.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is its purpose")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::report::Report;
use crate::support::programs::Programs;

mod bare;
mod daemon;
mod processes;
mod report;
mod spawn;
mod stamps;
#[expect(dead_code, reason = "the benchmark uses a part of the harness")]
#[path = "../../tests/support/mod.rs"]
mod support;

#[derive(Parser)]
#[command(about = "Measures what supervision costs, beside a bare loop")]
struct Options {
    /// A tenth of everything, to see that it works rather than how fast
    #[arg(long)]
    quick: bool,
    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by `cargo bench`; without it (`cargo test --benches`) the run is quick
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    /// Single kills, one after the other.
    kills: usize,
    /// Processes that are killed all at once.
    storm: usize,
    /// A few components.
    small: usize,
    /// Many components.
    large: usize,
    /// How often a command is repeated for its median.
    repeats: usize,
    /// For how many seconds an idle daemon is watched.
    idle_seconds: u32,
}

impl Scale {
    const FULL: Self =
        Self { kills: 200, storm: 200, small: 100, large: 1000, repeats: 20, idle_seconds: 10 };
    const QUICK: Self =
        Self { kills: 20, storm: 20, small: 10, large: 100, repeats: 3, idle_seconds: 2 };
}

fn main() -> ExitCode {
    let options = Options::parse();
    let scale = if options.quick || !options.bench { Scale::QUICK } else { Scale::FULL };
    match run(scale, options.json.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("supervise: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(scale: Scale, json: Option<&std::path::Path>) -> Result<(), String> {
    let idle = Programs::built().example("idle");
    let mut report = Report::new(scale.kills != Scale::FULL.kills);
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };

    eprintln!("crash to replacement, {} times ...", scale.kills);
    let bare = bare::replacements(&idle, scale.kills).map_err(failed("the bare loop"))?;
    let daemon = daemon::replacements(&idle, scale.kills);
    report.percentiles("crash to replacement", &daemon, &bare);

    eprintln!("a storm of {} crashes ...", scale.storm);
    let bare = bare::storm(&idle, scale.storm).map_err(failed("the bare loop"))?;
    let daemon = daemon::storm(&idle, scale.storm);
    report.time(&format!("storm of {} crashes, until all are replaced", scale.storm), daemon, bare);

    for count in [scale.small, scale.large] {
        eprintln!("{count} components ...");
        let bare = bare::start_and_stop(&idle, count).map_err(failed("the bare loop"))?;
        let daemon = daemon::life(&idle, count, scale);
        report.time(&format!("start of {count}"), daemon.start, bare.start);
        report.time(&format!("stop of {count}"), daemon.stop, bare.stop);
        report.single(&format!("apply of {count}, unchanged"), daemon.unchanged);
        report.single(&format!("status of {count}"), daemon.status);
        report.number(&format!("idle wake-ups with {count}"), daemon.wakeups_per_second, "1/s");
        report.number(&format!("memory of the keeper with {count}"), daemon.keeper_kib, "KiB");
        report.number(&format!("memory of the engine with {count}"), daemon.engine_kib, "KiB");
    }

    println!("{}", report.markdown());
    if let Some(path) = json {
        std::fs::write(path, report.json())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
