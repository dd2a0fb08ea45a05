//! Chaos: a fleet of components of every temper, and somebody who kills, stops, edits and fills disks at
//! random, while an observer who asks stigmer for nothing looks whether anything is lost or doubled.
//!
//! ```text
//! cargo test --test chaos -- [--seconds 300] [--seed N] [--components 200] [--round 25]
//!
//!  a round:   storm ──────────────────────────> calm ──────────────────────────────> the next one
//!             monkey: a kill of engine,         all wanted again; some stopped;
//!             keeper, both, a component;        the fleet must converge, the status
//!             hangs; edits good and bad;        must tell what /proc tells, and
//!             stops, starts; a full disk        nothing may have grown
//!
//!  the end:   everything stopped, nothing left; the log of each component byte by byte against the
//!             ledger that its processes kept themselves
//! ```
//!
//! What must hold: at most one live copy of an instance, also of what it forked away (a lock that the
//! kernel keeps); the bystanders, whom nobody touches, are the same processes from the beginning to the end;
//! no zombie of ours for longer than a moment; every line once. It is no part of `cargo test`, for it takes
//! minutes. The seed that it prints repeats its decisions, though not the timing of the machine.
#![expect(clippy::print_stdout, reason = "the report is its purpose")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::calm::Growth;
use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::monkey::Monkey;
use crate::observer::Observer;
use crate::support::disk::SmallDisk;
use crate::support::home::TestHome;

mod books;
mod calm;
mod dice;
mod fleet;
mod monkey;
mod observer;
#[expect(dead_code, reason = "this program uses a part of the harness")]
#[path = "../support/mod.rs"]
mod support;

/// The disk of the logs.
const DISK: u64 = 1024 * 1024 * 1024;

#[derive(Parser)]
#[command(
    about = "Kills, stops, edits and fills disks at random, and looks whether anything is lost"
)]
struct Options {
    /// How long the storms and calms take together, without the checks at the end
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Repeats the decisions of another run
    #[arg(long)]
    seed: Option<u64>,
    /// How many components there are
    #[arg(long, default_value_t = 200)]
    components: usize,
    /// How many seconds a storm takes
    #[arg(long, default_value_t = 25)]
    round: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ dice::now());
    println!("chaos: seed {seed}, {} components, {} s", options.components, options.seconds);
    match run(&options, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("chaos: FAILED, seed {seed}\n{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, seed: u64) -> Result<(), String> {
    let began = Instant::now();
    let home = TestHome::new();
    let disk = log_disk(&home);
    let observer = Observer::start(&home);
    let mut fleet = Fleet::new(options.components);
    for folder in ["ledgers", "sockets"] {
        home.folder(folder);
    }
    let mut monkey = Monkey::new(&home, Dice::new(seed), disk.as_ref());
    let mut growth = Growth::default();
    let mut longest = Duration::ZERO;
    let mut rounds = 0;
    monkey.edit(&mut fleet, 0);
    loop {
        let took = calm::settle(&home, &mut fleet, &mut monkey)
            .map_err(|problem| format!("round {rounds}: {problem}\n{}", home.what_is_known()))?;
        longest = longest.max(took);
        growth.look(&home, options.components)?;
        observer.check()?;
        fleet.check_bystanders(&home)?;
        println!("  round {rounds}: as declared after {took:.1?}; {}", monkey.told);
        if began.elapsed() >= Duration::from_secs(options.seconds) {
            break;
        }
        rounds += 1;
        let end = Instant::now() + Duration::from_secs(options.round);
        while Instant::now() < end {
            monkey.act(&mut fleet);
        }
    }
    calm::stop_all(&home, &fleet, &mut monkey)?;
    let (longest_zombie, whose) = observer.end()?;
    let sums = books::check(&home, &fleet)?;
    println!(
        "chaos: seed {seed}, {rounds} rounds in {:.0?}: {}\n\
         {} processes, 0 doubled; {} bystanders, 0 lost; as declared after at most {longest:.1?}\n\
         {} lines in {} files, 0 lost, 0 doubled, {} cut off by a kill\n\
         zombies for at most {} ms{}; {growth}",
        began.elapsed(),
        monkey.told,
        sums.processes,
        fleet.bystanders().count(),
        sums.lines,
        sums.files,
        sums.cut,
        longest_zombie.as_millis(),
        if longest_zombie.is_zero() { String::new() } else { format!(" ({whose})") },
    );
    let down = home.run(["down", "--all"]);
    drop(disk);
    if down.code == Some(0) { Ok(()) } else { Err(format!("down --all: {down:#?}")) }
}

/// A disk for the logs alone, which may become full: ext4, as root can make one.
fn log_disk(home: &TestHome) -> Option<SmallDisk> {
    let logs = home.home().join("logs");
    home.make_folder(&logs);
    let owner = home.user().map_or(0, |user| user.uid);
    let disk = SmallDisk::ext4_on(&logs, DISK, owner);
    if disk.is_none() {
        println!("  no disk can be mounted: none becomes full in this run");
    }
    disk
}
