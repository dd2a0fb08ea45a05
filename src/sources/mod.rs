//! Outside inputs: manifests are read, and read again when their files change.
//!
//! ```text
//!   apply, reload ──▶ loader (a blocking thread) ──▶ Request ──▶ supervisor
//!                       ├─ apart: `stigmer __load` reads and checks
//!                       └─ room: the daemon may have as many processes as it declares
//!   notify ─▶ watch: quiet for 100 ms, digest differs ─┘
//! ```
//!
//! Reading and checking a large manifest takes time and memory; it happens in a process of its own beside
//! the supervisor's loop, which gets the outcome. What was read with the variables of an apply that is not the last one is not used.
//!
//! Signals are not here: they reach the keeper, which passes them on.

mod apart;
mod loader;
mod room;
mod stations;
mod trusted;
mod watch;

pub use apart::main as load_apart;
pub use loader::{load, rejected, reload};
pub use trusted::only_trusted;
pub use watch::watch;
