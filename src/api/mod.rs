//! The interface between the command line and the daemon.

pub mod json;
pub mod select;
pub mod server;
pub mod service;
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

impl std::fmt::Debug for v1::ProcessPlace {
    /// Without the values of the environment: some of them are secrets (S39).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessPlace")
            .field("env", &self.env.keys())
            .field("working_dir", &String::from_utf8_lossy(&self.working_dir))
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn s39_a_place_is_told_without_the_values_of_its_environment() {
        let place = v1::ProcessPlace {
            env: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
            working_dir: b"/srv".to_vec(),
            ..v1::ProcessPlace::default()
        };
        let response = v1::ExecResponse { process: Some(place), ..v1::ExecResponse::default() };
        let shown = format!("{response:?}");
        assert!(shown.contains("TOKEN") && shown.contains("/srv"), "{shown}");
        let document = serde_json::to_string(&response).unwrap();
        for text in [shown, document] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
