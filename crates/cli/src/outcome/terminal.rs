//! The closing table on a terminal.

use super::{Outcome, words};
use crate::console::say;
use crate::system::{gib, peak_memory};

impl Outcome<'_> {
    /// Every step of the last pass, measured beside predicted, bootstraps included.
    pub(crate) fn print_steps(&self) {
        let Some(report) = self.reports.last() else { return };
        say!("\n{:<34} {:>9} {:>9} {:>6}", "step", "seconds", "predicted", "ratio");
        let line = |name: &str, seconds: f64, predicted: f64| {
            say!("{name:<34} {seconds:>9.3} {predicted:>9.3} {:>6.2}", predicted / seconds.max(1e-9));
        };
        for step in &report.steps {
            line(&step.name, step.seconds + step.refresh_seconds, step.predicted);
        }
        let predicted = report.steps.iter().map(|step| step.predicted).sum();
        line("all", report.seconds_total, predicted);
    }

    /// The closing table on a terminal.
    pub(crate) fn print(&self) {
        say!("\nprompt   {}\nanswer   {}", self.prompt, self.answer());
        say!(
            "time     {:.1} s for {} encrypted forward pass(es), {:.1} s predicted; keys {:.1} s, encrypt \
             {:.2} s, decrypt {:.2} s",
            self.seconds_total(),
            self.reports.len(),
            self.seconds_predicted(),
            self.seconds_keygen,
            self.seconds_encrypt,
            self.seconds_decrypt
        );
        if self.setup.plan.prompts() > 1 {
            let (each, answers) = (self.seconds_each(), self.tokens.len());
            say!("         {each:.2} s for each of {answers} answers, prompts in one pass");
        }
        say!("memory   {:.1} GiB at the peak; machine: {}", gib(peak_memory()), self.hardware());
        say!("\n{:<34} {:>9} {:>7}", "operator (bootstraps apart)", "seconds", "share");
        for (name, seconds) in self.sum(|r| &r.by_operator) {
            say!("{:<34} {seconds:>9.2} {:>6.1} %", words(&name), 100.0 * seconds / self.seconds_total());
        }
        say!("\n{:<34} {:>9} {:>7}", "operator (bootstraps charged)", "seconds", "share");
        for (name, seconds) in self.sum(|r| &r.bootstrap_attributed) {
            say!("{:<34} {seconds:>9.2} {:>6.1} %", words(&name), 100.0 * seconds / self.seconds_total());
        }
        say!("");
        for check in self.checks() {
            say!("{}  {:<48} {}", if check.pass { "PASS" } else { "FAIL" }, check.name, check.detail);
        }
        let exact = self.tokens.iter().filter(|t| t.same_exact).count();
        say!("info  same token as the exact model{:<18} {exact} of {}", "", self.tokens.len());
        say!("\n{}", if self.pass() { "PASS" } else { "FAIL" });
    }
}
