//! Reading logs: history, merging, following, and the watcher that keeps their times.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic where tests do")]

#[path = "logs/follow.rs"]
mod follow;
#[path = "logs/history.rs"]
mod history;
#[path = "logs/measure.rs"]
mod measure;
#[path = "logs/support.rs"]
mod support;
#[path = "logs/watch.rs"]
mod watch;
