//! What the tests of probes share: targets, servers that misbehave, and a look at what is left behind.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use stigmer::model::spec::Check;
use stigmer::runner::probe::{CommandFuture, CommandRunner, Prober, Reach, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

struct NoCommands;

impl CommandRunner for NoCommands {
    fn run(&self, argv: Vec<String>) -> CommandFuture {
        Box::pin(async move { Err(format!("no command was expected: {argv:?}").into()) })
    }
}

pub(crate) fn target() -> Target {
    Target {
        pid: None,
        launched: Instant::now(),
        log: PathBuf::from("/nonexistent/api.log"),
        log_start: 0,
        commands: Arc::new(NoCommands),
        reach: Reach::Local,
        container: None,
    }
}

pub(crate) fn prober(check: &Check) -> Prober {
    Prober::new(check, target()).unwrap()
}

pub(crate) async fn probe(check: &Check) -> Result<(), String> {
    prober(check).probe().await.map_err(|failure| failure.to_string())
}

/// A port that refuses, and goes on doing so: it is taken, and nobody listens on it.
pub(crate) fn refusing() -> (tokio::net::TcpSocket, u16) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Accepts connections one by one and gives them to `serve`; returns the port.
pub(crate) async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// Reads the request and answers with these bytes.
pub(crate) async fn answering(answer: &'static [u8]) -> u16 {
    server(move |mut stream| async move {
        read_request(&mut stream).await;
        drop(stream.write_all(answer).await);
        drop(stream.shutdown().await);
    })
    .await
}

/// The head of a request; what is no HTTP is read as far as its first byte that shows it.
pub(crate) async fn read_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if head.is_empty() && !byte.is_ascii_uppercase() => break,
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Runs a probe against a server that does `misbehave` on its connection, drops the probe when the
/// server has come to the point where it hangs, and checks that neither a task nor a socket is left.
pub(crate) async fn drops_cleanly<F>(
    check: impl FnOnce(u16) -> Check,
    misbehave: impl FnOnce(TcpStream) -> F,
) where
    F: Future<Output = TcpStream>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut prober = prober(&check(port));
    let tasks = Handle::current().metrics().num_alive_tasks();
    let serving = async {
        let (stream, peer) = listener.accept().await.unwrap();
        let stream = misbehave(stream).await;
        assert!(holds_port(peer.port()), "the check below would see nothing");
        (stream, peer.port())
    };
    let (mut stream, peer) = tokio::select! {
        result = prober.probe() => panic!("it should hang: {result:?}"),
        served = serving => served,
    };
    assert!(!holds_port(peer), "its socket is still open");
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks, "a task is left");
    // The server sees the end, too: an orderly one or a reset.
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
}

/// Whether this process has a TCP socket with this local port (as the peer of somebody) open.
pub(crate) fn holds_port(port: u16) -> bool {
    // Connections of others, to other peers, may have the same port, and so may what is closed already.
    let mut wanted = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap().lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let local = fields[1].rsplit(':').next().unwrap();
            if u16::from_str_radix(local, 16) == Ok(port) {
                wanted.push(PathBuf::from(format!("socket:[{}]", fields[9])));
            }
        }
    }
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok)
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| wanted.contains(&link)))
}

/// A TLS server whose certificate is expired, self-signed and for another name.
pub(crate) fn acceptor(protocol: &[u8]) -> TlsAcceptor {
    let certificate = CertificateDer::from(&include_bytes!("expired-certificate.der")[..]);
    let key = PrivatePkcs8KeyDer::from(&include_bytes!("expired-key.der")[..]);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from(key))
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Puts TLS in front of a plain server; returns its port.
pub(crate) async fn behind_tls(plain: u16, protocol: &'static [u8]) -> u16 {
    let acceptor = acceptor(protocol);
    server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut outside) = acceptor.accept(stream).await else { return };
            let mut inside = TcpStream::connect(("127.0.0.1", plain)).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
        }
    })
    .await
}
