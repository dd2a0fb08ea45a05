//! Manifests are loaded in a process of their own: `stigmer __load`, a request in, an outcome out.
//!
//! Checking a manifest takes ten times the memory of what comes of it, and pages of code that are used
//! for nothing else. In the engine both would stay until it ends; here they end with the process. A
//! manifest that is made to break the loader breaks that process, and not the one that supervises
//! (ADR 0005).
//!
//! The outcome is in the format of [`postcard`], which has neither names nor types: both ends are the same
//! program, and of processes it is a sixth of the JSON.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::trusted::only_trusted;
use crate::manifest::{self, Diagnostic, LoadOptions, Loaded, Report, Severity};

/// A loader fills tens of megabytes once and ends; it takes a tenth less where these come in pages of 2 MiB.
/// Other C libraries do not look at it, and a kernel without large pages does as before.
/// <https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html>
const LARGE_PAGES: &str = "glibc.malloc.hugetlb=1";

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
        .env("GLIBC_TUNABLES", LARGE_PAGES)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Written in one piece, and read to its end before anything is answered.
    let sent = child.stdin.take().map(|mut stdin| stdin.write_all(&order));
    let mut answer = Vec::new();
    let read = child.stdout.take().map(|mut stdout| stdout.read_to_end(&mut answer));
    // While its process gives back its memory.
    let outcome = decode(&answer);
    let status = child.wait()?;
    sent.transpose()?;
    read.transpose()?;
    if !status.success() {
        return Err(io::Error::other(format!("its process ended with {status}")));
    }
    outcome
}

fn encode(outcome: &Outcome) -> io::Result<Vec<u8>> {
    postcard::to_allocvec(outcome).map_err(io::Error::other)
}

fn decode(answer: &[u8]) -> io::Result<Outcome> {
    match postcard::take_from_bytes(answer).map_err(io::Error::other)? {
        (outcome, []) => Ok(outcome),
        (_, rest) => Err(io::Error::other(format!("{} bytes follow its answer", rest.len()))),
    }
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
        let answer = encode(&outcome)?;
        // The process ends with it, which takes no time, however many specs there are.
        std::mem::forget(outcome);
        let mut out = io::stdout().lock();
        out.write_all(&answer).and_then(|()| out.flush())?;
        // That it is complete is known before the memory of this process is given back.
        nix::unistd::close(out.as_fd().as_raw_fd()).map_err(io::Error::from)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::Workload;

    /// All kinds of component, of probe and of socket, with what is free JSON and what has flattened fields.
    const EVERYTHING: &str = "
project: all
info: { console: 'http://127.0.0.1:80' }
networks: { back: {} }
volumes: { data: {} }
components:
  web:
    command: [/bin/sleep, '1']
    env:
      PORT: 80
      KEY: { secret: { env: KEY } }
      PASSWORD: { secret: { file: password } }
      CERTIFICATE: { secret: { command: [vault, read] } }
    sockets:
      http: '127.0.0.1:8080'
      link: '[fe80::1%2]:8081'
      all: { tcp: '[::]:8082', backlog: 128 }
      local: { unix: run/api.sock, mode: 0660 }
    rlimits: { nofile: { soft: 10, hard: 20 }, core: 0, as: unlimited }
    depends_on: { cache: ready }
    restart: { backoff: { jitter: 0.1 }, success_exit_status: [3], prevent_exit_status: [78, SIGABRT] }
    stop: { signal: SIGINT, timeout: 3s, command: [bye] }
    logs: { max_age: 7d, compress: false }
    labels: { a: b }
    nice: 5
    umask: '0027'
    probes:
      startup: { exec: [/bin/true], deadline: 1m }
      liveness:
        all:
          - { tcp: 80 }
          - { plugin: { kind: own, config: { a: [1, 'two', null, 3.5, true] } } }
          - { process: {} }
          - { min_uptime: 3s }
          - { unix: run/api.sock }
          - { grpc: { port: 50051, service: shop.Api, tls: true } }
          - { log: '^ready' }
          - { file: { path: beat, max_age: 30s, contains: ok } }
          - { exec: 'test -e ready' }
      readiness: { http: { port: 80, headers: { A: b }, status: [200, 204], body: ok } }
  cache:
    container:
      image: 'redis:7'
      ports: ['127.0.0.1:80:81/udp']
      mem_limit: 64m
      cpus: 0.5
      networks: { back: { aliases: [c] } }
      volumes: [data:/data, { type: bind, source: /etc, target: /etc, bind: { selinux: Z } }]
      healthcheck: { test: [CMD, 'true'], interval: 5s }
    probes: { liveness: { container: {} } }
  elsewhere: { external: true, probes: { liveness: { tcp: 81 } } }
";

    #[test]
    fn an_outcome_comes_back_as_it_went() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("stigmer-probe-own");
        std::fs::write(&program, "").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&program, executable).unwrap();
        let path = folder.path().join("stigmer.yaml");
        let options = LoadOptions {
            search_path: Some(folder.path().display().to_string()),
            ..LoadOptions::default()
        };
        let loaded = manifest::load_bytes(&path, EVERYTHING.as_bytes(), &options);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false, 100)));
        assert_eq!(loaded.project.components.len(), 3);
        let back = decode(&encode(&Ok(loaded.clone())).unwrap()).unwrap().unwrap();
        let addresses: Vec<String> = match &back.project.components["web"].workload {
            Workload::Process(process) => {
                process.sockets.values().map(|socket| socket.address.to_string()).collect()
            }
            Workload::Container(_) | Workload::External => Vec::new(),
        };
        assert!(addresses.contains(&"[fe80::1%2]:8081".to_owned()), "{addresses:?}");
        assert_eq!(back.project, loaded.project);
        assert_eq!(back.variables, loaded.variables);
        assert_eq!((back.watched, back.sha256), (loaded.watched, loaded.sha256));

        let refused =
            manifest::load_bytes(&path, b"components: { a: 1, b: { comand: x } }", &options);
        let refused = refused.unwrap_err();
        let back = decode(&encode(&Err(refused.clone())).unwrap()).unwrap().unwrap_err();
        assert_eq!(back.render(false, 100), refused.render(false, 100));
        assert!(back.diagnostics.len() >= 2);
    }

    #[test]
    fn an_answer_that_breaks_off_or_goes_on_is_an_error() {
        let refused = manifest::load_bytes(Path::new("/m.yaml"), b"a: 1", &LoadOptions::default());
        let answer = encode(&refused).unwrap();
        for length in 0..answer.len() {
            assert!(decode(&answer[..length]).is_err(), "{length} of {}", answer.len());
        }
        let more = [&*answer, b"\n"].concat();
        assert_eq!(decode(&more).unwrap_err().to_string(), "1 bytes follow its answer");
    }
}
