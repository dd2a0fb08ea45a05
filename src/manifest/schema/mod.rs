//! The manifest as it is written: types whose doc comments are the JSON schema's descriptions.
//!
//! The schema refuses unknown keys and wrong types; `x-*` keys are taken out before these types see
//! them. What no schema can say is checked in `resolve`.

pub(super) mod component;
pub(super) mod container;
pub(super) mod pairs;
pub(super) mod probe;
pub(super) mod scalars;
mod shape;

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use component::Component;
use container::mounts::VolumeOrNothing;
use container::network::NetworkOrNothing;
use scalars::{FilePath, Name, Text};

/// What stigmer keeps running: components, each with its command, probes and restart policy.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "stigmer.yaml", extend("patternProperties" = {"^x-": true}))]
#[expect(dead_code, reason = "only its schema is used: its parts are read one by one")]
pub(super) struct Manifest {
    /// The project's name. Default: the name of the folder.
    project: Option<Name>,
    /// Merged under every component. What a component says itself outranks it.
    #[schemars(default, schema_with = "defaults")]
    defaults: Option<Component>,
    /// Lines that the status shows, in this order.
    info: Option<BTreeMap<String, Text>>,
    /// Files with the values of the `${NAME}` in this manifest. The environment of the apply outranks them.
    env_file: Option<OneOrMany<FilePath>>,
    /// Folders with programs of probe kinds, `stigmer-probe-KIND`; looked through before the PATH.
    probe_path: Option<OneOrMany<FilePath>>,
    /// Networks that containers name. `default` is there without being declared.
    networks: Option<BTreeMap<String, NetworkOrNothing>>,
    /// Volumes that containers name.
    volumes: Option<BTreeMap<String, VolumeOrNothing>>,
    /// The components by name.
    #[schemars(required)]
    components: Option<BTreeMap<String, Component>>,
}

/// One, or a list of them.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged, rename = "OneOrMany_{T}")]
pub(super) enum OneOrMany<T> {
    /// A list.
    Many(Vec<T>),
    /// Just one.
    One(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("one or a list of them")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                list: A,
            ) -> Result<OneOrMany<T>, A::Error> {
                let whole = serde::de::value::SeqAccessDeserializer::new(list);
                Vec::deserialize(whole).map(OneOrMany::Many)
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<OneOrMany<T>, E> {
                T::deserialize(serde::de::IntoDeserializer::into_deserializer(value))
                    .map(OneOrMany::One)
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<OneOrMany<T>, E> {
                self.visit_str(&value.to_string())
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

impl<T> OneOrMany<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Keys of a component that make no sense for all of them.
const NOT_IN_DEFAULTS: [&str; 5] = ["command", "depends_on", "external", "ports", "sockets"];

fn defaults(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Component::json_schema(generator);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.retain(|key, _| !NOT_IN_DEFAULTS.contains(&key.as_str()));
    }
    schema
}

/// The JSON schema of the manifest, as it is kept in the repository: a test holds it equal to `of_types`,
/// whose code takes a twentieth of the program, and would run at every load.
pub(super) const TEXT: &str = include_str!("../../../schemas/stigmer.schema.json");

/// The same as a value.
pub(super) fn schema() -> Value {
    // Without it every manifest is refused, which says that the schema is broken.
    serde_json::from_slice(TEXT.as_bytes()).unwrap_or_default()
}

/// The JSON schema as the types have it.
pub(super) fn of_types() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Manifest>().to_value();
    without_null(&mut schema);
    schema
}

/// What is optional may be absent; it may not be there and be empty, which is most often a line that
/// somebody has not finished.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            let optional = object
                .get("anyOf")
                .and_then(Value::as_array)
                .filter(|any| any.len() == 2 && any.contains(&json!({ "type": "null" })))
                .and_then(|any| any.iter().find(|one| one.get("$ref").is_some()).cloned());
            if let Some(Value::Object(reference)) = optional {
                object.remove("anyOf");
                object.extend(reference);
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|one| one != "null");
                if let [single] = types.as_slice() {
                    let single = single.clone();
                    object.insert("type".into(), single);
                }
            }
            object.retain(|key, value| !(key == "default" && value.is_null()));
            children(object).for_each(without_null);
        }
        _ => {}
    }
}

fn children(object: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    object
        .iter_mut()
        .filter(|(key, _)| *key != "examples" && *key != "enum")
        .map(|(_, value)| value)
}
