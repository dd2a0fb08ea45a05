//! The words and symbols of the status: one component in the cells of a table. Pure.

use std::time::Duration;

use anstyle::Style;
use jiff::Timestamp;

use super::output::{GREEN, GREY, Look, RED, YELLOW};
use crate::api::v1;
use crate::model::event::human_duration;

/// The name that people see inside a project: `api`, and `api.1` for the second replica.
pub(super) fn display_name(component: &str, replica: u32) -> String {
    if replica == 0 { component.to_owned() } else { format!("{component}.{replica}") }
}

/// The same of a component.
pub(super) fn name_of(component: &v1::Component) -> String {
    display_name(&component.name, component.replica)
}

/// The symbol of a state, and its colour.
pub(super) fn symbol(component: &v1::Component, look: Look) -> (&'static str, Style) {
    let (utf8, ascii, style) = match component.state.as_str() {
        _ if component.unknown.is_some() => ("?", "?", YELLOW),
        "running" => ("✓", "+", GREEN),
        "starting" | "restarting" => ("↻", "~", YELLOW),
        "unhealthy" => ("✗", "x", RED),
        "failed" => ("✗✗", "X", RED),
        "stopped" => ("○", "-", GREY),
        _ => ("?", "?", YELLOW),
    };
    (if look.utf8 { utf8 } else { ascii }, style)
}

/// The state and, where there is more to say, what is going on inside it.
pub(super) fn state(component: &v1::Component) -> String {
    let state = &component.state;
    if component.unknown.is_some() {
        return format!("unknown (was {state})");
    }
    let Some(reason) = &component.reason else { return state.clone() };
    match (state.as_str(), reason.as_str()) {
        ("stopped", "completed") => "stopped (completed)".into(),
        ("starting" | "restarting" | "running" | "unhealthy", reason)
            if reason.starts_with("stopping") =>
        {
            format!("{state}: stopping")
        }
        (_, reason) if reason.starts_with("cannot be killed") => {
            format!("{state}: cannot be killed")
        }
        ("starting", reason) if reason.starts_with("waiting") => {
            let names: Vec<&str> = component
                .waiting_for
                .iter()
                .map(|one| one.split_once([' ', '(']).map_or(one.as_str(), |(name, _)| name))
                .collect();
            if names.is_empty() {
                format!("{state}: waiting")
            } else {
                format!("{state}: waiting ({})", names.join(", "))
            }
        }
        _ => state.clone(),
    }
}

/// Whether it may be used, and the colour of that.
pub(super) fn ready(component: &v1::Component) -> (&'static str, Style) {
    match component.state.as_str() {
        _ if component.unknown.is_some() => ("?", YELLOW),
        "stopped" => ("-", Style::new()),
        "running" if component.ready => ("yes", Style::new()),
        "running" => ("no", YELLOW),
        _ => ("no", Style::new()),
    }
}

/// The process or the container.
pub(super) fn identity(component: &v1::Component) -> String {
    match (&component.container_id, component.pid) {
        (Some(id), _) => format!("c:{}", id.chars().take(12).collect::<String>()),
        (None, Some(pid)) => pid.to_string(),
        (None, None) => "-".into(),
    }
}

/// How long the present run lasts.
pub(super) fn uptime(component: &v1::Component) -> String {
    component.uptime_seconds.map_or_else(|| "-".into(), whole_seconds)
}

/// `45s`, `3m 5s`, `2h 15m`, `1d 3h` (S44).
pub(super) fn whole_seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    human_duration(Duration::from_secs(duration.as_secs()))
}

/// Restarts: how many and how long ago, or how many of how many and when the next one comes.
pub(super) fn restarts(component: &v1::Component, now: Timestamp) -> String {
    let Some(restarts) = &component.restarts else { return "-".into() };
    // The one that is coming counts: it is attempt N of the limit.
    let attempt = restarts.in_window + u32::from(restarts.next_counts);
    let of_limit = || match restarts.limit {
        Some(limit) => format!("{attempt}/{limit}"),
        None => attempt.to_string(),
    };
    if component.state == "failed" {
        return of_limit();
    }
    if let Some(next) = restarts.next_at.as_deref().and_then(parse) {
        let left = next.duration_since(now).as_secs_f64().max(0.0).ceil();
        return format!("{} in {}", of_limit(), whole_seconds(left));
    }
    match restarts.last_at.as_deref().and_then(parse) {
        Some(last) if restarts.total > 0 => {
            format!("{} ({} ago)", restarts.total, age(now, last))
        }
        _ => restarts.total.to_string(),
    }
}

/// A time of the interface.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// How long ago, in its largest unit: `2h`.
pub(super) fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The last error in one line, dimmed once it is over.
pub(super) fn last_error(component: &v1::Component) -> (String, Style) {
    let Some(error) = &component.last_error else { return ("-".into(), Style::new()) };
    let text = error.message.lines().next().unwrap_or_default().to_owned();
    let over = match component.state.as_str() {
        "running" => component.ready,
        "stopped" => true,
        _ => false,
    };
    (text, if over { Style::new().dimmed() } else { Style::new() })
}

/// Bytes for people: `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).to_string()
}

/// The last result of each probe in a word.
pub(super) fn probes(component: &v1::Component) -> String {
    let Some(probes) = &component.probes else { return "-".into() };
    let roles = [
        ("startup", &probes.startup),
        ("liveness", &probes.liveness),
        ("readiness", &probes.readiness),
    ];
    let words: Vec<String> = roles
        .iter()
        .filter_map(|(name, probe)| {
            let probe = probe.as_ref()?;
            Some(match probe.result.as_deref() {
                Some("success") => format!("{name} ok"),
                Some(_) => {
                    format!("{name} failing {}/{}", probe.consecutive, probe.failure_threshold)
                }
                None => format!("{name} -"),
            })
        })
        .collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

/// A time of the interface as this machine's time of day; as it is, if it cannot be understood.
pub(super) fn local_time(text: &str) -> String {
    parse(text).map_or_else(
        || text.to_owned(),
        |at| {
            let zone = jiff::tz::TimeZone::system();
            at.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
        },
    )
}

/// How an exit reads.
pub(super) fn exit(exit: &v1::Exit) -> String {
    let text = match (exit.code, &exit.signal) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => signal.clone(),
        (None, None) => "exit status unknown".into(),
    };
    if exit.oom { format!("{text} (out of memory)") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_have_two_units_at_most() {
        for (seconds, wanted) in [
            (0.0, "0s"),
            (0.7, "0s"),
            (7.9, "7s"),
            (45.0, "45s"),
            (185.0, "3m 5s"),
            (8_100.0, "2h 15m"),
            (97_200.0, "1d 3h"),
            (-1.0, "0s"),
        ] {
            assert_eq!(whole_seconds(seconds), wanted);
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let then: Timestamp = "2026-05-01T00:00:00Z".parse().unwrap();
        for (seconds, wanted) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (7_300, "2h"), (200_000, "2d")]
        {
            let now = then + jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(now, then), wanted);
        }
    }

    #[test]
    fn a_death_by_signal_is_no_code() {
        let one = |code, signal: Option<&str>, oom| {
            exit(&v1::Exit { code, signal: signal.map(str::to_owned), oom, at: String::new() })
        };
        assert_eq!(one(Some(1), None, false), "exit 1");
        assert_eq!(one(None, Some("SIGKILL"), true), "SIGKILL (out of memory)");
        assert_eq!(one(None, None, false), "exit status unknown");
    }
}
