//! Everything that the troublemaker listens on, and the gate that closes and opens it all.
//!
//! One thread with one runtime serves every listener. A listener that cannot be opened ends the
//! whole process, at the start as well as when the gate opens again: a test must not go on with
//! half a fixture.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::HealthServer;

use crate::CANNOT;
use crate::answers::{Answers, HttpAnswer};
use crate::grpc::ScriptedHealth;
use crate::http;
use crate::options::Options;

/// Closes and opens all listeners.
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    /// Connections are refused from now on.
    pub(crate) fn close(&self) {
        self.0.send_replace(false);
    }

    /// Connections are accepted again.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }
}

#[derive(Clone)]
enum Place {
    Tcp(u16),
    Unix(PathBuf),
    Http(u16, Answers),
    Grpc(u16, Answers),
}

/// Opens everything; returns once it is open. `None` if nothing was asked for.
pub(crate) fn start(options: &Options) -> io::Result<Option<Gate>> {
    let answers = Answers(options.answers.clone());
    let mut places: Vec<Place> = options.tcp.iter().copied().map(Place::Tcp).collect();
    places.extend(options.unix.clone().map(Place::Unix));
    places.extend(options.http.map(|port| Place::Http(port, answers.clone())));
    places.extend(options.grpc.map(|port| Place::Grpc(port, answers)));
    if places.is_empty() {
        return Ok(None);
    }
    let (gate, watched) = watch::channel(true);
    let (opened, is_open) = mpsc::channel();
    let expected = places.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("listeners".into()).spawn(move || {
        runtime.block_on(async {
            for place in places {
                tokio::spawn(keep(place, watched.clone(), opened.clone()));
            }
            std::future::pending::<()>().await;
        });
    })?;
    for _listener in 0..expected {
        is_open.recv().map_err(io::Error::other)?;
    }
    Ok(Some(Gate(gate)))
}

/// Serves one place whenever the gate is open.
async fn keep(place: Place, mut gate: watch::Receiver<bool>, opened: mpsc::Sender<()>) {
    while gate.wait_for(|open| *open).await.is_ok() {
        if let Err(error) = serve(place.clone(), &mut gate, &opened).await {
            eprintln!("troublemaker: {error}");
            process::exit(CANNOT.into());
        }
    }
}

/// Opens one place and serves it until the gate closes.
async fn serve(
    place: Place,
    gate: &mut watch::Receiver<bool>,
    opened: &mpsc::Sender<()>,
) -> io::Result<()> {
    // Nobody listens for this when the gate opens for the second time.
    let tell = || {
        let _ = opened.send(());
    };
    match place {
        Place::Tcp(port) => {
            let listener = bind(port).await?;
            tell();
            let mut guests = Vec::new();
            loop {
                tokio::select! {
                    () = closed(gate) => return Ok(()),
                    guest = listener.accept() => guests.push(guest?.0),
                }
                // Those that have hung up are let go, so that probes do not pile up.
                guests.retain(still_there);
            }
        }
        Place::Unix(path) => {
            // A socket of a copy that was killed is still in the folder.
            let _ = fs::remove_file(&path);
            let listener = UnixListener::bind(&path)
                .map_err(|error| name(&error, &path.display().to_string()))?;
            tell();
            loop {
                tokio::select! {
                    () = closed(gate) => return Ok(()),
                    guest = listener.accept() => drop(guest?),
                }
            }
        }
        Place::Http(port, answers) => {
            let listener = bind(port).await?;
            tell();
            loop {
                tokio::select! {
                    () = closed(gate) => return Ok(()),
                    guest = listener.accept() => {
                        let (stream, answers) = (guest?.0, answers.clone());
                        // A peer that goes away in the middle is what these tests are about.
                        tokio::spawn(async move { drop(answer(stream, &answers).await) });
                    }
                }
            }
        }
        Place::Grpc(port, answers) => {
            let incoming = TcpIncoming::from(bind(port).await?);
            tell();
            let server = Server::builder().add_service(HealthServer::new(ScriptedHealth(answers)));
            // Not in good order: whoever is connected when the gate closes loses its connection.
            tokio::select! {
                () = closed(gate) => Ok(()),
                result = server.serve_with_incoming(incoming) => result.map_err(io::Error::other),
            }
        }
    }
}

async fn closed(gate: &mut watch::Receiver<bool>) {
    if gate.wait_for(|open| !*open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn bind(port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| name(&error, &address.to_string()))
}

fn name(error: &io::Error, place: &str) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {place}: {error}"))
}

fn still_there(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 64]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

async fn answer(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let Some(request) = http::read_request(&mut stream).await? else { return Ok(()) };
    let answer = answers.http(&request.path);
    println!("{} {} -> {answer:?}", request.method, request.path.escape_default());
    match answer {
        HttpAnswer::Status(status, body) => {
            http::respond(&mut stream, status, "", &format!("{body}\n")).await
        }
        HttpAnswer::Redirect(place) => {
            http::respond(&mut stream, 302, &format!("Location: {place}\r\n"), "").await
        }
        HttpAnswer::Hang => stream.read_to_end(&mut Vec::new()).await.map(drop),
        HttpAnswer::Drip => {
            let mut interval = tokio::time::interval(Duration::from_millis(50));
            stream.write_all(b"HTTP/1.1 200 OK\r\nX-Drip: ").await?;
            loop {
                interval.tick().await;
                stream.write_all(b"x").await?;
            }
        }
        HttpAnswer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'z'; 16 * 1024]).await?;
            }
        }
        HttpAnswer::Nonsense => stream.write_all(b"\x16\x03\x01 this is no HTTP\n\n").await,
    }
}
