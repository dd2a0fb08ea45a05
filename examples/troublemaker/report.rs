//! What the process sees of itself, as JSON: the proof of what it was given at its start.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rustix::process::{Resource, getgroups, getpriority_process, getrlimit};
use serde_json::{Map, Value, json};

/// Writes the report to `place`, whole or not at all; to standard output for `-`.
pub(crate) fn write(place: &Path) -> io::Result<()> {
    let mut text = serde_json::to_string(&report()?)?;
    text.push('\n');
    if place == Path::new("-") {
        return io::stdout().lock().write_all(text.as_bytes());
    }
    // Written beside it and renamed, so that a test that waits for the file never reads half of it.
    let draft = place.with_extension(format!("draft{}", std::process::id()));
    fs::write(&draft, text)?;
    fs::rename(&draft, place)
}

fn report() -> io::Result<Value> {
    let status = status()?;
    let environment: BTreeMap<String, String> = env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    let groups: Vec<u32> = getgroups()?.into_iter().map(rustix::process::Gid::as_raw).collect();
    let arguments: Vec<String> =
        env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    Ok(json!({
        "pid": std::process::id(),
        "parent": nix::unistd::getppid().as_raw(),
        "group": nix::unistd::getpgrp().as_raw(),
        "session": nix::unistd::getsid(None)?.as_raw(),
        "arguments": arguments,
        "environment": environment,
        "working_dir": env::current_dir()?,
        "uid": nix::unistd::getuid().as_raw(),
        "gid": nix::unistd::getgid().as_raw(),
        "groups": groups,
        "umask": status.get("Umask"),
        "nice": getpriority_process(None)?,
        "limits": limits(),
        "descriptors": descriptors()?,
        "signals_blocked": status.get("SigBlk"),
        "signals_ignored": status.get("SigIgn"),
        "cgroups": fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
    }))
}

/// Number to target of every open descriptor.
fn descriptors() -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        // The listing of the folder is a descriptor as well while it goes on.
        if !target.ends_with(&format!("/{}/fd", std::process::id())) {
            found.insert(entry.file_name().to_string_lossy().into_owned(), target);
        }
    }
    Ok(found)
}

/// Soft and hard limits by the names of a manifest; null is unlimited.
fn limits() -> Map<String, Value> {
    [
        ("as", Resource::As),
        ("core", Resource::Core),
        ("cpu", Resource::Cpu),
        ("data", Resource::Data),
        ("fsize", Resource::Fsize),
        ("memlock", Resource::Memlock),
        ("nofile", Resource::Nofile),
        ("nproc", Resource::Nproc),
        ("stack", Resource::Stack),
    ]
    .into_iter()
    .map(|(name, resource)| {
        let limit = getrlimit(resource);
        (name.to_owned(), json!({ "soft": limit.current, "hard": limit.maximum }))
    })
    .collect()
}

/// The fields of /proc/self/status.
fn status() -> io::Result<BTreeMap<String, String>> {
    Ok(fs::read_to_string("/proc/self/status")?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}
