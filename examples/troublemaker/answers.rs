//! The script of the answers: a small file, read anew at each request, so that a test changes the
//! health of a running program by replacing a file.
//!
//! ```text
//! /healthz 200 all is well        a status, and the body
//! /away redirect /away            302 to there
//! /slow hang                      accepts the request and never answers
//! /drip drip                      a byte of the headers every 50 ms, for ever
//! /endless endless                a body that never ends
//! /nonsense nonsense              bytes that are no HTTP
//! * 404                           every other path; without this line, 200
//! grpc:shop.Api NOT_SERVING       SERVING, NOT_SERVING, UNKNOWN, hang, or not_found
//! grpc: SERVING                   the server as a whole
//! ```
//!
//! The first line that fits counts. A service without a line is SERVING. A line that cannot be
//! understood, or a script that is gone, answers 500 (gRPC: INTERNAL) and says so in the log: a
//! typing error of a test must not look healthy.

use std::fs;
use std::path::PathBuf;

/// What to do with an HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HttpAnswer {
    /// A status and a body.
    Status(u16, String),
    /// A redirection to this place.
    Redirect(String),
    /// No answer at all.
    Hang,
    /// Headers, one byte at a time.
    Drip,
    /// A body without an end.
    Endless,
    /// No HTTP.
    Nonsense,
}

/// What to do with a request for the health of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GrpcAnswer {
    /// One of the words of the protocol.
    Status(String),
    /// No answer at all.
    Hang,
    /// The service is unknown.
    NotFound,
}

/// Where the script is; nowhere means that all is well.
#[derive(Clone)]
pub(crate) struct Answers(pub(crate) Option<PathBuf>);

impl Answers {
    /// The answer to a request for `path`.
    pub(crate) fn http(&self, path: &str) -> HttpAnswer {
        let lines = match self.lines() {
            Ok(lines) => lines,
            Err(problem) => return HttpAnswer::Status(500, problem),
        };
        let Some((_, answer)) = lines.iter().find(|(name, _)| name == path || name == "*") else {
            return HttpAnswer::Status(200, "ok".to_owned());
        };
        let (word, rest) = answer.split_once(' ').unwrap_or((answer, ""));
        match word {
            "redirect" => HttpAnswer::Redirect(rest.to_owned()),
            "hang" => HttpAnswer::Hang,
            "drip" => HttpAnswer::Drip,
            "endless" => HttpAnswer::Endless,
            "nonsense" => HttpAnswer::Nonsense,
            status => match status.parse() {
                Ok(status) => HttpAnswer::Status(status, rest.to_owned()),
                Err(_) => HttpAnswer::Status(500, format!("no such answer: {answer}")),
            },
        }
    }

    /// The answer to a request for the health of `service`.
    pub(crate) fn grpc(&self, service: &str) -> GrpcAnswer {
        let wanted = format!("grpc:{service}");
        let lines = match self.lines() {
            Ok(lines) => lines,
            Err(problem) => return GrpcAnswer::Status(problem),
        };
        match lines.iter().find(|(name, _)| *name == wanted) {
            None => GrpcAnswer::Status("SERVING".to_owned()),
            Some((_, answer)) if answer == "hang" => GrpcAnswer::Hang,
            Some((_, answer)) if answer == "not_found" => GrpcAnswer::NotFound,
            Some((_, answer)) => GrpcAnswer::Status(answer.clone()),
        }
    }

    fn lines(&self) -> Result<Vec<(String, String)>, String> {
        let Some(path) = &self.0 else { return Ok(Vec::new()) };
        let text = fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
            .map(|(name, answer)| (name.to_owned(), answer.trim().to_owned()))
            .collect())
    }
}
