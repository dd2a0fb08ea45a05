//! A request that turns its connection into a raw stream in both directions.
//!
//! bollard can do so as well, and then guesses from the first byte of each piece whether it is the header of
//! a frame: the output of a terminal, which has no frames, hangs or is mangled where it has a byte below 3 in
//! that place.
//!
//! Failure paths: a refusal comes with the engine's words; a connection that cannot be had is
//! `EngineError::Unreachable`.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::Address;
use super::error::EngineError;

/// How much of a refusal is read, in bytes.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// The stream. Shutting down its writing half tells the engine that no more comes.
pub(super) type Raw = TokioIo<Upgraded>;

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Posts a document and takes the connection over.
///
/// # Errors
/// Nobody is there, or it refuses. The caller bounds the waiting.
pub(super) async fn post(
    address: &Address,
    path: &str,
    document: Vec<u8>,
) -> Result<Raw, EngineError> {
    let place = address.as_url();
    let unreachable = |why: &dyn Display| EngineError::unreachable(&format!("{place}: {why}"));
    let wire = connect(address).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(wire))
        .await
        .map_err(|error| unreachable(&error))?;
    // It ends with the stream that it becomes.
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(path)
        .header(HOST, "engine")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(document)))
        .map_err(|error| EngineError::Nonsense { what: "exec", message: error.to_string() })?;
    let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let upgraded = hyper::upgrade::on(response).await;
            upgraded.map(TokioIo::new).map_err(|error| unreachable(&error))
        }
        status => {
            let body = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
            let body = body.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
            Err(EngineError::Refused { status: status.as_u16(), message: message_of(&body) })
        }
    }
}

/// The words of a refusal.
fn message_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    serde_json::from_slice::<Refusal>(body).map_or_else(
        |_| String::from_utf8_lossy(body).trim().to_owned(),
        |refusal| refusal.message.trim().to_owned(),
    )
}

async fn connect(address: &Address) -> io::Result<Box<dyn Wire>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(host) => Ok(Box::new(TcpStream::connect(host).await?)),
        Address::Tls { host, certificates } => {
            let config = tls(certificates).map_err(io::Error::other)?;
            let name = host.rsplit_once(':').map_or(&**host, |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let wire = TcpStream::connect(host).await?;
            Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, wire).await?))
        }
    }
}

/// Whether the certificates for an engine can be used; if not, which and why.
pub(super) fn check(certificates: &Path) -> Result<(), String> {
    tls(certificates).map(drop)
}

/// Which file cannot be used, and why.
fn explain(file: &Path, error: &pem::Error) -> String {
    let text = match error {
        pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    format!("{}: {}", file.display(), text.split(" (os error").next().unwrap_or_default())
}

/// The authority that the engine is to be signed by, and what this client shows of itself.
fn tls(certificates: &Path) -> Result<ClientConfig, String> {
    let file = |name: &str| certificates.join(name);
    let read = |name: &str| -> Result<Vec<CertificateDer<'static>>, String> {
        let explain = |error: &pem::Error| explain(&file(name), error);
        let all = CertificateDer::pem_file_iter(file(name)).map_err(|error| explain(&error))?;
        all.collect::<Result<_, _>>().map_err(|error| explain(&error))
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read("ca.pem")?);
    let key = PrivateKeyDer::from_pem_file(file("key.pem"))
        .map_err(|error| explain(&file("key.pem"), &error))?;
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(read("cert.pem")?, key)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_words_of_a_refusal_are_found() {
        assert_eq!(message_of(br#"{"message":"is paused\n"}"#), "is paused");
        assert_eq!(message_of(b"page not found\n"), "page not found");
    }

    /// Asks an engine that answers with this and then sends back what it is sent.
    fn posted(answer: &'static str) -> (String, Result<Vec<u8>, EngineError>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address::Tcp(listener.local_addr().unwrap().to_string());
            let engine = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"{}") {
                    assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                // A client that was refused says no more.
                let mut said = Vec::new();
                let _ = stream.read_to_end(&mut said).await;
                let _ = stream.write_all(&said).await;
                String::from_utf8(asked).unwrap()
            };
            let client = async {
                let mut stream = post(&address, "/v1.41/exec/7/start", b"{}".to_vec()).await?;
                stream.write_all(b"\0\x01\xff").await.unwrap();
                // Without the end of ours, the engine would wait for more.
                stream.shutdown().await.unwrap();
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                Ok(heard)
            };
            tokio::join!(engine, client)
        })
    }

    #[test]
    fn a_connection_becomes_a_stream_of_two_halves() {
        let (asked, heard) =
            posted("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst ");
        assert!(asked.starts_with("POST /v1.41/exec/7/start HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("upgrade: tcp\r\n"), "{asked}");
        assert_eq!(heard.unwrap(), b"first \0\x01\xff");
    }

    #[test]
    fn a_refusal_is_told_with_its_status_and_words() {
        let (_, heard) = posted(
            "HTTP/1.1 409 Conflict\r\nContent-Length: 26\r\n\r\n{\"message\":\"it is paused\"}",
        );
        let refused = EngineError::Refused { status: 409, message: "it is paused".into() };
        assert_eq!(heard.unwrap_err(), refused);
    }
}
