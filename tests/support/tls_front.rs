//! TLS in front of a container engine: what Docker's `--tlsverify` does, in front of its Unix socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What a client needs, by the names that Docker's clients look for.
pub(crate) const CLIENT: [(&str, &str); 3] = [
    ("ca.pem", include_str!("tls/ca.pem")),
    ("cert.pem", include_str!("tls/cert.pem")),
    ("key.pem", include_str!("tls/key.pem")),
];

/// Takes connections of clients with a certificate for as long as the process lives; returns the port.
pub(crate) fn start(socket: PathBuf) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config()));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (wire, _) = listener.accept().await.unwrap();
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                tokio::spawn(async move {
                    // A client without a certificate is refused here.
                    let Ok(mut client) = acceptor.accept(wire).await else { return };
                    let mut engine = UnixStream::connect(socket).await.unwrap();
                    // Either may just be gone.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
                });
            }
        });
    });
    port
}

fn config() -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate(include_str!("tls/ca.pem"))).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server-key.pem")).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.unwrap())
        .with_single_cert(vec![certificate(include_str!("tls/server-cert.pem"))], key)
        .unwrap()
}
