//! The closing table on a terminal.

use super::{Outcome, words};
use crate::console::say;
use crate::system::{gib, peak_memory};

impl Outcome<'_> {
    /// The closing table on a terminal.
    pub(crate) fn print(&self) {
        say!("\nprompt   {}\nanswer   {}", self.prompt, self.answer());
        say!(
            "time     {:.1} s for {} encrypted forward pass(es); keys {:.1} s, encrypt {:.2} s, decrypt {:.2} s",
            self.seconds_total(),
            self.reports.len(),
            self.seconds_keygen,
            self.seconds_encrypt,
            self.seconds_decrypt
        );
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
