//! When the engine gives back memory: once it has been quiet for a moment.
//!
//! What has to be mapped again costs the next event half a millisecond, which is most of what a
//! replacement costs. So after a few events, as a component makes that crashes now and then, it stays for
//! a minute; after something big, such as an `apply` or a `status` of thousands, it is given back at once.

use std::time::Duration;

use tokio::sync::watch;

use crate::memory::{give_back, resident};

/// Memory is given back once nothing has happened for this long.
const QUIET: Duration = Duration::from_secs(1);

/// And at the latest after this, where something happens all the time.
const LONGEST: Duration = Duration::from_secs(30);

/// What a few events have needed is kept for this long after the last of them, and at most.
const WARM: Duration = Duration::from_secs(60);

/// What a few events need to be mapped, in bytes.
const FEW: u64 = 4 * 1024 * 1024;

/// Gives back memory after everything that happens, until the supervisor is gone.
pub(super) async fn tidy(mut happened: watch::Receiver<u64>, mut asked: watch::Receiver<u64>) {
    let mut least = 0;
    loop {
        if settled(&mut happened, &mut asked, QUIET, LONGEST).await.is_err() {
            return;
        }
        let is_big = resident().is_none_or(|now| now > least + FEW);
        if !is_big && settled(&mut happened, &mut asked, WARM, WARM).await.is_err() {
            return;
        }
        give_back();
        least = resident().unwrap_or(0);
        tokio::select! {
            alive = happened.changed() => if alive.is_err() { return },
            alive = asked.changed() => if alive.is_err() { return },
        }
    }
}

/// Waits until it has been quiet, or for the longest. An error is the end of the supervisor. Its timers end
/// with it: one that ran on would wake up an engine at rest.
async fn settled(
    happened: &mut watch::Receiver<u64>,
    asked: &mut watch::Receiver<u64>,
    quiet: Duration,
    longest: Duration,
) -> Result<(), watch::error::RecvError> {
    let latest = tokio::time::sleep(longest);
    tokio::pin!(latest);
    loop {
        tokio::select! {
            alive = happened.changed() => alive?,
            alive = asked.changed() => alive?,
            () = tokio::time::sleep(quiet) => return Ok(()),
            () = &mut latest => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(flavor = "current_thread")]
    async fn it_settles_once_quiet_or_at_the_latest_and_not_without_a_supervisor() {
        let (happens, mut happened) = watch::channel(0);
        let (_asks, mut asked) = watch::channel(0);
        assert!(settled(&mut happened, &mut asked, LITTLE, LONG).await.is_ok());
        happens.send_replace(1);
        assert!(settled(&mut happened, &mut asked, LONG, LITTLE).await.is_ok());
        drop(happens);
        assert!(settled(&mut happened, &mut asked, LONG, LONG).await.is_err());
    }
}
