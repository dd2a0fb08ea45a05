//! Words for messages: what peers and commands say is shown, but never trusted.
//!
//! Output of a command or a header of a server may hold terminal escapes, newlines or a megabyte.
//! Every message passes through here, so that a status table or a log line cannot be broken by it.

use std::io;

use regex::bytes::Regex;

/// The longest message, in characters.
pub(super) const MESSAGE: usize = 300;

/// The longest quotation of somebody else's words, in characters.
pub(super) const QUOTATION: usize = 200;

/// One line of at most `MESSAGE` characters without control characters.
pub(super) fn message(text: &str) -> String {
    limited(text, MESSAGE)
}

/// Somebody else's words: one line of at most `QUOTATION` characters.
pub(super) fn quotation(text: &[u8]) -> String {
    limited(&String::from_utf8_lossy(text), QUOTATION)
}

/// Escapes what cannot be printed and ends what is too long with an ellipsis.
fn limited(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for character in text.trim().chars() {
        let before = shown.len();
        match character {
            // These are escaped by `escape_debug` and need not be: nothing is quoted here.
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
        length += shown[before..].chars().count();
        if length > limit {
            let keep = shown.char_indices().nth(limit - 1).map_or(before, |(at, _)| at);
            shown.truncate(keep);
            shown.push('…');
            break;
        }
    }
    shown
}

/// The last line that is not blank.
pub(super) fn last_line(output: &[u8]) -> Option<&[u8]> {
    output.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).rfind(|line| !line.is_empty())
}

/// A regular expression over bytes; what a component writes need not be UTF-8.
///
/// # Errors
/// What is wrong with it.
pub(super) fn expression(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| {
        // The library draws the place of the mistake over several lines; its last line is the cause.
        let whole = error.to_string();
        let cause = whole.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("/{pattern}/ is not a regular expression: {cause}")
    })
}

/// What the kernel said, without its number: `connection refused`.
pub(super) fn io_error(error: &io::Error) -> String {
    let whole = error.to_string();
    let plain = whole.split(" (os error").next().unwrap_or(&whole);
    let mut characters = plain.chars();
    characters.next().map_or_else(
        || "unknown error".to_owned(),
        |first| first.to_lowercase().chain(characters).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_newlines_are_defused() {
        assert_eq!(quotation(b"\x1b[31mred\nnext\x00\xff"), "\\u{1b}[31mred\\nnext\\0\u{fffd}");
        assert_eq!(quotation(br#"say "hi" c:\x"#), r#"say "hi" c:\x"#);
    }

    #[test]
    fn long_words_are_cut_at_the_limit_also_inside_an_escape() {
        let cut = quotation("é".repeat(1000).as_bytes());
        assert_eq!(cut.chars().count(), QUOTATION);
        assert!(cut.ends_with('…'));
        assert_eq!(quotation(&[0x1b; 500]).chars().count(), QUOTATION);
        assert_eq!(quotation("é".repeat(QUOTATION).as_bytes()).chars().count(), QUOTATION);
    }

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        assert_eq!(last_line(b"a\nb  \n\n \r\n"), Some(&b"b"[..]));
        assert_eq!(last_line(b" \n\n"), None);
    }

    #[test]
    fn errors_lose_their_number() {
        assert_eq!(io_error(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(io_error(&io::Error::other("")), "unknown error");
    }
}
