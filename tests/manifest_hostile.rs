//! Files that are no manifests, or are made to hurt: each gets a clear answer, in little time and memory.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "figures for who runs this")]

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use stigmer::manifest::{self, LoadOptions};

/// Where the child finds the file that it is to load.
const FILE: &str = "STIGMER_TEST_HOSTILE_FILE";
/// What loading anything may take, in MiB.
const MOST_MEMORY: u64 = 200;

/// The first error, as `line:column message`.
fn first(path: &Path, bytes: &[u8]) -> String {
    let report = manifest::load_bytes(path, bytes, &LoadOptions::default()).unwrap_err();
    assert!(!report.render(false, 100).is_empty());
    let first = report.first();
    format!("{}:{} {}", first.line, first.column, first.message)
}

fn refused(text: impl AsRef<[u8]>) -> String {
    first(Path::new("/tmp/hostile/stigmer.yaml"), text.as_ref())
}

/// Loads in a process of its own, in which time and memory are measured; the first line of the report.
fn alone(name: &str, content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stigmer.yaml");
    fs::write(&path, content).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_loads", "--nocapture", "--ignored"])
        .env(FILE, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |start: &str| {
        text.lines()
            .find_map(|line| line.split_once(start).map(|(_, rest)| rest.to_owned()))
            .unwrap_or_else(|| panic!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let memory: u64 = line("memory=").parse().unwrap();
    println!("{name}: {} of processor time, {memory} MiB", line("time="));
    assert!(memory <= MOST_MEMORY, "{name}: {memory} MiB");
    line("answer=")
}

#[test]
#[ignore = "the other half of `alone`"]
fn child_that_loads() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let answer = match manifest::load(Path::new(&path), &LoadOptions::default()) {
        Ok(loaded) => format!("loaded {}", loaded.project.components.len()),
        Err(report) => {
            assert!(!report.render(false, 100).is_empty());
            report.first().message.clone()
        }
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = Duration::from_micros(
        u64::try_from(usage.user_time().tv_sec() * 1_000_000 + usage.user_time().tv_usec())
            .unwrap(),
    );
    // Not the figure of getrusage, which begins with that of the process that made this one.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("\nanswer={answer}\ntime={time:?}\nmemory={}", peak / 1024);
    // More would be an endless climb; the figure itself is printed.
    assert!(time < Duration::from_secs(30), "{time:?}");
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut bomb = String::from("x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let items = vec![below; 10].join(", ");
        writeln!(bomb, "x-a{level}: &a{level} [{items}]").unwrap();
    }
    bomb.push_str("components: { a: { command: x } }\n");
    let answer = alone("alias bomb", bomb.as_bytes());
    assert_eq!(answer, "the aliases of this file multiply to more than 100000 values");
}

#[test]
fn an_alias_inside_of_itself_is_refused() {
    assert!(refused("x-a: &a [*a]\n").ends_with("this alias stands inside of what it refers to"));
}

#[test]
fn merged_defaults_cannot_multiply() {
    let mut text = String::from("defaults:\n  labels:\n");
    for index in 0..50_000 {
        writeln!(text, "    l{index}: x").unwrap();
    }
    text.push_str("components:\n");
    for index in 0..20_000 {
        writeln!(text, "  c{index}: {{ command: x }}").unwrap();
    }
    let answer = alone("defaults bomb", text.as_bytes());
    assert_eq!(answer, "these defaults, under so many components, are too much");
}

/// `a0, a1, a2, `.
fn numbered(count: usize, before: &str, after: &str) -> String {
    (0..count).flat_map(|index| [before.to_owned(), index.to_string(), after.to_owned()]).collect()
}

#[test]
fn what_containers_are_given_cannot_multiply() {
    let containers = |head: &str, container: &str, count: usize| -> String {
        let components = (0..count)
            .map(|index| format!("  c{index}: {{ container: {{ image: x, {container} }} }}\n"));
        format!("{head}components:\n{}", components.collect::<String>())
    };
    let labels: String = numbered(50_000, "l", ": x, ");
    let network = format!("networks: {{ n: {{ labels: {{ {labels} }} }} }}\n");
    let volume = format!("volumes: {{ v: {{ labels: {{ {labels} }} }} }}\n");
    for (name, text, expected) in [
        (
            "ports of 20,000 containers",
            containers("", "ports: ['1-1000']", 20_000),
            "these are too many published ports",
        ),
        (
            "a thousand ranges of one",
            containers("", &format!("ports: [{}]", "1-1000, ".repeat(1000)), 1),
            "these are too many published ports",
        ),
        (
            "a network of 20,000 containers",
            containers(&network, "networks: [n]", 20_000),
            "the declarations of networks and volumes, in so many containers, are too much",
        ),
        (
            "a volume of 20,000 containers",
            containers(&volume, "volumes: ['v:/x']", 20_000),
            "the declarations of networks and volumes, in so many containers, are too much",
        ),
        ("20,000 containers", containers("", "mem_limit: 1g", 20_000), "loaded 20000"),
        ("20,001 containers", containers("", "mem_limit: 1g", 20_001), "20001 containers are too"),
        (
            "20,000 with ports that collide",
            containers("", "ports: ['127.0.0.1:80:80', '81:81']", 20_000),
            "port 80 belongs to `c0` already",
        ),
        (
            "90,000 names of one network",
            containers("networks: { n: }\n", &format!("networks: [{}]", "n, ".repeat(90_000)), 1),
            "`n` is in this list twice",
        ),
        (
            "90,000 aliases",
            containers(
                "networks: { n: }\n",
                &format!("networks: {{ n: {{ aliases: [{}] }} }}", numbered(90_000, "a", ", ")),
                1,
            ),
            "loaded 1",
        ),
        (
            "20,000 misspelt volumes of 20,000",
            containers(
                &format!("volumes: {{ {} }}\n", numbered(20_000, "volume", ": , ")),
                "volumes: ['vollume:/x']",
                20_000,
            ),
            "the volume `vollume` is not declared",
        ),
        (
            "a megabyte of operators",
            containers("", &format!("command: \"{}\"", "'|' ".repeat(250_000)), 1),
            "loaded 1",
        ),
        (
            "a megabyte of permissions",
            containers("", &format!("devices: ['/dev/x:{}']", "r".repeat(1_000_000)), 1),
            "are no permissions",
        ),
        (
            "90,000 mounts",
            containers("", &format!("volumes: [{}]", numbered(90_000, "'./a:/m", "', ")), 1),
            "loaded 1",
        ),
    ] {
        let answer = alone(name, text.as_bytes());
        assert!(answer.contains(expected), "{name}: {answer}");
    }
}

#[test]
fn ten_thousand_levels_are_refused_without_a_deep_stack() {
    let small = || std::thread::Builder::new().stack_size(256 * 1024);
    for text in [
        format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000)),
        "- ".repeat(10_000),
        (0..5_000).flat_map(|level| [" ".repeat(level), "a:\n".to_owned()]).collect(),
        "{a: ".repeat(10_000),
        "? ".repeat(10_000),
        format!("a: \"{}\"", "${A:-".repeat(10_000)),
    ] {
        let answer = small().spawn(move || refused(text)).unwrap().join().unwrap();
        assert!(answer.contains("deeper than") || answer.contains("no `components`"), "{answer}");
    }
}

#[test]
fn a_file_of_100_mb_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stigmer.yaml");
    fs::File::create(&path).unwrap().set_len(100_000_000).unwrap();
    let report = manifest::load(&path, &LoadOptions::default()).unwrap_err();
    assert_eq!(report.first().message, "the file is too large: 100 MB");
    assert_eq!(report.first().expected, "at most 16 MiB");
}

#[test]
fn a_hundred_megabytes_in_memory_are_refused() {
    assert_eq!(refused(vec![b'a'; 100_000_000]), "0:0 the file is too large: 100 MB");
}

#[test]
fn large_and_odd_files_stay_within_time_and_memory() {
    let keys = |indent: &str, value: &str, count: usize| -> String {
        (0..count).flat_map(|index| [indent.to_owned(), format!("k{index}: {value}\n")]).collect()
    };
    let env = "components:\n  a:\n    command: x\n    env:\n";
    for (name, text, expected) in [
        ("100,000 keys", keys("", "v", 100_000), "too many values outside of `components`"),
        (
            "100,000 equal keys",
            format!("components: {{}}\nk: v\n{}", "k: v\n".repeat(90_000)),
            "`components` is empty",
        ),
        ("90,000 variables", format!("{env}{}", keys("      ", "v", 90_000)), "loaded 1"),
        ("40,000 wrong ones", format!("{env}{}", keys("      ", "[v]", 40_000)), "`k0` is a list"),
        ("a megabyte of text", format!("{env}      k: {}", "v".repeat(1_000_000)), "loaded 1"),
        (
            "a list of 2,000,000",
            format!("components: [{}1]", "1,".repeat(2_000_000)),
            "800000 keys and values",
        ),
        (
            "a map of 900,000",
            format!("{env}{}", keys("      ", "v", 900_000)),
            "800000 keys and values",
        ),
        (
            "350,000 components",
            format!("components:\n{}", keys("  ", "v", 350_000)),
            "are too many",
        ),
        ("15 MB of brackets", "[".repeat(15_000_000), "deeper than 64 levels"),
        ("15 MB in quotes", format!("a: \"{}", "x".repeat(15_000_000)), "not valid YAML"),
        ("15 MB of spaces", " ".repeat(15_000_000), "the manifest is empty"),
        ("5,000,000 empty lines", "\n".repeat(5_000_000), "the manifest is empty"),
    ] {
        let answer = alone(name, text.as_bytes());
        assert!(answer.contains(expected), "{name}: {answer}");
    }
}

#[test]
fn what_is_no_text_is_refused_with_its_place() {
    assert_eq!(refused(b"a: b\nc: \x00"), "2:4 the file contains a NUL character");
    assert_eq!(refused(b"a: \x07"), "1:4 the file contains the control character U+0007");
    assert_eq!(refused(b"a: b\rc: d"), "1:5 the file contains the control character U+000D");
    assert_eq!(
        refused("a: é\nb: é".as_bytes().iter().chain(b"\xff").copied().collect::<Vec<_>>()),
        "2:5 the byte 0xff is not UTF-8"
    );
    assert_eq!(refused(b"\xff\xfea\x00:\x00"), "0:0 the file is UTF-16");
    assert_eq!(refused(b"\xfe\xff\x00a\x00:"), "0:0 the file is UTF-16");
    assert_eq!(refused("a: \"\\0\""), "1:4 this value contains a NUL character");
    assert_eq!(refused("components:\n\ta: b\n"), "2:1 a tab as indentation");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_accepted() {
    let text = "\u{feff}components:\r\n  a:\r\n    command: x\r\n";
    let path = Path::new("/tmp/hostile/stigmer.yaml");
    let loaded = manifest::load_bytes(path, text.as_bytes(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded.project.components.len(), 1);
}

#[test]
fn numbers_that_no_number_can_hold_are_refused() {
    for number in
        ["99999999999999999999999999", "1e400", "-5", "0x1ffffffffffffffff", ".inf", "2.5"]
    {
        let text =
            format!("components: {{ a: {{ command: x, replicas: {number}, nice: {number} }} }}");
        let report = manifest::load_bytes(
            Path::new("/tmp/h/stigmer.yaml"),
            text.as_bytes(),
            &LoadOptions::default(),
        )
        .unwrap_err();
        assert!(report.first().expected.contains("a whole number"), "{number}: {report:?}");
    }
    let long =
        format!("components: {{ a: {{ command: x, stop: {{ timeout: {}s }} }} }}", "9".repeat(40));
    assert!(refused(long).contains("too long"));
    assert!(
        refused("components: { a: { command: x, stop: { timeout: 4000d } } }")
            .contains("ten years")
    );
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let message = |path: &Path| {
        let report = manifest::load(path, &LoadOptions::default()).unwrap_err();
        report.first().message.clone()
    };
    assert_eq!(message(folder.path()), "this is a folder, not a file");
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(message(&fifo), "this is a named pipe, not a file");
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(message(&socket), "this is a socket or a device, not a file");
    assert_eq!(message(Path::new("/dev/zero")), "this is a device, not a file");
    assert_eq!(message(&folder.path().join("absent")), "there is no such file");
    let loop_ = folder.path().join("loop");
    std::os::unix::fs::symlink(&loop_, &loop_).unwrap();
    assert!(message(&loop_).starts_with("it cannot be opened"));
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    if nix::unistd::geteuid().is_root() {
        println!("not shown as root, who may read everything");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stigmer.yaml");
    fs::write(&path, "components: {}").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    let report = manifest::load(&path, &LoadOptions::default()).unwrap_err();
    assert_eq!(report.first().message, "it may not be read: permission denied");
}
