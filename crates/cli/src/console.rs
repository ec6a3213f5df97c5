//! What the user sees: results on standard output, everything else on standard error.
//!
//! Nothing here can end a run. An error on standard error is dropped, one on standard output is
//! kept for the exit status. All text is made printable, because names and answers come from files
//! of other parties.

use crate::system::{current_memory, gib};
use cipherlm_files::printable_lines;
use cipherlm_infer::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
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

/// Something that the user must know, although the command goes on.
pub(crate) fn warn(text: &str) {
    if JSON.load(Ordering::Relaxed) {
        let _ = writeln!(io::stderr().lock(), "{}", ascii_controls(&json!({ "warning": text }).to_string()));
    } else {
        err(&format!("WARNING: {text}"));
    }
}

/// Why the command ends: one line.
pub(crate) fn error(text: &str, kind: &str, code: u8) {
    if JSON.load(Ordering::Relaxed) {
        let value = json!({ "error": text, "kind": kind, "code": code });
        let _ = writeln!(io::stderr().lock(), "{}", ascii_controls(&value.to_string()));
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

/// A bar with a message; hidden unless standard error is a terminal and progress is wanted.
pub(crate) fn bar(wanted: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !wanted || !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {percent}% {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Progress of a command: a bar on a terminal, a line now and then when piped, nothing if it is not
/// wanted.
pub(crate) struct Console {
    wanted: bool,
    bar: ProgressBar,
}

impl Console {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, bar: bar(wanted) }
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        if self.wanted {
            self.bar.suspend(|| err(text));
        }
    }

    /// The step about to start.
    pub(crate) fn step(&mut self, p: &Progress<'_>) {
        let refresh = if p.refresh { ", then a bootstrap" } else { "" };
        let layer = p.layer.map_or_else(String::new, |l| format!("layer {} of the model, ", l + 1));
        let left = p.left.as_secs_f64();
        let memory = gib(current_memory());
        let name = cipherlm_files::printable(p.name);
        self.bar.set_length(p.steps as u64);
        self.bar.set_position(p.step as u64);
        self.bar.set_message(format!(
            "{layer}{name} at level {}{refresh}; {memory:.1} GiB, {left:.0} s left",
            p.level
        ));
        // Piped: a line now and then instead of a bar.
        if self.wanted && self.bar.is_hidden() && p.step % 8 == 1 {
            let (elapsed, step, steps) = (p.elapsed.as_secs_f64(), p.step, p.steps);
            let level = p.level;
            err(&format!(
                "  {elapsed:>6.1} s  step {step}/{steps}  {name} at level {level}  ({memory:.1} GiB, {left:.0} s left)"
            ));
        }
    }

    /// A stage counted in bytes, items or whatever `of` is.
    pub(crate) fn stage(&self, what: &str, done: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(done);
        self.bar.set_message(format!("{what}; {:.1} GiB", gib(current_memory())));
    }

    /// Clears the bar.
    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
        self.bar.reset();
    }
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
