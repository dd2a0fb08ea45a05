//! Compiles the interface of the daemon, and names the build. protox is a compiler of protobuf in Rust,
//! so that building needs no protoc.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Texts that are empty while they are not known: null in the JSON (see `api::json`).
const NULL_IF_EMPTY: &[&str] = &[
    "Daemon.started_at",
    "Manifest.loaded_at",
    "Manifest.sha256",
    "ManifestError.at",
    "Exit.at",
    "LastError.at",
    "Component.log_file",
    "Failure.log_file",
    "PingResponse.started_at",
    "PingResponse.build",
    "PingResponse.program",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    name_the_build()?;
    let descriptors = protox::compile(["stigmer/v1/stigmer.proto"], ["proto"])?;
    let mut config = tonic_prost_build::configure()
        .btree_map(".")
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .field_attribute(
            "stigmer.v1.Project.info",
            "#[serde(serialize_with = \"crate::api::json::info\")]",
        )
        // It holds secrets: no document and no log shall ever have them.
        .field_attribute("stigmer.v1.ProcessPlace.env", "#[serde(skip)]")
        .skip_debug(["stigmer.v1.ProcessPlace"]);
    for field in NULL_IF_EMPTY {
        config = config.field_attribute(
            format!("stigmer.v1.{field}"),
            "#[serde(serialize_with = \"crate::api::json::null_if_empty\")]",
        );
    }
    config.compile_fds(descriptors)?;
    Ok(())
}

/// A digest of what is compiled and how: builds of one version are told apart by it, and the same build
/// gets the same name anywhere.
fn name_the_build() -> Result<(), Box<dyn std::error::Error>> {
    let mut digest = Digest::new();
    for place in ["src", "proto", "schemas", "Cargo.toml", "Cargo.lock", "build.rs"] {
        println!("cargo::rerun-if-changed={place}");
        for file in files(Path::new(place))? {
            digest.add(file.to_string_lossy().as_bytes());
            digest.add(&fs::read(&file)?);
        }
    }
    let mut settings: Vec<(String, String)> = env::vars()
        .filter(|(name, _)| {
            let is_one_of = ["PROFILE", "OPT_LEVEL", "DEBUG", "TARGET", "CARGO_ENCODED_RUSTFLAGS"];
            is_one_of.contains(&name.as_str()) || name.starts_with("CARGO_FEATURE_")
        })
        .collect();
    settings.sort();
    for (name, value) in settings {
        digest.add(name.as_bytes());
        digest.add(value.as_bytes());
    }
    let compiler = Command::new(env::var("RUSTC")?).arg("-vV").output()?;
    digest.add(&compiler.stdout);
    println!("cargo::rustc-env=STIGMER_BUILD={:016x}", digest.0);
    Ok(())
}

/// All files below a path, in order.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    // A package may be without the folder.
    let Ok(entries) = fs::read_dir(path) else { return Ok(Vec::new()) };
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        found.extend(files(&entry)?);
    }
    Ok(found)
}

/// FNV-1a: it tells builds apart, and need not withstand anybody.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// The length as well, so that two neighbours cannot be taken for others.
    fn add(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
