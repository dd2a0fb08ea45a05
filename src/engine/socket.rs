//! The control socket, which outlives the engine in the hands of the keeper.

use std::os::fd::{AsFd, OwnedFd};

use tokio::net::UnixListener;

use crate::api::server::{self, SocketError};
use crate::home::Home;
use crate::keeper::wire::ToKeeper;
use crate::supervisor::Acquaintance;
use crate::unix_socket::is_answered;

/// The name under which the keeper holds it.
const CONTROL: &str = "control";

/// The socket that the keeper holds, if its file still leads to it; else a new one, which the keeper
/// holds from now on.
pub(super) fn listen(
    acquaintance: &Acquaintance,
    home: &Home,
) -> Result<UnixListener, SocketError> {
    let path = home.socket();
    if let Some(held) = acquaintance.held.get(CONTROL)
        && let Ok(listener) = adopt(held)
    {
        if is_answered(&path) {
            return Ok(listener);
        }
        tracing::warn!("the control socket {} was removed; making it anew", path.display());
    }
    let listener = server::bind(&path)?;
    let order = ToKeeper::Hold { name: CONTROL.to_owned() };
    if let Err(error) = acquaintance.keeper().send(&order, &[listener.as_fd()]) {
        tracing::warn!("the keeper does not hold the control socket: {error}");
    }
    Ok(listener)
}

fn adopt(held: &OwnedFd) -> std::io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(held.try_clone()?);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
