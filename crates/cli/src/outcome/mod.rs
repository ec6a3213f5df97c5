//! What a run showed: for the terminal, as JSON, and as the report page.

mod cards;
mod json;
mod page;
mod precision;
mod terminal;

pub(crate) use precision::Bits;

use crate::outputs::{Output, write_reports};
use crate::report::Check;
use crate::sampler::argmax;
use crate::setup::Setup;
use crate::system::{processor, threads};
use cipherlm_infer::Report;
use std::collections::BTreeMap;

/// One answered token against clear text.
pub(crate) struct TokenCheck {
    token: u32,
    pub(crate) same_polynomial: bool,
    pub(crate) same_exact: bool,
    pub(crate) max_abs_error: f64,
    pub(crate) mse: f64,
    kl: f64,
}

impl TokenCheck {
    /// Compares encrypted logits with the clear polynomial and exact ones.
    pub(crate) fn new(token: u32, encrypted: &[f64], polynomial: &[f64], exact: &[f64]) -> Self {
        let errors = encrypted.iter().zip(polynomial).map(|(a, b)| a - b);
        let mse = errors.clone().map(|e| e * e).sum::<f64>() / encrypted.len().max(1) as f64;
        // NaN must not pass for a small error.
        let max_abs_error =
            errors.map(f64::abs).fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m });
        Self {
            token,
            same_polynomial: argmax(encrypted) == argmax(polynomial),
            same_exact: argmax(encrypted) == argmax(exact),
            max_abs_error,
            mse,
            kl: divergence(exact, encrypted),
        }
    }
}

/// KL divergence of two logit vectors, in nats.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let log_softmax = |x: &[f64]| -> Vec<f64> {
        let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = x.iter().map(|v| (v - top).exp()).sum::<f64>().ln() + top;
        x.iter().map(|v| v - log_sum).collect()
    };
    log_softmax(p).iter().zip(log_softmax(q)).map(|(a, b)| a.exp() * (a - b)).sum()
}

/// Largest mean square error of the logits, the paper's bound.
pub(crate) const MSE_BOUND: f64 = 0.005;

/// Everything measured.
pub(crate) struct Outcome<'s> {
    setup: &'s Setup,
    prompt: String,
    seconds_keygen: f64,
    pub(crate) seconds_encrypt: f64,
    pub(crate) seconds_decrypt: f64,
    reports: Vec<Report>,
    tokens: Vec<TokenCheck>,
    /// Of the last pass, by step.
    pub(crate) bits: BTreeMap<String, Bits>,
    /// Bytes held when each step of the last pass began.
    pub(crate) memory: Vec<(String, u64)>,
}

impl<'s> Outcome<'s> {
    pub(crate) fn new(setup: &'s Setup, prompt: &str, seconds_keygen: f64) -> Self {
        Self {
            setup,
            prompt: prompt.to_string(),
            seconds_keygen,
            seconds_encrypt: 0.0,
            seconds_decrypt: 0.0,
            reports: Vec::new(),
            tokens: Vec::new(),
            bits: BTreeMap::new(),
            memory: Vec::new(),
        }
    }

    /// One pass, with the answer to each of its prompts.
    pub(crate) fn add(&mut self, report: Report, checks: Vec<TokenCheck>) {
        self.reports.push(report);
        self.tokens.extend(checks);
    }

    /// Whether every check passed.
    pub(crate) fn pass(&self) -> bool {
        !self.tokens.is_empty() && self.checks().iter().all(|c| c.pass)
    }

    fn checks(&self) -> Vec<Check> {
        let count = self.tokens.len();
        let check = |name: &str, detail: String, pass| Check { name: name.into(), detail, pass };
        let same = self.tokens.iter().filter(|t| t.same_polynomial).count();
        let bits = self.setup.circuits.params().security().bits;
        vec![
            check(
                "same token as the polynomial model in the clear",
                format!("{same} of {count}"),
                same == count,
            ),
            check(
                "mean square error of the logits",
                format!("{:.2e} (bound {MSE_BOUND}, the paper's)", self.mse()),
                self.mse() <= MSE_BOUND,
            ),
            check("security", format!("{bits:.1} bits, dense ternary secret"), bits >= 128.0),
        ]
    }

    fn mse(&self) -> f64 {
        self.tokens.iter().map(|t| t.mse).fold(0.0, |m, e| if e > m || e.is_nan() { e } else { m })
    }

    fn max_abs_error(&self) -> f64 {
        self.tokens.iter().map(|t| t.max_abs_error).fold(0.0, |m, e| if e > m || e.is_nan() { e } else { m })
    }

    fn answer(&self) -> String {
        self.setup.loaded.answer(&self.tokens.iter().map(|t| t.token).collect::<Vec<_>>())
    }

    pub(crate) fn seconds_total(&self) -> f64 {
        self.reports.iter().map(|r| r.seconds_total).sum()
    }

    /// Seconds of all passes for each answer: less than a pass where prompts share one.
    fn seconds_each(&self) -> f64 {
        self.seconds_total() / self.tokens.len().max(1) as f64
    }

    /// Seconds that the plan promised for all passes.
    fn seconds_predicted(&self) -> f64 {
        self.setup.plan.seconds() * self.reports.len() as f64
    }

    fn sum(&self, part: impl Fn(&Report) -> &BTreeMap<String, f64>) -> Vec<(String, f64)> {
        let mut total = BTreeMap::new();
        for report in &self.reports {
            for (name, seconds) in part(report) {
                *total.entry(name.clone()).or_insert(0.0) += seconds;
            }
        }
        let mut list: Vec<(String, f64)> = total.into_iter().filter(|(_, s)| *s > 0.0).collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
        list
    }

    /// Prints the answer, then writes the files: a full disk loses a file and no answer. True if
    /// every check passed.
    pub(crate) fn finish(
        &self,
        as_json: bool,
        json: Option<&Output>,
        html: Option<&Output>,
    ) -> anyhow::Result<bool> {
        let object = self.json();
        if as_json {
            crate::console::out_json(&object);
        } else {
            self.print();
        }
        let page = html.map(|_| crate::report::render(&self.page())).unwrap_or_default();
        write_reports(&[(json, &serde_json::to_string_pretty(&object)?), (html, &page)])?;
        Ok(self.pass())
    }

    fn hardware(&self) -> String {
        format!(
            "{}, kernel {}, {} threads",
            processor(),
            self.setup.circuits.params().ring().kernel_name(),
            threads()
        )
    }
}

/// A class as the page and the terminal call it.
fn words(name: &str) -> String {
    match name {
        "plain_matmul" => "plaintext matmul",
        "cipher_matmul" => "ciphertext matmul",
        "power_softmax" => "PowerSoftmax",
        "activation_norm" => "activation + norm",
        "add_repack" => "add, rescale, repack",
        other => other,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_see_a_wrong_token_and_a_nan() {
        let good = TokenCheck::new(1, &[0.0, 2.0], &[0.0, 2.001], &[0.1, 1.9]);
        assert!(good.same_polynomial && good.same_exact && good.mse < 1e-6 && good.kl.abs() < 0.1);
        let wrong = TokenCheck::new(0, &[3.0, 2.0], &[0.0, 2.0], &[0.0, 2.0]);
        assert!(!wrong.same_polynomial && wrong.max_abs_error == 3.0);
        let broken = TokenCheck::new(0, &[f64::NAN, 2.0], &[0.0, 2.0], &[0.0, 2.0]);
        assert!(broken.mse.is_nan() && broken.max_abs_error.is_nan());
    }
}
