//! When the engine gives back memory: once it has been quiet for a moment.
//!
//! What has to be mapped again costs the next event half a millisecond, which is most of what a
//! replacement costs. So after a few events, as a component makes that crashes now and then, it stays for
//! a minute; after something big, such as an `apply` or a `status` of thousands, it is given back at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::memory::{give_back, resident};

/// Big things are over once nothing has happened for this long.
const QUIET: Duration = Duration::from_secs(1);

/// What a few events have needed is kept for this long after the last of them.
const WARM: Duration = Duration::from_secs(60);

/// And at the latest it is looked at after this, where something happens all the time.
const LONGEST: Duration = Duration::from_secs(60);

/// What a few events need to be mapped, in bytes.
const FEW: u64 = 4 * 1024 * 1024;

/// Gives back memory after everything that happens, until the supervisor is gone.
pub(super) async fn tidy(mut happened: watch::Receiver<u64>, mut asked: watch::Receiver<u64>) {
    let mut least = 0;
    loop {
        let latest = Instant::now() + LONGEST;
        let mut patience = QUIET;
        loop {
            let next = latest.min(Instant::now() + patience);
            tokio::select! {
                alive = happened.changed() => if alive.is_err() { return },
                alive = asked.changed() => if alive.is_err() { return },
                () = tokio::time::sleep_until(next) => {
                    let is_big = resident().is_none_or(|now| now > least + FEW);
                    if is_big || patience == WARM || Instant::now() >= latest {
                        break;
                    }
                    patience = WARM;
                }
            }
        }
        give_back();
        least = resident().unwrap_or(0);
        tokio::select! {
            alive = happened.changed() => if alive.is_err() { return },
            alive = asked.changed() => if alive.is_err() { return },
        }
    }
}
