//! Mistakes with their places, and how they are shown.
//!
//! Invariant: every place lies inside its source, or is 0 where there is none; `Report::new` sees to it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// More than these are not collected: such a file is not a manifest.
pub(super) const MOST_DIAGNOSTICS: usize = 10_000;
/// More than these are not shown.
const MOST_SHOWN: usize = 50;
/// Of a longer line, only the part around the place is shown.
const LONGEST_LINE: usize = 160;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Severity {
    /// The manifest cannot be used.
    Error,
    /// It can, but it probably does not mean what it says.
    Warning,
}

/// One mistake: where it is, what was found, what was expected, what to type.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The manifest, or an env file of it.
    pub file: PathBuf,
    /// From 1; 0 means that it has no place in the file.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// In characters.
    pub length: u32,
    /// What was found.
    pub message: String,
    /// What was expected; may be empty.
    pub expected: String,
    /// What to type; may be empty.
    pub help: String,
}

/// Stands for what is left out of a long line.
const CUT: &str = "[...] ";

/// Where something stands in its file: line and column from 1, in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    /// `u32::MAX` means up to the end of the line.
    pub(super) length: u32,
}

impl Diagnostic {
    pub(super) fn error(file: &Path, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            length: place.length,
            message: message.into(),
            expected: String::new(),
            help: String::new(),
        }
    }

    pub(super) fn warning(file: &Path, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(file, place, message) }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

/// All mistakes of one manifest, in the order of their places.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// At least one of them is an error.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts of the files that they are in.
    pub sources: BTreeMap<PathBuf, String>,
}

impl Report {
    pub(super) fn new(found: Vec<Diagnostic>, sources: BTreeMap<PathBuf, String>) -> Self {
        Self { diagnostics: tidy(found, &sources), sources }
    }

    /// The first error.
    #[must_use]
    pub fn first(&self) -> &Diagnostic {
        static NONE: std::sync::LazyLock<Diagnostic> = std::sync::LazyLock::new(|| {
            Diagnostic::error(Path::new(""), Place::default(), "the manifest is invalid")
        });
        self.diagnostics
            .iter()
            .find(|found| found.severity == Severity::Error)
            .or(self.diagnostics.first())
            .unwrap_or(&NONE)
    }

    /// The text for people: every diagnostic with the line that it is about.
    #[must_use]
    pub fn render(&self, color: bool, width: usize) -> String {
        render(&self.diagnostics, &self.sources, color, width)
    }
}

/// In the order of their places, no mistake twice, every place inside its source.
pub(super) fn tidy(
    mut found: Vec<Diagnostic>,
    sources: &BTreeMap<PathBuf, String>,
) -> Vec<Diagnostic> {
    let lines: BTreeMap<&Path, Vec<&str>> =
        sources.iter().map(|(path, text)| (path.as_path(), text.split('\n').collect())).collect();
    for one in &mut found {
        clamp(one, lines.get(one.file.as_path()).map_or(&[], Vec::as_slice));
    }
    found.sort_by(|a, b| {
        (a.line, a.column, &a.file, a.severity).cmp(&(b.line, b.column, &b.file, b.severity))
    });
    let mut seen = HashSet::new();
    found.retain(|one| seen.insert(one.clone()));
    found
}

fn clamp(one: &mut Diagnostic, lines: &[&str]) {
    if one.line == 0 || lines.is_empty() {
        (one.line, one.column, one.length) = (0, 0, 0);
        return;
    }
    let last = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    if one.line > last {
        (one.line, one.column) = (last, u32::MAX);
    }
    let text = lines.get(one.line as usize - 1).copied().unwrap_or_default();
    let text = text.strip_suffix('\r').unwrap_or(text);
    let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX - 1);
    one.column = one.column.clamp(1, length + 1);
    one.length = one.length.min(length + 1 - one.column).max(1);
}

fn render(
    diagnostics: &[Diagnostic],
    sources: &BTreeMap<PathBuf, String>,
    color: bool,
    width: usize,
) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(width.max(40));
    let here = std::env::current_dir().unwrap_or_default();
    let mut text = String::new();
    let mut lines: BTreeMap<&Path, Vec<&str>> = BTreeMap::new();
    for one in diagnostics.iter().take(MOST_SHOWN) {
        let lines = lines.entry(one.file.as_path()).or_insert_with(|| {
            sources.get(&one.file).map(|text| text.split('\n').collect()).unwrap_or_default()
        });
        text.push_str(&renderer.render(&[group(one, lines, &here)]));
        text.push_str("\n\n");
    }
    if diagnostics.len() > MOST_SHOWN {
        let more = diagnostics.len() - MOST_SHOWN;
        text.extend(["and ", &more.to_string(), " more\n\n"]);
    }
    text.pop();
    text
}

fn group<'a>(one: &'a Diagnostic, lines: &[&'a str], here: &Path) -> Group<'a> {
    let level = match one.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let path = one.file.strip_prefix(here).unwrap_or(&one.file).display().to_string();
    let title = level.primary_title(one.message.as_str());
    let line = (one.line as usize).checked_sub(1).and_then(|index| lines.get(index));
    let mut group = match line {
        None => title.element(Origin::path(path)),
        Some(line) => {
            let (part, span) = part_around(line, one.column as usize, one.length as usize);
            let annotation = AnnotationKind::Primary.span(span);
            let annotation = if one.expected.is_empty() {
                annotation
            } else {
                annotation.label(format!("expected {}", one.expected))
            };
            let snippet = Snippet::source(part.clone()).line_start(one.line as usize);
            // A line that is cut begins at another column than the snippet thinks.
            if part.starts_with(CUT) {
                let origin =
                    Origin::path(path).line(one.line as usize).char_column(one.column as usize);
                title.element(origin).element(snippet.annotation(annotation))
            } else {
                title.element(snippet.path(path).annotation(annotation))
            }
        }
    };
    if line.is_none() && !one.expected.is_empty() {
        group = group.element(Level::NOTE.message(format!("expected {}", one.expected)));
    }
    if !one.help.is_empty() {
        group = group.element(Level::HELP.message(one.help.as_str()));
    }
    group
}

/// The part of a line that is shown, and the byte range of the place in it.
fn part_around(line: &str, column: usize, length: usize) -> (String, Range<usize>) {
    let characters: Vec<char> = line.trim_end_matches('\r').chars().collect();
    let start = column.saturating_sub(1).min(characters.len());
    let end = (start + length).min(characters.len());
    let (mut part, mut before) = (String::new(), 0);
    let (from, to) = if characters.len() <= LONGEST_LINE {
        (0, characters.len())
    } else {
        let from = start.saturating_sub(LONGEST_LINE / 2);
        (from, (from + LONGEST_LINE).min(characters.len()))
    };
    if from > 0 {
        part.push_str(CUT);
        before = CUT.len();
    }
    part.extend(&characters[from..to]);
    if to < characters.len() {
        part.push_str(CUT);
    }
    let bytes = |index: usize| -> usize {
        characters[from..index.clamp(from, to)].iter().map(|one| one.len_utf8()).sum()
    };
    let (first, last) = (before + bytes(start), before + bytes(end));
    (part, first..last.max(first))
}
