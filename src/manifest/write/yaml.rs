//! YAML values in the order of their making, and their text.
//!
//! Invariant: what is written is read back as what it was, by a reader of YAML 1.2; a `$` is doubled.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use crate::manifest::units::duration_text;

pub(super) fn print(map: Map) -> String {
    let value = Value::from(map);
    // Only maps, lists, texts and numbers: there is nothing that could not be written.
    let text = serde_yaml::to_string(&value).unwrap_or_default();
    if !text.contains(LINE_BREAKS) {
        return text;
    }
    // These end a line for the writer, which knows YAML 1.1, and not for the reader, which knows 1.2.
    // Every JSON text is YAML, and in it they can be escaped.
    let json = serde_json::to_string_pretty(&value).unwrap_or_default();
    let mut text = String::with_capacity(json.len() + 1);
    for one in json.chars() {
        if LINE_BREAKS.contains(&one) || (one.is_control() && one != '\n') {
            let code = format!("\\u{:04x}", u32::from(one));
            text.push_str(&code);
        } else {
            text.push(one);
        }
    }
    text.push('\n');
    text
}

const LINE_BREAKS: [char; 4] = ['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'];

/// A map in the order of its making.
#[derive(Default)]
pub(super) struct Map(Mapping);

impl Map {
    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(Value::String(key.to_owned()), value.into());
    }

    pub(super) fn of<const N: usize>(entries: [(&str, Value); N]) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.put(key, value);
        }
        map
    }
}

impl Map {
    pub(super) fn take_out(&mut self, key: &str) {
        self.0.shift_remove(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Mapping(map.0)
    }
}

pub(super) fn text(text: &str) -> Value {
    Value::String(text.replace('$', "$$"))
}

/// What a plug-in is handed; `$` in its texts stands for itself.
pub(super) fn json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => serde_yaml::to_value(number).unwrap_or(Value::Null),
        Json::String(value) => text(value),
        Json::Array(items) => Value::Sequence(items.iter().map(json).collect()),
        Json::Object(entries) => {
            let mut map = Map::default();
            for (key, value) in entries {
                map.put(key, json(value));
            }
            map.into()
        }
    }
}

pub(super) fn path(path: &std::path::Path) -> Value {
    text(&path.to_string_lossy())
}

pub(super) fn duration(duration: std::time::Duration) -> Value {
    Value::String(duration_text(duration))
}

pub(super) fn texts<'a>(all: impl IntoIterator<Item = &'a String>) -> Value {
    Value::Sequence(all.into_iter().map(|one| text(one)).collect())
}

/// Names with texts.
pub(super) fn pairs(pairs: &BTreeMap<String, String>) -> Map {
    let mut map = Map::default();
    for (name, value) in pairs {
        map.put(name, text(value));
    }
    map
}

pub(super) fn put_some(map: &mut Map, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        map.put(key, text(value));
    }
}

pub(super) fn put_pairs(map: &mut Map, key: &str, values: &BTreeMap<String, String>) {
    if !values.is_empty() {
        map.put(key, pairs(values));
    }
}

pub(super) fn put_texts<'a>(
    map: &mut Map,
    key: &str,
    values: impl IntoIterator<Item = &'a String>,
) {
    let mut values = values.into_iter().peekable();
    if values.peek().is_some() {
        map.put(key, texts(values));
    }
}
