//! Times as people type them: `10m`, `1h30m`, `today`, `09:30`, `2026-05-01 12:00`, RFC 3339.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Understands a time given to `--since` and `--until`: an age (`10m`, `1h30m`, `2d`), an instant with
/// its offset (RFC 3339), a date or a date and time of this machine's zone, a time of today, `@` and
/// seconds since 1970, or `now`, `today`, `yesterday`.
///
/// # Errors
/// A message that says what would be understood.
pub fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    parse_in(text, now, &TimeZone::system())
}

fn parse_in(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(misunderstood(text));
    }
    let today = zone.to_datetime(now).date();
    let local = |time: DateTime| zone.to_timestamp(time).map_err(|error| error.to_string());
    match text {
        "now" => return Ok(now),
        "today" => return local(today.to_datetime(Time::midnight())),
        "yesterday" => {
            let day = today.yesterday().map_err(|error| error.to_string())?;
            return local(day.to_datetime(Time::midnight()));
        }
        _ => {}
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let seconds = seconds.parse().ok().and_then(|value| Timestamp::from_second(value).ok());
        return seconds.ok_or_else(|| misunderstood(text));
    }
    if let Some(age) = age(text) {
        let before = age.and_then(|age| now.checked_sub(age).map_err(|_| TooLong));
        return before.map_err(|TooLong| format!("{text} is longer ago than time goes back"));
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    // A date alone would be read as midnight by the next branch; so it is, in this zone.
    if let Ok(date) = text.parse::<Date>()
        && !text.contains([':', 'T', 't', ' '])
    {
        return local(date.to_datetime(Time::midnight()));
    }
    if let Ok(time) = text.parse::<DateTime>()
        && text.contains(['T', 't', ' '])
    {
        return local(time);
    }
    match text.parse::<Time>() {
        Ok(time) if text.contains(':') => local(today.to_datetime(time)),
        _ => Err(misunderstood(text)),
    }
}

fn misunderstood(text: &str) -> String {
    format!(
        "{text:?} is not a time; write an age such as 10m, 2h or 1h30m, a time such as 09:30 or \
         2026-05-01T09:30:00Z, or today"
    )
}

/// An age that no clock can be set back by.
struct TooLong;

/// `None`: it is no age.
fn age(text: &str) -> Option<Result<SignedDuration, TooLong>> {
    let mut total = Some(SignedDuration::ZERO);
    let mut rest = text.strip_suffix("ago").unwrap_or(text).trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters =
            behind.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let millis: i64 = match unit {
            "ms" => 1,
            "s" | "sec" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        if number.is_empty() {
            return None;
        }
        let part = number.parse::<i64>().ok().and_then(|number| number.checked_mul(millis));
        total = total
            .zip(part.map(SignedDuration::from_millis))
            .and_then(|(total, part)| total.checked_add(part));
        rest = behind.trim_start();
    }
    Some(total.ok_or(TooLong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let now = "2026-05-10T12:00:00Z".parse().unwrap();
        let zone = TimeZone::posix("XST-2").unwrap();
        parse_in(text, now, &zone).map(|time| time.to_string())
    }

    #[test]
    fn ages() {
        for (text, wanted) in [
            ("10m", "2026-05-10T11:50:00Z"),
            ("1h30m", "2026-05-10T10:30:00Z"),
            ("1h 30m ago", "2026-05-10T10:30:00Z"),
            ("2d", "2026-05-08T12:00:00Z"),
            ("500ms", "2026-05-10T11:59:59.5Z"),
            ("now", "2026-05-10T12:00:00Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn points_in_time_are_of_this_zone_unless_they_say_otherwise() {
        for (text, wanted) in [
            ("2026-05-01T09:30:00Z", "2026-05-01T09:30:00Z"),
            ("2026-05-01T09:30:00+05:00", "2026-05-01T04:30:00Z"),
            ("2026-05-01T09:30:00", "2026-05-01T07:30:00Z"),
            ("2026-05-01 09:30", "2026-05-01T07:30:00Z"),
            ("2026-05-01", "2026-04-30T22:00:00Z"),
            ("09:30", "2026-05-10T07:30:00Z"),
            ("today", "2026-05-09T22:00:00Z"),
            ("yesterday", "2026-05-08T22:00:00Z"),
            ("@0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_advice() {
        for text in
            ["", "10", "m", "-5m", "10x", "5mh", "tomorrowish", "@x", "25:61", "ago", "1.5h"]
        {
            assert!(parsed(text).is_err_and(|message| message.contains("10m")), "{text}");
        }
        for text in ["99999999999999999999d", "9999999999d"] {
            assert!(parsed(text).is_err_and(|message| message.contains("longer ago")), "{text}");
        }
    }
}
