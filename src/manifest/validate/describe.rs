//! What the schema asks for, in words.

use jsonschema::ValidationError;
use serde_json::Value as Json;

use super::SCHEMAS;
use crate::manifest::words::choice;

/// The schema object that holds the keyword that failed, and the keyword.
pub(super) fn schema_of(error: &ValidationError<'_>) -> (Json, String) {
    let pointer = error.schema_path().as_str();
    let (parent, keyword) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    (SCHEMAS.root.pointer(parent).cloned().unwrap_or_default(), keyword.to_owned())
}

/// The words that an enumeration knows.
pub(super) fn words_of(schema: &Json) -> Vec<String> {
    let schema = followed(schema);
    let constants = |branches: &Json| -> Vec<String> {
        branches.as_array().map(|all| all.iter().flat_map(words_of).collect()).unwrap_or_default()
    };
    if let Some(word) = schema.get("const").and_then(Json::as_str) {
        return vec![word.to_owned()];
    }
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return words.iter().filter_map(|word| word.as_str().map(ToOwned::to_owned)).collect();
    }
    ["oneOf", "anyOf"].iter().filter_map(|key| schema.get(*key)).flat_map(constants).collect()
}

fn followed(schema: &Json) -> &Json {
    let mut schema = schema;
    for _ in 0..8 {
        let Some(reference) = schema.get("$ref").and_then(Json::as_str) else { break };
        let Some(next) = SCHEMAS.root.pointer(reference.trim_start_matches('#')) else { break };
        schema = next;
    }
    schema
}

/// What a schema asks for, in words.
pub(super) fn describe(schema: &Json) -> String {
    let own = schema.get("x-expected").and_then(Json::as_str);
    let schema = followed(schema);
    if let Some(expected) = own.or_else(|| schema.get("x-expected").and_then(Json::as_str)) {
        return expected.to_owned();
    }
    let words = words_of(schema);
    let branches =
        ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key).and_then(Json::as_array));
    if let Some(branches) = branches {
        if words.len() == branches.len() {
            return choice(words.iter().map(String::as_str));
        }
        let mut parts: Vec<String> = Vec::new();
        for part in branches.iter().map(describe) {
            if !part.is_empty() && !parts.contains(&part) {
                parts.push(part);
            }
        }
        return parts.join(" or ");
    }
    if !words.is_empty() {
        return choice(words.iter().map(String::as_str));
    }
    let numbers = match (schema.get("minimum"), schema.get("maximum")) {
        (Some(low), Some(high)) => format!(" from {low} to {high}"),
        (Some(low), None) => format!(" of at least {low}"),
        (None, Some(high)) => format!(" of at most {high}"),
        (None, None) => String::new(),
    };
    let types: Vec<&str> = match schema.get("type") {
        Some(Json::String(single)) => vec![single],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    let types: Vec<String> = types
        .into_iter()
        .map(|one| match one {
            "object" => "a map".into(),
            "array" if schema.get("minItems").is_some() => "a list that is not empty".into(),
            "array" => "a list".into(),
            "string" if schema.get("minLength").is_some() => "a text that is not empty".into(),
            "string" => "a text".into(),
            "integer" => format!("a whole number{numbers}"),
            "number" => format!("a number{numbers}"),
            "boolean" => "true or false".into(),
            "null" => "nothing".into(),
            other => other.to_owned(),
        })
        .collect();
    types.join(" or ")
}
