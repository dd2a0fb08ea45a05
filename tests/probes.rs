//! Each kind of probe against real sockets, servers, files and processes: pass, fail, hang.
//!
//! A dropped probe must leave nothing behind. Every test has a runtime of its own, so that its count
//! of tasks is exact, and a socket is looked for by its own inode, so that tests may run in parallel.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic where tests do")]

#[path = "probes/grpc.rs"]
mod grpc;
#[path = "probes/http.rs"]
mod http;
#[path = "probes/local.rs"]
mod local;
#[path = "probes/sockets.rs"]
mod sockets;
#[path = "probes/support.rs"]
mod support;
