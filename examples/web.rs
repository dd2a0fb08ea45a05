//! An example of a small web service.
//!
//! ```text
//! GET /          a greeting, with the process and how often it was asked
//! GET /healthz   200: it lives                        (startup and liveness probe)
//! GET /readyz    200 or 503: it may be used           (readiness probe)
//! GET PATH       200 and a text, for each --page PATH=TEXT
//! SIGUSR1        toggles readiness: stigmer shows READY no, and does not restart it
//! SIGTERM        ends it in good order: what it has accepted is answered, the rest is left in the queue
//! ```
//!
//! With several ports and pages of its own it stands in for other services, as in
//! `examples/stigmer-stack`.
//!
//! It listens on the sockets that it is given (`sockets:` of its component, or systemd's); without any, on
//! `--port`.
#![expect(clippy::print_stdout, reason = "its output is its log")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use futures_util::future::select_all;
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};

use inherited::{Listener, Stream};

#[path = "common/http.rs"]
mod http;
#[path = "common/inherited.rs"]
mod inherited;
#[path = "common/signals.rs"]
mod signals;

/// How long a peer may take to send its request and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A small web service.
#[derive(Parser)]
struct Options {
    /// Port on 127.0.0.1, where no socket is inherited; may be repeated
    #[arg(long = "port", default_value = "8088", env = "PORT", value_delimiter = ',')]
    ports: Vec<u16>,
    /// A page of your own, as PATH=TEXT; may be repeated
    #[arg(long = "page", value_name = "PATH=TEXT", value_parser = page)]
    pages: Vec<(String, String)>,
    /// Say at first that it is not ready
    #[arg(long)]
    not_ready: bool,
}

/// What all connections share. One thread serves them all, so plain cells do.
struct Service {
    ready: Cell<bool>,
    asked: Cell<u64>,
    pages: BTreeMap<String, String>,
}

/// `/api/tags={}`.
fn page(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, body)) if path.starts_with('/') => Ok((path.to_owned(), body.to_owned())),
        _ => Err("a page is written as PATH=TEXT, and its path begins with a slash".to_owned()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (sender, receiver) = unbounded_channel();
    signals::deliver_to(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1], move |signal| {
        sender.send(signal).is_ok()
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(options, receiver))
}

async fn serve(
    options: Options,
    mut signals: UnboundedReceiver<Signal>,
) -> Result<(), Box<dyn Error>> {
    let mut listeners = inherited::listeners()?;
    if listeners.is_empty() {
        for port in options.ports {
            listeners.push(listen(port).await?);
        }
    } else {
        println!("listening on {} inherited sockets", listeners.len());
    }
    let service = Rc::new(Service {
        ready: Cell::new(!options.not_ready),
        asked: Cell::new(0),
        pages: options.pages.into_iter().collect(),
    });
    let mut guests = JoinSet::new();
    loop {
        let next = select_all(listeners.iter().map(|listener| Box::pin(listener.accept())));
        tokio::select! {
            (accepted, _, _) = next => match accepted {
                Ok(stream) => {
                    let service = Rc::clone(&service);
                    guests.spawn_local(async move {
                        // A peer that is too slow, or goes away, is its own problem.
                        let _ = tokio::time::timeout(PATIENCE, service.answer(stream)).await;
                    });
                }
                // Out of descriptors, say. Without the pause it would say so a million times.
                Err(error) => {
                    println!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = guests.join_next(), if !guests.is_empty() => {}
            signal = signals.recv() => {
                if signal != Some(Signal::SIGUSR1) {
                    break;
                }
                service.ready.set(!service.ready.get());
                println!("ready: {}", service.ready.get());
            }
        }
    }
    // Whoever is in a queue that somebody else holds is left to the next process.
    drop(listeners);
    while guests.join_next().await.is_some() {}
    println!("stopped in good order");
    Ok(())
}

async fn listen(port: u16) -> Result<Listener, Box<dyn Error>> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("listening on http://{address}/");
    Ok(Listener::Tcp(listener))
}

impl Service {
    async fn answer(&self, mut stream: Box<dyn Stream>) -> std::io::Result<()> {
        let Some(request) = http::read_request(&mut stream).await? else { return Ok(()) };
        self.asked.set(self.asked.get() + 1);
        let (status, body) = match request.path.as_str() {
            "/" => {
                let process = std::process::id();
                (200, format!("Hello from process {process}, asked {} times.\n", self.asked.get()))
            }
            "/healthz" => (200, "alive\n".to_owned()),
            "/readyz" if self.ready.get() => (200, "ready\n".to_owned()),
            "/readyz" => (503, "not ready\n".to_owned()),
            path => match self.pages.get(path) {
                Some(page) => (200, format!("{page}\n")),
                None => (404, "no such page\n".to_owned()),
            },
        };
        println!("{} {} {status}", request.method, request.path.escape_default());
        http::respond(&mut stream, status, "", &body).await
    }
}
