//! Descriptors that the runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime tell when a descriptor is ready. Must be called inside of a tokio runtime.
///
/// # Errors
/// epoll cannot wait for such a descriptor, or has no room for it.
#[expect(unsafe_code, reason = "the registration trusts the descriptor to stay the same")]
pub(crate) fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always has the same number, and the registration, which owns it and is never
    // asked to hand it out, closes it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
