//! The object of `--json`.

use super::Outcome;
use crate::system::{peak_memory, threads};
use serde_json::{Value, json};

impl Outcome<'_> {
    /// The object of `--json`.
    pub(crate) fn json(&self) -> Value {
        let params = self.setup.circuits.params();
        let (stored, resident) = self.setup.circuits.key_bytes(&self.setup.plan).unwrap_or_default();
        let map =
            |list: Vec<(String, f64)>| Value::Object(list.into_iter().map(|(k, v)| (k, json!(v))).collect());
        let same = self.tokens.iter().filter(|t| t.same_polynomial).count();
        json!({
            "model": self.setup.loaded.model.spec().name,
            "function": self.setup.loaded.model.shape().function(),
            "length": self.setup.plan.tokens(),
            "prompt": self.prompt,
            "answer": self.answer(),
            "tokens": self.tokens.len(),
            "prompts": self.setup.plan.prompts(),
            "ring_degree": params.degree(),
            "log_qp": params.log_qp(),
            "security_bits": params.security().bits,
            "profile": self.setup.recipe.profile.name,
            "threads": threads(),
            "machine": format!("encrypted on {}", self.hardware()),
            "slot_machine": "encrypted",
            "seconds_total": self.seconds_total(),
            "seconds_per_answer": self.seconds_each(),
            "seconds_predicted": self.setup.plan.seconds(),
            "predicted_seconds": self.seconds_predicted(),
            "levels": self.setup.recipe.profile.user_levels,
            "seconds_keygen": self.seconds_keygen,
            "seconds_encrypt": self.seconds_encrypt,
            "seconds_decrypt": self.seconds_decrypt,
            "bootstraps": self.reports.iter().map(|r| r.bootstraps).sum::<usize>(),
            "public_prefix_tokens": self.setup.plan.public_prefix().len(),
            "bootstraps_by_layer": self.setup.plan.refreshes_by_layer(),
            "peak_rss_bytes": peak_memory(),
            "key_bytes": stored,
            "key_bytes_resident": resident,
            "by_operator": map(self.sum(|r| &r.by_operator)),
            "by_primitive": map(self.sum(|r| &r.by_primitive)),
            "bootstrap_attributed": map(self.sum(|r| &r.bootstrap_attributed)),
            "paper": {
                "matrix_products_percent": 67, "polynomial_approximations_percent": 24,
                "seconds_a100_pythia70m_128": 93,
            },
            "max_abs_error": self.max_abs_error(),
            "mse": self.mse(),
            "kl_to_exact": self.tokens.iter().map(|t| t.kl).fold(0.0, f64::max),
            "top1_agree": same as f64 / self.tokens.len().max(1) as f64,
            "top1_agree_exact": self.tokens.iter().filter(|t| t.same_exact).count() as f64
                / self.tokens.len().max(1) as f64,
            "precision_bits": self.bits,
            "steps": self.reports.last().map(|r| json!(r.steps)),
            "pass": self.pass(),
        })
    }
}
