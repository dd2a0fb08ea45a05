//! Probes.

use serde_yaml::Value;

use super::command;
use super::yaml::{Map, duration, json, path, text};
use crate::model::spec::{Check, ComponentSpec, HttpCheck, ProbeSpec};

pub(super) fn probes(map: &mut Map, spec: &ComponentSpec) {
    let mut probes = Map::default();
    if let Some(startup) = &spec.probes.startup {
        let mut startup = probe(startup);
        if let Some(deadline) = spec.probes.startup_deadline {
            startup.put("deadline", duration(deadline));
        }
        probes.put("startup", startup);
    }
    if let Some(liveness) = &spec.probes.liveness {
        probes.put("liveness", probe(liveness));
    }
    if let Some(readiness) = &spec.probes.readiness {
        probes.put("readiness", probe(readiness));
    }
    if !probes.is_empty() {
        map.put("probes", probes);
    }
}

fn probe(spec: &ProbeSpec) -> Map {
    let (kind, value) = check(&spec.check);
    Map::of([
        (kind, value),
        ("interval", duration(spec.interval)),
        ("timeout", duration(spec.timeout)),
        ("failure_threshold", spec.failure_threshold.into()),
        ("success_threshold", spec.success_threshold.into()),
        ("initial_delay", duration(spec.initial_delay)),
    ])
}

fn check(check: &Check) -> (&'static str, Value) {
    match check {
        Check::Process => ("process", Map::default().into()),
        Check::MinUptime(least) => ("min_uptime", duration(*least)),
        Check::Exec(line) => ("exec", command(line)),
        Check::Http(check) => (if check.tls { "https" } else { "http" }, http(check)),
        Check::Tcp { host, port } => ("tcp", place(host.as_deref(), *port).into()),
        Check::Unix { path: socket } => ("unix", path(socket)),
        Check::Grpc { host, port, service, tls } => {
            let mut map = place(host.as_deref(), *port);
            map.put("service", text(service));
            map.put("tls", *tls);
            ("grpc", map.into())
        }
        Check::Log { pattern } => ("log", text(pattern)),
        Check::File { path: file, contains, max_age } => {
            let mut map = Map::of([("path", path(file))]);
            if let Some(contains) = contains {
                map.put("contains", text(contains));
            }
            if let Some(age) = max_age {
                map.put("max_age", duration(*age));
            }
            ("file", map.into())
        }
        Check::Container => ("container", Map::default().into()),
        Check::Plugin { program, kind, config } => {
            let mut map = Map::of([("kind", text(kind)), ("program", path(program))]);
            if !config.is_null() {
                map.put("config", json(config));
            }
            ("plugin", map.into())
        }
        Check::All(checks) => {
            let all = checks.iter().map(|one| Map::of([self::check(one)]).into()).collect();
            ("all", Value::Sequence(all))
        }
    }
}

/// Where something listens; without a host it is where the component itself does.
fn place(host: Option<&str>, port: u16) -> Map {
    let mut map = Map::default();
    if let Some(host) = host {
        map.put("host", text(host));
    }
    map.put("port", port);
    map
}

fn http(check: &HttpCheck) -> Value {
    let mut map = place(check.host.as_deref(), check.port);
    map.put("path", text(&check.path));
    map.put("method", text(&check.method));
    if !check.headers.is_empty() {
        let mut headers = Map::default();
        for (name, value) in &check.headers {
            headers.put(name, text(value));
        }
        map.put("headers", headers);
    }
    if !check.status.is_empty() {
        let status: Vec<Value> = check.status.iter().map(|status| (*status).into()).collect();
        map.put("status", status);
    }
    if let Some(body) = &check.body {
        map.put("body", text(body));
    }
    map.into()
}
