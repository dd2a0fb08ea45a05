//! Reading logs: history, merging, following, and the watcher that keeps their times.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic where tests do")]

#[expect(dead_code, reason = "this crate uses a part of it")]
#[path = "support/disk.rs"]
mod disk;
#[path = "logs/follow.rs"]
mod follow;
#[path = "logs/history.rs"]
mod history;
#[path = "logs/measure.rs"]
mod measure;
#[path = "logs/rotate.rs"]
mod rotate;
#[path = "logs/support.rs"]
mod support;
#[path = "logs/watch.rs"]
mod watch;
