//! What the user sees while a command runs: on standard error, a bar on a terminal, lines when piped.

use crate::system::{current_memory, gib};
use cipherlm_infer::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// A bar with a message; hidden unless standard error is a terminal and progress is wanted.
pub(crate) fn bar(wanted: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !wanted || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {percent}% {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// What the user sees while it runs.
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
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// The step about to start.
    pub(crate) fn step(&mut self, p: &Progress<'_>) {
        let refresh = if p.refresh { ", then a bootstrap" } else { "" };
        let layer = p.layer.map_or_else(String::new, |l| format!("layer {} of the model, ", l + 1));
        let left = p.left.as_secs_f64();
        let memory = gib(current_memory());
        self.bar.set_length(p.steps as u64);
        self.bar.set_position(p.step as u64);
        self.bar
            .set_message(format!("{layer}{} at level {}{refresh}; {memory:.1} GiB, {left:.0} s left", p.name, p.level));
        // Piped: a line now and then instead of a bar.
        if self.wanted && self.bar.is_hidden() && p.step % 8 == 1 {
            let (elapsed, step, steps) = (p.elapsed.as_secs_f64(), p.step, p.steps);
            eprintln!(
                "  {elapsed:>6.1} s  step {step}/{steps}  {} at level {}  ({memory:.1} GiB, {left:.0} s left)",
                p.name, p.level
            );
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
