//! Commands that read or write a manifest and need no daemon.

use serde_json::Value;

use crate::fake::{Answers, Scene};

const GOOD: &str = "project: shop\ncomponents:\n  api:\n    command: [sleep, \"1\"]\n";
const BAD: &str = "project: shop\ncomponents: [\n";

#[test]
fn a_manifest_is_written_and_never_written_over() {
    let scene = Scene::empty();
    let said = scene.run(&["init"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let path = scene.folder().join("stigmer.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("components:"), "{text}");
    assert_eq!(scene.run(&["validate"]).code, Some(0), "what init writes is valid");
    scene.manifest(GOOD);
    let said = scene.run(&["init"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("--force"), "{said:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOOD);
    assert_eq!(scene.run(&["init", "--force"]).code, Some(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn validate_says_how_many_components_or_where_the_mistakes_are() {
    let scene = Scene::empty();
    let said = scene.run(&["validate"]);
    assert_eq!(said.code, Some(5));
    assert!(said.stderr.contains("stigmer init"), "{said:?}");
    scene.manifest(GOOD);
    let said = scene.run(&["validate"]);
    assert_eq!((said.code, &*said.stdout), (Some(0), "stigmer.yaml: 1 component, no mistakes\n"));
    let value: Value =
        serde_json::from_str(&scene.run(&["validate", "-o", "json"]).stdout).unwrap();
    assert_eq!((&value["valid"], &value["components"]), (&true.into(), &1.into()));
    scene.manifest(BAD);
    let said = scene.run(&["validate"]);
    assert_eq!((said.code, &*said.stdout), (Some(5), ""));
    assert!(said.stderr.contains("stigmer.yaml"), "{said:?}");
    let value: Value =
        serde_json::from_str(&scene.run(&["validate", "-o", "json"]).stdout).unwrap();
    assert_eq!((&value["valid"], &value["project"]), (&false.into(), &Value::Null));
    assert_eq!(value["diagnostics"][0]["severity"], "error");
}

#[test]
fn apply_with_mistakes_starts_no_daemon() {
    let scene = Scene::empty();
    assert_eq!(scene.run(&["apply"]).code, Some(5));
    scene.manifest(BAD);
    assert_eq!(scene.run(&["apply"]).code, Some(5));
    let said = scene.run(&["apply", "-o", "json"]);
    assert_eq!(said.code, Some(5));
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(value["rejected"]["diagnostics"][0]["message"].is_string(), "{value}");
    assert!(!scene.home().exists());
}

#[test]
fn a_dry_run_without_a_daemon_would_create_everything_and_starts_none() {
    let scene = Scene::empty();
    scene.manifest(GOOD);
    let said = scene.run(&["apply", "--dry-run"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("+ create   api  new"), "{said:?}");
    assert_eq!(scene.run(&["apply", "--dry-run", "--detailed-exitcode"]).code, Some(10));
    assert!(!scene.home().exists());
}

#[test]
fn config_shows_the_file_or_what_is_in_force() {
    let yaml = "project: shop\ncomponents:\n  api: {}\n";
    let scene = Scene::with(Answers { config: yaml.into(), ..Answers::default() });
    scene.manifest(GOOD);
    let said = scene.run(&["config"]);
    assert_eq!(said.code, Some(0));
    assert!(said.stdout.contains("api"), "{said:?}");
    assert!(scene.asked().is_empty());
    assert_eq!(scene.run(&["config", "nope"]).code, Some(4));
    let said = scene.run(&["config", "--applied"]);
    assert_eq!((said.code, &*said.stdout), (Some(0), yaml));
    let said = scene.run(&["config", "--applied", "-o", "json"]);
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(value["project"], "shop");
}

#[test]
fn the_schema_is_json() {
    let said = Scene::empty().run(&["schema"]);
    assert_eq!(said.code, Some(0));
    assert!(serde_json::from_str::<Value>(&said.stdout).is_ok());
}

#[test]
fn a_daemon_that_runs_is_not_started_twice() {
    let scene = Scene::with(Answers::default());
    let said = scene.run(&["daemon", "--detach"]);
    assert_eq!(said.code, Some(0));
    assert!(said.stdout.contains("running already (process 1)"), "{said:?}");
    assert_eq!(scene.run(&["daemon"]).code, Some(1));
}
