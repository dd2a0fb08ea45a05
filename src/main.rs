//! The program: which of its three processes this is.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Looked at before anything else touches memory: the keeper is the parent of everything, and is
    // to stay small.
    match std::env::args_os().nth(1) {
        Some(first) if first == "__keeper" => stigmer::keeper::main(),
        _ => ExitCode::SUCCESS,
    }
}
