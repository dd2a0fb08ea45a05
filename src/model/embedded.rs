//! Values that only a format which describes itself can hold, in those that do not: as a text of JSON.
//!
//! For `serde(with = "…")` of what is free JSON, has flattened fields, or is less in other formats than as a
//! text. In JSON itself nothing changes.

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<T, S>(value: &T, to: S) -> Result<S::Ok, S::Error>
where
    T: Serialize,
    S: Serializer,
{
    if to.is_human_readable() {
        return value.serialize(to);
    }
    let text = serde_json::to_string(value).map_err(S::Error::custom)?;
    to.serialize_str(&text)
}

pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    if from.is_human_readable() {
        return T::deserialize(from);
    }
    let text = String::deserialize(from)?;
    serde_json::from_str(&text).map_err(D::Error::custom)
}
