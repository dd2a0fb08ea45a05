//! The kinds of probe.
