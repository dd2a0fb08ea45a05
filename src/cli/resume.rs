//! Going on with logs after the connection broke: which lines were printed already. Pure.
//!
//! The stream is asked for again from a little before the last line. Of each component the lines up to
//! the position of its last one are left out. Times do not tell lines apart: many have the same, and the
//! engine that has taken over may know the last ones by other times than its predecessor did.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::words::parse;
use crate::api::v1;

/// Lines of a quiet component may reach us this much later than those of another.
const SLACK: SignedDuration = SignedDuration::from_secs(10);

type Source = (String, String, u32, bool);

/// What was printed.
#[derive(Debug, Default)]
pub(super) struct Resume {
    last: BTreeMap<Source, Last>,
    newest: Option<Timestamp>,
    resumed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: Option<Timestamp>,
    position: u64,
}

impl Resume {
    /// Whether the line is to be printed; it is remembered then.
    pub(super) fn is_new(&mut self, line: &v1::LogLine) -> bool {
        let at = line.at.as_deref().and_then(parse);
        let Some(position) = line.position else {
            // A daemon that is older: better a line twice than a line less.
            self.newest = self.newest.max(at);
            return true;
        };
        let source = (line.project.clone(), line.component.clone(), line.replica, line.event);
        if self.resumed
            && let Some(last) = self.last.get(&source)
            && position <= last.position
            && !began_anew(*last, at)
        {
            return false;
        }
        self.newest = self.newest.max(at);
        self.last.insert(source, Last { at, position });
        true
    }

    /// The request to go on with.
    pub(super) fn request(&mut self, first: &v1::LogsRequest) -> v1::LogsRequest {
        let Some(newest) = self.newest else {
            return first.clone();
        };
        self.resumed = true;
        let since = newest.checked_sub(SLACK).unwrap_or(newest);
        v1::LogsRequest { lines: None, since: since.to_string(), ..first.clone() }
    }
}

/// Positions begin anew where the index of a log was lost; such a line is much later than the last one.
fn began_anew(last: Last, at: Option<Timestamp>) -> bool {
    let (Some(before), Some(now)) = (last.at, at) else { return false };
    now.duration_since(before) > SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(component: &str, at: &str, position: u64) -> v1::LogLine {
        v1::LogLine {
            component: component.into(),
            at: Some(format!("2026-05-01T00:00:{at}Z")),
            position: Some(position),
            ..v1::LogLine::default()
        }
    }

    #[test]
    fn no_line_is_lost_or_doubled() {
        let mut resume = Resume::default();
        for old in
            [line("a", "20", 0), line("b", "21", 0), line("a", "22", 10), line("a", "22", 20)]
        {
            assert!(resume.is_new(&old));
        }
        let request =
            resume.request(&v1::LogsRequest { lines: Some(5), ..v1::LogsRequest::default() });
        assert_eq!((request.lines, &*request.since), (None, "2026-05-01T00:00:12Z"));
        let answers = [
            (line("a", "20", 0), false),
            (line("b", "21", 0), false),
            (line("b", "21", 5), true),
            // Known by another time since, and yet the same.
            (line("a", "21", 10), false),
            (line("a", "23", 20), false),
            (line("a", "22", 30), true),
            (line("c", "19", 0), true),
            (line("a", "23", 40), true),
            (line("a", "23", 50), true),
        ];
        for (line, wanted) in answers {
            assert_eq!(resume.is_new(&line), wanted, "{line:?}");
        }
    }

    #[test]
    fn events_and_lines_are_counted_apart() {
        let mut resume = Resume::default();
        let event = v1::LogLine { event: true, ..line("a", "20", 700) };
        assert!(resume.is_new(&event));
        assert!(resume.is_new(&line("a", "20", 5)));
        resume.request(&v1::LogsRequest::default());
        assert!(!resume.is_new(&event));
        assert!(resume.is_new(&line("a", "20", 6)));
    }

    #[test]
    fn a_log_whose_positions_begin_anew_goes_on() {
        let mut resume = Resume::default();
        assert!(resume.is_new(&line("a", "20", 1_000)));
        resume.request(&v1::LogsRequest::default());
        assert!(!resume.is_new(&line("a", "25", 0)));
        assert!(resume.is_new(&line("a", "31", 0)));
    }
}
