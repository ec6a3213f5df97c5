//! How far a command is: a bar, lines, JSON lines, or nothing; always on standard error.

use crate::console::{err, err_json};
use crate::system::{current_memory, gib};
use cipherlm_infer::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Style {
    /// A bar on a terminal, a line now and then elsewhere, nothing with --json.
    #[default]
    Auto,
    /// A bar; nothing where there is no terminal.
    Bar,
    /// A line now and then.
    Lines,
    /// A JSON object a line.
    Json,
    /// Nothing.
    None,
}

/// Set by `--progress`.
static STYLE: OnceLock<Style> = OnceLock::new();

/// Time between two lines about stages.
const PAUSE: Duration = Duration::from_millis(500);

/// From here on, progress is shown so.
pub(crate) fn show(style: Style) {
    let _ = STYLE.set(style);
}

/// What to do where a command wants to show progress, or not.
fn resolved(style: Style, wanted: bool, terminal: bool) -> Style {
    match style {
        Style::Auto if !wanted => Style::None,
        Style::Auto if terminal => Style::Bar,
        Style::Auto => Style::Lines,
        style => style,
    }
}

fn style(wanted: bool) -> Style {
    resolved(STYLE.get().copied().unwrap_or_default(), wanted, io::stderr().is_terminal())
}

/// A bar with a message; hidden unless progress is shown as a bar.
pub(crate) fn bar(wanted: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if style(wanted) != Style::Bar {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {percent}% {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Progress of a command.
pub(crate) struct Console {
    style: Style,
    bar: ProgressBar,
    /// When a stage was last written as JSON.
    told: Mutex<Option<Instant>>,
}

impl Console {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { style: style(wanted), bar: bar(wanted), told: Mutex::default() }
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        match self.style {
            Style::None => {}
            Style::Json => err_json(&json!({ "progress": "note", "text": text })),
            _ => self.bar.suspend(|| err(text)),
        }
    }

    /// The step about to start.
    pub(crate) fn step(&mut self, p: &Progress<'_>) {
        let refresh = if p.refresh { ", then a bootstrap" } else { "" };
        let layer = p.layer.map_or_else(String::new, |l| format!("layer {} of the model, ", l + 1));
        let (elapsed, left) = (p.elapsed.as_secs_f64(), p.left.as_secs_f64());
        let (step, steps, level) = (p.step, p.steps, p.level);
        let name = cipherlm_files::printable(p.name);
        match self.style {
            Style::None => {}
            Style::Json => err_json(&json!({
                "progress": "step", "step": step, "steps": steps, "name": p.name, "layer": p.layer,
                "level": level, "bootstrap": p.refresh, "elapsed_s": elapsed, "left_s": left,
                "memory_bytes": current_memory(),
            })),
            // A line now and then instead of a bar.
            Style::Lines if step % 8 != 1 => {}
            Style::Lines => {
                let memory = gib(current_memory());
                err(&format!(
                    "  {elapsed:>6.1} s  step {step}/{steps}  {name} at level {level}  \
                     ({memory:.1} GiB, {left:.0} s left)"
                ));
            }
            Style::Bar | Style::Auto => {
                let memory = gib(current_memory());
                self.bar.set_length(steps as u64);
                self.bar.set_position(step as u64);
                self.bar.set_message(format!(
                    "{layer}{name} at level {level}{refresh}; {memory:.1} GiB, {left:.0} s left"
                ));
            }
        }
    }

    /// A stage counted in bytes, items or whatever `of` is.
    pub(crate) fn stage(&self, what: &str, done: u64, of: u64) {
        if self.style == Style::Json {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|at| at.elapsed() >= PAUSE) || done == of {
                err_json(&json!({
                    "progress": "stage", "name": what, "done": done, "of": of,
                    "memory_bytes": current_memory(),
                }));
                *told = Some(Instant::now());
            }
        }
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
    fn what_is_asked_for_goes_before_what_is_usual() {
        let cases = [
            (Style::Auto, true, true, Style::Bar),
            (Style::Auto, true, false, Style::Lines),
            (Style::Auto, false, true, Style::None),
            (Style::Json, false, false, Style::Json),
            (Style::None, true, true, Style::None),
            (Style::Lines, false, true, Style::Lines),
        ];
        for (style, wanted, terminal, expected) in cases {
            assert_eq!(resolved(style, wanted, terminal), expected, "{style:?} {wanted} {terminal}");
        }
    }
}
