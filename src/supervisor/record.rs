//! What the supervisor knows of a project, and what is loaded for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::spec::ProjectSpec;
use crate::store::ProjectRecord;

/// All projects by name.
pub type Projects = Arc<BTreeMap<String, Project>>;

/// A project that is applied.
#[derive(Clone, Debug)]
pub struct Project {
    /// What is stored of it.
    pub record: ProjectRecord,
    /// Why the last load failed, if it did: what runs is the generation before.
    pub error: Option<Box<LoadFailure>>,
    /// When that was, in Unix nanoseconds.
    pub error_at: Option<i64>,
}

/// A manifest that was loaded.
#[derive(Clone, Debug)]
pub struct LoadedProject {
    /// What it declares.
    pub spec: ProjectSpec,
    /// What is suspicious about it.
    pub warnings: Vec<String>,
    /// The variables that it names.
    pub variables: BTreeSet<String>,
    /// Files whose change means another load.
    pub watched: Vec<PathBuf>,
    /// Digest of what was read.
    pub sha256: String,
}

/// A manifest that cannot be loaded.
#[derive(Clone, Debug)]
pub struct LoadFailure {
    /// One line for the status.
    pub message: String,
    /// Where.
    pub file: PathBuf,
    /// Counted from 1; 0 where the mistake has no place.
    pub line: u32,
    /// Counted from 1.
    pub column: u32,
    /// All mistakes, as the interface shows them.
    pub report: crate::api::v1::Rejected,
    /// Files whose change may heal it.
    pub watched: Vec<PathBuf>,
}
