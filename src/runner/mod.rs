//! Performs effects: processes, probes.

pub mod probe;
