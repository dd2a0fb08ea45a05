//! The real keeper, driven by the test in the engine's place.
//!
//! The keeper starts an engine; the engine here is this very test program, running the one test
//! `engine_relay`, which hands its end of the connection over to the test that wants it and then does as
//! it is told. So the keeper is the shipped one, with nothing in it that is there for tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod ahead;
mod bench;
#[path = "../support/executable.rs"]
mod executable;
mod freeze;
mod launch;
mod succession;
mod survival;
mod trees;

/// Not a test of its own: the engine of the others. Without the variable there is nothing to relay.
#[test]
fn engine_relay() {
    if let Some(path) = std::env::var_os(bench::RELAY) {
        bench::relay(path.as_ref());
    }
}
