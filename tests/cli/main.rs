//! The command line against a daemon that says what the test wants: what it asks, what it prints, how
//! it ends.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod exec;
#[path = "../support/executable.rs"]
mod executable;
mod fake;
mod logs;
mod manifests;
mod progress;
mod status;
mod why;
