//! `${NAME}` in the scalars of the tree.
//!
//! ```text
//!   ${NAME}            its value; not set is an error
//!   ${NAME:-default}   default if it is not set or empty      ${NAME-default}   if it is not set
//!   ${NAME:?message}   an error if it is not set or empty     ${NAME?message}   if it is not set
//!   ${NAME:+other}     other if it is set and not empty       ${NAME+other}     if it is set
//!   $$                 one $
//! ```
//! Defaults may hold further `${...}`. `$NAME` without braces is the shell's, and stays. A value is put
//! in as it is: nothing in it is looked at again, and no message shows it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::placeholder::{Part, Problem, Rule, parse};
use super::report::{Diagnostic, MOST_DIAGNOSTICS, Place};
use super::tree::{Node, Value, short};

/// A text that has grown beyond this is an attack.
const LONGEST: usize = 4 * 1024 * 1024;

/// Scalars in which variables were replaced, by line and column.
#[derive(Default)]
pub(super) struct Filled(HashMap<(u32, u32), Fill>);

struct Fill {
    /// As it stands in the file.
    raw: String,
    text: String,
    /// The values that were put in.
    values: Vec<String>,
    broken: bool,
}

/// Something shorter could stand in a message by itself.
const SHORTEST: usize = 4;

impl Filled {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, place: Place) -> bool {
        self.0.get(&(place.line, place.column)).is_some_and(|fill| !fill.broken)
    }

    /// A message about such a scalar shows what stands in the file, because a value may be a secret;
    /// and of a variable that is not set, nothing more is said. False if it is to be left out.
    pub(super) fn tidy(&self, diagnostic: &mut Diagnostic) -> bool {
        let Some(fill) = self.0.get(&(diagnostic.line, diagnostic.column)) else { return true };
        let all = [&diagnostic.message, &diagnostic.expected, &diagnostic.help];
        let parts = all.into_iter().flat_map(|words| fill.parts(words)).collect::<Vec<String>>();
        for words in [&mut diagnostic.message, &mut diagnostic.expected, &mut diagnostic.help] {
            fill.hide(words, &parts);
        }
        !fill.broken
    }
}

impl Fill {
    /// Of a text that is read part by part, the parts that are shown: what stands in quotes.
    fn parts(&self, words: &str) -> impl Iterator<Item = String> {
        words.split('`').skip(1).step_by(2).filter_map(|part| {
            let part = part.strip_suffix("...").unwrap_or(part);
            let is_of_value = |value: &String| !part.is_empty() && value.contains(part);
            self.values.iter().any(is_of_value).then(|| part.to_owned())
        })
    }

    /// Puts what stands in the file in the place of values.
    fn hide(&self, words: &mut String, parts: &[String]) {
        let raw = short(&self.raw);
        // In full, or as it is shortened for a message.
        for shown in [self.text.clone(), short(&self.text)] {
            if !shown.is_empty() && words.contains(&shown) {
                *words = words.replace(&shown, &raw);
                return;
            }
        }
        for part in parts {
            *words = words.replace(&format!("`{part}`"), &format!("`{raw}`"));
        }
        for value in self.values.iter().chain(parts).filter(|value| value.len() >= SHORTEST) {
            *words = words.replace(value, &raw);
        }
    }
}

/// Replaces the variables in every scalar below; mistakes go to `found`.
pub(super) fn interpolate(
    node: &mut Node,
    values: &BTreeMap<String, String>,
    file: &Path,
    source: &str,
    found: &mut Vec<Diagnostic>,
) -> Filled {
    let mut replaced = Filled::default();
    let lines: Vec<&str> = source.split('\n').collect();
    let (mut total, mut too_long) = (0, false);
    walk(node, &mut |text, place, plain| {
        if !text.contains('$') {
            return None;
        }
        let mut problems = Vec::new();
        let parts = parse(text, 0, 0, &mut problems).0;
        let mut expansion = Expansion { values, text: String::new(), inserted: Vec::new() };
        expansion.expand(&parts, &mut problems);
        let Expansion { text: mut result, inserted, .. } = expansion;
        total += result.len();
        if total > LONGEST && !too_long {
            too_long = true;
            problems.push(Problem {
                start: 0,
                length: 1,
                message: "the values of the variables make this manifest too long".into(),
                help: String::new(),
            });
        }
        if too_long {
            result.clear();
        }
        if result.contains('\0') {
            problems.push(Problem {
                start: 0,
                length: 1,
                message: "the value of a variable contains a NUL character".into(),
                help: String::new(),
            });
        }
        let broken = !problems.is_empty();
        for problem in problems {
            if found.len() < MOST_DIAGNOSTICS {
                let place = locate(text, place, plain, &lines, &problem);
                found.push(Diagnostic::error(file, place, problem.message).help(problem.help));
            }
        }
        if result == text {
            return None;
        }
        // Left as it is, it is at least something, and not the empty text that is nothing.
        let result = if broken { text.to_owned() } else { result };
        let values = inserted.into_iter().map(ToOwned::to_owned).collect();
        let entry = Fill { raw: text.to_owned(), text: result.clone(), values, broken };
        replaced.0.insert((place.line, place.column), entry);
        Some(result)
    });
    replaced
}

/// The names of all variables below, whether they are needed or not.
pub(super) fn names(node: &Node, found: &mut BTreeSet<String>) {
    fn collect(parts: &[Part<'_>], found: &mut BTreeSet<String>) {
        for part in parts {
            if let Part::Variable { name, other, .. } = part {
                found.insert((*name).to_owned());
                collect(other, found);
            }
        }
    }
    match &node.value {
        Value::Scalar { text, .. } if text.contains("${") => {
            collect(&parse(text, 0, 0, &mut Vec::new()).0, found);
        }
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter().for_each(|item| names(item, found)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| names(&entry.node, found)),
    }
}

fn walk(node: &mut Node, change: &mut impl FnMut(&str, Place, bool) -> Option<String>) {
    match &mut node.value {
        Value::Scalar { text, plain } => {
            if let Some(new) = change(text, node.place, *plain) {
                *text = new.into();
            }
        }
        Value::Sequence(items) => {
            for item in items {
                walk(item, change);
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                walk(&mut entry.node, change);
            }
        }
    }
}

/// A text that grows out of its parts.
struct Expansion<'a> {
    values: &'a BTreeMap<String, String>,
    text: String,
    /// The values that were put in.
    inserted: Vec<&'a str>,
}

impl<'a> Expansion<'a> {
    fn insert(&mut self, value: &'a str) {
        self.text.push_str(value);
        self.inserted.push(value);
    }

    fn expand(&mut self, parts: &[Part<'_>], problems: &mut Vec<Problem>) {
        for part in parts {
            let (name, rule, other, raw, start, length) = match part {
                Part::Text(text) => {
                    self.text.push_str(text);
                    continue;
                }
                Part::Variable { name, rule, other, raw, start, length } => {
                    (*name, *rule, other, *raw, *start, *length)
                }
            };
            let value = self.values.get(name).map(String::as_str);
            let set = |or_empty: bool| value.filter(|value| !(or_empty && value.is_empty()));
            match rule {
            Rule::Required => match value {
                Some(value) => self.insert(value),
                None => problems.push(Problem {
                    start,
                    length,
                    message: format!("the variable `{name}` is not set"),
                    help: format!(
                        "set it in the shell, put it into an env file (top-level `env_file:`), or give a default: `${{{name}:-default}}`"
                    ),
                }),
            },
            Rule::Default { or_empty } => match set(or_empty) {
                Some(value) => self.insert(value),
                None => self.expand(other, problems),
            },
            Rule::Instead { or_empty } => {
                if set(or_empty).is_some() {
                    self.expand(other, problems);
                }
            }
            Rule::Message { or_empty } => match set(or_empty) {
                Some(value) => self.insert(value),
                None => problems.push(Problem {
                    start,
                    length,
                    message: if raw.is_empty() {
                        format!("the variable `{name}` is required, and is not set")
                    } else {
                        format!("the variable `{name}` is required: {raw}")
                    },
                    help: "set it in the shell, or put it into an env file (top-level `env_file:`)"
                        .into(),
                }),
            },
        }
        }
    }
}

/// Where a problem stands in the file: the same `$` of the source, counted from the scalar's start.
fn locate(text: &str, place: Place, plain: bool, lines: &[&str], problem: &Problem) -> Place {
    let before: String = text.chars().take(problem.start).collect();
    let mut left = before.matches("${").count();
    let first = place.line.saturating_sub(1) as usize;
    for (number, line) in lines.iter().enumerate().skip(first) {
        let skipped = if number == first { place.column.saturating_sub(1) as usize } else { 0 };
        let from = line.char_indices().nth(skipped).map_or(line.len(), |(index, _)| index);
        let matches = line[from..].match_indices("${");
        for (index, _) in matches {
            if left == 0 {
                let column = line[..from + index].chars().count();
                return Place {
                    line: u32::try_from(number).unwrap_or(u32::MAX - 1) + 1,
                    column: u32::try_from(column).unwrap_or(u32::MAX - 1) + 1,
                    length: u32::try_from(problem.length).unwrap_or(1),
                };
            }
            left -= 1;
        }
        if place.length != u32::MAX && (plain || number > first) {
            break;
        }
    }
    place
}
