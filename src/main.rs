//! The program: which of its three processes this is.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Looked at before anything else touches memory: the keeper is the parent of everything, and is
    // to stay small.
    match std::env::args_os().nth(1) {
        Some(first) if first == "__keeper" => stigmer::keeper::main(),
        Some(first) if first == "__engine" => stigmer::engine::main(),
        Some(first) if first == "__daemon" => stigmer::cli::become_daemon(),
        Some(first) if first == "__check" => stigmer::upgrade::check::main(),
        Some(first) if first == "__load" => stigmer::sources::load_apart(),
        _ => stigmer::cli::main(),
    }
}
