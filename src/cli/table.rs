//! A table that fits its terminal: columns are shed from the least important on, and the last one is
//! cut. In a pipe there is no width, and nothing is shed or cut. Pure.

use std::borrow::Cow;

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use super::output::{BOLD, Look};

/// Between two columns.
const GAP: usize = 2;
/// The last column is cut down to this before columns are shed.
const NARROWEST_LAST: usize = 16;

/// A text and its colour.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: Cow<'static, str>,
    width: usize,
    style: Style,
}

impl Cell {
    /// A cell without colour. Control characters are shown, never sent to the terminal.
    pub(super) fn plain(text: impl Into<Cow<'static, str>>) -> Self {
        Self::styled(text, Style::new())
    }

    /// A cell with a colour.
    pub(super) fn styled(text: impl Into<Cow<'static, str>>, style: Style) -> Self {
        let text = text.into();
        let text = if text.contains(char::is_control) { harmless(&text).into() } else { text };
        Self { width: width(&text), text, style }
    }
}

/// A column: its head, and how soon it is shed; 0 stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// The head.
    pub(super) head: &'static str,
    /// The highest number goes first; 0 stays for ever.
    pub(super) shed: u8,
}

/// Rows of cells under columns. The first column holds symbols: two cells wide, one space after it.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, one cell a column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The text of the table.
    pub(super) fn render(&self, look: Look) -> String {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        if let Some(width) = look.width {
            while self.narrowest(&shown) > width {
                let Some(position) = self.next_to_shed(&shown) else { break };
                shown.remove(position);
            }
        }
        let widths: Vec<usize> = shown.iter().map(|column| self.width_of(*column)).collect();
        let heads: Vec<Cell> =
            self.columns.iter().map(|column| Cell::styled(column.head, BOLD)).collect();
        let mut text = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            line(&mut text, row, &shown, &widths, look);
        }
        text
    }

    /// The position in `shown` of the column that is shed next.
    fn next_to_shed(&self, shown: &[usize]) -> Option<usize> {
        let candidates =
            shown.iter().enumerate().filter(|(_, column)| self.columns[**column].shed > 0);
        candidates
            .max_by_key(|(_, column)| self.columns[**column].shed)
            .map(|(position, _)| position)
    }

    /// How wide these columns are with the last one cut as far as it may be.
    fn narrowest(&self, shown: &[usize]) -> usize {
        let Some((last, others)) = shown.split_last() else { return 0 };
        let others: usize = others.iter().map(|column| self.width_of(*column) + gap(*column)).sum();
        others + self.width_of(*last).min(NARROWEST_LAST)
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.width).max().unwrap_or(0);
        let head = width(self.columns[column].head);
        if column == 0 { 2 } else { widest.max(head) }
    }
}

const fn gap(column: usize) -> usize {
    if column == 0 { 1 } else { GAP }
}

/// Adds a line to the text.
fn line(text: &mut String, row: &[Cell], shown: &[usize], widths: &[usize], look: Look) {
    let begin = text.len();
    let mut used = 0;
    for (position, (column, width)) in shown.iter().zip(widths).enumerate() {
        let Some(cell) = row.get(*column) else { continue };
        let is_last = position + 1 == shown.len();
        let room = look.width.map_or(usize::MAX, |width| width.saturating_sub(used));
        if is_last && cell.width > room {
            look.paint_to(text, cell.style, &cut(&cell.text, room, look));
        } else {
            look.paint_to(text, cell.style, &cell.text);
        }
        if !is_last {
            let padding = width.saturating_sub(cell.width) + gap(*column);
            used += cell.width + padding;
            text.extend(std::iter::repeat_n(' ', padding));
        }
    }
    let length = text.get(begin..).unwrap_or_default().trim_end().len();
    text.truncate(begin + length);
    text.push('\n');
}

/// In cells of a terminal. What is ASCII, as most texts are, is seen at a glance.
fn width(text: &str) -> usize {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) { text.len() } else { text.width() }
}

/// The text, cut to `room` cells with a mark where something is missing.
pub(super) fn cut(text: &str, room: usize, look: Look) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mark = if look.utf8 { "…" } else { "~" };
    let mut kept = String::new();
    for character in text.chars() {
        if format!("{kept}{character}{mark}").width() > room {
            break;
        }
        kept.push(character);
    }
    kept.push_str(mark);
    kept
}

/// Text without control characters, which could do anything to a terminal.
pub(super) fn harmless(text: &str) -> String {
    if text.contains(char::is_control) {
        text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Look = Look { color: false, utf8: true, width: None };

    fn table() -> Table {
        let column = |head, shed| Column { head, shed };
        let mut table = Table::new(vec![
            column("", 0),
            column("NAME", 0),
            column("WIDE", 2),
            column("LAST", 1),
        ]);
        let cells = ["x", "api", "0123456789", "a long error that goes on"];
        table.row(cells.into_iter().map(Cell::plain).collect());
        table
    }

    #[test]
    fn nothing_is_cut_in_a_pipe() {
        assert_eq!(
            table().render(PIPE),
            "   NAME  WIDE        LAST\nx  api   0123456789  a long error that goes on\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_last_column_then_sheds() {
        let at = |width| table().render(Look { width: Some(width), ..PIPE });
        assert_eq!(at(40), "   NAME  WIDE        LAST\nx  api   0123456789  a long error that …\n");
        assert_eq!(at(30), "   NAME  LAST\nx  api   a long error that go…\n");
        assert_eq!(at(12), "   NAME\nx  api\n");
        assert_eq!(at(5), "   NAME\nx  api\n".replace("NAME", "N…").replace("api", "a…"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(harmless("a\u{1b}[31mb"), "a\u{fffd}[31mb");
    }
}
