//! An example of a gRPC server: nothing but the standard health service, on the loopback interface.
//!
//! It shows a component that stigmer can look into: the startup probe sees the port open, the
//! liveness probe asks for the server as a whole (service ""), the readiness probe for the service
//! by its name. Two signals make it sick, to watch what stigmer does about it:
//!
//! ```text
//! SIGUSR1   toggles the named service between SERVING and NOT_SERVING: not ready, no restart
//! SIGUSR2   hangs the whole program, as a deadlock would: the liveness probe fails, a restart
//! SIGTERM   ends it in good order (but not once it hangs: then the grace period runs out)
//! ```
#![expect(clippy::print_stdout, reason = "its output is its log")]

use std::error::Error;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

#[path = "common/duration.rs"]
mod duration;
#[path = "common/signals.rs"]
mod signals;

/// A gRPC server with the standard health service.
#[derive(Parser)]
struct Options {
    /// Port on 127.0.0.1
    #[arg(long, default_value_t = 7234, env = "SERVER_PORT")]
    port: u16,
    /// Name of the service whose health is told beside that of the whole server
    #[arg(long, default_value = "stigmer.Server", env = "SERVER_SERVICE")]
    service: String,
    /// Time from opening the port until the service is SERVING
    #[arg(long, default_value = "0s", env = "SERVER_WARM_UP", value_parser = duration::parse)]
    warm_up: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (sender, receiver) = unbounded_channel();
    signals::deliver_to(
        &[Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2],
        move |signal| sender.send(signal).is_ok(),
    )?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(options, receiver))
}

async fn serve(options: Options, signals: UnboundedReceiver<Signal>) -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::from(([127, 0, 0, 1], options.port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let (health, service) = health_reporter();
    health.set_service_status(&options.service, ServingStatus::NotServing).await;
    println!("listening on {address}");
    Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener),
            tell_health_until_stopped(options, health, signals),
        )
        .await?;
    println!("stopped in good order");
    Ok(())
}

/// Keeps the service's health as the signals want it; returns when the server shall stop.
async fn tell_health_until_stopped(
    options: Options,
    health: HealthReporter,
    mut signals: UnboundedReceiver<Signal>,
) {
    let warm = tokio::time::sleep(options.warm_up);
    tokio::pin!(warm);
    let mut warming = true;
    let mut serving = false;
    loop {
        tokio::select! {
            () = &mut warm, if warming => {
                warming = false;
                serving = true;
            }
            signal = signals.recv() => match signal {
                Some(Signal::SIGUSR1) => {
                    warming = false;
                    serving = !serving;
                }
                Some(Signal::SIGUSR2) => hang(),
                _ => return,
            }
        }
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        println!("{} is now {status}", options.service);
        health.set_service_status(&options.service, status).await;
    }
}

/// Never returns: the only thread that serves is stuck. The kernel goes on accepting connections on
/// its behalf, so that a probe of the port alone would not notice.
fn hang() -> ! {
    println!("hanging, as told");
    loop {
        thread::park();
    }
}
