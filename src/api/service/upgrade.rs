//! Replacing the daemon, as the interface has it.

use std::path::PathBuf;

use tonic::Status;

use super::{Messages, Sender, Service, stream};
use crate::api::v1;
use crate::upgrade::{UpgradeError, Upgrader};

/// Tries the program out, says so, and lets it take over.
pub(super) fn upgrade(
    service: &Service,
    request: v1::UpgradeRequest,
) -> Messages<v1::UpgradeProgress> {
    let upgrader = service.upgrader.clone();
    stream(move |out| carry_out(upgrader, request, out))
}

async fn carry_out(
    upgrader: Upgrader,
    request: v1::UpgradeRequest,
    out: Sender<v1::UpgradeProgress>,
) {
    let fit = match upgrader.try_out(PathBuf::from(request.program)).await {
        Ok(fit) => fit,
        // Whoever asked may be gone, here and below; nothing has been done.
        Err(error) => return drop(out.send(Err(refused(&error))).await),
    };
    let (version, build) = (fit.identity.version.clone(), fit.identity.build.clone());
    let told = out.send(Ok(v1::UpgradeProgress { version, build })).await;
    if request.dry_run || told.is_err() {
        return;
    }
    let error = upgrader.replace(fit).await;
    drop(out.send(Err(refused(&error))).await);
}

fn refused(error: &UpgradeError) -> Status {
    tracing::warn!("not upgraded: {error}");
    match error {
        UpgradeError::Busy => Status::aborted(error.to_string()),
        UpgradeError::Refused { .. } | UpgradeError::Impossible(_) => {
            Status::failed_precondition(error.to_string())
        }
    }
}
