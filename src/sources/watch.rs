//! The watch of manifests and env files.
//!
//! ```text
//!   notify (its thread) ── a station or its folder is touched ──▶ quiet for 100 ms ──▶ digest ──▶ reload
//!   projects changed ───── folders are watched anew ─────────────────────────────────▶ digest ──┘
//! ```
//!
//! Folders are watched, not files: an editor that saves by renaming puts another file in the place of
//! the watched one. The content decides, not the events: a file that was touched and reads as before is
//! no change, and a half-written one that cannot be loaded is tried again at its next event. A content
//! that was refused is not tried a second time.
//!
//! Failure paths: where a folder cannot be watched (no watch or instance of inotify is left), all files are looked at every two
//! seconds, which is said once. An overflow of the kernel's queue counts as a touch.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::loader::reload;
use super::stations::stations;
use crate::manifest;
use crate::supervisor::{Handle, Projects, Refusal};

/// How long it must be quiet after a touch.
const QUIET: Duration = Duration::from_millis(100);

/// How long a file that is touched without end is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often files are looked at that cannot be watched.
const LOOK: Duration = Duration::from_secs(2);

/// What the thread of notify looks events up in.
type Interesting = Arc<Mutex<HashSet<PathBuf>>>;

/// Watches the files of all projects until the supervisor is gone; `reloads` asks for all manifests to
/// be read again, changed or not.
pub async fn watch(mut handle: Handle, mut reloads: mpsc::UnboundedReceiver<()>) {
    let (touched_in, mut touched) = mpsc::unbounded_channel();
    let mut folders = Folders::new(touched_in);
    let mut tried = Tried::default();
    let mut unfinished: Vec<String> = in_transit(&handle.projects.borrow());
    let mut due: Option<Due> = Some(Due::now());
    loop {
        let deadline = due.map(|due| due.at);
        let look = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None if folders.must_look => tokio::time::sleep(LOOK).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = handle.projects.changed() => match changed {
                Ok(()) => due = Some(Due::now()),
                Err(_) => return,
            },
            Some(()) = touched.recv() => due = Some(due.map_or_else(Due::soon, Due::later)),
            Some(()) = reloads.recv() => {
                let projects: Vec<String> = handle.projects.borrow().keys().cloned().collect();
                for project in projects {
                    tracing::info!(project, "reading the manifest again");
                    drop(reload(&handle, &project).await);
                }
            }
            () = look => {
                due = None;
                let projects = handle.projects.borrow_and_update().clone();
                // First watched, then looked: a change between the two would go unseen.
                folders.follow(&projects);
                let changed = tried.changed(projects).await;
                for project in &changed {
                    tracing::info!(project, "its files have changed");
                }
                let again = std::mem::take(&mut unfinished);
                for project in &again {
                    tracing::info!(project, "reading the manifest again for what is not done");
                }
                for project in changed.into_iter().chain(again).collect::<BTreeSet<_>>() {
                    // It is tried until the state can be written.
                    if let Err(Refusal::Store(_)) = reload(&handle, &project).await {
                        unfinished.push(project);
                        due = Some(Due::after(LOOK));
                    }
                }
            }
        }
    }
}

/// The projects of which something was under way when the last engine ended.
fn in_transit(projects: &Projects) -> Vec<String> {
    let unfinished = projects.iter().filter(|(_, project)| project.record.in_transit);
    unfinished.map(|(name, _)| name.clone()).collect()
}

/// When the files are looked at.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    latest: Instant,
}

impl Due {
    fn now() -> Self {
        let now = Instant::now();
        Self { at: now, latest: now }
    }

    fn soon() -> Self {
        let now = Instant::now();
        Self { at: now + QUIET, latest: now + PATIENCE }
    }

    fn after(pause: Duration) -> Self {
        let at = Instant::now() + pause;
        Self { at, latest: at }
    }

    fn later(self) -> Self {
        Self { at: (Instant::now() + QUIET).min(self.latest), ..self }
    }
}

/// What was loaded or refused last, by project.
#[derive(Default)]
struct Tried(BTreeMap<String, Attempt>);

#[derive(Clone, PartialEq)]
struct Attempt {
    loaded_at: i64,
    digest: Option<String>,
}

impl Tried {
    /// The projects whose files read differently from what was tried last.
    async fn changed(&mut self, projects: Projects) -> Vec<String> {
        let reading = projects.clone();
        let digests = crate::blocking::spawn(move || {
            let digest = |(name, project): (&String, &crate::supervisor::Project)| {
                let record = &project.record;
                (name.clone(), manifest::digest(&record.manifest, &record.watched))
            };
            reading.iter().map(digest).collect::<BTreeMap<_, _>>()
        });
        let Ok(digests) = digests.await else { return Vec::new() };
        self.0.retain(|name, _| projects.contains_key(name));
        let mut changed = Vec::new();
        for (name, digest) in digests {
            let Some(project) = projects.get(&name) else { continue };
            let loaded_at = project.record.loaded_at;
            let loaded = Attempt { loaded_at, digest: Some(project.record.sha256.clone()) };
            let before = self.0.get(&name).filter(|tried| tried.loaded_at == loaded_at);
            let now = Attempt { loaded_at, digest };
            if *before.unwrap_or(&loaded) != now {
                changed.push(name.clone());
            }
            self.0.insert(name, now);
        }
        changed
    }
}

/// The folders that are watched.
struct Folders {
    /// `None` where the kernel gives none.
    watcher: Option<RecommendedWatcher>,
    interesting: Interesting,
    /// Each with its device and inode: a folder that was replaced is another one.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Something could not be watched.
    must_look: bool,
}

impl Folders {
    fn new(touched: mpsc::UnboundedSender<()>) -> Self {
        let interesting = Interesting::default();
        let known = interesting.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if matters(&event, &known) {
                // Nobody listens any more when the engine ends.
                let _ = touched.send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(
                    "files cannot be watched ({error}); looking at them every two seconds"
                );
            })
            .ok();
        Self { watcher, interesting, watched: BTreeMap::new(), must_look: false }
    }

    /// Watches what the files of these projects depend on, and nothing else.
    fn follow(&mut self, projects: &Projects) {
        let mut wanted = BTreeSet::new();
        for project in projects.values() {
            let refused = project.error.iter().flat_map(|error| &error.watched);
            let files = std::iter::once(&project.record.manifest);
            for file in files.chain(&project.record.watched).chain(refused) {
                wanted.extend(stations(file));
            }
        }
        let folders: BTreeSet<&Path> = wanted.iter().filter_map(|path| path.parent()).collect();
        let mut interesting: HashSet<PathBuf> = wanted.iter().cloned().collect();
        interesting.extend(folders.iter().map(|folder| folder.to_path_buf()));
        *self.interesting.lock().unwrap_or_else(PoisonError::into_inner) = interesting;
        self.watch(&folders);
    }

    fn watch(&mut self, folders: &BTreeSet<&Path>) {
        let Some(watcher) = &mut self.watcher else {
            self.must_look = !folders.is_empty();
            return;
        };
        self.watched.retain(|folder, identity| {
            let keep = folders.contains(&**folder) && identity_of(folder) == Some(*identity);
            if !keep {
                // Of a folder that is gone, the kernel has removed the watch already.
                let _ = watcher.unwatch(folder);
            }
            keep
        });
        let mut failed = None;
        for folder in folders {
            if self.watched.contains_key(*folder) {
                continue;
            }
            let Some(identity) = identity_of(folder) else { continue };
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder.to_path_buf(), identity)),
                Err(error) => failed = Some((folder.to_path_buf(), error)),
            }
        }
        if let Some((folder, error)) = &failed
            && !self.must_look
        {
            let folder = folder.display();
            tracing::warn!("{folder} cannot be watched ({error}); looking at it every two seconds");
        }
        self.must_look = failed.is_some();
    }
}

fn identity_of(folder: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether an event may mean another content. Being opened or read is none.
fn matters(event: &notify::Result<Event>, interesting: &Interesting) -> bool {
    let Ok(event) = event else { return true };
    let reads = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    };
    if event.need_rescan() {
        return true;
    }
    let known = interesting.lock().unwrap_or_else(PoisonError::into_inner);
    !reads && event.paths.iter().any(|path| known.contains(path))
}
