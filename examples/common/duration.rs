//! Durations on the command line, in the way in which a manifest writes them.

use std::time::Duration;

/// Reads `500ms`, `10s` or `1h30m`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration =
        text.parse().map_err(|error| format!("{error}; write for example 500ms or 10s"))?;
    Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())
}
