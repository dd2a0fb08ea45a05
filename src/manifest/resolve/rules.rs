//! Restart, stop and logs.

use std::collections::BTreeSet;

use super::at::At;
use super::context::Context;
use super::process::command;
use crate::manifest::schema::component::{Backoff, Component, Logs, Policy, Restart, Stop};
use crate::manifest::schema::scalars::{Duration, ExitStatus, Signal};
use crate::manifest::units;
use crate::model::spec::{BackoffSpec, ExitMatch, LogSpec, RestartPolicy, RestartSpec, StopSpec};

/// A log is cut in pieces of this size, for no file system has larger blocks.
const SMALLEST_LOG: u64 = 64 * 1024;

/// `own_policy` says whether the component itself names the policy, rather than the defaults.
pub(super) fn restart(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Restart,
    oneshot: bool,
    own_policy: bool,
) -> RestartSpec {
    let default = RestartSpec::default();
    let policy = match raw.policy {
        Some(Policy::Never) => RestartPolicy::Never,
        Some(Policy::OnFailure) => RestartPolicy::OnFailure,
        Some(Policy::Always) if oneshot && own_policy => {
            context.error(
                at.key("policy").place(),
                "a oneshot runs to its end once, and the policy `always` would run it again",
                "on-failure or never",
                "write `on-failure`, or take `oneshot: true` out",
            );
            RestartPolicy::OnFailure
        }
        Some(Policy::Always) | None if oneshot => RestartPolicy::OnFailure,
        Some(Policy::Always) | None => RestartPolicy::Always,
    };
    let max_restarts = match raw.max_restarts.as_ref().map(|raw| raw.0.0.as_str()) {
        None => default.max_restarts,
        Some("unlimited") => None,
        Some(text) => text.parse().ok().or_else(|| {
            let expected = "a number from 0, or unlimited";
            context.error(at.key("max_restarts").place(), "this is no number", expected, "");
            default.max_restarts
        }),
    };
    let window = context.positive(at.key("window"), raw.window.as_ref(), default.window, "window");
    let min_uptime =
        context.duration(at.key("min_uptime"), raw.min_uptime.as_ref(), default.min_uptime);
    let backoff = match &raw.backoff {
        None => default.backoff,
        Some(raw) => backoff(context, at.key("backoff"), raw),
    };
    let success =
        statuses(context, at.key("success_exit_status"), raw.success_exit_status.as_ref());
    let prevent =
        statuses(context, at.key("prevent_exit_status"), raw.prevent_exit_status.as_ref());
    if let Some(both) = success.intersection(&prevent).next() {
        context.error(
            at.key("prevent_exit_status").place(),
            format!("{} is in `success_exit_status` too", exit_text(*both)),
            "each exit status in one of the two lists",
            "",
        );
    }
    RestartSpec {
        policy,
        max_restarts,
        window,
        min_uptime,
        backoff,
        success_exit_status: success,
        prevent_exit_status: prevent,
    }
}

fn backoff(context: &mut Context<'_>, at: At<'_>, raw: &Backoff) -> BackoffSpec {
    let default = BackoffSpec::default();
    let initial = context.duration(at.key("initial"), raw.initial.as_ref(), default.initial);
    // A first delay of two minutes without a word about the longest is no contradiction.
    let longest = if raw.max.is_none() { default.max.max(initial) } else { default.max };
    let max = context.duration(at.key("max"), raw.max.as_ref(), longest);
    if max < initial {
        let message = format!(
            "the longest delay, {}, is shorter than the first, {}",
            units::duration_text(max),
            units::duration_text(initial)
        );
        context.error(at.key("max").place(), message, "`max` of at least `initial`", "");
    }
    BackoffSpec {
        initial,
        multiplier: raw.multiplier.unwrap_or(default.multiplier),
        max,
        jitter: raw.jitter.unwrap_or(default.jitter),
    }
}

fn statuses(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&Vec<ExitStatus>>,
) -> BTreeSet<ExitMatch> {
    let mut found = BTreeSet::new();
    for (index, status) in raw.into_iter().flatten().enumerate() {
        let (at, text) = (at.item(index), status.0.0.as_str());
        if let Ok(code) = text.parse::<u8>() {
            found.insert(ExitMatch::Code(code.into()));
        } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let expected = "an exit code from 0 to 255";
            context.error(at.place(), format!("`{text}` is no exit code"), expected, "");
        } else if let Some(signal) = context.signal(at, text) {
            found.insert(ExitMatch::Signal(signal));
        }
    }
    found
}

/// As the manifest writes it.
pub(in crate::manifest) fn exit_text(status: ExitMatch) -> String {
    match status {
        ExitMatch::Code(code) => code.to_string(),
        ExitMatch::Signal(signal) => units::signal_text(signal),
    }
}

/// How it is ended, and the signal if one is declared: for a container without one, the image decides.
pub(super) fn stop(
    context: &mut Context<'_>,
    at: At<'_>,
    component: &Component,
) -> (StopSpec, Option<i32>) {
    let default = StopSpec::default();
    let none = Stop::default();
    let raw = component.stop.as_ref().unwrap_or(&none);
    let container = component.container.as_deref();
    let (at, inner) = (at.key("stop"), at.key("container"));
    let mut signal =
        |at: At<'_>, raw: Option<&Signal>| raw.and_then(|signal| context.signal(at, &signal.0.0));
    let signals = [
        signal(at.key("signal"), raw.signal.as_ref()),
        signal(inner.key("stop_signal"), container.and_then(|one| one.stop_signal.as_ref())),
    ];
    contradiction(context, "stop.signal", inner.key("stop_signal"), signals);
    let mut timeout = |at: At<'_>, raw: Option<&Duration>| {
        raw.map(|raw| context.duration(at, Some(raw), default.timeout))
    };
    let at_period = inner.key("stop_grace_period");
    let timeouts = [
        timeout(at.key("timeout"), raw.timeout.as_ref()),
        timeout(at_period, container.and_then(|one| one.stop_grace_period.as_ref())),
    ];
    contradiction(context, "stop.timeout", at_period, timeouts);
    let signal = signals.into_iter().flatten().next();
    if signal.is_some() && raw.command.is_some() {
        let place = if raw.signal.is_some() { at.key("signal") } else { inner.key("stop_signal") };
        context.warning(
            place.place(),
            "the signal has no effect beside `command`",
            "the command is run instead of sending the signal; take one of them out",
        );
    }
    let spec = StopSpec {
        signal: signal.unwrap_or(default.signal),
        timeout: timeouts.into_iter().flatten().next().unwrap_or(default.timeout),
        command: raw.command.as_ref().and_then(|raw| command(context, at.key("command"), raw)),
    };
    (spec, signal)
}

/// Of two keys that say the same, each may be used.
fn contradiction<T: PartialEq>(
    context: &mut Context<'_>,
    name: &str,
    at: At<'_>,
    values: [Option<T>; 2],
) {
    if let [Some(one), Some(other)] = values
        && one != other
    {
        let message = format!("`{name}` of the component says something else");
        context.error(at.place(), message, "the same, or one of the two", "take one of them out");
    }
}

pub(super) fn logs(context: &mut Context<'_>, at: At<'_>, raw: &Logs) -> LogSpec {
    let default = LogSpec::default();
    let max_size = match &raw.max_size {
        None => default.max_size,
        Some(raw) => {
            let size = units::size(&raw.0.0);
            let expected = "a size such as 50MB, of at least 64KiB";
            let message = match size {
                Some(SMALLEST_LOG..) => None,
                Some(1..) => Some(format!("a log of `{}` is too small", raw.0.0)),
                Some(0) | None => Some(format!("`{}` is no size", raw.0.0)),
            };
            if let Some(message) = message {
                context.error(at.key("max_size").place(), message, expected, "");
            }
            size.unwrap_or(default.max_size)
        }
    };
    let max_age = raw.max_age.as_ref().map(|raw| {
        context.positive(at.key("max_age"), Some(raw), std::time::Duration::MAX, "max_age")
    });
    LogSpec {
        max_size,
        max_files: raw.max_files.unwrap_or(default.max_files),
        max_age,
        compress: raw.compress.unwrap_or(default.compress),
    }
}
