//! stigmer: a declarative process manager. See ARCHITECTURE.md for the house.

pub mod api;
pub mod blocking;
pub mod cli;
pub mod clock;
pub mod container;
pub mod crash;
mod daemon_log;
mod descriptor;
pub mod engine;
pub mod home;
pub mod keeper;
pub mod logs;
pub mod machine;
pub mod manifest;
pub mod memory;
pub mod model;
pub mod plan;
pub mod runner;
pub mod sources;
pub mod store;
pub mod supervisor;
pub mod trust;
pub mod unix_socket;
pub mod upgrade;
