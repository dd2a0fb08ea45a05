//! Reading logs: history, merging, following, and the watcher that keeps their times.

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
