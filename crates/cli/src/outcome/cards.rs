//! The four cards of a report: model, cryptography, system, application.

use super::Outcome;
use crate::report::Card;
use crate::system::{gib, peak_memory};

fn row(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_string(), value.into())
}

impl Outcome<'_> {
    /// The cards, in the order of the page.
    pub(super) fn cards(&self) -> Vec<Card> {
        let card = |title: &str, rows| Card { title: title.into(), rows };
        vec![
            card("Model card", self.model_rows()),
            card("Cryptographic card", self.cryptographic_rows()),
            card("System card", self.system_rows()),
            card("Application card", self.application_rows()),
        ]
    }

    fn model_rows(&self) -> Vec<(String, String)> {
        let spec = self.setup.loaded.model.spec();
        let shape = self.setup.loaded.model.shape();
        let violations = spec.sites.iter().map(|s| s.violations).sum::<u64>();
        let mut rows = vec![
            row("name", spec.name.as_str()),
            row("shape", format!("{} layers, width {}, {} heads", shape.layers, shape.d_model, shape.heads)),
            row("parameters", shape.parameters().to_string()),
            row("attention", format!("{:?}", shape.attention)),
            row(
                "kind of change",
                "model-modifying: PowerSoftmax attention, polynomials in place of functions",
            ),
            row("certified sites", spec.sites.len().to_string()),
            row("violations on held-out text", violations.to_string()),
        ];
        rows.extend(spec.provenance.iter().map(|(k, v)| (k.clone(), v.clone())));
        rows
    }

    fn cryptographic_rows(&self) -> Vec<(String, String)> {
        let params = self.setup.circuits.params();
        let profile = &self.setup.recipe.profile;
        vec![
            row("scheme", "RNS-CKKS, bootstrapped, non-interactive"),
            row("profile", profile.name),
            row("ring degree", format!("2^{}", params.log_degree())),
            row("log QP", format!("{:.1}", params.log_qp())),
            row("chain, bits a level", chain(profile)),
            row(
                "security",
                format!("{:.1} bits classical, dense ternary main secret", params.security().bits),
            ),
            row("ephemeral secret", format!("weight {}, bottom modulus only", profile.ephemeral_weight)),
            row("bootstrapping failure", "0 by construction"),
            row("threat model", "honest-but-curious server, IND-CPA; no circuit privacy"),
        ]
    }

    fn system_rows(&self) -> Vec<(String, String)> {
        let (stored, resident) = self.setup.circuits.key_bytes(&self.setup.plan).unwrap_or_default();
        vec![
            row("machine", self.hardware()),
            row("latency", self.latency()),
            row("keys", format!("{:.2} GiB stored, {:.2} GiB in memory", gib(stored), gib(resident))),
            row("peak memory", format!("{:.1} GiB", gib(peak_memory()))),
            row("interaction", "one message each way a token"),
        ]
    }

    /// Amortised seconds are told from those that an answer takes to come.
    fn latency(&self) -> String {
        match self.setup.plan.prompts() {
            1 => format!("{:.1} s, one prompt (not amortised)", self.seconds_total()),
            prompts => format!(
                "{:.1} s, {prompts} prompts in one pass ({:.2} s each, amortised)",
                self.seconds_total(),
                self.seconds_each()
            ),
        }
    }

    fn application_rows(&self) -> Vec<(String, String)> {
        let padded = self.setup.plan.tokens();
        let count = self.tokens.len();
        let polynomial = self.tokens.iter().filter(|t| t.same_polynomial).count();
        let exact = self.tokens.iter().filter(|t| t.same_exact).count();
        vec![
            row("task", "next token of a text"),
            row("prompt length", format!("padded to {padded} tokens; the length class is public")),
            row("client work", "tokenise, embed, encrypt; decrypt, pick the token"),
            row("agreement with the polynomial model", format!("{polynomial} of {count}")),
            row("agreement with the exact model", format!("{exact} of {count}")),
        ]
    }
}

/// A modulus chain in words, from the bottom.
fn chain(profile: &cipherlm_circuits::bootstrap::Profile) -> String {
    let list = |bits: &mut dyn Iterator<Item = f64>| {
        let mut runs: Vec<(f64, usize)> = Vec::new();
        for b in bits {
            match runs.last_mut() {
                Some((last, count)) if *last == b => *count += 1,
                _ => runs.push((b, 1)),
            }
        }
        let word =
            |(b, count): &(f64, usize)| if *count > 1 { format!("{count} of {b}") } else { b.to_string() };
        runs.iter().map(word).collect::<Vec<_>>().join(" + ")
    };
    format!(
        "bottom {}; slots to coefficients {}; {} levels of {} for the model; modular reduction {}; \
         coefficients to slots {}; {} special primes of {}",
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
