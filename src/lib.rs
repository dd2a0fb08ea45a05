//! stigmer: a declarative process manager. See ARCHITECTURE.md for the house.

pub mod api;
pub mod cli;
pub mod home;
pub mod keeper;
pub mod logs;
pub mod machine;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod runner;
pub mod store;
pub mod supervisor;
