//! Somebody who looks at /proc all the time, and asks stigmer for nothing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::home::TestHome;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// A zombie that is there for longer was forgotten.
const MOMENT: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    longest: Mutex<(Duration, String)>,
}

/// The thread that looks.
pub(crate) struct Observer {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    pub(crate) fn start(home: &TestHome) -> Self {
        let (seen, program) = (Arc::<Seen>::default(), home.stigmer().to_owned());
        let thread = thread::spawn({
            let seen = seen.clone();
            move || look(&seen, &program)
        });
        Self { seen, thread: Some(thread) }
    }

    /// Whether all was well so far.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (longest, whose) = &*self.seen.longest.lock().unwrap_or_else(PoisonError::into_inner);
        if *longest > MOMENT {
            return Err(format!("a zombie for {longest:?}: {whose}"));
        }
        Ok(())
    }

    /// Whether all was well; the longest time for which there was a zombie, and which.
    pub(crate) fn end(mut self) -> Result<(Duration, String), String> {
        self.seen.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| "the observer has panicked")?;
        }
        self.check()?;
        Ok(self.seen.longest.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn look(seen: &Seen, program: &Path) {
    let mut zombies: HashMap<(u32, String), Instant> = HashMap::new();
    while !seen.is_over.load(Ordering::Relaxed) {
        let now = zombies_of(program);
        zombies.retain(|zombie, _| now.contains(zombie));
        for zombie in now {
            let lasts = zombies.entry(zombie.clone()).or_insert_with(Instant::now).elapsed();
            let mut longest = seen.longest.lock().unwrap_or_else(PoisonError::into_inner);
            if lasts > longest.0 {
                *longest = (lasts, format!("process {} ({})", zombie.0, zombie.1));
            }
        }
        thread::park_timeout(EVERY);
    }
}

/// Pid, name and start time of each zombie whose parent executes `program`.
fn zombies_of(program: &Path) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| zombie(&entry.path(), program)).collect()
}

fn zombie(folder: &Path, program: &Path) -> Option<(u32, String)> {
    let pid: u32 = folder.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (name, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    if *fields.first()? != "Z" {
        return None;
    }
    let parent = PathBuf::from("/proc").join(fields.get(1)?).join("exe");
    let is_ours = fs::read_link(parent).is_ok_and(|path| path == program);
    let name = name.rsplit_once('(').map_or("", |(_, name)| name);
    is_ours.then(|| (pid, format!("{name}, started at {}", fields.get(19).unwrap_or(&""))))
}
