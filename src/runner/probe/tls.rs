//! TLS for probes: encrypted, and deliberately not authenticated.
//!
//! Any certificate is accepted: expired, self-signed, for another name. A probe asks whether the
//! component answers, mostly on the loopback address for which no authority signs, and Kubernetes does
//! the same. So a probe must not carry a credential that a stranger on the way may not read; the
//! documentation says so. Nothing else in stigmer may use this module.
//!
//! TLS 1.2 and 1.3. The configuration is made at the first use and shared by all probers.

use std::io;
use std::sync::{Arc, LazyLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::connect::{Endpoint, bare};
use super::text;

/// What is spoken inside.
#[derive(Clone, Copy)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A byte stream, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type SharedConfig = LazyLock<Result<Arc<ClientConfig>, String>>;

static HTTP1: SharedConfig = LazyLock::new(|| config(b"http/1.1"));
static HTTP2: SharedConfig = LazyLock::new(|| config(b"h2"));

/// The name that the handshake asks for.
///
/// # Errors
/// It is neither an address nor a host name.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(bare(host).to_owned())
        .map_err(|_| format!("{host} is not a host name that TLS can ask for"))
}

/// Connects, and speaks TLS if there is a name to ask for.
pub(super) async fn open(
    endpoint: &mut Endpoint,
    name: Option<&ServerName<'static>>,
    protocol: Protocol,
) -> Result<Box<dyn Stream>, String> {
    let stream = endpoint.connect().await?;
    match name {
        None => Ok(Box::new(stream)),
        Some(name) => handshake(stream, name.clone(), protocol)
            .await
            .map_err(|why| format!("{why} ({})", endpoint.authority())),
    }
}

async fn handshake(
    stream: TcpStream,
    name: ServerName<'static>,
    protocol: Protocol,
) -> Result<Box<dyn Stream>, String> {
    let shared = match protocol {
        Protocol::Http1 => &HTTP1,
        Protocol::Http2 => &HTTP2,
    };
    let config = shared.as_ref().map_err(Clone::clone)?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .map_err(|error| format!("TLS handshake failed: {}", explain(&error)))?;
    Ok(Box::new(stream))
}

fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => "the server does not speak TLS".to_owned(),
        Some(error) => error.to_string(),
        None => text::io_error(error),
    }
}

fn config(protocol: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS is not available: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    // A probe makes a full handshake, as a new client does.
    config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts every certificate and every signature; see the head of the module.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A signature by a key that nobody vouches for proves nothing, and checking it would refuse
    // certificates of old forms that the component's own clients accept.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
