//! One line of a log as it is printed: `api     | listening on 8080`. Pure.

use anstyle::{AnsiColor, Style};

use super::output::{GREY, Look};
use super::table::harmless;
use super::words;
use crate::api::v1;

/// Colours that are told apart, without those that mean a state.
const PALETTE: [AnsiColor; 8] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
    AnsiColor::BrightGreen,
    AnsiColor::BrightYellow,
];

/// How lines are printed.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four options that have nothing to do with each other"
)]
pub(super) struct Printer {
    look: Look,
    /// The widest name so far.
    width: usize,
    /// One JSON document a line.
    pub(super) json: bool,
    /// Say whose line it is.
    pub(super) prefix: bool,
    /// Say when it came.
    pub(super) timestamps: bool,
    /// Names say their project, too.
    pub(super) projects: bool,
}

impl Printer {
    /// Prints with prefixes.
    pub(super) fn new(look: Look) -> Self {
        Self { look, width: 0, json: false, prefix: true, timestamps: false, projects: false }
    }

    /// Lines of this component may come.
    pub(super) fn expect(&mut self, project: &str, name: &str) {
        let width = self.label(project, name).chars().count();
        self.width = self.width.max(width);
    }

    fn label(&self, project: &str, name: &str) -> String {
        if self.projects { format!("{project}/{name}") } else { name.to_owned() }
    }

    /// The bytes to print, with a newline. Those of the line are as the component wrote them.
    pub(super) fn print(&mut self, line: &v1::LogLine) -> Vec<u8> {
        if self.json {
            let mut text = serde_json::to_vec(line).unwrap_or_default();
            text.push(b'\n');
            return text;
        }
        let mut bytes = Vec::new();
        if self.timestamps {
            let at = line.at.as_deref().map_or_else(|| "-".to_owned(), local_millis);
            bytes.extend(self.look.paint(GREY, &format!("{at:<23} ")).into_bytes());
        }
        if self.prefix {
            let name = words::display_name(&line.component, line.replica);
            self.expect(&line.project, &name);
            let label = self.label(&line.project, &name);
            let width = self.width;
            let text = format!("{label:<width$} | ");
            let style = color_of(&format!("{}/{name}", line.project));
            bytes.extend(self.look.paint(style, &text).into_bytes());
        }
        if line.event {
            let text = format!("-- {}", harmless(&line.text));
            bytes.extend(self.look.paint(GREY, &text).into_bytes());
        } else {
            bytes.extend_from_slice(line.raw.as_deref().unwrap_or(line.text.as_bytes()));
        }
        bytes.push(b'\n');
        bytes
    }
}

/// The colour of a component: the same in every call (FNV-1a of its name).
fn color_of(name: &str) -> Style {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let index = hash as usize % PALETTE.len();
    PALETTE[index].on_default()
}

fn local_millis(text: &str) -> String {
    words::parse(text).map_or_else(
        || text.to_owned(),
        |at| {
            let zone = jiff::tz::TimeZone::system();
            at.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(color: bool) -> Look {
        Look { color, utf8: true, width: None }
    }

    fn line(component: &str, text: &str) -> v1::LogLine {
        v1::LogLine {
            project: "shop".into(),
            component: component.into(),
            text: text.into(),
            ..v1::LogLine::default()
        }
    }

    #[test]
    fn prefixes_are_aligned_and_events_are_marked() {
        let mut printer = Printer::new(look(false));
        printer.expect("shop", "worker");
        assert_eq!(printer.print(&line("api", "hello")), b"api    | hello\n");
        let second = v1::LogLine { replica: 1, ..line("api", "hello") };
        assert_eq!(printer.print(&second), b"api.1  | hello\n");
        let event = v1::LogLine { event: true, ..line("worker", "exited: exit 1") };
        assert_eq!(printer.print(&event), b"worker | -- exited: exit 1\n");
    }

    #[test]
    fn bytes_are_printed_as_they_are() {
        let mut printer = Printer::new(look(false));
        printer.prefix = false;
        let raw = v1::LogLine { raw: Some(vec![0xff, 0, 0x1b, b'[']), ..line("api", "\u{fffd}") };
        assert_eq!(printer.print(&raw), [0xff, 0, 0x1b, b'[', b'\n']);
    }

    #[test]
    fn a_component_keeps_its_colour() {
        let print = |component| Printer::new(look(true)).print(&line(component, "x"));
        assert_eq!(print("api"), print("api"));
        assert!(print("api").starts_with(b"\x1b["));
        assert_ne!(color_of("shop/api"), color_of("shop/worker"));
    }

    #[test]
    fn json_is_one_document_a_line() {
        let mut printer = Printer::new(look(true));
        printer.json = true;
        let text = String::from_utf8(printer.print(&line("api", "hello"))).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["text"], &value["at"]), (&"hello".into(), &serde_json::Value::Null));
        assert_eq!(text.lines().count(), 1);
    }
}
