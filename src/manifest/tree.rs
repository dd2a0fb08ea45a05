//! The tree of a manifest: every value knows its place.
//!
//! A scalar keeps its text as it is written; its type follows from the text when it is asked for
//! (YAML 1.2 core schema). So `VERSION: 1.10` stays `1.10`, and what interpolation puts into a plain
//! scalar is typed like what stands there.

use serde_json::{Map, Number, Value as Json};

use super::report::Place;

/// A value and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// What stands there.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// Text; `plain` means unquoted, so that it may be something else than a string.
    Scalar { text: Box<str>, plain: bool },
    /// A list.
    Sequence(Vec<Node>),
    /// A map in the order of the file; no key twice.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    /// The place of the key.
    pub(super) place: Place,
    pub(super) node: Node,
}

/// A scalar by its type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
}

impl Node {
    pub(super) fn scalar(text: impl Into<Box<str>>, plain: bool, place: Place) -> Self {
        Self { value: Value::Scalar { text: text.into(), plain }, place }
    }

    pub(super) fn mapping(place: Place) -> Self {
        Self { value: Value::Mapping(Vec::new()), place }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            Value::Scalar { .. } | Value::Sequence(_) => &[],
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            Value::Scalar { .. } | Value::Mapping(_) => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| &*entry.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Mapping(entries) => {
                entries.iter_mut().find(|entry| &*entry.key == key).map(|entry| &mut entry.node)
            }
            Value::Scalar { .. } | Value::Sequence(_) => None,
        }
    }

    /// Takes keys out of a map.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        if let Value::Mapping(entries) = &mut self.value {
            entries.retain(|entry| keep(&entry.key));
        }
    }

    /// The text of a scalar as it is written.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// The typed scalar.
    pub(super) fn typed(&self) -> Option<Scalar<'_>> {
        match &self.value {
            Value::Scalar { text, plain: true } => Some(resolve(text)),
            Value::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.typed() == Some(Scalar::Null)
    }

    /// How many values it is, itself included.
    pub(super) fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Self::size).sum::<usize>(),
            Value::Mapping(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
        }
    }

    /// What it is, in words.
    pub(super) fn found(&self) -> String {
        match self.typed() {
            Some(Scalar::Null) => "nothing".into(),
            Some(Scalar::Bool(value)) => format!("the boolean `{value}`"),
            Some(Scalar::Int(_) | Scalar::Unsigned(_) | Scalar::Float(_)) => {
                format!("the number `{}`", short(self.text().unwrap_or_default()))
            }
            Some(Scalar::Text(text)) => format!("the text `{}`", short(text)),
            None if matches!(self.value, Value::Sequence(_)) => "a list".into(),
            None => "a map".into(),
        }
    }

    /// For the validator. A number that JSON cannot hold becomes text.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Sequence(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Mapping(entries) => Json::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.to_string(), entry.node.to_json()))
                    .collect::<Map<_, _>>(),
            ),
            Value::Scalar { text, plain: false } => Json::String(text.to_string()),
            Value::Scalar { text, plain: true } => match resolve(text) {
                Scalar::Null => Json::Null,
                Scalar::Bool(value) => Json::Bool(value),
                Scalar::Int(value) => value.into(),
                Scalar::Unsigned(value) => value.into(),
                Scalar::Float(value) => {
                    Number::from_f64(value).map_or_else(|| text.to_string().into(), Json::Number)
                }
                Scalar::Text(text) => text.into(),
            },
        }
    }
}

/// A text that is not too long for a message.
pub(super) fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > LONGEST || line.len() < text.len() {
        format!("{}...", line.chars().take(LONGEST).collect::<String>())
    } else {
        line.to_owned()
    }
}

/// The type of a plain scalar: YAML 1.2 core schema. Digits after a leading zero are text, as with
/// other readers, because half of the world means octal by them.
fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Scalar::Text(text);
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        let digits = text.strip_prefix(prefix);
        if let Some(digits) = digits.filter(|digits| digits.chars().all(|one| one.is_digit(radix)))
        {
            return u64::from_str_radix(digits, radix).map_or(Scalar::Text(text), integer);
        }
    }
    let digits = unsigned.bytes().all(|one| one.is_ascii_digit());
    if unsigned.len() > 1
        && unsigned.starts_with('0')
        && unsigned[1..].starts_with(|one: char| one.is_ascii_digit())
    {
        return Scalar::Text(text);
    }
    if digits {
        if let Ok(value) = text.parse::<i64>() {
            return Scalar::Int(value);
        }
        if let Ok(value) = text.parse::<u64>() {
            return Scalar::Unsigned(value);
        }
    }
    if is_float(unsigned) {
        return text.parse().map_or(Scalar::Text(text), Scalar::Float);
    }
    Scalar::Text(text)
}

fn integer<'a>(value: u64) -> Scalar<'a> {
    i64::try_from(value).map_or(Scalar::Unsigned(value), Scalar::Int)
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, None),
        Some((mantissa, exponent)) => {
            (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
        }
    };
    let mantissa_fits = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", after)) => digits(after),
        Some((before, after)) => digits(before) && (after.is_empty() || digits(after)),
    };
    mantissa_fits && exponent.is_none_or(digits)
}
