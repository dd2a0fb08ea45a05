//! What the tests of logs share: a folder with logs, a clock that stands still, and waiting for states.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use stigmer::logs::{Extent, Line, LogSource, LogStream, LogWatcher, Query, read};
use stigmer::model::InstanceId;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A folder of logs, and a clock that moves only when told.
pub(crate) struct Logs {
    pub(crate) folder: tempfile::TempDir,
    seconds: Arc<AtomicI64>,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    pub(crate) fn new_in(place: &Path) -> Self {
        let seconds = Arc::new(AtomicI64::new(1_000_000));
        Self { folder: tempfile::tempdir_in(place).unwrap(), seconds }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    pub(crate) fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    pub(crate) fn source(&self, name: &str) -> LogSource {
        LogSource { instance: instance(name), path: self.path(name), from: None, to: None }
    }

    pub(crate) fn read(&self, names: &[&str], query: &Query) -> Vec<Line> {
        let sources = names.iter().map(|name| self.source(name)).collect();
        read(sources, query).map(Result::unwrap).collect()
    }

    /// Whether an inotify descriptor of this process has a watch on a log.
    pub(crate) fn is_armed(&self, name: &str) -> bool {
        let inode = std::fs::metadata(self.path(name)).unwrap().ino();
        let watch = format!(" ino:{inode:x} ");
        let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
        // Other tests close theirs meanwhile.
        infos.filter_map(|info| std::fs::read_to_string(info.unwrap().path()).ok()).any(|info| {
            info.lines().any(|line| line.starts_with("inotify") && line.contains(&watch))
        })
    }

    pub(crate) fn set_clock(&self, seconds: i64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    pub(crate) fn watcher(&self) -> LogWatcher {
        let seconds = Arc::clone(&self.seconds);
        LogWatcher::start(Arc::new(move || at(seconds.load(Ordering::SeqCst))))
    }

    pub(crate) fn watched(&self, names: &[&str]) -> LogWatcher {
        let watcher = self.watcher();
        for name in names {
            watcher.watch(instance(name), self.path(name));
        }
        watcher
    }

    /// Appends at a time, and waits until the watcher has seen it.
    pub(crate) async fn append_at(
        &self,
        watcher: &LogWatcher,
        name: &str,
        seconds: i64,
        text: impl AsRef<[u8]>,
    ) {
        let text = text.as_ref();
        let before = stigmer::logs::end_position(&self.path(name)).unwrap();
        seen(watcher, name, before).await;
        self.set_clock(seconds);
        self.append(name, text);
        seen(watcher, name, before + text.len() as u64).await;
    }
}

pub(crate) async fn seen(watcher: &LogWatcher, name: &str, end: u64) -> Extent {
    let mut log = watcher.subscribe(&instance(name)).unwrap();
    let extent = soon("the watcher", log.wait_for(|extent| extent.end >= end)).await;
    *extent.unwrap()
}

pub(crate) fn instance(name: &str) -> InstanceId {
    InstanceId::new("shop", name, 0)
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(crate) fn texts(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

/// The next `count` lines of a stream.
pub(crate) async fn take(stream: &mut LogStream, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let more = soon("lines", stream.next()).await.unwrap().unwrap();
        lines.extend(texts(&more));
    }
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

pub(crate) fn following() -> Query {
    Query { follow: true, ..Query::default() }
}
