//! Just enough of HTTP/1.1 for a health endpoint: one request a connection, no body read.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A request line and its headers may be this long, in bytes; a longer one is refused.
const MAX_HEAD: usize = 8 * 1024;

/// What is asked for.
pub(crate) struct Request {
    /// `GET` and the like.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
}

/// Reads the head of a request. `None` if the peer went away or did not speak HTTP.
pub(crate) async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Request>> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8_lossy(&head);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(path), Some(version)) if version.starts_with("HTTP/1.") => {
            Ok(Some(Request { method: method.to_owned(), path: path.to_owned() }))
        }
        _ => Ok(None),
    }
}

/// Answers with `status`, the given extra headers (each ending in a line break) and a text, and
/// says that the connection ends here.
pub(crate) async fn respond(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &str,
    body: &str,
) -> io::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}",
        reason = reason(status),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unnamed",
    }
}
