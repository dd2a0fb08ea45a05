//! Where the documented JSON differs from the messages: what is not known is null, and information
//! lines are one object in the order of the manifest. Used by the generated code (see `build.rs`).

use serde::Serializer;

use super::v1::InfoLine;

/// A text that is empty while it is not known.
pub fn null_if_empty<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if text.is_empty() { serializer.serialize_none() } else { serializer.serialize_some(text) }
}

/// `{"Web page": "http://..."}`.
pub fn info<S: Serializer>(lines: &[InfoLine], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(lines.iter().map(|line| (&line.name, &line.value)))
}
