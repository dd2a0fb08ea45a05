//! A part of the terminal that is drawn again in place.

use super::error::CliError;
use super::output::Output;
use super::table::cut;

/// What was drawn last, and will be drawn over.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    lines: usize,
    text: String,
}

impl Canvas {
    /// Draws in the place of what was drawn before. Lines that would not fit are left out, since what
    /// has left the screen cannot be drawn over.
    pub(super) fn draw(&mut self, output: &Output, text: &str) -> Result<(), CliError> {
        if text == self.text {
            return Ok(());
        }
        text.clone_into(&mut self.text);
        let mut lines: Vec<&str> = text.lines().collect();
        let room = output.height.saturating_sub(1).max(1);
        let hidden = lines.len().saturating_sub(room);
        let note = format!("... and {} more lines", hidden + 1);
        if hidden > 0 {
            lines.truncate(room - 1);
            lines.push(&note);
        }
        let mut drawing = self.begin();
        for line in &lines {
            drawing.push_str(line);
            drawing.push('\n');
        }
        self.lines = lines.len();
        output.print(&drawing)
    }

    /// Up to the first line of the last drawing, and everything below it cleared.
    fn begin(&self) -> String {
        if self.lines == 0 { String::new() } else { format!("\x1b[{}A\x1b[J", self.lines) }
    }
}

/// Plain text cut to the width of the terminal, so that a line stays one line.
pub(super) fn fit(output: &Output, text: &str) -> String {
    output.look.width.map_or_else(|| text.to_owned(), |width| cut(text, width, output.look))
}
