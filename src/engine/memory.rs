//! When the engine gives back memory: once it has been quiet for a moment.

use std::time::Duration;

use tokio::sync::watch;

use crate::memory::give_back;

/// Memory is given back once nothing has happened for this long.
const QUIET: Duration = Duration::from_secs(1);

/// And at the latest after this, where something happens all the time.
const LONGEST: Duration = Duration::from_secs(30);

/// Gives back memory after everything that happens, until the supervisor is gone.
pub(super) async fn tidy(mut happened: watch::Receiver<u64>, mut asked: watch::Receiver<u64>) {
    loop {
        let latest = tokio::time::sleep(LONGEST);
        tokio::pin!(latest);
        loop {
            tokio::select! {
                alive = happened.changed() => if alive.is_err() { return },
                alive = asked.changed() => if alive.is_err() { return },
                () = tokio::time::sleep(QUIET) => break,
                () = &mut latest => break,
            }
        }
        give_back();
        tokio::select! {
            alive = happened.changed() => if alive.is_err() { return },
            alive = asked.changed() => if alive.is_err() { return },
        }
    }
}
