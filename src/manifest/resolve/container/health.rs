//! The check that the engine runs inside of a container.

use std::time::Duration;

use crate::manifest::resolve::at::At;
use crate::manifest::resolve::context::Context;
use crate::manifest::schema::container::{Container, HealthTestEntry, Healthcheck};
use crate::manifest::schema::scalars;
use crate::manifest::tree::short;
use crate::model::container::{HealthTest, HealthcheckSpec};

/// None: the image's own, as it is.
pub(super) fn healthcheck(
    context: &mut Context<'_>,
    at: At<'_>,
    container: &Container,
) -> Option<HealthcheckSpec> {
    let raw = container.healthcheck.as_ref()?;
    let mut positive = |key: &str, raw: Option<&scalars::Duration>| {
        raw.map(|raw| context.positive(at.key(key), Some(raw), Duration::from_secs(1), key))
    };
    let spec = HealthcheckSpec {
        interval: positive("interval", raw.interval.as_ref()),
        timeout: positive("timeout", raw.timeout.as_ref()),
        retries: raw.retries,
        start_interval: positive("start_interval", raw.start_interval.as_ref()),
        start_period: raw
            .start_period
            .as_ref()
            .map(|raw| context.duration(at.key("start_period"), Some(raw), Duration::ZERO)),
        test: test(context, at, raw),
    };
    let says_nothing = HealthcheckSpec {
        test: HealthTest::Inherit,
        interval: None,
        timeout: None,
        retries: None,
        start_period: None,
        start_interval: None,
    };
    (spec != says_nothing).then_some(spec)
}

fn test(context: &mut Context<'_>, at: At<'_>, raw: &Healthcheck) -> HealthTest {
    let at_test = at.key("test");
    let test = match &raw.test {
        None => HealthTest::Inherit,
        Some(HealthTestEntry::Line(line)) => HealthTest::Shell(line.clone()),
        Some(HealthTestEntry::List(list)) => {
            let words: Vec<String> = list.iter().map(|one| one.0.clone()).collect();
            from_list(context, at_test, &words)
        }
    };
    if raw.disable != Some(true) {
        return test;
    }
    if !matches!(test, HealthTest::Inherit | HealthTest::Disabled) {
        let help = "take out `disable: true`, or `test`";
        let place = at.key("disable").key_place();
        context.error(place, "there is a `test`, and it is disabled", "one of the two", help);
    }
    HealthTest::Disabled
}

fn from_list(context: &mut Context<'_>, at: At<'_>, words: &[String]) -> HealthTest {
    let expected = "CMD, CMD-SHELL or NONE as the first item";
    match words {
        [none] if none == "NONE" => HealthTest::Disabled,
        [cmd, rest @ ..] if cmd == "CMD" && rest.first().is_some_and(|one| !one.is_empty()) => {
            HealthTest::Exec(rest.to_vec())
        }
        [shell, line] if shell == "CMD-SHELL" && !line.trim().is_empty() => {
            HealthTest::Shell(line.clone())
        }
        [first, rest @ ..] => {
            let (message, help) = match (first.as_str(), rest.len()) {
                ("CMD", _) => ("`CMD` without a program".to_owned(), "[CMD, program, argument]"),
                ("CMD-SHELL", 1) => ("`CMD-SHELL` without a line".to_owned(), ""),
                ("CMD-SHELL", _) => (
                    "`CMD-SHELL` takes one line".to_owned(),
                    "put the line in quotes: [CMD-SHELL, \"one && two\"]",
                ),
                ("NONE", _) => ("nothing stands behind `NONE`".to_owned(), ""),
                (other, _) => (
                    format!("a list begins with how it is run, not with `{}`", short(other)),
                    "[CMD, program, argument], or a text for the shell",
                ),
            };
            context.error(at.key_place(), message, expected, help);
            HealthTest::Inherit
        }
        [] => HealthTest::Inherit,
    }
}
