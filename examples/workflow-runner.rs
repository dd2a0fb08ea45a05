//! An example of a worker: it asks a server for its health and does one step after the other.
//!
//! It listens on nothing, so stigmer watches it from outside: its startup probe waits for a line of
//! its log, its liveness probe for a file that it touches at every step. It can be made to crash or
//! to hang, by flag, by environment or by signal:
//!
//! ```text
//! --crash-after 5s   RUNNER_CRASH_AFTER=5s   SIGUSR1   exits with code 1
//! --hang-after 5s    RUNNER_HANG_AFTER=5s    SIGUSR2   stops doing steps, but lives on
//! ```
#![expect(clippy::print_stdout, reason = "its output is its log")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[path = "common/duration.rs"]
mod duration;
#[path = "common/signals.rs"]
mod signals;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker that does steps for as long as its server is well.
#[derive(Parser)]
struct Options {
    /// Where the server listens
    #[arg(long, default_value = "http://127.0.0.1:7234", env = "RUNNER_SERVER")]
    server: String,
    /// The service that must be SERVING
    #[arg(long, default_value = "stigmer.Server", env = "RUNNER_SERVICE")]
    service: String,
    /// Time from one step to the next
    #[arg(long, default_value = "1s", env = "RUNNER_EVERY", value_parser = duration::parse)]
    every: Duration,
    /// A file to touch at every step
    #[arg(long, env = "RUNNER_HEARTBEAT")]
    heartbeat: Option<PathBuf>,
    /// Crash this long after the start
    #[arg(long, env = "RUNNER_CRASH_AFTER", value_parser = duration::parse)]
    crash_after: Option<Duration>,
    /// Hang this long after the start
    #[arg(long, env = "RUNNER_HANG_AFTER", value_parser = duration::parse)]
    hang_after: Option<Duration>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    if options.every.is_zero() {
        return Err("--every must be longer than nothing".into());
    }
    let (sender, receiver) = unbounded_channel();
    signals::deliver_to(
        &[Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2],
        move |signal| sender.send(signal).is_ok(),
    )?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work(options, receiver))
}

async fn work(
    options: Options,
    mut signals: UnboundedReceiver<Signal>,
) -> Result<ExitCode, Box<dyn Error>> {
    let channel = Endpoint::from_shared(options.server.clone())?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .connect_lazy();
    let mut server = HealthClient::new(channel);
    let started = Instant::now();
    let mut steps = tokio::time::interval(options.every);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done: u64 = 0;
    // Before it says that it is ready, for from then on it is looked at.
    touch(options.heartbeat.as_deref(), done)?;
    println!("worker ready, working for {} at {}", options.service, options.server);
    loop {
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(Signal::SIGUSR1) => return Ok(crash("a signal")),
                Some(Signal::SIGUSR2) => hang("a signal"),
                _ => {
                    println!("stopped in good order after {done} steps");
                    return Ok(ExitCode::SUCCESS);
                }
            },
            () = at(started, options.crash_after) => return Ok(crash("--crash-after")),
            () = at(started, options.hang_after) => hang("--hang-after"),
            _ = steps.tick() => {
                match ask(&mut server, &options.service).await {
                    Ok(ServingStatus::Serving) => {
                        done += 1;
                        println!("step {done} done");
                    }
                    Ok(status) => println!("waiting: the server is {}", status.as_str_name()),
                    Err(problem) => println!("waiting: {problem}"),
                }
                // Also while the server is away: this worker is alive then, and restarting it
                // would not bring the server back.
                touch(options.heartbeat.as_deref(), done)?;
            }
        }
    }
}

/// Shows whoever watches that it works, and how much it has done.
fn touch(file: Option<&Path>, done: u64) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, format!("{done}\n"))
        .map_err(|error| format!("cannot touch {}: {error}", file.display()))
}

async fn ask(server: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, String> {
    let request = HealthCheckRequest { service: service.to_owned() };
    match server.check(request).await {
        Ok(answer) => Ok(answer.get_ref().status()),
        Err(status) => Err(format!("the server does not answer: {}", status.message())),
    }
}

/// Ends `after` the start; never, where there is no such time.
async fn at(started: Instant, after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep_until(started + after).await,
        None => std::future::pending().await,
    }
}

fn crash(on_whose_behalf: &str) -> ExitCode {
    println!("crashing, as told by {on_whose_behalf}");
    ExitCode::FAILURE
}

/// Never returns, but lives on, so that only a probe can tell.
fn hang(on_whose_behalf: &str) -> ! {
    println!("hanging, as told by {on_whose_behalf}");
    loop {
        thread::park();
    }
}
