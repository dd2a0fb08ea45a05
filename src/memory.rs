//! Giving back memory that was needed for a moment: by the start of a thousand components, by the
//! messages that tell about it, by code that runs once.
//!
//! The allocator keeps free pages for later, and pages of the program stay mapped once they were used;
//! in a process that lives for months and mostly sleeps, both are waste.

/// Gives back what is not needed: free pages of the heap, and mapped pages of read-only files, which
/// are mapped again when they are next used.
pub fn give_back() {
    trim_heap();
    for (start, length) in read_only_files() {
        unmap_pages(start, length);
    }
}

/// The memory of this process that is mapped at the moment, in bytes.
#[must_use]
pub fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "calls of the C library")]
fn trim_heap() {
    // SAFETY: both may be called at any time and from any thread; they look at and touch only memory
    // that is free, and take the allocator's own locks.
    let (found, given) = unsafe { (libc::mallinfo2(), libc::malloc_trim(0)) };
    let (used, free) = (found.uordblks + found.hblkhd, found.fordblks);
    tracing::debug!(used, free, given, "memory that is not needed is given back");
}

/// Other C libraries give back by themselves, or cannot.
#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

/// The private mappings of files that cannot be written to and of which no page differs from the file:
/// code and constants, but not what the loader has relocated.
fn read_only_files() -> Vec<(usize, usize)> {
    std::fs::read_to_string("/proc/self/smaps").map_or_else(|_| Vec::new(), |text| parse(&text))
}

fn parse(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Anonymous", amount)) if amount.trim() == "0 kB" => {
                found.extend(candidate.take());
            }
            Some((key, _)) if !key.contains(' ') => {}
            // The first line of the next mapping.
            Some(_) | None => candidate = read_only_file(line),
        }
    }
    found
}

fn read_only_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let is_read_only = matches!(fields.next()?, "r-xp" | "r--p");
    let is_file = fields.nth(3)?.starts_with('/');
    (is_read_only && is_file).then(|| (start, end.saturating_sub(start)))
}

#[expect(unsafe_code, reason = "a change of this process's own mappings")]
fn unmap_pages(start: usize, length: usize) {
    let address = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the pages belong to a private, read-only mapping of a file, and equal it. Without them,
    // the next access reads the same from the file again.
    // What cannot be unmapped stays where it was.
    let _ = unsafe { rustix::mm::madvise(address, length, rustix::mm::Advice::LinuxDontNeed) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_untouched_read_only_files_are_given_back() {
        let text = "\
1000-3000 r-xp 00000000 08:01 42 /bin/x
Rss:                   8 kB
Anonymous:             0 kB
3000-4000 r--p 00002000 08:01 42 /bin/x
Anonymous:             4 kB
4000-5000 rw-p 00003000 08:01 42 /bin/x
Anonymous:             0 kB
5000-6000 r--p 00000000 00:00 0
Anonymous:             0 kB
6000-7000 r--s 00000000 08:01 43 /bin/y
Anonymous:             0 kB
7000-8000 r--p 00000000 08:01 42 /bin/x
Anonymous:             0 kB
";
        assert_eq!(parse(text), [(0x1000, 0x2000), (0x7000, 0x1000)]);
    }

    #[test]
    fn this_process_goes_on_afterwards() {
        assert!(resident().unwrap() > 64 * 1024);
        assert!(!read_only_files().is_empty());
        give_back();
        assert_eq!(format!("{:?}", vec![1, 2]), "[1, 2]");
    }
}
