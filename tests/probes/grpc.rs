//! The health service of gRPC, spoken with tonic's own server.

use stigmer::model::spec::Check;
use stigmer::runner::probe::describe;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::support::{answering, behind_tls, drops_cleanly, probe, prober, refusing};

fn grpc(port: u16, service: &str) -> Check {
    Check::Grpc { host: Some("127.0.0.1".into()), port, service: service.into(), tls: false }
}

async fn health_server() -> (tonic_health::server::HealthReporter, u16) {
    let (reporter, service) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    (reporter, port)
}

#[tokio::test]
async fn s32_grpc_only_serving_passes() {
    let (reporter, port) = health_server().await;
    assert_eq!(probe(&grpc(port, "")).await, Ok(()), "the server as a whole");
    let mut shop = prober(&grpc(port, "shop.Api"));
    assert_eq!(shop.probe().await, Err("unknown service shop.Api".into()));
    reporter.set_service_status("shop.Api", ServingStatus::Serving).await;
    assert_eq!(shop.probe().await, Ok(()));
    reporter.set_service_status("shop.Api", ServingStatus::NotServing).await;
    assert_eq!(shop.probe().await, Err("shop.Api is NOT_SERVING".into()));
    reporter.set_service_status("shop.Api", ServingStatus::Unknown).await;
    assert_eq!(shop.probe().await, Err("shop.Api is UNKNOWN".into()));
}

#[tokio::test]
async fn s32_grpc_over_tls_accepts_any_certificate() {
    let (_reporter, plain) = health_server().await;
    let port = behind_tls(plain, b"h2").await;
    let check =
        Check::Grpc { host: Some("localhost".into()), port, service: String::new(), tls: true };
    assert_eq!(probe(&check).await, Ok(()));
    assert_eq!(describe(&check), format!("grpc localhost:{port} (TLS)"));
    assert!(probe(&grpc(port, "")).await.is_err(), "without TLS to a TLS port");
}

#[tokio::test]
async fn a_server_without_the_health_service_is_told_from_an_unknown_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = Server::builder()
        .add_routes(tonic::service::Routes::default())
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let message = probe(&grpc(port, "")).await.unwrap_err();
    assert!(message.contains("lacks the standard health service"), "{message}");
}

#[tokio::test]
async fn other_protocols_are_named() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
    ] {
        let port = answering(answer).await;
        let message = probe(&grpc(port, "")).await.unwrap_err();
        assert!(message.contains("not a gRPC server"), "{message}");
    }
    let (_socket, port) = refusing();
    let message = probe(&grpc(port, "")).await.unwrap_err();
    assert_eq!(message, format!("connection refused (127.0.0.1:{port})"));
}

#[tokio::test]
async fn fault_45_a_server_that_accepts_and_says_nothing() {
    drops_cleanly(
        |port| grpc(port, "shop.Api"),
        |mut stream| async move {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            stream
        },
    )
    .await;
}
