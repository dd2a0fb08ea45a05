//! Durations, sizes and signals: from the text of the manifest, and back to it.

use std::time::Duration;

use nix::sys::signal::Signal;

/// Longer than this is a mistake, and could not be added to a time.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `10s`, `1m30s`, `0`; the error says what is wrong with it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let end = after.find(|one: char| one.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let factor = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
        let (Some(factor), false) = (factor, number.is_empty()) else {
            return Err("this is no duration".into());
        };
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor))
            .and_then(|part| total.checked_add(part))
            .ok_or("this duration is too long")?;
        rest = after;
    }
    let total = Duration::from_millis(total);
    if text.is_empty() {
        Err("this is no duration".into())
    } else if total > LONGEST {
        Err("this duration is longer than ten years".into())
    } else {
        Ok(total)
    }
}

/// The shortest text that means the same.
pub(super) fn duration_text(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, factor) in DURATIONS.iter().rev() {
        if left / factor > 0 {
            text.extend([&(left / factor).to_string(), *unit]);
            left %= factor;
        }
    }
    text
}

/// `50MB`, `64MiB`, `1000`.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let factor = match unit {
        "" => 1,
        unit => SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// As [`size`], and as Compose writes it: `64m`, `1.5g`, `512mb`, which count by 1024.
pub(super) fn byte_size(text: &str) -> Option<u64> {
    if let Some(size) = size(text) {
        return Some(size);
    }
    let end = text.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim() {
        "b" => 1,
        "K" | "k" | "kb" | "kib" => 1 << 10,
        "M" | "m" | "mb" | "mib" => 1 << 20,
        "G" | "g" | "gb" | "gib" => 1 << 30,
        "T" | "t" | "tb" | "tib" => 1 << 40,
        unit => SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits are more than any unit can show; what is behind them is dropped.
    let digits = part.get(..part.len().min(9))?;
    let part = digits.parse::<u64>().ok()?;
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let part = u64::try_from(u128::from(part) * u128::from(factor) / scale).ok()?;
    whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(part)
}

/// Thousandths of a decimal number: `0.5`, `2`, `.25`.
pub(super) fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|one| one.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    format!("{part:0<3}").parse::<u64>().ok()?.checked_add(whole.checked_mul(1000)?)
}

/// The decimal number of so many thousandths.
pub(super) fn thousandths_text(value: u64) -> String {
    let text = format!("{}.{:03}", value / 1000, value % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The number of a signal by its name, with or without `SIG`.
pub(super) fn signal_by_name(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset = match offset.strip_prefix('+') {
            Some(offset) => offset.parse::<i32>().ok()?,
            None if offset.is_empty() => 0,
            None => return None,
        };
        let signal = libc::SIGRTMIN().checked_add(offset)?;
        return (signal <= libc::SIGRTMAX()).then_some(signal);
    }
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

/// The name by which the manifest knows a signal.
pub(super) fn signal_text(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(known) => known.as_str().to_owned(),
        Err(_) if signal >= libc::SIGRTMIN() => format!("SIGRTMIN+{}", signal - libc::SIGRTMIN()),
        Err(_) => signal.to_string(),
    }
}

/// The names of all signals.
pub(super) fn signal_names() -> impl Iterator<Item = &'static str> {
    Signal::iterator().map(Signal::as_str)
}
