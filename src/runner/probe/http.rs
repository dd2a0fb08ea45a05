//! An HTTP request and its answer, over TCP or TLS.
//!
//! ```text
//!   connect -> [TLS] -> HTTP/1.1 request -> head of the answer -> status -> [first 64 KiB of the body]
//! ```
//!
//! Statuses from 200 to 399 pass unless the check names others; a redirect is an answer and is not
//! followed, so that a loop of them cannot be made. Without a `body` expression the status decides; the
//! body is then only drained for a moment, so that a server that is writing it meets no broken pipe.
//!
//! Failure paths: no connection, no TLS, no HTTP, an end before the answer, another status, another
//! body. A head is bounded by `HEAD`, a body by `BODY`, both in time by the probe's timeout.
//!
//! It deliberately lacks cookies, credentials of its own, redirects, compression and connection reuse.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::HeaderMap;
use hyper::rt::Executor as _;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio_rustls::rustls::pki_types::ServerName;

use super::connect::Endpoint;
use super::drive::Companions;
use super::reach::shown;
use super::{Kind, Run, Target, text, tls};
use crate::model::spec::HttpCheck;

/// How probes introduce themselves.
pub(super) const AGENT: &str = concat!("stigmer-probe/", env!("CARGO_PKG_VERSION"));

/// The largest head of an answer, in bytes.
const HEAD: usize = 64 * 1024;

/// How much of a body is looked at, in bytes.
const BODY: usize = 64 * 1024;

/// How long a body that nobody asked about is drained.
const DRAIN: Duration = Duration::from_millis(50);

pub(super) struct Http {
    endpoint: Endpoint,
    name: Option<ServerName<'static>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    status: Vec<u16>,
    body: Option<Regex>,
}

impl Http {
    /// `host` and `port` are where the component is reached, whatever the check says of it.
    pub(super) fn new(check: &HttpCheck, host: &str, port: u16) -> Result<Self, String> {
        let endpoint = Endpoint::new(host, port)?;
        let method = Method::from_bytes(check.method.as_bytes())
            .map_err(|_| format!("{} is not an HTTP method", check.method))?;
        if method == Method::CONNECT {
            return Err("CONNECT asks for a tunnel, not for an answer".to_owned());
        }
        let uri = match check.path.parse::<Uri>() {
            Ok(uri) if check.path.starts_with('/') => uri,
            _ => return Err(format!("{} is not a path of HTTP", check.path)),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &check.headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("{name} is not the name of a header"))?;
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("the header {name} has a value that HTTP forbids"))?;
            headers.append(name, value);
        }
        let authority = HeaderValue::from_str(&endpoint.authority())
            .map_err(|_| format!("{host} is not a host"))?;
        headers.entry(HOST).or_insert(authority);
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
        Ok(Self {
            name: check.tls.then(|| tls::server_name(host)).transpose()?,
            endpoint,
            method,
            uri,
            headers,
            status: check.status.clone(),
            body: check.body.as_deref().map(text::expression).transpose()?,
        })
    }

    async fn request(&mut self) -> Result<(), String> {
        let stream =
            tls::open(&mut self.endpoint, self.name.as_ref(), tls::Protocol::Http1).await?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let mut companions = Companions::default();
        let inbox = companions.inbox();
        let this = &*self;
        companions
            .drive(async move {
                let (mut sender, connection) = http1::Builder::new()
                    .max_buf_size(HEAD)
                    .handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| this.explain(&error))?;
                inbox.execute(async move { drop(connection.await) });
                let answer =
                    sender.send_request(request).await.map_err(|error| this.explain(&error))?;
                this.judge(answer).await
            })
            .await
    }

    async fn judge(&self, answer: Response<Incoming>) -> Result<(), String> {
        let status = answer.status().as_u16();
        let passes = match self.status.as_slice() {
            [] => (200..400).contains(&status),
            wanted => wanted.contains(&status),
        };
        let body = answer.into_body();
        let Some(pattern) = &self.body else {
            drop(tokio::time::timeout(DRAIN, read(body)).await);
            return if passes { Ok(()) } else { Err(self.said(&status.to_string())) };
        };
        if !passes {
            return Err(self.said(&status.to_string()));
        }
        let (content, end) = read(body).await;
        if pattern.is_match(&content) {
            return Ok(());
        }
        end.map_err(|error| self.explain(&error))?;
        Err(self.said(&format!("{status}, but the body does not match /{pattern}/")))
    }

    /// `GET /healthz 503`. The query is left out: it may hold a token.
    fn said(&self, what: &str) -> String {
        format!("{} {} {what}", self.method, self.uri.path())
    }

    fn explain(&self, error: &hyper::Error) -> String {
        let place = self.endpoint.authority();
        let said = |what: &str| format!("{} {}: {what} ({place})", self.method, self.uri.path());
        if error.is_incomplete_message() {
            return said("the connection was closed before the answer was complete");
        }
        if error.is_parse() {
            return said(&format!("not an HTTP answer: {error}"));
        }
        match source::<std::io::Error>(error) {
            Some(error) => said(&text::io_error(error)),
            None => said(&error.to_string()),
        }
    }
}

/// The first error of this type in the chain.
pub(super) fn source<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<T>())
}

/// At most `BODY` bytes of a body, and how it ended.
async fn read(mut body: Incoming) -> (Vec<u8>, Result<(), hyper::Error>) {
    let mut content = Vec::new();
    while content.len() < BODY && !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Err(error)) => return (content, Err(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    let room = BODY - content.len();
                    content.extend_from_slice(&data[..data.len().min(room)]);
                }
            }
        }
    }
    (content, Ok(()))
}

pub(super) fn describe(check: &HttpCheck) -> String {
    let scheme = if check.tls { "https" } else { "http" };
    let path = check.path.split('?').next().unwrap_or_default();
    format!("{scheme} {} {}{path}", check.method, shown(check.host.as_deref(), check.port))
}

impl Kind for Http {
    fn run<'a>(&'a mut self, _target: &'a Target) -> Run<'a> {
        Box::pin(async move { Ok(self.request().await?) })
    }
}
