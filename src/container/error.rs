//! What can go wrong with the engine, told apart by what follows.

use std::time::Duration;

use bollard::errors::Error;

use crate::model::event::human_duration;

/// A request to the engine that came to nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers at its address.
    #[error("the container engine cannot be reached: {message}")]
    Unreachable {
        /// Where, and what came back.
        message: String,
        /// What to do.
        hint: String,
    },
    /// It took the request and says nothing.
    #[error("the container engine does not answer ({what}: no answer within {})", human_duration(*.limit))]
    Silent {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// It refuses.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// In its own words.
        message: String,
    },
    /// It says something that cannot be understood.
    #[error("the container engine's answer cannot be understood ({what}): {message}")]
    Nonsense {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// What is asked needs a newer engine.
    #[error("{message}")]
    TooOld {
        /// What needs which version.
        message: String,
    },
}

impl EngineError {
    /// Sorts an error of bollard's. `place` is the engine's address, for the message.
    pub(super) fn of(what: &'static str, place: &str, error: &Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: *status_code, message: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => {
                Self::Refused { status: 500, message: error.trim().to_owned() }
            }
            Error::SocketNotFoundError(path) => Self::unreachable(&format!("{path} is not there")),
            Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError => {
                Self::unreachable(&format!("{place}: {}", innermost(error)))
            }
            other => Self::Nonsense { what, message: innermost(other) },
        }
    }

    /// Nobody is there, with what to do about it.
    #[must_use]
    pub fn unreachable(message: &str) -> Self {
        let hint = if message.contains("ermission denied") {
            "only root and the group of the socket (mostly `docker`) may use it: run the daemon as \
             root, or join the group and log in anew"
        } else {
            "start it (`systemctl start docker`, or `dockerd`), or say where it is: DOCKER_HOST in \
             the environment of the daemon"
        };
        Self::Unreachable { message: message.to_owned(), hint: hint.to_owned() }
    }

    /// The engine is to be spoken to with certificates, and these are of no use.
    #[must_use]
    pub fn certificates(message: &str) -> Self {
        let hint = "put ca.pem, cert.pem and key.pem into that folder, or name another one: \
                    DOCKER_CERT_PATH in the environment of the daemon";
        let message = format!("its certificates cannot be used: {message}");
        Self::Unreachable { message, hint: hint.to_owned() }
    }

    /// Whether the engine itself is the trouble, rather than what was asked of it.
    #[must_use]
    pub const fn is_engine(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Refused { .. } | Self::Nonsense { .. } | Self::TooOld { .. } => false,
        }
    }

    /// Whether what was asked for is not there.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether something is there, or so, already.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// What to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { hint, .. } => Some(hint.clone()),
            Self::Silent { .. } => {
                Some("look at the engine (`docker ps`, its log), and restart it if it hangs".into())
            }
            Self::Refused { .. } | Self::Nonsense { .. } | Self::TooOld { .. } => None,
        }
    }
}

/// An engine's refusal without the layers of programs that it came through, which differ with their versions:
/// `OCI runtime create failed: container_linux.go:380: starting container process caused: exec: ...`,
/// `failed to create shim task: OCI runtime create failed: runc create failed: unable to start container
/// process: exec: ...`, `OCI runtime exec failed: exec failed: unable to start container process: exec: ...`
#[must_use]
pub fn core_of(message: &str) -> &str {
    let layers =
        ["process caused: ", "container process: ", "runtime create failed: ", "exec failed: "];
    let core = layers.iter().find_map(|layer| Some(message.rsplit_once(layer)?.1));
    core.unwrap_or(message).trim().trim_end_matches(": unknown").trim()
}

/// The reason behind the reasons: bollard's own words are of little use.
fn innermost(error: &Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(deeper) = source.source() {
        source = deeper;
    }
    let text = source.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_and_say_what_to_do() {
        let refused = Error::DockerResponseServerError { status_code: 404, message: "no".into() };
        let refused = EngineError::of("inspect", "unix:///x", &refused);
        assert!(refused.is_absence() && !refused.is_engine());
        assert_eq!(refused.to_string(), "no");
        let denied = std::io::Error::from_raw_os_error(libc::EACCES);
        let denied = EngineError::of("ping", "unix:///x", &Error::IOError { err: denied });
        assert!(denied.is_engine());
        assert!(denied.to_string().contains("unix:///x: Permission denied"), "{denied}");
        assert!(denied.hint().unwrap().contains("group"));
        let gone = EngineError::of("ping", "unix:///x", &Error::SocketNotFoundError("/x".into()));
        assert!(gone.hint().unwrap().contains("DOCKER_HOST"));
        let silent = EngineError::Silent { what: "ping", limit: Duration::from_secs(5) };
        assert!(silent.to_string().contains("ping: no answer within 5s"), "{silent}");
    }
}
