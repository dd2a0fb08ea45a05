//! Which components a command means: the project of the manifest given with `--file`, or found in the
//! folder or above it; with neither, all projects. `--project` names one, `--all` all.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use crate::api::v1::Selector;
use crate::manifest;

/// The options that choose a project.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Target {
    /// The manifest whose project is meant; otherwise stigmer.yaml in this folder or above it.
    #[arg(short, long, value_name = "MANIFEST", help_heading = "Which project")]
    file: Option<PathBuf>,
    #[command(flatten)]
    project: ProjectTarget,
}

/// The same where `-f` means to follow.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct LongTarget {
    /// The manifest whose project is meant; otherwise stigmer.yaml in this folder or above it.
    #[arg(long, value_name = "MANIFEST", help_heading = "Which project")]
    file: Option<PathBuf>,
    #[command(flatten)]
    project: ProjectTarget,
}

#[derive(Args, Clone, Debug, Default)]
struct ProjectTarget {
    /// The project of this name, wherever its manifest is.
    #[arg(short, long, conflicts_with = "file", help_heading = "Which project")]
    project: Option<String>,
    /// All projects of the daemon.
    #[arg(long, conflicts_with_all = ["file", "project"], help_heading = "Which project")]
    all: bool,
}

/// What was chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chosen {
    /// For the daemon.
    pub(super) selector: Selector,
    /// The manifest was found, not named.
    pub(super) found: bool,
}

impl From<LongTarget> for Target {
    fn from(target: LongTarget) -> Self {
        Self { file: target.file, project: target.project }
    }
}

impl Target {
    /// From options that a command declares by itself.
    pub(super) fn new(file: Option<PathBuf>, project: Option<String>, all: bool) -> Self {
        Self { file, project: ProjectTarget { project, all } }
    }

    /// What is meant, with these names of components, from this folder.
    pub(super) fn choose(&self, folder: &Path, names: &[String]) -> Result<Chosen, CliError> {
        let names = names.to_vec();
        if let Some(project) = &self.project.project {
            let selector = Selector { project: project.clone(), names, ..Selector::default() };
            return Ok(Chosen { selector, found: false });
        }
        let all = Selector { names, ..Selector::default() };
        if self.project.all {
            return Ok(Chosen { selector: all, found: false });
        }
        let (manifest, found) = match &self.file {
            Some(file) => (Some(absolute(folder, file)), false),
            None => (manifest::find(folder), true),
        };
        let Some(manifest) = manifest else {
            return Ok(Chosen { selector: all, found: false });
        };
        let Some(manifest) = manifest.to_str() else {
            return Err(CliError::Usage(format!(
                "the path {} is no UTF-8; move the manifest, or give --project",
                manifest.display()
            )));
        };
        Ok(Chosen { selector: Selector { manifest: manifest.to_owned(), ..all }, found })
    }
}

impl Chosen {
    /// What the daemon's refusal means: a manifest of which it knows nothing is told as such.
    pub(super) fn explain(&self, error: CliError) -> CliError {
        match error {
            CliError::Refused(status)
                if status.code() == tonic::Code::NotFound
                    && !self.selector.manifest.is_empty()
                    && self.selector.names.is_empty() =>
            {
                CliError::NotApplied(self.selector.manifest.clone().into())
            }
            other => other,
        }
    }

    /// An error if the answer shows that the manifest is not applied.
    pub(super) fn check(&self, projects: &[crate::api::v1::Project]) -> Result<(), CliError> {
        if projects.is_empty() && !self.selector.manifest.is_empty() {
            return Err(CliError::NotApplied(self.selector.manifest.clone().into()));
        }
        Ok(())
    }
}

/// A manifest to load: the one that is named, or the one that is found.
pub(super) fn manifest(folder: &Path, file: Option<&Path>) -> Result<PathBuf, CliError> {
    match file {
        Some(file) => Ok(absolute(folder, file)),
        None => manifest::find(folder).ok_or_else(|| CliError::NoManifest(folder.to_owned())),
    }
}

/// The absolute path of a manifest, by the true path of its folder, so that one file has one name. The
/// file itself may be a link: what is beside the link is meant.
fn absolute(folder: &Path, file: &Path) -> PathBuf {
    let path = folder.join(file);
    let path = if path.is_dir() { path.join("stigmer.yaml") } else { path };
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(file: Option<&str>, project: Option<&str>, all: bool) -> Target {
        Target::new(file.map(PathBuf::from), project.map(str::to_owned), all)
    }

    #[test]
    fn the_rules_in_their_order() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let deep = root.join("shop/src");
        std::fs::create_dir_all(&deep).unwrap();
        let manifest = root.join("shop/stigmer.yaml");
        std::fs::write(&manifest, "components: {}\n").unwrap();
        let wanted = ["api".to_owned()];
        let choose = |target: &Target, folder: &Path| target.choose(folder, &wanted).unwrap();

        let found = choose(&target(None, None, false), &deep);
        assert_eq!(Path::new(&found.selector.manifest), manifest);
        assert!(found.found);
        assert_eq!(found.selector.names, wanted);

        let named =
            choose(&target(Some("../shop/./stigmer.yaml"), None, false), &root.join("shop"));
        assert_eq!(Path::new(&named.selector.manifest), manifest);
        assert!(!named.found);
        assert_eq!(choose(&target(Some("shop"), None, false), &root), named);

        let project = choose(&target(None, Some("blog"), false), &deep);
        assert_eq!((&*project.selector.project, &*project.selector.manifest), ("blog", ""));
        let all = choose(&target(None, None, true), &deep);
        assert_eq!((&*all.selector.project, &*all.selector.manifest), ("", ""));
    }
}
