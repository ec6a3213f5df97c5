//! Progress on a terminal; silent when piped.

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
