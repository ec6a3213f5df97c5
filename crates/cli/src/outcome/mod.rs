//! What a run showed: for the terminal, as JSON, and as the report page.

mod precision;

pub(crate) use precision::Bits;

use crate::report::{Card, Check, OpRow, Page};
use crate::sampler::argmax;
use crate::setup::Setup;
use crate::system::{gib, peak_memory, processor, threads};
use cipherlm_infer::{Operator, Report};
use serde_json::{Value, json};
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
        let max_abs_error = errors.map(f64::abs).fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m });
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

    pub(crate) fn add(&mut self, report: Report, check: TokenCheck) {
        self.reports.push(report);
        self.tokens.push(check);
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
            check("same token as the polynomial model in the clear", format!("{same} of {count}"), same == count),
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
        self.setup.text(&self.tokens.iter().map(|t| t.token).collect::<Vec<_>>())
    }

    pub(crate) fn seconds_total(&self) -> f64 {
        self.reports.iter().map(|r| r.seconds_total).sum()
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

    /// The closing table on a terminal.
    pub(crate) fn print(&self) {
        println!("\nprompt   {}\nanswer   {}", self.prompt, self.answer());
        println!(
            "time     {:.1} s for {} encrypted forward pass(es); keys {:.1} s, encrypt {:.2} s, decrypt {:.2} s",
            self.seconds_total(),
            self.reports.len(),
            self.seconds_keygen,
            self.seconds_encrypt,
            self.seconds_decrypt
        );
        println!("memory   {:.1} GiB at the peak; machine: {}", gib(peak_memory()), self.hardware());
        println!("\n{:<34} {:>9} {:>7}", "operator (bootstraps apart)", "seconds", "share");
        for (name, seconds) in self.sum(|r| &r.by_operator) {
            println!("{:<34} {seconds:>9.2} {:>6.1} %", words(&name), 100.0 * seconds / self.seconds_total());
        }
        println!("\n{:<34} {:>9} {:>7}", "operator (bootstraps charged)", "seconds", "share");
        for (name, seconds) in self.sum(|r| &r.bootstrap_attributed) {
            println!("{:<34} {seconds:>9.2} {:>6.1} %", words(&name), 100.0 * seconds / self.seconds_total());
        }
        println!();
        for check in self.checks() {
            println!("{}  {:<48} {}", if check.pass { "PASS" } else { "FAIL" }, check.name, check.detail);
        }
        let exact = self.tokens.iter().filter(|t| t.same_exact).count();
        println!("info  same token as the exact model{:<18} {exact} of {}", "", self.tokens.len());
        println!("\n{}", if self.pass() { "PASS" } else { "FAIL" });
    }

    /// The object of `--json`.
    pub(crate) fn json(&self) -> Value {
        let params = self.setup.circuits.params();
        let (stored, resident) = self.setup.circuits.key_bytes(&self.setup.plan).unwrap_or_default();
        let map = |list: Vec<(String, f64)>| Value::Object(list.into_iter().map(|(k, v)| (k, json!(v))).collect());
        let same = self.tokens.iter().filter(|t| t.same_polynomial).count();
        json!({
            "model": self.setup.loaded.model.spec().name,
            "length": self.setup.plan.tokens(),
            "prompt": self.prompt,
            "answer": self.answer(),
            "tokens": self.tokens.len(),
            "ring_degree": params.degree(),
            "log_qp": params.log_qp(),
            "security_bits": params.security().bits,
            "profile": self.setup.profile.name,
            "threads": threads(),
            "machine": format!("encrypted on {}", self.hardware()),
            "slot_machine": "encrypted",
            "seconds_total": self.seconds_total(),
            "seconds_predicted": self.setup.plan.seconds(),
            "seconds_keygen": self.seconds_keygen,
            "seconds_encrypt": self.seconds_encrypt,
            "seconds_decrypt": self.seconds_decrypt,
            "bootstraps": self.reports.iter().map(|r| r.bootstraps).sum::<usize>(),
            "bootstraps_by_layer": self.setup.plan.refreshes_by_layer(),
            "peak_rss_bytes": peak_memory(),
            "key_bytes": stored,
            "key_bytes_resident": resident,
            "by_operator": map(self.sum(|r| &r.by_operator)),
            "by_primitive": map(self.sum(|r| &r.by_primitive)),
            "bootstrap_attributed": map(self.sum(|r| &r.bootstrap_attributed)),
            "paper": {"matrix_products_percent": 67, "polynomial_approximations_percent": 24, "seconds_a100_pythia70m_128": 93},
            "max_abs_error": self.max_abs_error(),
            "mse": self.mse(),
            "kl_to_exact": self.tokens.iter().map(|t| t.kl).fold(0.0, f64::max),
            "top1_agree": same as f64 / self.tokens.len().max(1) as f64,
            "top1_agree_exact": self.tokens.iter().filter(|t| t.same_exact).count() as f64 / self.tokens.len().max(1) as f64,
            "precision_bits": self.bits,
            "steps": self.reports.last().map(|r| json!(r.steps)),
            "pass": self.pass(),
        })
    }

    /// The report page.
    pub(crate) fn page(&self) -> Page {
        let named = |list: Vec<(String, f64)>| list.into_iter().map(|(n, s)| (words(&n), s)).collect();
        let params = self.setup.circuits.params();
        let fact = |name: &str, value: String| (name.to_string(), value);
        Page {
            title: format!("{}, encrypted", self.setup.loaded.model.spec().name),
            subtitle: format!(
                "All times and errors were measured on the encrypted machine at {:.0}-bit parameters, on {}.",
                params.security().bits,
                self.hardware()
            ),
            prompt: self.prompt.clone(),
            answer: self.answer(),
            facts: vec![
                fact("seconds for the forward pass", format!("{:.1}", self.seconds_total())),
                fact("seconds predicted by the plan", format!("{:.1}", self.setup.plan.seconds())),
                fact("bootstraps", self.reports.iter().map(|r| r.bootstraps).sum::<usize>().to_string()),
                fact("GiB of memory at the peak", format!("{:.1}", gib(peak_memory()))),
                fact("seconds for the keys", format!("{:.1}", self.seconds_keygen)),
                fact("largest error of a logit", format!("{:.1e}", self.max_abs_error())),
            ],
            checks: self.checks(),
            ops: self.ops(),
            by_operator: named(self.sum(|r| &r.by_operator)),
            attributed: named(self.sum(|r| &r.bootstrap_attributed)),
            by_primitive: named(self.sum(|r| &r.by_primitive)),
            cards: self.cards(),
        }
    }

    /// Steps of the last pass, each followed by its refresh.
    fn ops(&self) -> Vec<OpRow> {
        let schedule = self.setup.plan.schedule();
        let target = self.setup.circuits.target().ok();
        let chain = |level| target.as_ref().map_or(0.0, |t| t.chain.scale(level).log2());
        let mut rows = Vec::new();
        let mut clock = 0.0;
        for step in self.reports.last().map(|r| r.steps.as_slice()).unwrap_or_default() {
            let planned = schedule.iter().find(|s| s.name == step.name);
            let (level_in, level_out) = planned.map_or((0, 0), |s| (s.level_in, s.level_out));
            let mut row = OpRow {
                layer: step.layer.map_or_else(|| "head".into(), |l| format!("layer {}", l + 1)),
                name: step.name.clone(),
                class: operator(step.class),
                start_s: clock,
                seconds: step.seconds,
                level_in,
                level_out,
                log_scale: chain(level_out),
                memory: self.memory.iter().find(|(name, _)| *name == step.name).map_or(0.0, |(_, bytes)| gib(*bytes)),
                predicted_bits: None,
                measured_bits: None,
            };
            let refreshed = planned.and_then(|s| s.refreshed_to);
            // What is compared is the value that leaves the step, after its refresh if it has one.
            if let Some(bits) = self.bits.get(&step.name).filter(|_| refreshed.is_none()) {
                (row.predicted_bits, row.measured_bits) = (Some(bits.predicted), Some(bits.measured));
            }
            rows.push(row.clone());
            clock += step.seconds;
            if let Some(to) = refreshed {
                row.name.push_str(", refreshed");
                (row.class, row.start_s, row.seconds) = (words("bootstrap"), clock, step.refresh_seconds);
                (row.level_in, row.level_out, row.log_scale) = (level_out, to, chain(to));
                let bits = self.bits.get(&step.name);
                (row.predicted_bits, row.measured_bits) = (bits.map(|b| b.predicted), bits.map(|b| b.measured));
                rows.push(row);
                clock += step.refresh_seconds;
            }
        }
        rows
    }

    fn cards(&self) -> Vec<Card> {
        let params = self.setup.circuits.params();
        let spec = self.setup.loaded.model.spec();
        let shape = self.setup.loaded.model.shape();
        let (stored, resident) = self.setup.circuits.key_bytes(&self.setup.plan).unwrap_or_default();
        let row = |name: &str, value: String| (name.to_string(), value);
        let mut model = vec![
            row("name", spec.name.clone()),
            row("shape", format!("{} layers, width {}, {} heads", shape.layers, shape.d_model, shape.heads)),
            row("parameters", shape.parameters().to_string()),
            row("attention", format!("{:?}", shape.attention)),
            row("kind of change", "model-modifying: PowerSoftmax attention, polynomials in place of functions".into()),
            row("certified sites", spec.sites.len().to_string()),
            row("violations on held-out text", spec.sites.iter().map(|s| s.violations).sum::<u64>().to_string()),
        ];
        model.extend(spec.provenance.iter().map(|(k, v)| (k.clone(), v.clone())));
        vec![
            Card { title: "Model card".into(), rows: model },
            Card {
                title: "Cryptographic card".into(),
                rows: vec![
                    row("scheme", "RNS-CKKS, bootstrapped, non-interactive".into()),
                    row("profile", self.setup.profile.name.into()),
                    row("ring degree", format!("2^{}", params.log_degree())),
                    row("log QP", format!("{:.1}", params.log_qp())),
                    row("chain, bits a level", chain(&self.setup.profile)),
                    row("security", format!("{:.1} bits classical, dense ternary main secret", params.security().bits)),
                    row(
                        "ephemeral secret",
                        format!("weight {}, bottom modulus only", self.setup.profile.ephemeral_weight),
                    ),
                    row("bootstrapping failure", "0 by construction".into()),
                    row("threat model", "honest-but-curious server, IND-CPA; no circuit privacy".into()),
                ],
            },
            Card {
                title: "System card".into(),
                rows: vec![
                    row("machine", self.hardware()),
                    row("latency", format!("{:.1} s, one prompt (not amortised)", self.seconds_total())),
                    row("keys", format!("{:.2} GiB stored, {:.2} GiB in memory", gib(stored), gib(resident))),
                    row("peak memory", format!("{:.1} GiB", gib(peak_memory()))),
                    row("interaction", "one message each way a token".into()),
                ],
            },
            Card {
                title: "Application card".into(),
                rows: vec![
                    row("task", "next token of a text".into()),
                    row(
                        "prompt length",
                        format!("padded to {} tokens; the length class is public", self.setup.plan.tokens()),
                    ),
                    row("client work", "tokenise, embed, encrypt; decrypt, pick the token".into()),
                    row(
                        "agreement with the polynomial model",
                        format!(
                            "{} of {}",
                            self.tokens.iter().filter(|t| t.same_polynomial).count(),
                            self.tokens.len()
                        ),
                    ),
                    row(
                        "agreement with the exact model",
                        format!("{} of {}", self.tokens.iter().filter(|t| t.same_exact).count(), self.tokens.len()),
                    ),
                ],
            },
        ]
    }

    fn hardware(&self) -> String {
        format!("{}, kernel {}, {} threads", processor(), self.setup.circuits.params().ring().kernel_name(), threads())
    }
}

/// A modulus chain in words, from the bottom.
fn chain(profile: &cipherlm_ckks::bootstrap::Profile) -> String {
    let list = |bits: &mut dyn Iterator<Item = f64>| {
        let mut runs: Vec<(f64, usize)> = Vec::new();
        for b in bits {
            match runs.last_mut() {
                Some((last, count)) if *last == b => *count += 1,
                _ => runs.push((b, 1)),
            }
        }
        let word = |(b, count): &(f64, usize)| if *count > 1 { format!("{count} of {b}") } else { b.to_string() };
        runs.iter().map(word).collect::<Vec<_>>().join(" + ")
    };
    format!(
        "bottom {}; slots to coefficients {}; {} levels of {} for the model; modular reduction {}; coefficients to slots {}; {} special primes of {}",
        profile.bottom,
        list(&mut profile.slots_to_coeffs.iter().map(|l| l.bits)),
        profile.user_levels,
        profile.scale,
        list(&mut profile.eval_mod.iter().copied()),
        list(&mut profile.coeffs_to_slots.iter().map(|l| l.bits)),
        profile.special,
        profile.special_bits
    )
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

fn operator(class: Operator) -> String {
    let name = serde_json::to_value(class).ok();
    words(name.as_ref().and_then(Value::as_str).unwrap_or("other"))
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
