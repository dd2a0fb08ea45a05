//! The standard health service of gRPC, answering as the script says.

use tokio_stream::Empty;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::answers::{Answers, GrpcAnswer};

/// Health by script.
pub(crate) struct ScriptedHealth(pub(crate) Answers);

#[tonic::async_trait]
impl Health for ScriptedHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        let answer = self.0.grpc(service);
        println!("health of {service:?} -> {answer:?}");
        match answer {
            GrpcAnswer::Hang => std::future::pending().await,
            GrpcAnswer::NotFound => Err(Status::not_found("unknown service")),
            GrpcAnswer::Status(word) => match ServingStatus::from_str_name(&word) {
                Some(status) => Ok(Response::new(HealthCheckResponse { status: status.into() })),
                None => Err(Status::internal(format!("no such answer: {word}"))),
            },
        }
    }

    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("only Check is answered"))
    }
}
