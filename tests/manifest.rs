//! Manifests: what loads, and what every mistake is answered with.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "manifest/container.rs"]
mod container;
#[path = "manifest/container_mistakes.rs"]
mod container_mistakes;
#[path = "manifest/keys.rs"]
mod keys;
#[path = "manifest/mistakes.rs"]
mod mistakes;

use std::fs;
use std::path::{Path, PathBuf};

use stigmer::manifest::{self, LoadOptions, Loaded, Report};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root().join("examples/manifests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    found.push(root().join("stigmer.yaml"));
    found.sort();
    found
}

fn load(text: &str) -> Result<Loaded, Box<Report>> {
    manifest::load_bytes(
        Path::new("/tmp/shop/stigmer.yaml"),
        text.as_bytes(),
        &LoadOptions::default(),
    )
}

/// All that is said about a manifest that is refused.
fn refused(text: &str) -> String {
    let report = load(text).unwrap_err();
    let lines = report.diagnostics.iter().map(|one| {
        format!("{}:{} {} | {} | {}\n", one.line, one.column, one.message, one.expected, one.help)
    });
    lines.collect::<Vec<_>>().concat()
}

#[test]
fn the_examples_load_without_warnings_and_survive_being_written() {
    for path in examples() {
        let loaded = manifest::load(&path, &LoadOptions::default())
            .unwrap_or_else(|report| panic!("{}", report.render(false, 100)));
        assert_eq!(loaded.warnings, [], "{}", path.display());
        let text = manifest::to_yaml(&loaded.project);
        let again = manifest::load_bytes(&path, text.as_bytes(), &LoadOptions::default())
            .unwrap_or_else(|report| panic!("{text}\n{}", report.render(false, 100)));
        assert_eq!(again.project, loaded.project, "{text}");
        assert_eq!(manifest::digest(&path, &loaded.watched), Some(loaded.sha256));
    }
}

#[test]
fn the_template_loads_without_warnings() {
    let loaded = load(&manifest::template("shop")).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.project.name, "shop");
}

/// `STIGMER_UPDATE=1 cargo test --test manifest` writes it anew.
#[test]
fn the_schema_file_is_that_of_the_types() {
    let path = root().join("schemas/stigmer.schema.json");
    let schema = manifest::schema_json_of_types();
    if std::env::var_os("STIGMER_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &schema).unwrap();
        return;
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), schema);
    assert_eq!(manifest::schema_json(), schema);
}
