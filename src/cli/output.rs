//! Everything that is printed goes through here: to stdout what was asked for, to stderr what is said
//! about it.
//!
//! Colour: `--color` over `NO_COLOR` over `CLICOLOR_FORCE`/`FORCE_COLOR` over a terminal whose TERM is
//! not dumb. A reader that has gone away ends the command quietly. Rendering itself is elsewhere, as
//! pure functions that are given a [`Look`].

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::error::CliError;

/// Lines that are drawn in place, whatever the terminal says of its size.
const LEAST_HEIGHT: usize = 10;

/// When to use colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal.
    #[default]
    Auto,
    /// Also in a pipe.
    Always,
    /// Not at all.
    Never,
}

/// How text looks on one of the two outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Use colour.
    pub(super) color: bool,
    /// The locale can show more than ASCII.
    pub(super) utf8: bool,
    /// Columns of the terminal; absent in a pipe, where nothing is cut.
    pub(super) width: Option<usize>,
}

impl Look {
    /// Text in a style, if colour is used.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        let mut painted = String::with_capacity(text.len());
        self.paint_to(&mut painted, style, text);
        painted
    }

    /// Adds text in a style, if colour is used, to another.
    pub(super) fn paint_to(self, whole: &mut String, style: Style, text: &str) {
        if self.color && style != Style::new() && !text.is_empty() {
            // To write to a string cannot fail.
            let _ = write!(whole, "{style}{text}{style:#}");
        } else {
            whole.push_str(text);
        }
    }
}

/// The styles in use.
pub(super) const GREEN: Style = AnsiColor::Green.on_default();
/// In between.
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Something is wrong.
pub(super) const RED: Style = AnsiColor::Red.on_default();
/// At rest, or over.
pub(super) const GREY: Style = AnsiColor::BrightBlack.on_default();
/// Heads of tables.
pub(super) const BOLD: Style = Style::new().bold();

/// The two outputs of the command.
#[derive(Debug)]
pub(super) struct Output {
    /// How stdout looks.
    pub(super) look: Look,
    /// How stderr looks.
    pub(super) error_look: Look,
    /// stdout is a terminal, on which lines can be drawn again.
    pub(super) live: bool,
    /// Lines of the terminal.
    pub(super) height: usize,
}

impl Output {
    /// For the outputs of this process.
    pub(super) fn new(choice: ColorChoice) -> Self {
        let utf8 = is_utf8(|name| std::env::var_os(name));
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let look = |terminal: bool, width: Option<usize>| Look {
            color: uses_color(choice, |name| std::env::var_os(name), terminal && !dumb),
            utf8,
            width,
        };
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let size = rustix::termios::tcgetwinsize(&stdout).ok().filter(|size| size.ws_col > 0);
        let error_size = rustix::termios::tcgetwinsize(&stderr).ok().filter(|size| size.ws_col > 0);
        Self {
            look: look(stdout.is_terminal(), size.map(|size| usize::from(size.ws_col))),
            error_look: look(stderr.is_terminal(), error_size.map(|size| usize::from(size.ws_col))),
            live: stdout.is_terminal() && !dumb,
            // Terminals that do not know their own size say 0.
            height: size.map_or(0, |size| usize::from(size.ws_row)).max(LEAST_HEIGHT),
        }
    }

    /// Prints text as it is.
    pub(super) fn print(&self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Prints a line.
    pub(super) fn line(&self, text: &str) -> Result<(), CliError> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes as they are.
    #[expect(clippy::unused_self, reason = "nothing is printed without the outputs")]
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(cannot_write)
    }

    /// Prints a JSON document of one line or, for people's sake, of several.
    pub(super) fn json(&self, document: &impl Serialize) -> Result<(), CliError> {
        let text = if self.live {
            serde_json::to_string_pretty(document)
        } else {
            serde_json::to_string(document)
        };
        let text = text.map_err(|error| cannot_write(error.into()))?;
        self.line(&text)
    }

    /// Prints one line of JSON.
    pub(super) fn json_line(&self, document: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(document).map_err(|error| cannot_write(error.into()))?;
        self.line(&text)
    }

    /// Says something on stderr. That nobody hears it is no failure.
    #[expect(clippy::unused_self, reason = "nothing is printed without the outputs")]
    pub(super) fn say(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        drop(writeln!(stderr, "{}", text.trim_end_matches('\n')));
    }

    /// Says that something is wrong.
    pub(super) fn say_error(&self, text: &str) {
        let head = self.error_look.paint(RED.bold(), "error:");
        self.say(&format!("{head} {text}"));
    }

    /// Says that something may be wrong.
    pub(super) fn say_warning(&self, text: &str) {
        let head = self.error_look.paint(YELLOW.bold(), "warning:");
        self.say(&format!("{head} {text}"));
    }
}

fn cannot_write(source: io::Error) -> CliError {
    if source.kind() == io::ErrorKind::BrokenPipe {
        CliError::NobodyReads
    } else {
        CliError::Io { what: "cannot write the output".into(), source }
    }
}

/// Whether to use colour on an output that is a capable terminal, or is none.
fn uses_color(
    choice: ColorChoice,
    variable: impl Fn(&str) -> Option<OsString>,
    terminal: bool,
) -> bool {
    let set = |name| variable(name).is_some_and(|value| !value.is_empty());
    let forced = |name| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if set("NO_COLOR") => false,
        ColorChoice::Auto if forced("CLICOLOR_FORCE") || forced("FORCE_COLOR") => true,
        ColorChoice::Auto => terminal,
    }
}

/// Whether the locale is of UTF-8, by the first of its variables that is set.
fn is_utf8(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| variable(name))
        .find(|value| !value.is_empty())
        .is_some_and(|value| {
            let value = value.to_string_lossy().to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn color(choice: ColorChoice, set: &[(&str, &str)], terminal: bool) -> bool {
        let variable = |name: &str| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        uses_color(choice, variable, terminal)
    }

    #[test]
    fn colour_obeys_the_option_then_the_variables_then_the_terminal() {
        use ColorChoice::{Always, Auto, Never};
        assert!(color(Auto, &[], true));
        assert!(!color(Auto, &[], false));
        assert!(!color(Auto, &[("NO_COLOR", "1")], true));
        assert!(color(Auto, &[("NO_COLOR", "")], true));
        assert!(color(Auto, &[("CLICOLOR_FORCE", "1")], false));
        assert!(color(Auto, &[("FORCE_COLOR", "1")], false));
        assert!(!color(Auto, &[("FORCE_COLOR", "0")], false));
        assert!(!color(Auto, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(color(Always, &[("NO_COLOR", "1")], false));
        assert!(!color(Never, &[("FORCE_COLOR", "1")], true));
    }

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        let locale = |set: &[(&str, &str)]| {
            is_utf8(|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            })
        };
        assert!(locale(&[("LANG", "C.UTF-8")]));
        assert!(locale(&[("LANG", "de_DE.utf8")]));
        assert!(!locale(&[]));
        assert!(!locale(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]));
        assert!(locale(&[("LC_ALL", ""), ("LANG", "C.UTF-8")]));
    }
}
