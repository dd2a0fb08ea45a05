//! An example of a small web service.
//!
//! ```text
//! GET /          a greeting, with the process and how often it was asked
//! GET /healthz   200: it lives                        (startup and liveness probe)
//! GET /readyz    200 or 503: it may be used           (readiness probe)
//! SIGUSR1        toggles readiness: stigmer shows READY no, and does not restart it
//! SIGTERM        ends it in good order
//! ```
#![expect(clippy::print_stdout, reason = "its output is its log")]

use std::cell::Cell;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::LocalSet;

#[path = "common/http.rs"]
mod http;
#[path = "common/signals.rs"]
mod signals;

/// How long a peer may take to send its request and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A small web service.
#[derive(Parser)]
struct Options {
    /// Port on 127.0.0.1
    #[arg(long, default_value_t = 8088, env = "PORT")]
    port: u16,
    /// Say at first that it is not ready
    #[arg(long)]
    not_ready: bool,
}

/// What all connections share. One thread serves them all, so plain cells do.
struct Service {
    ready: Cell<bool>,
    asked: Cell<u64>,
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
    let address = SocketAddr::from(([127, 0, 0, 1], options.port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("listening on http://{address}/");
    let service = Rc::new(Service { ready: Cell::new(!options.not_ready), asked: Cell::new(0) });
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    let service = Rc::clone(&service);
                    tokio::task::spawn_local(async move {
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
            signal = signals.recv() => {
                if signal != Some(Signal::SIGUSR1) {
                    println!("stopped in good order");
                    return Ok(());
                }
                service.ready.set(!service.ready.get());
                println!("ready: {}", service.ready.get());
            }
        }
    }
}

impl Service {
    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
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
            _ => (404, "no such page\n".to_owned()),
        };
        println!("{} {} {status}", request.method, request.path.escape_default());
        http::respond(&mut stream, status, "", &body).await
    }
}
