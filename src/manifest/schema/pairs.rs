//! Names with texts: labels, arguments, options.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::scalars::Text;
use super::shape::shaped;

/// Names with texts. A list of `NAME=value` has become a map before it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(in crate::manifest) struct Pairs(pub(in crate::manifest) BTreeMap<String, PairValue>);

/// The text of a name.
#[derive(Clone, Debug)]
pub(in crate::manifest) enum PairValue {
    Text(Text),
    Nothing(()),
}

shaped!(PairValue { scalar => Text(Text), null => Nothing(()) });

impl JsonSchema for Pairs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pairs".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = generator.subschema_for::<Text>();
        json_schema!({
            "description": "Names with texts: a map, or a list of `NAME=value`.",
            "x-expected": "a map, or a list of `NAME=value`",
            "anyOf": [
                { "type": "object", "additionalProperties": {
                    "x-expected": "a text",
                    "anyOf": [{ "type": ["string", "number", "boolean"] }, { "const": null }],
                } },
                { "type": "array", "items": text },
            ],
        })
    }
}
