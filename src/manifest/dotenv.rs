//! Env files: lines of `NAME=value`.
//!
//! As with Compose: blank lines, `# comments`, `export NAME=value`; `'...'` is taken as it is, `"..."`
//! knows `\n \r \t \" \\ \$` and may go over several lines; a bare value ends at ` #`. Nothing in a
//! value is replaced by other variables.

use std::path::Path;

use super::report::{Diagnostic, Place};

/// The variables in the order of the file; the later of two with one name wins.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<(String, String)>, Diagnostic> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut line = 0;
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        line += 1;
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let place = Place { line, column: 1, length: u32::MAX };
        let declaration = trimmed
            .strip_prefix("export")
            .filter(|rest| rest.starts_with([' ', '\t']))
            .map_or(trimmed, str::trim_start);
        let Some((name, _)) = declaration.split_once('=') else {
            // What stands there may be a piece of a secret, so it is shown only as a line of the file.
            return Err(Diagnostic::error(path, place, "this line is no variable")
                .expected("NAME=value")
                .help("a comment begins with `#`; a value of several lines needs quotes"));
        };
        let name = name.trim_end();
        let fits = |(index, one): (usize, char)| {
            one.is_ascii_alphabetic()
                || one == '_'
                || (index > 0 && (one.is_ascii_digit() || matches!(one, '.' | '-')))
        };
        if name.is_empty() || !name.chars().enumerate().all(fits) {
            return Err(Diagnostic::error(path, place, "this is no name of a variable")
                .expected("letters, digits and `_`, such as `NAME=value`"));
        }
        let value_start = rest.find('=').map_or(rest.len(), |at| at + 1);
        let value = rest[value_start..].trim_start_matches([' ', '\t']);
        let (value, length) = if let Some(quote @ ('"' | '\'')) = value.chars().next() {
            quoted(value, quote).ok_or_else(|| {
                Diagnostic::error(path, place, "a quote is opened and never closed")
                    .help(format!("write a {quote} at the end of the value"))
            })?
        } else {
            let end = value.find('\n').unwrap_or(value.len());
            let bare = &value[..end];
            let bare = if bare.starts_with('#') { "" } else { bare };
            let bare = bare.find(" #").map_or(bare, |at| &bare[..at]);
            (bare.trim().to_owned(), end)
        };
        let skipped =
            rest.len() - rest[value_start..].trim_start_matches([' ', '\t']).len() + length;
        line += u32::try_from(rest[..skipped].matches('\n').count()).unwrap_or_default();
        let tail = rest[skipped..].split_once('\n');
        let (behind, after) = tail.unwrap_or((&rest[skipped..], ""));
        if !behind.trim().is_empty() && !behind.trim_start().starts_with('#') {
            return Err(Diagnostic::error(
                path,
                Place { line, ..place },
                "something stands behind the closing quote",
            )
            .expected("the end of the line, or a comment"));
        }
        found.push((name.to_owned(), value));
        rest = after;
    }
    Ok(found)
}

/// The content of a quoted value, and the number of bytes with its quotes.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((index, one)) = characters.next() {
        match one {
            _ if one == quote => return Some((value, index + 1)),
            '\\' if quote == '"' => match characters.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            _ => value.push(one),
        }
    }
    None
}
