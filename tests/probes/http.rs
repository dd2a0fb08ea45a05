//! HTTP and HTTPS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stigmer::model::spec::{Check, HttpCheck};
use stigmer::runner::probe::{Prober, describe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    answering, behind_tls, drops_cleanly, probe, prober, read_request, refusing, server, target,
};

fn plain(port: u16) -> HttpCheck {
    HttpCheck {
        tls: false,
        host: Some("127.0.0.1".into()),
        port,
        path: "/healthz".into(),
        method: "GET".into(),
        headers: BTreeMap::new(),
        status: Vec::new(),
        body: None,
    }
}

fn get(port: u16) -> Check {
    Check::Http(plain(port))
}

fn get_with_body(port: u16, pattern: &str) -> Check {
    Check::Http(HttpCheck { body: Some(pattern.into()), ..plain(port) })
}

#[tokio::test]
async fn s32_http_passes_from_200_to_399() {
    for (answer, wanted) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], Ok(())),
        (b"HTTP/1.0 204 No Content\r\n\r\n", Ok(())),
        (b"HTTP/1.1 399 ?\r\n\r\n", Ok(())),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", Err("GET /healthz 503")),
        (b"HTTP/1.1 400 No\r\n\r\n", Err("GET /healthz 400")),
    ] {
        let port = answering(answer).await;
        assert_eq!(probe(&get(port)).await, wanted.map_err(str::to_owned));
    }
}

#[tokio::test]
async fn listed_statuses_replace_the_usual_ones() {
    let port = answering(b"HTTP/1.1 401 Who\r\ncontent-length: 0\r\n\r\n").await;
    let check = |status| Check::Http(HttpCheck { status, ..plain(port) });
    assert_eq!(probe(&check(vec![401])).await, Ok(()));
    assert_eq!(probe(&check(vec![200, 204])).await, Err("GET /healthz 401".into()));
}

#[tokio::test]
async fn the_request_is_as_declared() {
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    let port = server(move |mut stream| {
        let say = say.clone();
        async move {
            say.send(read_request(&mut stream).await).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        }
    })
    .await;
    assert_eq!(probe(&get(port)).await, Ok(()));
    let request = said.recv().await.unwrap();
    assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{request}");
    assert!(request.contains(concat!("stigmer-probe/", env!("CARGO_PKG_VERSION"))), "{request}");

    let headers = [("Host", "shop.example"), ("X-Key", "a b")].map(|(k, v)| (k.into(), v.into()));
    let check = HttpCheck {
        path: "/ready?deep=1".into(),
        method: "HEAD".into(),
        headers: headers.into(),
        ..plain(port)
    };
    assert_eq!(probe(&Check::Http(check)).await, Ok(()));
    let request = said.recv().await.unwrap();
    assert!(request.starts_with("HEAD /ready?deep=1 HTTP/1.1\r\n"), "{request}");
    assert_eq!(request.to_lowercase().matches("host: ").count(), 1, "{request}");
    assert!(request.contains("host: shop.example\r\n"), "{request}");
    assert!(request.contains("x-key: a b\r\n"), "{request}");
}

#[tokio::test]
async fn the_body_is_matched_in_its_first_64_kib() {
    let port = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"ok\": true}\n").await;
    assert_eq!(probe(&get_with_body(port, r#""ok":\s*true"#)).await, Ok(()));
    let message = probe(&get_with_body(port, "nope")).await.unwrap_err();
    assert_eq!(message, "GET /healthz 200, but the body does not match /nope/");
}

#[tokio::test]
async fn fault_46_an_endless_body_is_read_as_far_as_allowed() {
    let port = server(|mut stream| async move {
        read_request(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    assert_eq!(probe(&get(port)).await, Ok(()), "nobody asked about the body");
    assert!(probe(&get_with_body(port, "y")).await.unwrap_err().contains("does not match"));
}

#[tokio::test]
async fn fault_46_an_endless_head_is_refused() {
    let port = server(|mut stream| async move {
        read_request(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n").await);
        while stream.write_all(b"x-filler: abcdefghijklmnopqrstuvwxyz\r\n").await.is_ok() {}
    })
    .await;
    assert!(probe(&get(port)).await.unwrap_err().contains("not an HTTP answer"));
}

#[tokio::test]
async fn fault_46_a_redirect_is_not_followed() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let port = server(move |mut stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            read_request(&mut stream).await;
            let answer = b"HTTP/1.1 302 Found\r\nlocation: /healthz\r\ncontent-length: 0\r\n\r\n";
            drop(stream.write_all(answer).await);
        }
    })
    .await;
    assert_eq!(probe(&get(port)).await, Ok(()));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn fault_45_a_server_that_does_not_answer() {
    drops_cleanly(get, |mut stream| async move {
        read_request(&mut stream).await;
        stream
    })
    .await;
}

#[tokio::test]
async fn fault_46_a_head_that_drips() {
    drops_cleanly(get, |mut stream| async move {
        read_request(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\nx-drip: a" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream
    })
    .await;
}

#[tokio::test]
async fn fault_46_a_body_that_drips() {
    let check = |port| get_with_body(port, "whole");
    drops_cleanly(check, |mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await.unwrap();
        for byte in b"half of i" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream
    })
    .await;
}

#[tokio::test]
async fn s10_a_tls_handshake_that_hangs() {
    let check = |port| Check::Http(HttpCheck { tls: true, ..plain(port) });
    drops_cleanly(check, |mut stream| async move {
        stream.read_u8().await.unwrap();
        stream
    })
    .await;
}

#[tokio::test]
async fn a_body_that_drips_does_not_matter_if_nobody_asked_about_it() {
    let port = server(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
        let mut end = Vec::new();
        drop(stream.read_to_end(&mut end).await);
    })
    .await;
    assert_eq!(probe(&get(port)).await, Ok(()));
}

#[tokio::test]
async fn other_protocols_and_broken_answers_are_named() {
    for (answer, wanted) in [
        (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], "not an HTTP answer"),
        (b"", "closed before the answer"),
        (b"HTTP/1.1 20", "closed before the answer"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "not an HTTP answer"),
    ] {
        let port = answering(answer).await;
        let message = probe(&get(port)).await.unwrap_err();
        assert!(message.contains(wanted), "{message}");
    }
    let port = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await;
    assert!(probe(&get_with_body(port, "never")).await.is_err(), "a body that breaks off");
}

#[tokio::test]
async fn s33_a_closed_port_fails() {
    let (_socket, port) = refusing();
    let message = probe(&get(port)).await.unwrap_err();
    assert_eq!(message, format!("connection refused (127.0.0.1:{port})"));
}

#[tokio::test]
async fn s32_https_accepts_any_certificate() {
    let plain_port = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let port = behind_tls(plain_port, b"http/1.1").await;
    for host in ["127.0.0.1", "localhost"] {
        let check = HttpCheck {
            tls: true,
            host: Some(host.into()),
            body: Some("^ok$".into()),
            ..plain(port)
        };
        assert_eq!(probe(&Check::Http(check)).await, Ok(()));
    }
    let without = Check::Http(HttpCheck { tls: true, ..plain(plain_port) });
    let message = probe(&without).await.unwrap_err();
    assert!(message.contains("TLS handshake failed"), "{message}");
    assert!(probe(&get(port)).await.is_err(), "plain HTTP to a TLS port");
}

#[tokio::test]
async fn ipv6_addresses_work_with_and_without_brackets() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            assert!(read_request(&mut stream).await.contains(&format!("host: [::1]:{port}\r\n")));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        }
    });
    for host in ["::1", "[::1]"] {
        let check = Check::Http(HttpCheck { host: Some(host.into()), ..plain(port) });
        assert_eq!(probe(&check).await, Ok(()));
        assert_eq!(describe(&check), format!("http GET [::1]:{port}/healthz"));
    }
}

#[tokio::test]
async fn a_prober_can_be_used_again_after_it_was_dropped_in_the_middle() {
    let connections = Arc::new(AtomicUsize::new(0));
    let reached = Arc::new(tokio::sync::Notify::new());
    let (counter, say) = (Arc::clone(&connections), Arc::clone(&reached));
    let port = server(move |mut stream| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        let say = Arc::clone(&say);
        async move {
            read_request(&mut stream).await;
            if number == 0 {
                say.notify_one();
                drop(stream.read_u8().await);
            } else {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
            }
        }
    })
    .await;
    let mut prober = prober(&get(port));
    tokio::select! {
        result = prober.probe() => panic!("{result:?}"),
        () = reached.notified() => {}
    }
    assert_eq!(prober.probe().await, Ok(()));
}

#[test]
fn what_can_never_work_is_refused_at_once() {
    let wrong = |change: fn(&mut HttpCheck)| {
        let mut check = plain(80);
        change(&mut check);
        Prober::new(&Check::Http(check), target()).map(drop).unwrap_err()
    };
    assert!(wrong(|check| check.body = Some("(".into())).contains("regular expression"));
    assert!(wrong(|check| check.method = "G T".into()).contains("method"));
    assert!(wrong(|check| check.method = "CONNECT".into()).contains("tunnel"));
    assert!(wrong(|check| check.path = "http://elsewhere/".into()).contains("path"));
    assert!(wrong(|check| check.path = "/a b".into()).contains("path"));
    assert!(wrong(|check| check.host = Some(String::new())).contains("host"));
    let bad_value = |check: &mut HttpCheck| {
        check.headers.insert("x".into(), "a\r\nb: c".into());
    };
    assert!(wrong(bad_value).contains("header"));
}
