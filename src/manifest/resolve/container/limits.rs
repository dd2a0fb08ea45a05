//! What a container may use: resources, and limits of its processes.

use std::collections::BTreeMap;

use crate::manifest::resolve::at::At;
use crate::manifest::resolve::context::Context;
use crate::manifest::resolve::process::{Value, limit};
use crate::manifest::schema::container::Container;
use crate::manifest::schema::container::limits::Ulimit;
use crate::manifest::schema::scalars::{ByteSize, ByteSizeOrNone, Cpus, UlimitValue, Word};
use crate::manifest::tree::{Node, Scalar, short};
use crate::manifest::units;
use crate::model::container::ResourceSpec;
use crate::model::spec::LimitSpec;

/// With less than this an engine starts nothing.
const LEAST_MEMORY: u64 = 6 << 20;
/// What an engine can count.
const MOST: u64 = i64::MAX.unsigned_abs();

/// Bytes.
pub(super) fn size(context: &mut Context<'_>, at: At<'_>, raw: Option<&ByteSize>) -> Option<u64> {
    let raw = raw?;
    let size = match at.node().and_then(Node::typed) {
        Some(Scalar::Int(value)) => u64::try_from(value).ok(),
        _ => units::byte_size(&raw.0.0),
    };
    let size = size.filter(|size| *size <= MOST);
    if size.is_none() {
        let message = format!("`{}` is no size", short(&raw.0.0));
        context.error(at.place(), message, "a size such as 512m, 64MiB or a number of bytes", "");
    }
    size
}

/// Bytes; at least one of them.
pub(super) fn positive(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&ByteSize>,
) -> Option<u64> {
    let size = size(context, at, raw);
    if size == Some(0) {
        context.error(at.place(), "a size of 0", "a size such as 64m", "");
        return None;
    }
    size
}

/// `at` is the container.
pub(super) fn resources(context: &mut Context<'_>, at: At<'_>, raw: &Container) -> ResourceSpec {
    let deploy = raw.deploy.as_ref().and_then(|deploy| deploy.resources.as_ref());
    let limits = deploy.and_then(|resources| resources.limits.as_ref());
    let reservations = deploy.and_then(|resources| resources.reservations.as_ref());
    let at_limits = at.key("deploy").key("resources").key("limits");
    let at_kept = at.key("deploy").key("resources").key("reservations");
    for (key, given) in [
        ("cpus", reservations.is_some_and(|kept| kept.cpus.is_some())),
        ("pids", reservations.is_some_and(|kept| kept.pids.is_some())),
    ] {
        if given {
            let message = format!("`{key}` cannot be kept for a container: this has no effect");
            let help = "`cpu_shares` gives it a weight beside others";
            context.warning(at_kept.key(key).key_place(), message, help);
        }
    }
    let mut cpus = |at: At<'_>, raw: Option<&Cpus>| cpus(context, at, raw);
    let cpus = [
        ("cpus", at.key("cpus"), cpus(at.key("cpus"), raw.cpus.as_ref())),
        (
            "deploy.resources.limits.cpus",
            at_limits.key("cpus"),
            cpus(at_limits.key("cpus"), limits.and_then(|limits| limits.cpus.as_ref())),
        ),
    ];
    let cpus = agreed(context, cpus).filter(|cpus| *cpus > 0);
    let memory = [
        (
            "mem_limit",
            at.key("mem_limit"),
            size(context, at.key("mem_limit"), raw.mem_limit.as_ref()),
        ),
        (
            "deploy.resources.limits.memory",
            at_limits.key("memory"),
            size(context, at_limits.key("memory"), limits.and_then(|one| one.memory.as_ref())),
        ),
    ];
    let mem_limit = agreed(context, memory).filter(|limit| *limit > 0);
    let kept = [
        (
            "mem_reservation",
            at.key("mem_reservation"),
            size(context, at.key("mem_reservation"), raw.mem_reservation.as_ref()),
        ),
        (
            "deploy.resources.reservations.memory",
            at_kept.key("memory"),
            size(context, at_kept.key("memory"), reservations.and_then(|one| one.memory.as_ref())),
        ),
    ];
    let mem_reservation = agreed(context, kept).filter(|kept| *kept > 0);
    let pids = [
        ("pids_limit", at.key("pids_limit"), raw.pids_limit),
        (
            "deploy.resources.limits.pids",
            at_limits.key("pids"),
            limits.and_then(|limits| limits.pids),
        ),
    ];
    // Zero is another way to say unlimited.
    let pids_limit = agreed(context, pids).map(|pids| if pids == 0 { -1 } else { pids });
    let at_memory =
        if raw.mem_limit.is_some() { at.key("mem_limit") } else { at_limits.key("memory") };
    memory_fits(context, at_memory, mem_limit);
    if let (Some(kept), Some(limit)) = (mem_reservation, mem_limit)
        && kept > limit
    {
        let place = if raw.mem_reservation.is_some() {
            at.key("mem_reservation")
        } else {
            at_kept.key("memory")
        };
        let message = "more memory is kept than may be used";
        context.error(place.place(), message, format!("at most {limit} bytes, the limit"), "");
    }
    let shares = raw.cpu_shares.filter(|shares| *shares > 0);
    if shares == Some(1) {
        let place = at.key("cpu_shares").place();
        context.error(place, "a weight of 1 is too small", "a number from 2 to 262144", "");
    }
    ResourceSpec {
        cpus,
        cpu_shares: shares,
        cpuset: cpuset(context, at.key("cpuset"), raw.cpuset.as_ref()),
        mem_limit,
        mem_reservation,
        memswap_limit: swap(
            context,
            at.key("memswap_limit"),
            raw.memswap_limit.as_ref(),
            mem_limit,
        ),
        pids_limit,
    }
}

/// The value of two keys that say the same.
fn agreed<T: PartialEq + Copy>(
    context: &mut Context<'_>,
    [(name, at, one), (other_name, other_at, other)]: [(&str, At<'_>, Option<T>); 2],
) -> Option<T> {
    if let (Some(one), Some(other)) = (one, other)
        && one != other
    {
        let message = format!("`{name}` says something else");
        let place = at.place();
        let help = format!(
            "take one of them out; `{name}` stands at line {}, column {}",
            place.line, place.column
        );
        context.error(other_at.place(), message, format!("the same in `{other_name}`"), help);
    }
    one.or(other)
}

fn cpus(context: &mut Context<'_>, at: At<'_>, raw: Option<&Cpus>) -> Option<u64> {
    let text = raw?.0.0.as_str();
    let value = units::thousandths(text).filter(|value| *value <= 1_000_000_000);
    if value.is_none() {
        let message = format!("`{}` is no number of processors", short(text));
        let expected = "a number such as 0.5 or 2, in steps of a thousandth";
        context.error(at.place(), message, expected, "");
    }
    value
}

fn cpuset(context: &mut Context<'_>, at: At<'_>, raw: Option<&Word>) -> Option<String> {
    let text = raw?.0.0.as_str();
    let fits = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| digits)
        };
        matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
    };
    if !text.split(',').all(fits) {
        let message = format!("`{}` names no processors", short(text));
        context.error(at.place(), message, "numbers and ranges such as 0-2,4", "");
    }
    Some(text.to_owned())
}

fn memory_fits(context: &mut Context<'_>, at: At<'_>, limit: Option<u64>) {
    if limit.is_some_and(|limit| limit < LEAST_MEMORY) {
        let message = "no container starts with so little memory";
        context.error(at.place(), message, "at least 6m, or 0 for no limit", "");
    }
}

/// Memory and swap together; zero is as if it were not there.
fn swap(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&ByteSizeOrNone>,
    memory: Option<u64>,
) -> Option<i64> {
    let raw = raw?;
    if raw.0.0 == "-1" {
        return Some(-1);
    }
    let size = size(context, at, Some(&ByteSize(raw.0.clone()))).filter(|size| *size > 0)?;
    match memory {
        None => {
            let help = "add `mem_limit`: this is memory and swap together";
            context.error(at.place(), "there is no `mem_limit` beside it", "both", help);
        }
        Some(memory) if size < memory => {
            let message = "this is less than the memory alone";
            let help = "it is memory and swap together; the same as `mem_limit` means no swap";
            context.error(at.place(), message, format!("at least {memory} bytes"), help);
        }
        Some(_) => {}
    }
    i64::try_from(size).ok()
}

pub(super) fn ulimits(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Container,
) -> BTreeMap<String, LimitSpec> {
    let mut found = BTreeMap::new();
    for (name, raw) in raw.ulimits.iter().flatten() {
        let at = at.key(name.as_str());
        let mut value = |at: At<'_>, raw: &UlimitValue| value_of(context, at, raw);
        let (soft, hard) = match raw {
            Ulimit::Both(raw) => (Some(value(at, raw)), None),
            Ulimit::Pair(pair) => (
                pair.soft.as_ref().map(|raw| value(at.key("soft"), raw)),
                pair.hard.as_ref().map(|raw| value(at.key("hard"), raw)),
            ),
        };
        let spec = limit(context, at, soft, hard);
        found.extend(spec.map(|spec| (name.as_str().to_owned(), spec)));
    }
    found
}

fn value_of(context: &mut Context<'_>, at: At<'_>, raw: &UlimitValue) -> Value {
    let text = raw.0.0.as_str();
    if matches!(text, "unlimited" | "-1") {
        return Value::Unlimited;
    }
    let value = match at.node().and_then(Node::typed) {
        Some(Scalar::Int(value)) => u64::try_from(value).ok(),
        _ => units::byte_size(text),
    };
    if let Some(value) = value.filter(|value| *value <= MOST) {
        return Value::Number(value);
    }
    let message = format!("`{}` is no limit", short(text));
    context.error(at.place(), message, "a number, a size such as 64m, or unlimited", "");
    Value::Wrong
}
