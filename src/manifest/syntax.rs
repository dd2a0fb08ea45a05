//! The YAML parser's errors in plain words, with a hint about what is usually meant.

use std::path::Path;

use saphyr_parser::ScanError;

use super::parse::DEEPEST;
use super::report::{Diagnostic, Place};

/// The parser's words, made plainer where they are usual mistakes.
pub(super) fn syntax_error(file: &Path, text: &str, error: &ScanError) -> Diagnostic {
    let mark = error.marker();
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX - 1);
    let (line, column) = (number(mark.line()), number(mark.col()) + 1);
    let place = Place { line, column, length: 1 };
    let source = text.split('\n').nth(mark.line().saturating_sub(1)).unwrap_or_default();
    let indent: String = source.chars().take_while(|one| matches!(one, ' ' | '\t')).collect();
    if let Some(tab) = indent.find('\t') {
        let place = Place { line, column: number(tab) + 1, length: number(indent.len() - tab) };
        return Diagnostic::error(file, place, "a tab as indentation")
            .expected("spaces")
            .help("replace each tab by two spaces");
    }
    let info = error.info();
    if info.contains("recursion limit") {
        // The parser looks ahead, and has a limit of its own.
        return Diagnostic::error(
            file,
            place,
            format!("the nesting is deeper than {DEEPEST} levels"),
        );
    }
    let flow = info.contains("flow") || info.contains("bracket");
    let hint = if flow && source.contains("${") {
        "inside of brackets and braces, `${...}` needs quotes"
    } else if info.contains("mapping values are not allowed") {
        "a value that contains `: ` needs quotes; otherwise look at the indentation of this line"
    } else if info.contains("simple key expect") || info.contains("did not find expected key") {
        "is a `:` missing after a key, or is the indentation of this line not that of its neighbours?"
    } else if info.contains("unknown anchor") {
        "an alias `*name` needs an anchor `&name` above it; a text that begins with `*` needs quotes"
    } else if info.contains("quoted scalar") && info.contains("end of stream") {
        "a quote is opened and never closed"
    } else if info.contains("escape character") {
        "in double quotes a backslash begins an escape: write `\\\\`, or use single quotes"
    } else if info.contains("unexpected character") || info.contains("cannot start any token") {
        "a text that begins with `@`, `` ` `` or `%` needs quotes"
    } else if flow {
        "look for a missing `,`, `]` or `}`"
    } else {
        "look at the indentation and the quotes of this line and the one above it"
    };
    Diagnostic::error(file, place, format!("this is not valid YAML: {info}")).help(hint)
}
