//! The grammar of `${NAME}` and its forms; `variables` tells what they mean.

/// A default inside of a default inside of ...
const DEEPEST: usize = 16;

/// A part of a text.
#[derive(Debug)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Variable {
        name: &'a str,
        rule: Rule,
        other: Vec<Part<'a>>,
        raw: &'a str,
        start: usize,
        length: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    Required,
    /// `-`, `?`, `+`; with a colon, empty counts as not set.
    Default {
        or_empty: bool,
    },
    Message {
        or_empty: bool,
    },
    Instead {
        or_empty: bool,
    },
}

/// What is wrong with a text, from which of its characters on.
pub(super) struct Problem {
    pub(super) start: usize,
    pub(super) length: usize,
    pub(super) message: String,
    pub(super) help: String,
}

/// The parts of a text up to its end, or inside of braces up to the closing one; and the number of
/// bytes read. `before` is the number of characters before it.
pub(super) fn parse<'a>(
    text: &'a str,
    before: usize,
    depth: usize,
    problems: &mut Vec<Problem>,
) -> (Vec<Part<'a>>, usize) {
    let mut parts = Vec::new();
    let (mut at, mut start, mut counted, mut characters) = (0, 0, 0, before);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'}' if depth > 0 => break,
            b'$' if bytes.get(at + 1) == Some(&b'$') => {
                parts.push(Part::Text(&text[start..=at]));
                at += 2;
                start = at;
            }
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                parts.push(Part::Text(&text[start..at]));
                characters += text[counted..at].chars().count();
                counted = at;
                let (part, length) = variable(&text[at..], characters, depth, problems);
                parts.extend(part);
                at += length;
                start = at;
            }
            _ => at += 1,
        }
    }
    parts.push(Part::Text(&text[start..at]));
    (parts, at)
}

fn variable<'a>(
    text: &'a str,
    start: usize,
    depth: usize,
    problems: &mut Vec<Problem>,
) -> (Option<Part<'a>>, usize) {
    let mut wrong = |message: String, help: &str| {
        let length = text.find('}').map_or(2, |end| text[..=end].chars().count());
        problems.push(Problem { start, length, message, help: help.into() });
    };
    let inner = &text[2..];
    let end =
        inner.find(|one: char| !(one.is_ascii_alphanumeric() || one == '_')).unwrap_or(inner.len());
    let name = &inner[..end];
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        wrong(
            "`${` without the name of a variable behind it".into(),
            "write `$${` if it is meant for the shell",
        );
        return (None, 2);
    }
    let rest = &inner[end..];
    let (rule, operator) = match rest.as_bytes() {
        [b'}', ..] => {
            let raw = &text[..end + 3];
            let length = raw.chars().count();
            let part = Part::Variable {
                name,
                rule: Rule::Required,
                other: Vec::new(),
                raw,
                start,
                length,
            };
            return (Some(part), end + 3);
        }
        [b':', b'-', ..] => (Rule::Default { or_empty: true }, 2),
        [b':', b'?', ..] => (Rule::Message { or_empty: true }, 2),
        [b':', b'+', ..] => (Rule::Instead { or_empty: true }, 2),
        [b'-', ..] => (Rule::Default { or_empty: false }, 1),
        [b'?', ..] => (Rule::Message { or_empty: false }, 1),
        [b'+', ..] => (Rule::Instead { or_empty: false }, 1),
        [] => {
            wrong(format!("`${{{name}` is never closed"), "write a `}` behind it");
            return (None, text.len());
        }
        _ => {
            wrong(
                format!("`${{{name}` is followed by what means nothing here"),
                "`${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${NAME:+other}` are known; write `$${` if it is meant for the shell",
            );
            return (None, 2);
        }
    };
    if depth >= DEEPEST {
        wrong(format!("defaults are nested deeper than {DEEPEST} levels"), "");
        return (None, text.len());
    }
    let from = 2 + end + operator;
    let (other, read) =
        parse(&text[from..], start + text[..from].chars().count(), depth + 1, problems);
    let to = from + read;
    if text.as_bytes().get(to) != Some(&b'}') {
        problems.push(Problem {
            start,
            length: 2 + end,
            message: format!("`${{{name}` is never closed"),
            help: "write a `}` behind it".into(),
        });
        return (None, text.len());
    }
    let raw = &text[..=to];
    let length = raw.chars().count();
    (Some(Part::Variable { name, rule, other, raw: &text[from..to], start, length }), to + 1)
}
