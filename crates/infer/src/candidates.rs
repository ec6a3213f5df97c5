//! Which profile to compile for: the cheapest one whose predicted answer is good enough.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_model::{Kind, Model, Tokenizer};
use serde::Serialize;

use crate::cost::CostModel;
use crate::error::{Error, Result};
use crate::plan::{Options, Plan};
use crate::recipe::compile;
use crate::refresh::Circuits;

/// How good an answer has to be, by the noise machine's prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Largest mean square error of the logits.
    pub mse: f64,
    /// Smallest share of answers whose largest logit stays the largest.
    pub same: f64,
}

impl Default for Tolerance {
    /// A tenth of what the paper accepts, and 99 of 100 answers the same.
    fn default() -> Self {
        Self { mse: 5e-4, same: 0.99 }
    }
}

/// What one profile would make of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Name of the profile.
    pub profile: &'static str,
    /// User levels.
    pub levels: usize,
    /// log2 of the user's scale.
    pub scale_bits: f64,
    /// Bits of a refreshed slot, root mean square.
    pub bits: f64,
    /// Bootstraps of a run; none where no placement exists.
    pub bootstraps: Option<usize>,
    /// Predicted seconds.
    pub seconds: Option<f64>,
    /// Bytes of a run, keys included.
    pub memory_bytes: Option<u64>,
    /// Predicted mean square error of the logits; only the cheapest ones are simulated.
    pub mse: Option<f64>,
    /// Predicted share of answers that stay the same.
    pub same: Option<f64>,
    /// What became of it.
    pub verdict: String,
}

/// The profile that was chosen, with its plan.
pub struct Chosen {
    /// The profile.
    pub profile: Profile,
    /// Its circuits.
    pub circuits: Circuits,
    /// The plan.
    pub plan: Plan,
    /// Every candidate, in the order of the family.
    pub candidates: Vec<Candidate>,
}

/// Seed of the simulated runs.
const SEED: u64 = 1;
/// The lightest ephemeral secret that is taken unasked.
const WEIGHT: usize = 48;
/// What is simulated where no prompt is at hand.
const SAMPLE: &str = "Once upon a time there was a little girl named Lily. She had a red ball and she \
    liked to play with it in the park. One day, her friend Tom came to the park. He said, \"Can I play \
    with you?\" Lily smiled and said, \"Yes!\" ";

impl Chosen {
    /// The plan of a model for this profile.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn this(model: &Arc<Model>, profile: &Profile, options: &Options, cost: &CostModel) -> Result<Self> {
        let (circuits, plan) = compile(model, profile, options, cost)?;
        Ok(Self { profile: profile.clone(), circuits, plan, candidates: vec![] })
    }

    /// The profiles that are taken unasked: those with a lighter ephemeral secret have to be named.
    pub fn family() -> Vec<Profile> {
        Profile::family().into_iter().filter(|profile| profile.ephemeral_weight >= WEIGHT).collect()
    }

    /// The plan of a model for the cheapest secure profile whose simulated answers to a sample text
    /// are within `tolerance`, of [`Chosen::family`].
    ///
    /// # Errors
    /// As [`choose_profile`].
    pub fn cheapest(
        model: &Arc<Model>,
        tokenizer: &Tokenizer,
        options: &Options,
        cost: &CostModel,
        tolerance: Tolerance,
    ) -> Result<Self> {
        let family = Self::family();
        let length = options.tokens.checked_next_power_of_two().unwrap_or(options.tokens);
        let tokens = sample_tokens(tokenizer, length.min(model.shape().context))?;
        choose_profile(model, &family, options, cost, &tokens, tolerance)
    }
}

/// A prompt of `length` tokens, the sample text repeated; none where it makes none.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn sample_tokens(tokenizer: &Tokenizer, length: usize) -> Result<Vec<u32>> {
    let tokens = tokenizer.encode(&SAMPLE.repeat(1 + length / 16))?;
    Ok(tokens.into_iter().cycle().take(length).collect())
}

/// Compiles `model` for every profile of `family` and takes the cheapest by the prices of `cost`
/// whose simulated answers to `tokens` are within `tolerance`.
///
/// What is chosen depends on the prices, hence on the machine: whoever has to arrive at the same
/// plan is told the name of the profile ([`crate::KeyFolder`]), and compiles for that.
///
/// # Errors
/// [`Error::NoProfile`] if none is good enough, with the closest; as [`Plan::compile`].
pub fn choose_profile(
    model: &Arc<Model>,
    family: &[Profile],
    options: &Options,
    cost: &CostModel,
    tokens: &[u32],
    tolerance: Tolerance,
) -> Result<Chosen> {
    let mut rows: Vec<Candidate> = Vec::new();
    let mut order: Vec<(f64, usize, Circuits, Plan)> = Vec::new();
    let mut refused = None;
    for (index, profile) in family.iter().enumerate() {
        let mut row = Candidate {
            profile: profile.name,
            levels: profile.user_levels,
            scale_bits: profile.scale,
            bits: profile.error_bits,
            bootstraps: None,
            seconds: None,
            memory_bytes: None,
            mse: None,
            same: None,
            verdict: "slower".into(),
        };
        match compile(model, profile, options, cost) {
            Ok((circuits, plan)) => {
                row.bootstraps = Some(plan.refreshes().0);
                row.seconds = Some(plan.seconds());
                row.memory_bytes = Some(circuits.key_bytes(&plan)?.1 + plan.working_bytes());
                order.push((plan.seconds(), index, circuits, plan));
            }
            Err(Error::NoPlacement { node, top, need }) => {
                row.verdict = format!("{node} needs {need} levels and there are {top}");
                refused = Some(Error::NoPlacement { node, top, need });
            }
            Err(other) => return Err(other),
        }
        rows.push(row);
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, index, circuits, plan) in order {
        let row = &mut rows[index];
        let (mse, same) = match plan.predicted_quality(&circuits, tokens) {
            // A chain whose errors break a refresh is no candidate; others may have room.
            Err(error @ Error::Slots { .. }) => {
                (row.verdict, refused) = (error.to_string(), Some(error));
                continue;
            }
            found => found?,
        };
        (row.mse, row.same) = (Some(mse), Some(same));
        if mse <= tolerance.mse && same >= tolerance.same {
            row.verdict = "chosen".into();
            return Ok(Chosen { profile: family[index].clone(), circuits, plan, candidates: rows });
        }
        row.verdict = "beyond the tolerance".into();
    }
    let best = rows.iter().filter_map(|row| Some((row.mse?, row))).min_by(|a, b| a.0.total_cmp(&b.0));
    Err(match best {
        Some((mse, row)) => Error::NoProfile {
            mse,
            same: row.same.unwrap_or(0.0),
            best: row.profile,
            wanted_mse: tolerance.mse,
            wanted_same: tolerance.same,
        },
        // Each was refused for its levels or its errors.
        None => refused.unwrap_or(Error::Internal { what: "a family of no profiles".into() }),
    })
}

impl Plan {
    /// Mean square error of the logits and share of answers that stay the same, predicted by one
    /// run of the noise machine on `tokens`: over the answers at all positions up to the one asked
    /// for, each weighed by how far its two largest logits lie apart.
    ///
    /// # Errors
    /// As [`Plan::forecast`].
    pub fn predicted_quality(&self, circuits: &Circuits, tokens: &[u32]) -> Result<(f64, f64)> {
        let machine = self.noise_machine(circuits.params(), circuits.key_request(self), SEED)?;
        let forecast = self.forecast(&machine, tokens)?;
        let last = self.answer_position(tokens.len());
        let first = if self.answers_last() { last } else { 0 };
        let share = 1.0 / (last + 1 - first) as f64;
        let (mut mse, mut same) = (0.0, 0.0);
        for position in first..=last {
            let own = forecast.logits_mse(self, position)?;
            let exact = forecast.exact_logits(self, position)?;
            mse += share * own;
            let stays = match self.model().shape().kind {
                Kind::Embedder { .. } => 1.0,
                _ => stays_largest(&exact, own.sqrt()),
            };
            same += share * stays;
        }
        Ok((mse, same))
    }
}

/// How likely the largest value stays the largest under errors of this standard deviation: as if
/// only the next one could pass it.
fn stays_largest(values: &[f64], deviation: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    match sorted.as_slice() {
        [first, second, ..] => below((first - second) / (deviation.max(1e-300) * 2f64.sqrt())),
        _ => 1.0,
    }
}

/// The normal distribution function at `x >= 0` (Abramowitz and Stegun 26.2.17, within 10^-7).
fn below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = series.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    1.0 - (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_logits_change_places() {
        for (x, expected) in [(0.0, 0.5), (1.0, 0.841_344_7), (2.0, 0.977_249_9), (5.0, 0.999_999_7)] {
            assert!((below(x) - expected).abs() < 1e-6, "{x}");
        }
        assert!((stays_largest(&[1.0, 3.0, 3.0], 0.1) - 0.5).abs() < 1e-6);
        assert!(stays_largest(&[1.0, 3.0, 2.0], 0.01) > 0.999_999);
        assert_eq!(stays_largest(&[1.0], 0.1), 1.0);
        assert!(stays_largest(&[2.0, 1.0], 0.0) > 0.999_999);
    }
}
