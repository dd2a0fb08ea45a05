//! Log files: their time index, reading, merging and following.
//!
//! ```text
//!   component --appends--> NAME.log <--inotify-- watch::LogWatcher --appends--> NAME.log.idx
//!                             |                        | Extent                     |
//!                             v                        v                            v
//!                          lines, tail  ----------> read (history) -> follow     times
//! ```
//!
//! A component appends to its own log; nothing of stigmer stands between (S48). This module reads. The
//! only things that it writes are the indexes, and a lost or damaged index costs times, never lines.
//!
//! Positions. A place in a log is counted in bytes from the log's birth, and not from the beginning of
//! the file: rotation removes the head of the file, and a person may truncate it. The index remembers
//! how many bytes are gone (`base`); position = base + offset in the file. Positions never go down, so
//! the boundaries of runs and the place of a follower stay true. For a log that was never shortened
//! they are plain offsets. `end_position` is where the next run begins.
//!
//! Times. A record of the index says up to which position the file had grown at which time of the wall
//! clock. A line has the time at which its first byte was seen (S50): exact to some milliseconds while
//! the engine runs, and the file's own time for what came while it did not.
//!
//! Invariants
//! - Bytes are kept as they are: NUL, invalid UTF-8, carriage returns. Escaping is for the display.
//! - Memory is bounded by blocks, whatever the log holds: a line longer than `PIECE` comes in pieces.
//! - No descriptor is held between two reads, so thousands of logs can be merged.
//!
//! It deliberately lacks rotation (see `LogWatcher::shorten` for how to do it without confusing a
//! reader), parsing of lines, and any knowledge of components.

mod file;
mod follow;
mod gzip;
mod header;
mod index;
mod inotify;
mod lines;
mod problem;
mod read;
mod rotate;
mod rotated;
mod since;
mod tail;
mod times;
mod watch;

pub use file::{Extent, end_position, extent, is_passed_over};
pub use follow::LogStream;
pub use index::index_path;
pub use lines::{Ending, Lines, PIECE, Piece};
pub use read::{Line, LogSource, Merged, Query, ReadError, read};
pub use rotate::{Held, Holding, Keep, Stillness};
pub use since::parse_since;
pub use tail::tail;
pub use times::position_before;
pub use watch::{LogWatcher, WallClock, system_clock};
