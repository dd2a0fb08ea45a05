//! Mutated manifests: whatever the bytes are, the loader answers.
//!
//! Two seconds by default; `STIGMER_FUZZ_SECONDS=60` is longer, `STIGMER_FUZZ_SEED=7` runs one case
//! again. What is checked of every case: no panic, places inside of their sources, a report that can be
//! rendered; and what loads is the same after it was written and loaded again.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stigmer::manifest::{self, Diagnostic, LoadOptions};

/// xorshift64*: a seed is all that a case depends on.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap()
    }

    fn choose<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

const WORDS: &[&str] = &[
    "components:",
    "command",
    "probes",
    "startup:",
    "liveness",
    "all:",
    "http",
    "port: 8080",
    "restart",
    "policy",
    "depends_on: [",
    "{",
    "}",
    "[",
    "]",
    ",",
    ": ",
    "\n",
    "\n  ",
    "\n    - ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "x-a: &a",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "---\n",
    "...\n",
    "!!str ",
    "!x ",
    "%YAML 1.2\n",
    "${A}",
    "${A:-",
    "$$",
    "${",
    "}",
    "~",
    "null",
    "true",
    "yes",
    "0",
    "-1",
    "1e9",
    "0x7f",
    "99999999999999999999",
    ".inf",
    ".nan",
    "10s",
    "1m30s",
    "64MiB",
    "SIGTERM",
    "unlimited",
    "(",
    "[a-z",
    "\\",
    "\t",
    "\r\n",
    "\u{85}",
    "\u{2028}",
    "é",
    "𝄞",
    "\u{0}",
    "\u{feff}",
    "env:",
    "secret: { file: x }",
    "replicas: 3",
    "oneshot: true",
    "optional: true",
    "external: true",
    "container: { image: x }",
    "networks:",
    "volumes:",
    "image: a/b:1",
    "build: { context: . }",
    "ports: ['80:80']",
    "127.0.0.1:80-90:80-90/udp",
    "./a:/b:ro,z",
    "data:/x",
    "service:four",
    "network_mode: host",
    "tmpfs: /t:size=1m",
    "mem_limit: 64m",
    "healthcheck: { test: [CMD, x] }",
    "environment: [A, B=c]",
];

/// Containers, with every key in one form or another.
const CONTAINERS: &str = "\
networks: { front: , back: { driver: bridge, driver_opts: { a: 1 }, ipam: { config: [{ subnet: 10.0.0.0/8, gateway: 10.0.0.1 }] }, labels: [x=y] }, out: { external: true, name: theirs } }
volumes: { data: , more: { name: mine, labels: { a: b } }, shop_data: { external: true } }
defaults: { user: 0, container: { labels: { l: 1.10 }, networks: [default], stop_grace_period: 3s } }
components:
  four:
    container:
      image: 'host:5000/a/b:1.10'
      build: { context: sub, dockerfile: D, args: [A, B=c], target: t, labels: { a: }, network: host, no_cache: true, pull: true }
      pull_policy: build
      platform: linux/arm64
      command: a 'b c' $$d
      entrypoint: []
      environment: { A: , S: { secret: { file: s } }, N: 1.10 }
      ports: [80, '8080:81', '127.0.0.1:53:53/udp', '[::1]:9000-9002:90-92', '7000-7010:70', { target: 3, published: '4-5', host_ip: '::1' }]
      volumes: [./a:/a:ro, '~/b:/b:Z,rshared', data:/c:nocopy, /d, { type: bind, source: ., target: /e, bind: { create_host_path: false } }, { type: volume, source: more, target: /f, volume: { subpath: s } }, { type: tmpfs, target: /g, tmpfs: { size: 64m, mode: 1777 } }]
      tmpfs: ['/h:size=1m,mode=0700,noexec,ro', /i]
      networks: { front: { aliases: [x, y] }, back: { ipv4_address: 10.0.0.7 }, out: , default: }
      extra_hosts: ['a=1.2.3.4', 'b:::1', 'c=host-gateway']
      dns: [1.1.1.1]
      dns_search: a
      dns_opt: [b]
      ulimits: { nofile: { soft: 1, hard: -1 }, core: 0 }
      cpus: 0.125
      mem_limit: 64m
      mem_reservation: 32MB
      memswap_limit: -1
      pids_limit: 10
      cpuset: 0-3,5
      healthcheck: { test: [CMD-SHELL, x], interval: 1s, retries: 3 }
      devices: ['/dev/null:/dev/x:rw']
      sysctls: [a.b=1]
      cap_add: [net_admin]
      security_opt: [no-new-privileges]
      stop_signal: USR1
      group_add: [1, a]
      user: 1:2
      working_dir: /x
      hostname: h
      shm_size: 1m
      init: true
  five:
    stop: { timeout: 3s }
    container: { image: x, network_mode: 'service:four', ipc: 'service:four', healthcheck: { disable: true } }
    probes: { readiness: { all: [{ container: {} }, { tcp: 80 }] } }
  six:
    ports: [81]
    container: { image: x, network_mode: host, deploy: { resources: { limits: { cpus: '2', memory: 1g } } } }
";

/// What the examples do not use.
const RICH: &str = "\
x-base: &base { labels: { a: 1, b: 1.10 }, nice: 3 }
project: rich
info: { one: 1, two: two }
defaults: { env: { A: 1 }, stop: { signal: INT, command: [bye] }, probes: { liveness: { tcp: 80 } } }
components:
  one:
    <<: *base
    command: [run, 1.10, true, '${A}', \"${B:-${A}}\"]
    working_dir: /
    env: [B=c, A]
    umask: 0022
    rlimits: { nofile: 64, as: { soft: 64MiB, hard: unlimited } }
    restart: { policy: on-failure, max_restarts: unlimited, success_exit_status: [3, HUP, RTMIN+2] }
    probes:
      startup: { all: [ { unix: s }, { log: 'a|b' }, { all: [ { file: { path: f, contains: x } } ] } ], deadline: 1h }
      readiness: { https: { port: 443, headers: { X: y }, status: 200, body: ok }, initial_delay: 3s }
    depends_on: [two]
    ports: [80, 0x51]
    sockets: { a: 82, b: '[::]:83', c: { unix: s, mode: 0660 }, d: { tcp: 84, backlog: 3 } }
  two:
    external: true
    probes: { readiness: { grpc: { port: 1, service: s, tls: true } } }
  three:
    command: |
      a line
      another $$ ${A}
    oneshot: true
    optional: true
    env: { S: { secret: { command: [x, y] } }, T: { secret: { env: T } } }
    profiles: [p]
    replicas: 2
    depends_on: { two: healthy }
";

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = fs::read_dir(root.join("examples/manifests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.push(root.join("stigmer.yaml"));
    paths.sort();
    let rich = (root.join("rich.yaml"), RICH.as_bytes().to_vec());
    let containers = (root.join("containers.yaml"), CONTAINERS.as_bytes().to_vec());
    let files = paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap()));
    files.chain([rich, containers]).collect()
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[(PathBuf, Vec<u8>)]) {
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(40)).min(bytes.len());
        match random.below(9) {
            0..=2 => {
                let word = random.choose(WORDS).as_bytes();
                bytes.splice(at..at, word.iter().copied());
            }
            3 => {
                let word = random.choose(WORDS).as_bytes();
                bytes.splice(at..end, word.iter().copied());
            }
            4 => drop(bytes.drain(at..end)),
            5 => {
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            6 => {
                let (_, other) = random.choose(corpus);
                let from = random.below(other.len());
                let to = (from + random.below(200)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            7 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(random.below(256)).unwrap();
                }
            }
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
}

fn is_inside(one: &Diagnostic, text: Option<&String>) -> bool {
    let Some(text) = text else { return one.line == 0 };
    let Some(index) = one.line.checked_sub(1) else { return one.column == 0 };
    let Some(line) = text.split('\n').nth(index as usize) else { return false };
    let line = line.strip_suffix('\r').unwrap_or(line);
    one.column >= 1 && (one.column - 1) as usize <= line.chars().count()
}

fn check(path: &Path, bytes: &[u8]) -> bool {
    let mut options = LoadOptions::default();
    options.variables.insert("A".into(), "value".into());
    match manifest::load_bytes(path, bytes, &options) {
        Err(report) => {
            assert!(!report.diagnostics.is_empty());
            for one in &report.diagnostics {
                assert!(is_inside(one, report.sources.get(&one.file)), "{one:?}");
                assert!(!one.message.is_empty());
            }
            assert!(!report.render(true, 80).is_empty());
            assert!(!report.render(false, 10).is_empty());
            false
        }
        Ok(loaded) => {
            let text = manifest::to_yaml(&loaded.project);
            let again = manifest::load_bytes(path, text.as_bytes(), &options)
                .unwrap_or_else(|report| panic!("{text}\n{}", report.render(false, 100)));
            assert_eq!(again.project, loaded.project, "{text}");
            true
        }
    }
}

#[test]
fn what_is_mutated_loads_as_it_is() {
    for (path, bytes) in corpus() {
        assert!(check(&path, &bytes), "{}", path.display());
    }
}

#[test]
fn whatever_the_bytes_are_the_loader_answers() {
    let corpus = corpus();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let only = number("STIGMER_FUZZ_SEED");
    let time = Duration::from_secs(number("STIGMER_FUZZ_SECONDS").unwrap_or(2));
    let (start, mut cases, mut loaded) = (Instant::now(), 0_u64, 0_u64);
    // Every run walks on from another place; the seed of a failure is printed.
    let mut seed = only.unwrap_or_else(|| u64::from(std::process::id()) * 1_000_000);
    loop {
        let mut random = Random::new(seed);
        let (path, original) = random.choose(&corpus);
        let mut bytes = original.clone();
        mutate(&mut random, &mut bytes, &corpus);
        let outcome = catch_unwind(AssertUnwindSafe(|| check(path, &bytes))).ok();
        assert!(
            outcome.is_some(),
            "run it again with STIGMER_FUZZ_SEED={seed}; {}:\n{}",
            path.display(),
            String::from_utf8_lossy(&bytes)
        );
        loaded += u64::from(outcome == Some(true));
        cases += 1;
        seed += 1;
        if only.is_some() || start.elapsed() > time {
            break;
        }
    }
    println!("{cases} cases, {loaded} of them loaded");
}
