//! Text of other parties, made safe to print.
//!
//! A name in a model folder or a key folder comes from somebody else. Printed as it is, it could
//! clear the screen, set the title, write to the clipboard, or show a line backwards.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

/// The text on one line: control characters, line ends and marks of direction as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`printable`], but line feeds and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// A path on one line. Bytes that are not UTF-8 show as U+FFFD.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| acts_on_a_terminal(c) && !keep(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// C0, DEL, C1; line and paragraph separators; embeddings, overrides and isolates of direction.
fn acts_on_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_a_terminal_are_shown_and_not_sent() {
        assert_eq!(printable("x\u{1b}]0;pwned\u{7}\u{1b}[2J"), "x\\u{1b}]0;pwned\\u{7}\\u{1b}[2J");
        assert_eq!(printable("\u{9b}31m\u{7f}\r"), "\\u{9b}31m\\u{7f}\\u{d}");
        assert_eq!(printable("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(printable("a\nb\tc"), "a\\u{a}b\\u{9}c");
        assert_eq!(printable_lines("a\nb\tc\r"), "a\nb\tc\\u{d}");
    }

    #[test]
    fn ordinary_text_is_not_copied() {
        for text in ["", "Zoë 🦀 \"'\\", "日本語"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }
}
