//! The standard health service of gRPC: `grpc.health.v1.Health/Check` answers SERVING.
//!
//! ```text
//!   connect -> [TLS] -> HTTP/2 -> tonic's HealthClient -> SERVING | anything else
//! ```
//!
//! tonic's own channel spawns tasks that outlive a dropped probe, so the client is put on a connection
//! that is driven inside the probe (`drive`).
//!
//! Failure paths, each with words of its own: no connection; a server that speaks something else; one
//! that lacks the health service (`UNIMPLEMENTED`); one that does not know the service (`NOT_FOUND`); one
//! that says `NOT_SERVING`; any other status. Heads and messages are bounded.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::Endpoint;
use super::drive::Companions;
use super::http::{AGENT, source};
use super::{Kind, Run, Target, text, tls};

/// The largest head of an answer, in bytes.
const HEAD: u32 = 16 * 1024;

/// The largest message; a health answer has two bytes.
const MESSAGE: usize = 16 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;

pub(super) struct Grpc {
    endpoint: Endpoint,
    name: Option<ServerName<'static>>,
    origin: Uri,
    service: String,
}

impl Grpc {
    pub(super) fn new(host: &str, port: u16, service: &str, tls: bool) -> Result<Self, String> {
        let endpoint = Endpoint::new(host, port)?;
        let scheme = if tls { "https" } else { "http" };
        let origin = format!("{scheme}://{}", endpoint.authority())
            .parse()
            .map_err(|_| format!("{host} is not a host"))?;
        let name = tls.then(|| tls::server_name(host)).transpose()?;
        Ok(Self { endpoint, name, origin, service: service.to_owned() })
    }

    async fn check(&mut self) -> Result<(), String> {
        let stream =
            tls::open(&mut self.endpoint, self.name.as_ref(), tls::Protocol::Http2).await?;
        let mut companions = Companions::default();
        let inbox = companions.inbox();
        let answer = companions
            .drive(async {
                let (sender, connection) = http2::Builder::new(inbox.clone())
                    .max_header_list_size(HEAD)
                    .handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| Status::from_error(Box::new(error)))?;
                hyper::rt::Executor::execute(&inbox, async move { drop(connection.await) });
                let request = HealthCheckRequest { service: self.service.clone() };
                HealthClient::with_origin(Sender(sender), self.origin.clone())
                    .max_decoding_message_size(MESSAGE)
                    .check(request)
                    .await
            })
            .await;
        match answer.map(|answer| answer.into_inner().status()) {
            Ok(ServingStatus::Serving) => Ok(()),
            Ok(ServingStatus::ServiceUnknown) => Err(self.unknown_service()),
            Ok(other) => Err(format!("{} is {}", self.subject(), other.as_str_name())),
            Err(status) => Err(self.explain(&status)),
        }
    }

    fn subject(&self) -> String {
        if self.service.is_empty() { "the server".to_owned() } else { self.service.clone() }
    }

    fn unknown_service(&self) -> String {
        if self.service.is_empty() {
            return "the server reports no health for itself as a whole; name a service".to_owned();
        }
        format!("unknown service {}", self.service)
    }

    fn explain(&self, status: &Status) -> String {
        let place = self.endpoint.authority();
        if let Some(other) = source::<NotGrpc>(status) {
            return format!("{other} ({place})");
        }
        if let Some(error) = source::<hyper::Error>(status) {
            let why =
                source::<std::io::Error>(error).map_or_else(|| deepest(error), text::io_error);
            return format!("not a gRPC server, or it closed the connection: {why} ({place})");
        }
        match status.code() {
            Code::NotFound => self.unknown_service(),
            Code::Unimplemented => {
                "the server lacks the standard health service (grpc.health.v1.Health)".to_owned()
            }
            code => {
                let said = text::quotation(status.message().as_bytes());
                format!("health check answered {code:?}: {said}")
            }
        }
    }
}

fn deepest(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

/// An answer of HTTP/2 that is none of gRPC; tonic would translate it into a status of gRPC, which
/// makes a web server's 404 look like a missing health service.
#[derive(Debug, thiserror::Error)]
#[error("not a gRPC server: it answered with HTTP status {0}")]
struct NotGrpc(u16);

/// A connection as the service that tonic's client wants.
#[derive(Clone)]
struct Sender(http2::SendRequest<tonic::body::Body>);

impl tower::Service<Request<tonic::body::Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let answer = self.0.send_request(request);
        Box::pin(async move {
            let answer = answer.await?;
            let kind = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
                return Ok(answer);
            }
            Err(NotGrpc(answer.status().as_u16()).into())
        })
    }
}

pub(super) fn describe(place: &str, service: &str, tls: bool) -> String {
    let tls = if tls { " (TLS)" } else { "" };
    if service.is_empty() {
        return format!("grpc {place}{tls}");
    }
    format!("grpc {place} {service}{tls}")
}

impl Kind for Grpc {
    fn run<'a>(&'a mut self, _target: &'a Target) -> Run<'a> {
        Box::pin(async move { Ok(self.check().await?) })
    }
}
