//! The sockets of components, which stay open whoever comes and goes.
//!
//! ```text
//!   launch ─▶ open, unless it is ─┬─▶ Hold ─▶ keeper ── fork ─▶ descriptors 3, 4, ... of the component
//!                                 └─▶ a duplicate here
//!   the engine dies:  the keeper holds them, and tells their names    ─▶ restore
//!   the keeper dies:  the engine becomes a keeper, and takes them along ─▶ hand_over
//!   nobody needs one: closed here, Release to the keeper, its file is removed
//! ```
//!
//! A socket is known by its component and its address, not by its name: two replicas of which one is of
//! a newer spec have what each needs, and a new name, backlog or mode is no new socket.
//!
//! Invariants: while a component is wanted, what it listens on is open in this process and in the
//! keeper, so that a client finds a queue to wait in, whatever dies. Each launch hands it to the keeper
//! anew: nothing that was lost on the way stays lost.
//!
//! Failure paths: see `listener.rs`. If keeper and engine die together, a component that lives on
//! has the socket alone; it is taken from there (`found.rs`), or opened anew at the next launch.
//!
//! Deliberately absent: starting a component when somebody connects.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::FdFlags;
use rustix::net::Shutdown;

use super::found;
use super::listener::{self, FileId};
use crate::keeper::client::KeeperClient;
use crate::keeper::wire::{Credentials, HandedDown, ToKeeper};
use crate::model::socket::{ListenAddress, SocketSpec};
use crate::model::spec::ProcessSpec;
use crate::model::{InstanceId, LaunchError, LaunchStage, Retry};

/// What the names begin with under which the keeper holds them.
const PREFIX: &str = "listen:";

/// Whose socket, and where.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The project.
    pub project: String,
    /// The component, all replicas of which share it.
    pub component: String,
    /// Where it listens.
    pub address: ListenAddress,
}

impl Key {
    fn new(instance: &InstanceId, address: &ListenAddress) -> Self {
        Self {
            project: instance.project.to_string(),
            component: instance.component.to_string(),
            address: address.clone(),
        }
    }

    /// `listen:PROJECT/COMPONENT/tcp:ADDRESS`, or `unix:PATH`.
    fn held(&self) -> String {
        let kind = match self.address {
            ListenAddress::Tcp(_) => "tcp",
            ListenAddress::Unix(_) => "unix",
        };
        format!("{PREFIX}{}/{}/{kind}:{}", self.project, self.component, self.address)
    }

    fn parse(held: &str) -> Option<Self> {
        let mut parts = held.strip_prefix(PREFIX)?.splitn(3, '/');
        let (project, component, address) = (parts.next()?, parts.next()?, parts.next()?);
        let address = match address.split_once(':')? {
            ("tcp", address) => ListenAddress::Tcp(address.parse().ok()?),
            ("unix", path) => ListenAddress::Unix(PathBuf::from(path)),
            _ => return None,
        };
        Some(Self { project: project.to_owned(), component: component.to_owned(), address })
    }
}

/// An open socket.
#[derive(Debug)]
struct Open {
    descriptor: Arc<OwnedFd>,
    /// Of a Unix socket.
    file: Option<FileId>,
}

/// Locked while it is opened, so that two replicas do not both do it.
type Place = Arc<Mutex<Option<Open>>>;

/// All sockets of components. Clones are the same.
#[derive(Clone, Default, Debug)]
pub struct Sockets(Arc<Mutex<BTreeMap<Key, Place>>>);

/// Who still has to do with a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It is declared by somebody who runs, or will.
    Needed,
    /// It is not declared any more, and a process may still have it.
    Outdated,
    /// Nobody has it.
    Abandoned,
}

impl Sockets {
    /// Takes over what the keeper has held for the engine before.
    pub fn restore(&self, held: impl IntoIterator<Item = (String, OwnedFd)>) {
        let mut all = lock(&self.0);
        for (name, descriptor) in held {
            let Some(key) = Key::parse(&name) else { continue };
            let file = match &key.address {
                ListenAddress::Tcp(_) => None,
                ListenAddress::Unix(path) => FileId::of(path),
            };
            let open = Open { descriptor: Arc::new(descriptor), file };
            all.insert(key, Arc::new(Mutex::new(Some(open))));
        }
    }

    /// Takes over what a process has alone that has outlived engine and keeper. It is known by its pid, and
    /// the inode of its pidfd.
    pub fn find(&self, instance: &InstanceId, spec: &ProcessSpec, (pid, inode): (u32, u64)) {
        let is_known =
            |address: &ListenAddress| lock(&self.0).contains_key(&Key::new(instance, address));
        if spec.sockets.values().all(|socket| is_known(&socket.address)) {
            return;
        }
        for (address, descriptor) in found::listening(pid, inode, spec.sockets.len()) {
            let is_declared = spec.sockets.values().any(|socket| socket.address == address);
            if is_declared && !is_known(&address) {
                tracing::info!(%instance, "the socket {address} is taken over from its process");
                self.restore([(Key::new(instance, &address).held(), descriptor)]);
            }
        }
    }

    /// What a process of this component gets, in the order of the names.
    #[must_use]
    pub fn handed_down(instance: &InstanceId, spec: &ProcessSpec) -> Vec<HandedDown> {
        let one = |(name, socket): (&String, &SocketSpec)| HandedDown {
            name: name.clone(),
            held: Key::new(instance, &socket.address).held(),
        };
        spec.sockets.iter().map(one).collect()
    }

    /// Opens what is not open yet, and has the keeper hold it. With `is_alone` nobody else has them.
    pub async fn provide(
        &self,
        instance: &InstanceId,
        spec: &ProcessSpec,
        owner: Option<&Credentials>,
        is_alone: bool,
        keeper: &KeeperClient,
    ) -> Result<(), LaunchError> {
        for (name, socket) in &spec.sockets {
            let key = Key::new(instance, &socket.address);
            let held = key.held();
            let descriptor = match &socket.address {
                ListenAddress::Tcp(_) => self.open(key, name, socket, owner)?,
                // Its folder may lie on a file server that is gone: nobody else waits for it.
                ListenAddress::Unix(_) => {
                    let (all, name, socket) = (self.clone(), name.clone(), socket.clone());
                    let owner = owner.cloned();
                    let opening = tokio::task::spawn_blocking(move || {
                        all.open(key, &name, &socket, owner.as_ref())
                    });
                    opening.await.map_err(|_| failed("the daemon is ending".into(), None))??
                }
            };
            if is_alone {
                // A program before it may have changed what all that share the socket see.
                let _ = rustix::io::ioctl_fionbio(&descriptor, false);
            }
            keeper.send(&ToKeeper::Hold { name: held }, &[descriptor.as_fd()]).map_err(
                |error| failed(format!("cannot hand the socket `{name}` on: {error}"), Some(error)),
            )?;
        }
        Ok(())
    }

    fn open(
        &self,
        key: Key,
        name: &str,
        spec: &SocketSpec,
        owner: Option<&Credentials>,
    ) -> Result<Arc<OwnedFd>, LaunchError> {
        let place = lock(&self.0).entry(key).or_default().clone();
        let mut place = lock(&place);
        if let Some(open) = &*place {
            let is_there = match &spec.address {
                ListenAddress::Tcp(_) => true,
                // Some programs remove the file of their socket when they end.
                ListenAddress::Unix(path) => FileId::of(path) == open.file,
            };
            if is_there {
                listener::adjust(&open.descriptor, spec, owner);
                return Ok(open.descriptor.clone());
            }
        }
        // One that was opened before is not reached by anybody any more.
        *place = None;
        let descriptor = Arc::new(listener::open(name, spec, owner)?);
        let file = match &spec.address {
            ListenAddress::Tcp(_) => None,
            ListenAddress::Unix(path) => FileId::of(path),
        };
        tracing::debug!("listening on {} for the socket {name}", spec.address);
        *place = Some(Open { descriptor: descriptor.clone(), file });
        Ok(descriptor)
    }

    /// Closes those that nobody needs; their names are for the keeper.
    #[must_use]
    pub fn close(&self, usage: impl Fn(&Key) -> Use) -> Vec<String> {
        let mut closed = Vec::new();
        lock(&self.0).retain(|key, place| {
            let usage = usage(key);
            if usage == Use::Needed {
                return true;
            }
            // One that is being opened at the moment is looked at again.
            let Ok(mut place) = place.try_lock() else { return true };
            if let Some(open) = place.take() {
                open.close(key, usage);
            }
            closed.push(key.held());
            false
        });
        closed
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Before this process executes a keeper: the descriptors that are to be inherited, and their names.
    #[must_use]
    pub fn hand_over(&self) -> Vec<(RawFd, String)> {
        let all = lock(&self.0);
        let mut handed = Vec::new();
        for (key, place) in all.iter() {
            let Ok(place) = place.try_lock() else { continue };
            let Some(open) = &*place else { continue };
            match rustix::io::fcntl_setfd(&open.descriptor, FdFlags::empty()) {
                Ok(()) => handed.push((open.descriptor.as_raw_fd(), key.held())),
                Err(errno) => tracing::warn!("cannot hand {} over: {errno}", key.address),
            }
        }
        handed
    }
}

impl Open {
    fn close(self, key: &Key, usage: Use) {
        if let ListenAddress::Unix(path) = &key.address
            && self.file.is_some()
            && FileId::of(path) == self.file
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!("cannot remove the socket {}: {error}", path.display());
        }
        if usage == Use::Abandoned {
            // The keeper closes its own a moment later; nobody is to be kept waiting in its queue.
            let _ = rustix::net::shutdown(&self.descriptor, Shutdown::Both);
        }
    }
}

fn failed(message: String, error: Option<io::Error>) -> LaunchError {
    LaunchError {
        stage: LaunchStage::Prepare,
        errno: error.and_then(|error| error.raw_os_error()),
        message,
        hint: None,
        retry: Retry::Soon,
    }
}

/// A panic elsewhere leaves what is locked as it was: there is nothing that could be half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unix_socket::is_answered;

    #[test]
    fn names_are_read_as_they_are_written() {
        let addresses = [
            ListenAddress::Tcp("127.0.0.1:80".parse().unwrap()),
            ListenAddress::Tcp("[::1]:80".parse().unwrap()),
            ListenAddress::Unix("/run/a:b/s".into()),
        ];
        for address in addresses {
            let key = Key::new(&InstanceId::new("shop", "api", 3), &address);
            assert_eq!(Key::parse(&key.held()), Some(key));
        }
        for foreign in ["control", "listen:", "listen:a/b/tcp:x", "listen:a/b/udp:1.1.1.1:1"] {
            assert_eq!(Key::parse(foreign), None);
        }
    }

    #[test]
    fn a_socket_is_opened_once_and_closed_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = ListenAddress::Unix(path.clone());
        let spec = SocketSpec { address: address.clone(), backlog: 16, mode: Some(0o600) };
        let key = Key::new(&InstanceId::new("shop", "api", 0), &address);
        let sockets = Sockets::default();
        let open = || sockets.open(key.clone(), "s", &spec, None).unwrap();
        let first = open();
        assert_eq!(open().as_raw_fd(), first.as_raw_fd());
        // A program that removes the file of its socket at its end does not take it from the next.
        fs::remove_file(&path).unwrap();
        let second = open();
        assert!(is_answered(&path));
        assert_eq!(sockets.close(|_| Use::Needed), Vec::<String>::new());
        // As the next engine is told of it.
        let next = Sockets::default();
        next.restore([(key.held(), second.try_clone().unwrap()), ("control".into(), null())]);
        assert_eq!(next.close(|_| Use::Abandoned), [key.held()]);
        assert!(next.is_empty());
        assert!(!path.exists());
        // The others of this socket are not answered any more either.
        fs::write(&path, "").unwrap();
        assert!(sockets.open(key.clone(), "s", &spec, None).is_err());
    }

    fn null() -> OwnedFd {
        fs::File::open("/dev/null").unwrap().into()
    }
}
