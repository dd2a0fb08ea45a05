//! Manifests are loaded in a process of their own: `stigmer __load`, a request in, an outcome out.
//!
//! Checking a manifest takes ten times the memory of what comes of it, and pages of code that are used
//! for nothing else. In the engine both would stay until it ends; here they end with the process. A
//! manifest that is made to break the loader breaks that process, and not the one that supervises
//! (ADR 0005).

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::trusted::only_trusted;
use crate::manifest::{self, Diagnostic, LoadOptions, Loaded, Report, Severity};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    path: PathBuf,
    options: LoadOptions,
}

type Outcome = Result<Loaded, Box<Report>>;

/// Loads a manifest in a process of its own. Blocks.
pub(super) fn load(path: &Path, options: LoadOptions) -> Outcome {
    let order = Order { path: path.to_owned(), options };
    ask(&order).unwrap_or_else(|error| Err(Box::new(broken(path, &error))))
}

fn ask(order: &Order) -> io::Result<Outcome> {
    // The variables of the apply are in the order; the loader needs none of ours.
    let order = serde_json::to_vec(order)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("stigmer")
        .arg("__load")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Written in one piece, and read to its end before anything is answered.
    let sent = child.stdin.take().map(|mut stdin| stdin.write_all(&order));
    let mut answer = Vec::new();
    let read = child.stdout.take().map(|mut stdout| stdout.read_to_end(&mut answer));
    let status = child.wait()?;
    sent.transpose()?;
    read.transpose()?;
    if !status.success() {
        return Err(io::Error::other(format!("its process ended with {status}")));
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// A manifest that could not even be refused.
fn broken(path: &Path, error: &io::Error) -> Report {
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        file: path.to_owned(),
        line: 0,
        column: 0,
        length: 0,
        message: format!("the manifest could not be loaded: {error}"),
        expected: String::new(),
        help: format!("stigmer validate -f {}", path.display()),
    };
    Report { diagnostics: vec![diagnostic], sources: std::collections::BTreeMap::new() }
}

/// `stigmer __load`: reads an order from standard input and writes the outcome to standard output.
#[must_use]
pub fn main() -> ExitCode {
    let answer = || -> io::Result<()> {
        let mut order = Vec::new();
        io::stdin().lock().read_to_end(&mut order)?;
        let order: Order = serde_json::from_slice(&order)?;
        let outcome = manifest::load(&order.path, &order.options).and_then(only_trusted);
        let outcome = serde_json::to_vec(&outcome)?;
        let mut out = io::stdout().lock();
        out.write_all(&outcome).and_then(|()| out.flush())
    };
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not a print: the daemon's log is the place, and it may be gone.
            let _ = writeln!(io::stderr(), "stigmer __load: {error}");
            ExitCode::FAILURE
        }
    }
}
