//! The tree equals what `serde_yaml` reads, for generated documents in which YAML 1.1 and 1.2 agree.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::parse::parse;

/// Values, each with the choices of how it is written.
#[derive(Clone, Debug)]
enum Written {
    Scalar(String),
    List { flow: bool, items: Vec<Written> },
    Map { flow: bool, entries: Vec<(String, Written)> },
}

fn scalar() -> impl Strategy<Value = String> {
    let texts = "[ -~éß]{0,12}".prop_map(|text| Value::from(text).to_string());
    let single = "[ -~é]{0,12}".prop_map(|text| format!("'{}'", text.replace('\'', "''")));
    let numbers = any::<i64>().prop_map(|number| number.to_string());
    let fractions = (-1_000_000_i64..1_000_000).prop_map(|number| format!("{number}.5"));
    let words = prop_oneof![
        Just("true"),
        Just("false"),
        Just("null"),
        Just("~"),
        Just("plain text"),
        Just("a:b"),
        Just("0022"),
        Just("1e3"),
        Just("0x1f"),
        Just("0o17"),
        Just("10s"),
        Just("yes-no"),
        Just("-x"),
        Just("1.2.3"),
        Just("+7"),
    ]
    .prop_map(ToOwned::to_owned);
    prop_oneof![texts, single, numbers, fractions, words]
}

fn written() -> impl Strategy<Value = Written> {
    scalar().prop_map(Written::Scalar).prop_recursive(5, 60, 6, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..6);
        let entries = prop::collection::btree_map("[a-z_]{1,6}", inner, 0..6);
        prop_oneof![
            (any::<bool>(), items).prop_map(|(flow, items)| Written::List { flow, items }),
            (any::<bool>(), entries).prop_map(|(flow, entries)| Written::Map {
                flow,
                entries: entries.into_iter().collect()
            }),
        ]
    })
}

fn flow(value: &Written) -> String {
    match value {
        // What is plain could mean something else among brackets.
        Written::Scalar(text) if text.starts_with(['"', '\'']) => text.clone(),
        Written::Scalar(text) => format!(" {text}"),
        Written::List { items, .. } => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Written::Map { entries, .. } => {
            let entries = entries.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn block(value: &Written, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Written::List { flow: false, items } if !items.is_empty() => {
            for item in items {
                text.extend(["\n", &margin, "-"]);
                block(item, indent + 2, text);
            }
        }
        Written::Map { flow: false, entries } if !entries.is_empty() => {
            for (key, value) in entries {
                text.extend(["\n", &margin, key, ":"]);
                block(value, indent + 2, text);
            }
        }
        other => text.extend([" ", &flow(other)]),
    }
}

fn ours(text: &str) -> Value {
    let mut found = Vec::new();
    let node = parse(std::path::Path::new("x"), text, &mut found);
    assert_eq!(found, [], "{text}");
    node.map_or(Value::Null, |node| node.to_json())
}

/// Numbers are compared by value: 3.0 and 3 are the same to a manifest.
fn plainly(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.into_iter().map(plainly).collect(),
        Value::Object(object) => {
            Value::Object(object.into_iter().map(|(key, value)| (key, plainly(value))).collect())
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn the_tree_is_what_serde_yaml_reads(value in written()) {
        let mut text = String::from("top:");
        block(&value, 2, &mut text);
        text.push('\n');
        let theirs: Value = serde_yaml::from_str(&text).unwrap();
        prop_assert_eq!(plainly(ours(&text)), plainly(theirs), "{}", text);
    }

    #[test]
    fn the_tree_is_what_serde_yaml_writes(texts in prop::collection::btree_map("\\PC{1,8}", "\\PC{0,20}(\n\\PC{0,8}){0,3}", 0..5)) {
        let value: Map<String, Value> = texts.into_iter().map(|(key, value)| (key, value.into())).collect();
        let value = Value::Object(value);
        let text = serde_yaml::to_string(&value).unwrap();
        // Where the two versions of YAML disagree about what ends a line.
        prop_assume!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}']));
        prop_assert_eq!(ours(&text), value, "{}", text);
    }
}

#[test]
fn anchors_and_merges_are_as_elsewhere() {
    let text = "base: &base { a: 1, b: [x] }\nown:\n  <<: *base\n  a: 2\nlist: [*base, *base]\nmany:\n  <<: [{ c: 1 }, { c: 2, d: 3 }]\n";
    let expected = json!({
        "base": { "a": 1, "b": ["x"] },
        "own": { "a": 2, "b": ["x"] },
        "list": [{ "a": 1, "b": ["x"] }, { "a": 1, "b": ["x"] }],
        "many": { "c": 1, "d": 3 },
    });
    assert_eq!(ours(text), expected);
    let mut theirs: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    theirs.apply_merge().unwrap();
    assert_eq!(serde_json::to_value(theirs).unwrap(), expected);
}
