//! What the user sees: results on standard output, everything else on standard error.
//!
//! Nothing here can end a run. An error on standard error is dropped, one on standard output is
//! kept for the exit status. All text is made printable, because names and answers come from files
//! of other parties.

use cipherlm_files::printable_lines;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Set by `--json`.
static JSON: AtomicBool = AtomicBool::new(false);
/// The first error on standard output.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

/// From here on, warnings and errors are JSON, or are not.
pub(crate) fn speak_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// A line of the result.
macro_rules! say {
    ($($part:tt)*) => { $crate::console::out(&format!($($part)*)) };
}
pub(crate) use say;

/// Lines on standard output.
pub(crate) fn out(text: &str) {
    keep(writeln!(io::stdout().lock(), "{}", printable_lines(text)));
}

/// Part of a line on standard output, shown at once.
pub(crate) fn out_part(text: &str) {
    let mut stdout = io::stdout().lock();
    keep(write!(stdout, "{}", printable_lines(text)).and_then(|()| stdout.flush()));
}

/// The result as JSON, on one line.
pub(crate) fn out_json(value: &Value) {
    keep(writeln!(io::stdout().lock(), "{}", ascii_controls(&value.to_string())));
}

/// Lines on standard error.
pub(crate) fn err(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable_lines(text));
}

/// A JSON object on standard error, on one line.
pub(crate) fn err_json(value: &Value) {
    let _ = writeln!(io::stderr().lock(), "{}", ascii_controls(&value.to_string()));
}

/// Something that the user must know, although the command goes on.
pub(crate) fn warn(text: &str) {
    if JSON.load(Ordering::Relaxed) {
        err_json(&json!({ "warning": text }));
    } else {
        err(&format!("WARNING: {text}"));
    }
}

/// Why the command ends: one line.
pub(crate) fn error(text: &str, kind: &str, code: u8) {
    if JSON.load(Ordering::Relaxed) {
        err_json(&json!({ "error": text, "kind": kind, "code": code }));
    } else {
        let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        err(&format!("cipherlm: {line}"));
    }
}

/// The first error on standard output, after everything was written.
pub(crate) fn lost() -> Option<io::Error> {
    keep(io::stdout().lock().flush());
    LOST.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn keep(written: io::Result<()>) {
    if let Err(error) = written {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// JSON in which control characters beyond ASCII and marks of direction are escaped as well: they
/// stand in strings only.
fn ascii_controls(json: &str) -> Cow<'_, str> {
    if matches!(cipherlm_files::printable(json), Cow::Borrowed(_)) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match cipherlm_files::printable(c.encode_utf8(&mut [0; 4])) {
            Cow::Owned(_) if !c.is_ascii_whitespace() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_and_loses_every_control_character() {
        let value = json!({"name": "x\u{1b}[2J\u{9b}31m\u{202e}\u{7f}Zoë\n"});
        let text = ascii_controls(&value.to_string()).into_owned();
        assert!(text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text:?}");
        assert!(text.contains("Zoë"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
