//! What a conversation came to, for a person and as JSON.

use super::plans::{Plans, hardware};
use crate::console::say;
use crate::outcome::{MSE_BOUND, TokenCheck};
use crate::system::{gib, peak_memory, threads};
use cipherlm_infer::Report;
use serde_json::json;
use std::collections::BTreeMap;

/// One generated token.
pub(super) struct Row {
    pub(super) token: u32,
    pub(super) position: usize,
    pub(super) report: Report,
    pub(super) check: TokenCheck,
}

/// A token that the server chose without seeing it.
#[derive(serde::Serialize)]
pub(super) struct Choice {
    pub(super) token: u32,
    /// Weight in the one-hot vector.
    pub(super) weight: f64,
    /// Distance of the two largest logits in the clear.
    pub(super) gap: f64,
    /// Seconds of the step, argmax and embedding included.
    pub(super) seconds: f64,
    pub(super) seconds_argmax: f64,
    pub(super) same_polynomial: bool,
}

/// All tokens of a conversation.
pub(super) struct Outcome {
    pub(super) rows: Vec<Row>,
    pub(super) choices: Vec<Choice>,
    pub(super) answer: String,
    /// For the prompt, then for the tokens.
    pub(super) seconds_keygen: Vec<f64>,
}

impl Outcome {
    /// Every token as in the clear, errors below the paper's bound.
    pub(super) fn pass(&self) -> bool {
        !self.rows.is_empty()
            && self.rows.iter().all(|r| r.check.same_polynomial && r.check.mse <= MSE_BOUND)
            && self.choices.iter().all(|c| c.same_polynomial)
    }

    /// Seconds of the tokens after the first, which came with the prompt.
    fn token_seconds(&self) -> Vec<f64> {
        let mut seconds: Vec<f64> = self.rows.iter().skip(1).map(|r| r.report.seconds_total).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    pub(super) fn print(&self, prompt: &str) {
        say!("\nprompt   {prompt}\nanswer   {}", self.answer);
        let seconds = self.token_seconds();
        if let (Some(min), Some(max)) = (seconds.first(), seconds.last()) {
            say!("a token  median {:.1} s ({min:.1} - {max:.1}, {} tokens)", middle(&seconds), seconds.len());
        }
        for (name, time) in by_operator(&self.rows) {
            say!("  {name:<20} {time:>7.2} s a token");
        }
        for c in &self.choices {
            say!(
                "alone    token {}, weight {:.4}, gap {:.3}, {:.1} s of which argmax and embedding {:.1} s, \
                 as in the clear: {}",
                c.token,
                c.weight,
                c.gap,
                c.seconds,
                c.seconds_argmax,
                c.same_polynomial
            );
        }
        say!("memory   {:.1} GiB at the peak", gib(peak_memory()));
        say!("\n{}", if self.pass() { "PASS" } else { "FAIL" });
    }

    pub(super) fn json(&self, plans: &Plans, prompt: &str) -> serde_json::Value {
        let params = plans.circuits.params();
        let row = |r: &Row| {
            json!({
                "token": r.token,
                "position": r.position,
                "seconds": r.report.seconds_total,
                "bootstraps": r.report.bootstraps,
                "by_operator": r.report.by_operator,
                "by_primitive": r.report.by_primitive,
                "steps": r.report.steps,
                "same_polynomial": r.check.same_polynomial,
                "same_exact": r.check.same_exact,
                "max_abs_error": r.check.max_abs_error,
                "mse": r.check.mse,
            })
        };
        let key_bytes = plans.circuits.key_bytes(plans.later()).unwrap_or_default();
        json!({
            "machine": format!("encrypted on {}", hardware(params)),
            "slot_machine": "encrypted",
            "model": plans.prompt.model().spec().name,
            "prompt": prompt,
            "answer": self.answer,
            "length": plans.prompt.tokens(),
            "over_cache": plans.token.is_some(),
            "public_prefix_tokens": plans.prompt.public_prefix().len(),
            "profile": plans.profile,
            "ring_degree": params.degree(),
            "log_qp": params.log_qp(),
            "security_bits": params.security().bits,
            "threads": threads(),
            "seconds_keygen": self.seconds_keygen,
            "seconds_a_token": middle(&self.token_seconds()),
            "seconds_predicted": plans.later().seconds(),
            "bootstraps_a_token": plans.later().refreshes().0,
            "bootstraps_by_layer": plans.later().refreshes_by_layer(),
            "key_bytes": key_bytes.0,
            "key_bytes_resident": key_bytes.1,
            "peak_rss_bytes": peak_memory(),
            "tokens": self.rows.iter().map(row).collect::<Vec<_>>(),
            "alone": self.choices,
            "pass": self.pass(),
        })
    }
}

/// Mean seconds by operator of the tokens after the first.
fn by_operator(rows: &[Row]) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let later = rows.get(1..).unwrap_or_default();
    for (name, seconds) in later.iter().flat_map(|r| &r.report.by_operator) {
        *sums.entry(name).or_default() += seconds / later.len() as f64;
    }
    let mut list: Vec<_> = sums.into_iter().map(|(n, s)| (n.to_owned(), s)).collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1));
    list
}

/// The median of sorted values.
fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
