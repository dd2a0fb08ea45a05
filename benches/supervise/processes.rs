//! What a process costs while it does nothing: wake-ups and memory, as the kernel counts them.

use std::fs;
use std::path::PathBuf;

/// How often the threads of these processes have gone to sleep of their own will, in all: each
/// wake-up of an idle thread ends in one.
pub(crate) fn voluntary_switches(pids: &[u32]) -> u64 {
    pids.iter()
        .flat_map(|pid| {
            let folder = PathBuf::from(format!("/proc/{pid}/task"));
            let entries = fs::read_dir(&folder)
                .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
            entries.flatten().map(|entry| entry.path().join("status"))
        })
        .map(|path| number(&path, "voluntary_ctxt_switches:"))
        .sum()
}

/// The process's share of memory in KiB: what it shares with others is divided among them.
pub(crate) fn proportional_kib(pid: u32) -> u64 {
    number(&PathBuf::from(format!("/proc/{pid}/smaps_rollup")), "Pss:")
}

fn number(path: &std::path::Path, field: &str) -> u64 {
    let text = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no {field} in {}", path.display()))
}
