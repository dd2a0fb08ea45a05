//! Answers and refusals in the words of gRPC.

use tonic::metadata::MetadataValue;
use tonic::{Response, Status};

use crate::api::select::SelectError;
use crate::supervisor::Refusal;

/// The metadata that carries the version of each side.
pub const VERSION_KEY: &str = "stigmer-version";

/// The metadata that tells builds of one version apart.
pub const BUILD_KEY: &str = "stigmer-build";

/// An answer that says which version gave it.
pub(super) fn reply<T>(message: T) -> Response<T> {
    let mut response = Response::new(message);
    let version = MetadataValue::from_static(env!("CARGO_PKG_VERSION"));
    response.metadata_mut().insert(VERSION_KEY, version);
    let build = MetadataValue::from_static(crate::upgrade::BUILD);
    response.metadata_mut().insert(BUILD_KEY, build);
    response
}

/// The supervisor does not answer any more.
pub(super) fn ending() -> Status {
    Status::unavailable("the daemon is ending")
}

impl From<SelectError> for Status {
    fn from(error: SelectError) -> Self {
        let text = error.to_string();
        match error {
            SelectError::Pattern { .. } => Self::invalid_argument(text),
            SelectError::Unknown { .. } | SelectError::Project { .. } => Self::not_found(text),
        }
    }
}

/// A refusal that is no answer with diagnostics.
pub(super) fn refused(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Manifest(failure) => Status::invalid_argument(&failure.message),
        Refusal::Taken { project, by } => Status::failed_precondition(format!(
            "a project named {project} is applied from {}; end that one (`stigmer down -p {project}`) \
             or choose another name (`project:` in the manifest)",
            by.display()
        )),
        Refusal::Store(error) => Status::failed_precondition(format!(
            "nothing is changed while the state cannot be written: {error}"
        )),
        Refusal::Unknown(project) => Status::not_found(format!("no project is named {project}")),
        Refusal::Stale => {
            Status::aborted("the project was applied anew at the same time; try again")
        }
        Refusal::Ending => ending(),
    }
}
