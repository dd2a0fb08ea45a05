//! TCP and Unix sockets.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use stigmer::model::spec::Check;
use stigmer::runner::probe::describe;

use crate::support::{probe, refusing};

fn tcp(host: &str, port: u16) -> Check {
    Check::Tcp { host: Some(host.into()), port }
}

#[tokio::test]
async fn s32_tcp_passes_where_a_connection_is_accepted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(probe(&tcp("127.0.0.1", port)).await, Ok(()));
    assert_eq!(probe(&tcp("localhost", port)).await, Ok(()), "every address is tried");
    assert_eq!(describe(&tcp("127.0.0.1", port)), format!("tcp 127.0.0.1:{port}"));
}

#[tokio::test]
async fn s33_tcp_fails_where_nobody_listens() {
    let (_socket, port) = refusing();
    let message = probe(&tcp("127.0.0.1", port)).await.unwrap_err();
    assert_eq!(message, format!("connection refused (127.0.0.1:{port})"));
}

#[tokio::test]
async fn an_unknown_host_is_named() {
    // A name that no resolver asks about: an empty label is no name.
    let message = probe(&tcp("no..such..host", 80)).await.unwrap_err();
    assert!(message.starts_with("cannot resolve no..such..host: "), "{message}");
}

#[tokio::test]
async fn s32_unix_socket_accepted_stale_missing_and_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let check = Check::Unix { path: path.clone() };
    let said = |why: &str| Err(format!("{why} ({})", path.display()));
    assert_eq!(probe(&check).await, said("no such socket"));
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(probe(&check).await, Ok(()));
    drop(listener);
    assert_eq!(probe(&check).await, said("connection refused"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    assert_eq!(probe(&check).await, said("connection refused"));
}

#[tokio::test]
async fn a_server_that_no_longer_accepts_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    let address = nix::sys::socket::UnixAddr::new(&path).unwrap();
    nix::sys::socket::bind(socket.as_raw_fd(), &address).unwrap();
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let check = Check::Unix { path };
    // The queue holds one or two; a connection that its client has closed stays in it.
    let mut accepted = 0;
    let message = loop {
        match probe(&check).await {
            Ok(()) => accepted += 1,
            Err(message) => break message,
        }
        assert!(accepted < 10);
    };
    assert!(message.starts_with("nobody accepts"), "{message}");
}

#[tokio::test]
async fn a_path_longer_than_a_socket_address_works() {
    let folder = tempfile::tempdir().unwrap();
    let deep: PathBuf = folder.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let short = folder.path().join("s");
    std::os::unix::fs::symlink(&deep, &short).unwrap();
    let _listener = UnixListener::bind(short.join("api.sock")).unwrap();
    assert_eq!(probe(&Check::Unix { path: deep.join("api.sock") }).await, Ok(()));
    let message = probe(&Check::Unix { path: deep.join("no.sock") }).await.unwrap_err();
    assert!(message.starts_with("no such socket"), "{message}");
}
