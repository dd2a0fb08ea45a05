//! The interface between the command line and the daemon.

pub mod select;
pub mod server;
pub mod view;

/// The generated messages and services of `proto/stigmer/v1/stigmer.proto`. The messages also
/// serialise to the documented JSON.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes,
    reason = "generated code; the proto file is the documentation"
)]
pub mod v1 {
    tonic::include_proto!("stigmer.v1");
}
