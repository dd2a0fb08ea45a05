//! CPU time and memory of components: of everything that belongs to a run, not of its main process alone.
//!
//! Where a run has a cgroup, that counts its CPU time, also that of processes that have ended. Elsewhere
//! the living processes of its session and their descendants are added up.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::SysconfVar;

use super::Service;
use crate::api::v1::{Component, ProcessNode};
use crate::keeper::record;
use crate::model::{InstanceId, RunId};

/// A component that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Which.
    pub(super) instance: InstanceId,
    /// Its run.
    pub(super) run: RunId,
    /// Its main process.
    pub(super) pid: u32,
}

/// A limit or measure of the system.
fn sysconf(what: SysconfVar) -> Option<u64> {
    nix::unistd::sysconf(what).ok().flatten().and_then(|value| u64::try_from(value).ok())
}

/// What a run uses.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Usage {
    cpu_seconds: f64,
    memory_bytes: u64,
}

impl Service {
    /// Fills in what the components use at this moment.
    pub(super) async fn add_usage(&self, components: &mut [Component], running: Vec<Running>) {
        let records = self.home.records();
        let measured = crate::blocking::spawn(move || measure(&records, &running));
        let Ok(measured) = measured.await else { return };
        for component in components {
            let InstanceId { project, component: name, replica } =
                InstanceId::new(&component.project, &component.name, component.replica);
            let Some(usage) = measured.get(&InstanceId { project, component: name, replica })
            else {
                continue;
            };
            component.cpu_seconds_total = Some(usage.cpu_seconds);
            component.memory_bytes = Some(usage.memory_bytes);
        }
    }
}

fn measure(records: &Path, running: &[Running]) -> HashMap<InstanceId, Usage> {
    // Read once, and only if somebody needs it.
    let mut table = None;
    let mut found = HashMap::new();
    for one in running {
        let group = record::group_of(records, one.run);
        let pids = group.as_deref().and_then(members);
        let pids = pids.unwrap_or_else(|| {
            table.get_or_insert_with(Table::read).tree(one.pid).into_iter().collect()
        });
        let each = pids.iter().filter_map(|pid| Usage::of_process(*pid));
        let mut usage = each.fold(Usage::default(), |sum, one| Usage {
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            memory_bytes: sum.memory_bytes + one.memory_bytes,
        });
        if let Some(cpu) = group.as_deref().and_then(cpu_of_group) {
            usage.cpu_seconds = cpu;
        }
        found.insert(one.instance.clone(), usage);
    }
    found
}

/// The processes of a run.
pub(super) fn processes(records: &Path, running: &Running) -> Vec<ProcessNode> {
    let table = Table::read();
    let group = record::group_of(records, running.run);
    let pids = group.as_deref().and_then(members).unwrap_or_else(|| table.tree(running.pid));
    let mut nodes: Vec<ProcessNode> = pids
        .into_iter()
        .filter_map(|pid| {
            let Entry { parent, state, .. } = table.0.get(&pid)?;
            let (parent, state) = (*parent, state.to_string());
            Some(ProcessNode { pid, parent, command: command_of(pid), state })
        })
        .collect();
    nodes.sort_by_key(|node| (node.pid != running.pid, node.pid));
    nodes
}

fn members(group: &Path) -> Option<Vec<u32>> {
    let listed = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    Some(listed.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Counted by the kernel for every group, whether or not there is a controller.
fn cpu_of_group(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.stat")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    let micros: u64 = line.trim().parse().ok()?;
    Some(std::time::Duration::from_micros(micros).as_secs_f64())
}

/// The command line, as far as it is text; the name in brackets where there is none.
fn command_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    if words.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", name.trim_end());
    }
    words.join(" ")
}

impl Usage {
    fn of_process(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields = fields_after_name(&stat)?;
        let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let (user, system) = (ticks(11)?, ticks(12)?);
        let pages: u64 = fields.get(21)?.parse().unwrap_or(0);
        let per_second = sysconf(SysconfVar::CLK_TCK).unwrap_or(100).max(1);
        #[expect(clippy::cast_precision_loss, reason = "centuries of CPU time fit")]
        let cpu_seconds = (user + system) as f64 / per_second as f64;
        let page = sysconf(SysconfVar::PAGE_SIZE).unwrap_or(4096);
        Some(Self { cpu_seconds, memory_bytes: pages.saturating_mul(page) })
    }
}

/// The fields from `state` on: the name before them may hold anything.
fn fields_after_name(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace().collect())
}

/// All processes of the machine.
struct Table(BTreeMap<u32, Entry>);

struct Entry {
    parent: u32,
    session: u32,
    state: char,
}

impl Table {
    fn read() -> Self {
        let mut table = BTreeMap::new();
        let Ok(entries) = fs::read_dir(PathBuf::from("/proc")) else { return Self(table) };
        for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let Some(fields) = fields_after_name(&stat) else { continue };
            let number = |place: usize| fields.get(place).and_then(|field| field.parse().ok());
            let state = fields.first().and_then(|field| field.chars().next());
            if let (Some(parent), Some(session), Some(state)) = (number(1), number(3), state) {
                table.insert(pid, Entry { parent, session, state });
            }
        }
        Self(table)
    }

    /// A process, its session and all descendants of these.
    fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree: Vec<u32> = self
            .0
            .iter()
            .filter(|(pid, entry)| **pid == root || entry.session == root)
            .map(|(pid, _)| *pid)
            .collect();
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, entry) in &self.0 {
            children.entry(entry.parent).or_default().push(*pid);
        }
        let mut place = 0;
        while let Some(pid) = tree.get(place).copied() {
            place += 1;
            for child in children.get(&pid).into_iter().flatten() {
                if !tree.contains(child) {
                    tree.push(*child);
                }
            }
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_and_is_in_its_own_tree() {
        let pid = std::process::id();
        assert!(Usage::of_process(pid).unwrap().memory_bytes > 1_000_000);
        assert!(Table::read().tree(pid).contains(&pid));
        assert!(!command_of(pid).is_empty());
        assert!(Usage::of_process(u32::MAX).is_none());
    }

    #[test]
    fn names_with_brackets_do_not_confuse() {
        assert_eq!(fields_after_name("7 (a) b)) S 1 7 7").unwrap(), ["S", "1", "7", "7"]);
    }
}
