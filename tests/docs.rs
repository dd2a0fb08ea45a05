//! The documents are true: what they point to is there, what they promise to run exists, and the
//! example manifests name nothing that was not built.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_yaml::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no .{extension} in {folder}");
    found
}

fn documents() -> Vec<PathBuf> {
    let folders = [".", "docs", "docs/adr", "examples/stigmer-stack"];
    folders.map(|folder| files_in(folder, "md")).concat()
}

fn manifests() -> Vec<PathBuf> {
    let mut found = files_in("examples/manifests", "yaml");
    found.push(root().join("stigmer.yaml"));
    found.push(root().join("examples/stigmer-stack/stigmer.yaml"));
    found
}

#[test]
fn every_link_inside_the_documents_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").unwrap();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for capture in link.captures_iter(&text) {
            let target = &capture[1];
            if target.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            assert!(path.exists(), "{}: {target} is not there", document.display());
        }
    }
}

#[test]
fn every_file_that_the_documents_name_in_code_is_there() {
    let name = Regex::new(r"`((?:src|tests|examples|benches|docs|proto|\.ci)/[^`*\s]*)`").unwrap();
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for capture in name.captures_iter(&text) {
            let target = &capture[1];
            seen += 1;
            assert!(root().join(target).exists(), "{}: {target}", document.display());
        }
    }
    assert!(seen > 5, "only {seen} names were found: the pattern does not fit any more");
}

#[test]
fn every_fault_has_a_row_and_the_tests_that_it_names_are_there() {
    let text = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let number = Regex::new(r"(?m)^\| (\d+)(?: to (\d+))? \|").unwrap();
    let mut told = BTreeSet::new();
    for capture in number.captures_iter(&text) {
        let first: u32 = capture[1].parse().unwrap();
        let last = capture.get(2).map_or(first, |last| last.as_str().parse().unwrap());
        told.extend(first..=last);
    }
    assert_eq!(told, (1..=56).collect(), "a fault without a row");
    let name = Regex::new(r"`([a-z0-9_]+_)\*`").unwrap();
    let path = Regex::new(r"`((?:src|tests)/[^`]*)`").unwrap();
    for row in text.lines().filter(|line| line.contains('`')) {
        let files: Vec<String> = path
            .captures_iter(row)
            .map(|capture| fs::read_to_string(root().join(&capture[1])).unwrap_or_default())
            .collect();
        for capture in name.captures_iter(row).filter(|capture| &capture[1] != "e2e_") {
            let wanted = format!("fn {}", &capture[1]);
            assert!(files.iter().any(|file| file.contains(&wanted)), "no {wanted}* for {row}");
        }
    }
}

#[test]
fn every_decision_is_in_the_list_and_says_its_status() {
    let list = fs::read_to_string(root().join("docs/adr/README.md")).unwrap();
    let decision = Regex::new(r"^(\d{4})-[a-z0-9-]+\.md$").unwrap();
    let mut expected = 0;
    for path in files_in("docs/adr", "md") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(capture) = decision.captures(name) else {
            assert_eq!(name, "README.md");
            continue;
        };
        assert_eq!(
            capture[1].parse::<u32>().unwrap(),
            expected,
            "a number is missing before {name}"
        );
        expected += 1;
        assert!(list.contains(name), "{name} is not in the list");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("# {}: ", &capture[1])), "{name}");
        assert!(text.contains("\nStatus: "), "{name} has no status");
    }
    assert!(expected > 1);
}

#[test]
fn the_changelog_knows_this_version() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(text.contains(&format!("## [{}]", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn every_example_manifest_is_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for manifest in files_in("examples/manifests", "yaml") {
        let name = manifest.file_name().unwrap().to_str().unwrap();
        assert!(readme.contains(&format!("(examples/manifests/{name})")), "{name}");
    }
}

#[test]
fn every_example_manifest_names_the_schema_and_only_programs_that_are_built() {
    let program =
        Regex::new(r"(?:target/release/examples|\$\{STIGMER_EXAMPLES\})/([a-z-]+)").unwrap();
    let built: BTreeSet<String> = fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut projects = BTreeSet::new();
    for manifest in manifests() {
        let text = fs::read_to_string(&manifest).unwrap();
        let name = manifest.display();
        let to_schema = if manifest.starts_with(root().join("examples")) { "../../" } else { "" };
        let first =
            format!("# yaml-language-server: $schema={to_schema}schemas/stigmer.schema.json\n");
        assert!(text.starts_with(&first), "{name}: the first line is not {first:?}");
        for capture in program.captures_iter(&text) {
            assert!(built.contains(&capture[1]), "{name}: no example {}", &capture[1]);
        }
        let tree: Value = serde_yaml::from_str(&text).unwrap();
        let project = tree["project"].as_str().unwrap().to_owned();
        assert!(projects.insert(project), "{name}: two manifests are the same project");
        assert!(tree["components"].as_mapping().is_some_and(|map| !map.is_empty()), "{name}");
    }
}

#[test]
fn every_profile_of_the_stack_is_told_and_validated() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let tree: Value = serde_yaml::from_str(&read("examples/stigmer-stack/stigmer.yaml")).unwrap();
    let mut profiles = BTreeSet::new();
    for component in tree["components"].as_mapping().unwrap().values() {
        let names = component["profiles"].as_sequence().unwrap().iter();
        profiles.extend(names.map(|name| name.as_str().unwrap().to_owned()));
    }
    let told = Regex::new(r"(?m)^\| `([a-z]+)` \|").unwrap();
    let readme = read("examples/stigmer-stack/README.md");
    let readme = &readme[readme.find("| profile |").unwrap()..];
    let told = told.captures_iter(readme).map(|capture| capture[1].to_owned());
    assert_eq!(told.collect::<BTreeSet<_>>(), profiles);
    let script = read(".ci/run");
    let validated = Regex::new("for profile in ([a-z ]+); do").unwrap();
    let validated = validated.captures(&script).unwrap()[1].to_owned();
    assert_eq!(validated.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), profiles);
}

#[test]
fn the_first_example_is_as_short_as_it_is_said_to_be() {
    let text = fs::read_to_string(root().join("examples/manifests/hello.yaml")).unwrap();
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn the_demonstration_shows_all_three_kinds_of_probe() {
    let text = fs::read_to_string(root().join("stigmer.yaml")).unwrap();
    let tree: Value = serde_yaml::from_str(&text).unwrap();
    for component in ["stigmer-server", "workflow-runner", "web"] {
        for probe in ["startup", "liveness", "readiness"] {
            let found = &tree["components"][component]["probes"][probe];
            assert!(found.is_mapping(), "{component} has no {probe} probe");
        }
    }
}

#[test]
fn every_key_of_the_schema_is_in_the_reference() {
    fn keys(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            serde_json::Value::Object(object) => {
                if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                object.values().for_each(|inner| keys(inner, found));
            }
            _ => {}
        }
    }
    let schema = fs::read_to_string(root().join("schemas/stigmer.schema.json")).unwrap();
    let mut found = BTreeSet::new();
    keys(&serde_json::from_str(&schema).unwrap(), &mut found);
    let text = fs::read_to_string(root().join("docs/manifest.md")).unwrap();
    let named = Regex::new(r"[a-z0-9_]+").unwrap();
    let code = Regex::new(r"(?s)```.*?```|`[^`]*`").unwrap();
    let named: BTreeSet<&str> = code
        .find_iter(&text)
        .flat_map(|part| named.find_iter(part.as_str()).map(|word| word.as_str()))
        .collect();
    let missing: Vec<&String> = found.iter().filter(|key| !named.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/manifest.md does not name {missing:?}");
    assert!(found.len() > 60, "only {} keys were found", found.len());
}
