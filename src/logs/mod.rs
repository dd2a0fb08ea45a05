//! Log files: the time index, reading, following.
