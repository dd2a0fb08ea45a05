//! Probes: their kinds and their times.

use std::time::Duration;

use super::at::At;
use super::context::Context;
use super::process::command;
use crate::manifest::schema::probe::{
    FileOrPath, Http, KINDS, Kinds, LogOrPattern, Plugin, Probes, TcpOrPort, Timing, UnixOrPath,
};
use crate::manifest::words::list;
use crate::model::spec::{Check, HttpCheck, ProbeSpec, ProbesSpec};

/// What a probe does if nothing is said (S3 to S5).
struct Defaults {
    interval: u64,
    timeout: u64,
    failures: u32,
    successes: u32,
}

impl Defaults {
    fn of(&self, check: Check) -> ProbeSpec {
        ProbeSpec {
            check,
            interval: Duration::from_secs(self.interval),
            timeout: Duration::from_secs(self.timeout),
            failure_threshold: self.failures,
            success_threshold: self.successes,
            initial_delay: Duration::ZERO,
        }
    }
}

/// What is probed, and whether it is a container.
struct Probed {
    kinds: Kinds,
    is_container: bool,
}

const STARTUP: Defaults = Defaults { interval: 1, timeout: 5, failures: 30, successes: 1 };
const LIVENESS: Defaults = Defaults { interval: 10, timeout: 3, failures: 3, successes: 1 };
const READINESS: Defaults = Defaults { interval: 5, timeout: 2, failures: 3, successes: 2 };

/// The probes of a component. A container without a liveness probe has one: that it runs, and that the
/// engine's own health check does not say otherwise.
pub(super) fn probes(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Probes,
    is_container: bool,
) -> ProbesSpec {
    let mut spec = ProbesSpec::default();
    let kind = |kinds: Kinds| Probed { kinds, is_container };
    if let Some(startup) = raw.startup {
        let at = at.key("startup");
        if startup.deadline.is_some() {
            let deadline = at.key("deadline");
            let none = Duration::ZERO;
            let value = context.positive(deadline, startup.deadline.as_ref(), none, "deadline");
            spec.startup_deadline = Some(value);
        }
        let (kinds, timing) = startup.divide();
        spec.startup = probe(context, at, kind(kinds), &timing, &STARTUP).map(Box::new);
    }
    if let Some(liveness) = raw.liveness {
        let (kinds, timing) = liveness.divide();
        let liveness = probe(context, at.key("liveness"), kind(kinds), &timing, &LIVENESS);
        spec.liveness = liveness.map(Box::new);
    } else if is_container {
        spec.liveness = Some(Box::new(LIVENESS.of(Check::Container)));
    }
    if let Some(readiness) = raw.readiness {
        let (kinds, timing) = readiness.divide();
        let readiness = probe(context, at.key("readiness"), kind(kinds), &timing, &READINESS);
        spec.readiness = readiness.map(Box::new);
    }
    spec
}

fn probe(
    context: &mut Context<'_>,
    at: At<'_>,
    probed: Probed,
    timing: &Timing,
    defaults: &Defaults,
) -> Option<ProbeSpec> {
    let default = defaults.of(Check::Process);
    let interval = context.positive(
        at.key("interval"),
        timing.interval.as_ref(),
        default.interval,
        "interval",
    );
    let timeout =
        context.positive(at.key("timeout"), timing.timeout.as_ref(), default.timeout, "timeout");
    let initial_delay = context.duration(
        at.key("initial_delay"),
        timing.initial_delay.as_ref(),
        default.initial_delay,
    );
    Some(ProbeSpec {
        check: check(context, at, probed)?,
        interval,
        timeout,
        failure_threshold: timing.failure_threshold.unwrap_or(default.failure_threshold),
        success_threshold: timing.success_threshold.unwrap_or(default.success_threshold),
        initial_delay,
    })
}

fn check(context: &mut Context<'_>, at: At<'_>, probed: Probed) -> Option<Check> {
    let Probed { kinds, is_container } = probed;
    let host = |given: Option<String>| host(given, is_container);
    let given = kinds.count();
    if given == 0 {
        let expected = format!("one of {}", list(KINDS.into_iter()));
        context.error(at.key_place(), "this probe has no kind", expected, "add one: `tcp: 8080`");
        return None;
    }
    if given > 1 {
        let names: Vec<&str> =
            KINDS.into_iter().filter(|kind| at.key(kind).node().is_some()).collect();
        let second = names.get(1).map_or(at.key_place(), |second| at.key(second).key_place());
        let message = format!("this probe has {given} kinds: {}", list(names.into_iter()));
        let help =
            "to check several things in one probe: `all: [ { tcp: 8080 }, { process: {} } ]`";
        context.error(second, message, "exactly one kind", help);
        return None;
    }
    if kinds.process.is_some() {
        return Some(Check::Process);
    }
    if let Some(raw) = &kinds.min_uptime {
        return Some(Check::MinUptime(context.duration(
            at.key("min_uptime"),
            Some(raw),
            Duration::ZERO,
        )));
    }
    if let Some(raw) = &kinds.exec {
        return Some(Check::Exec(command(context, at.key("exec"), raw)?));
    }
    if let Some(raw) = kinds.http {
        return Some(http(context, at.key("http"), raw, false, host));
    }
    if let Some(raw) = kinds.https {
        return Some(http(context, at.key("https"), raw, true, host));
    }
    if let Some(raw) = kinds.tcp {
        let at = at.key("tcp");
        return Some(match raw {
            TcpOrPort::Port(port) => Check::Tcp { host: host(None), port: context.port(at, &port) },
            TcpOrPort::Full(tcp) => {
                Check::Tcp { host: host(tcp.host), port: context.port(at.key("port"), &tcp.port) }
            }
        });
    }
    if let Some(raw) = &kinds.unix {
        let path = match raw {
            UnixOrPath::Path(path) => path,
            UnixOrPath::Full(unix) => &unix.path,
        };
        return Some(Check::Unix { path: context.path(path) });
    }
    if let Some(raw) = kinds.grpc {
        return Some(Check::Grpc {
            host: host(raw.host),
            port: context.port(at.key("grpc").key("port"), &raw.port),
            service: raw.service.unwrap_or_default(),
            tls: raw.tls.unwrap_or_default(),
        });
    }
    if let Some(raw) = &kinds.log {
        let at = at.key("log");
        let pattern = match raw {
            LogOrPattern::Pattern(pattern) => context.pattern(at, pattern),
            LogOrPattern::Full(line) => context.pattern(at.key("pattern"), &line.pattern),
        };
        return Some(Check::Log { pattern });
    }
    if let Some(raw) = &kinds.file {
        let at = at.key("file");
        return Some(match raw {
            FileOrPath::Path(path) => {
                Check::File { path: context.path(path), contains: None, max_age: None }
            }
            FileOrPath::Full(file) => Check::File {
                path: context.path(&file.path),
                contains: file
                    .contains
                    .as_ref()
                    .map(|pattern| context.pattern(at.key("contains"), pattern)),
                max_age: file.max_age.as_ref().map(|age| {
                    let at = at.key("max_age");
                    context.positive(at, Some(age), Duration::from_secs(1), "max_age")
                }),
            },
        });
    }
    if kinds.container.is_some() {
        if !is_container {
            context.error(
                at.key("container").key_place(),
                "this component is no container",
                "another kind of probe",
                "a program of this machine is looked at by `process: {}`",
            );
            return None;
        }
        return Some(Check::Container);
    }
    if let Some(raw) = kinds.plugin {
        return plugin(context, at.key("plugin"), raw);
    }
    let all = at.key("all");
    let parts: Vec<Option<Check>> = kinds
        .all
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(|(index, kinds)| check(context, all.item(index), Probed { kinds, is_container }))
        .collect();
    parts.into_iter().collect::<Option<Vec<Check>>>().map(Check::All)
}

fn plugin(context: &mut Context<'_>, at: At<'_>, raw: Plugin) -> Option<Check> {
    let given = raw.program.as_ref().map(|program| context.path(program));
    let Some(program) = given.or_else(|| context.search.find(&raw.kind)) else {
        context.error(
            at.key("kind").place(),
            format!("there is no program stigmer-probe-{}", raw.kind),
            "an executable of this name in a folder of `probe_path`, or on the PATH",
            "docs/manifest.md tells what it is given and what it answers",
        );
        return None;
    };
    Some(Check::Plugin { program, kind: raw.kind, config: raw.config.unwrap_or_default() })
}

/// Where it is looked for if nothing is said: a process listens on this machine, a container where it is.
fn host(given: Option<String>, is_container: bool) -> Option<String> {
    given.or_else(|| (!is_container).then(|| "127.0.0.1".into()))
}

fn http(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Http,
    tls: bool,
    host: impl Fn(Option<String>) -> Option<String>,
) -> Check {
    let status = raw.status.map(|status| {
        status.as_slice().iter().filter_map(|status| status.0.0.parse().ok()).collect()
    });
    let pattern = raw.body.as_ref().map(|body| context.pattern(at.key("body"), body));
    Check::Http(HttpCheck {
        tls,
        host: host(raw.host),
        port: context.port(at.key("port"), &raw.port),
        path: raw.path.unwrap_or_else(|| "/".into()),
        method: raw.method.map_or_else(|| "GET".into(), |method| method.to_ascii_uppercase()),
        headers: raw
            .headers
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, value.0))
            .collect(),
        status: status.unwrap_or_default(),
        body: pattern,
    })
}
