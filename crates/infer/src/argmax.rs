//! The most likely token as a one-hot vector, without anybody decrypting: power, normalise, square,
//! repeat.
//!
//! 1. All logits move into one vector, shifted and scaled, and are raised to the 16th power:
//!    weights that grow with the logit.
//! 2. The weights are divided by (an approximation of) their sum, squared and divided again, some
//!    times: each round squares the odds between any two tokens. An error of the reciprocal is
//!    common to all weights, so it changes no odds; coarse polynomials do.
//! 3. What stands above one half is pushed to 1, the rest to 0, by a step polynomial with
//!    `f(0) = 0`, `f(1) = 1` and three flat derivatives at both.
//!
//! With logits `a > b` for the best two tokens and `k = 16 * 2^rounds / (a + c)`, the odds after
//! step 2 are at least `exp(k (a - b))` each, so the winner takes more than one half if
//! `(vocab - 1) exp(-k (a - b)) < 1`, whatever the other logits are; against a single rival a gap
//! of `0.12 / k` suffices. A tie ends between the tied tokens: the result is then a mixture of
//! them, and so is the embedding that is fed back.

use cipherlm_approx::{EvalPlan, Interval, Polynomial, chebyshev};
use cipherlm_circuits::polynomial;
use cipherlm_circuits::slots::{self, Machine, Plain, RefreshKind};

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::vector::lower;

/// Squarings of the first power.
const POWER: u32 = 4;
/// Rounds of normalising and squaring after the first normalisation.
const ROUNDS: usize = 7;
/// Step polynomials at the end.
const STEPS: usize = 4;
/// Factor by which the sums seen in calibration may be exceeded on either side.
const MARGIN: f64 = 2.0;
/// Largest relative error of a reciprocal; in the last round, where one half has to be met.
const COARSE: f64 = 0.3;
const FINE: f64 = 0.05;

/// The circuit for one vocabulary and one layout of logits.
pub(crate) struct Argmax {
    vocab: usize,
    /// Slots of one block of logits.
    features: usize,
    /// Slots of all of them.
    period: usize,
    /// Half of the scaled logit is `gain * slot + offset`.
    gain: f64,
    offset: f64,
    /// Smallest sums of the weights that calibration saw, in order.
    sums: Vec<f64>,
    /// Reciprocals of the sums, in order.
    reciprocals: Vec<EvalPlan>,
    step: EvalPlan,
}

impl Argmax {
    /// The circuit for logits in units of `unit` over blocks of `features` slots. `rows` are logits
    /// of text like that to come: they decide the domains of the reciprocals.
    ///
    /// # Errors
    /// No rows, rows that are not finite, or sums over too wide a range for a reciprocal.
    pub(crate) fn calibrate(rows: &[Vec<f64>], unit: f64, features: usize) -> Result<Self> {
        let refuse = |reason: String| Error::Polynomial { site: "argmax".into(), reason };
        let vocab = rows.first().map_or(0, Vec::len);
        if vocab < 2 || rows.iter().flatten().any(|x| !x.is_finite()) {
            return Err(refuse("calibration needs finite logits of at least two tokens".into()));
        }
        // The lowest certified logit must stay smaller in size than the winner.
        let shift = 0.7 * unit;
        let power = |x: f64, scale: f64| ((x + shift) / scale).powi(1 << POWER);
        let largest =
            rows.iter().map(|row| row.iter().map(|&x| power(x, shift)).sum::<f64>()).fold(0.0, f64::max);
        let scale = shift * (MARGIN * largest).powf(1.0 / f64::from(1 << POWER));
        let period = vocab.next_power_of_two().max(features);
        let mut weights: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|&x| power(x, scale)).collect()).collect();
        let (mut sums, mut reciprocals) = (vec![], vec![]);
        for round in 0..=ROUNDS {
            if round > 0 {
                weights.iter_mut().flatten().for_each(|w| *w *= *w);
            }
            let smallest = weights.iter().map(|w| w.iter().sum::<f64>()).fold(f64::INFINITY, f64::min);
            let limit = if round == ROUNDS { FINE } else { COARSE };
            let polynomial = reciprocal(smallest / MARGIN, limit).ok_or_else(|| {
                refuse(format!(
                    "round {round}: a sum of {smallest:.1e} is too small for a reciprocal of degree 15"
                ))
            })?;
            for row in &mut weights {
                let factor = polynomial.eval(row.iter().sum());
                row.iter_mut().for_each(|w| *w *= factor);
            }
            sums.push(smallest);
            reciprocals.push(EvalPlan::new(&polynomial).map_err(|e| refuse(e.to_string()))?);
        }
        let step = Polynomial::monomial(Interval::UNIT, vec![0.0, 0.0, 0.0, 0.0, 35.0, -84.0, 70.0, -20.0])
            .and_then(|p| EvalPlan::new(&p));
        Ok(Self {
            vocab,
            features,
            period,
            gain: 0.5 * unit / scale,
            offset: 0.5 * shift / scale,
            sums,
            reciprocals,
            step: step.map_err(|e| refuse(e.to_string()))?,
        })
    }

    /// Adds the constants of the circuit to the identity of a plan.
    pub(crate) fn identify(&self, all: &mut Fingerprint) {
        [self.vocab, self.features, self.period].iter().for_each(|&n| all.number("argmax size", n as u64));
        all.reals("argmax map", [self.gain, self.offset]);
        all.reals("argmax sums", self.sums.iter().copied());
        self.reciprocals.iter().for_each(|plan| all.number("argmax depth", u64::from(plan.depth())));
    }

    /// Slots after which the one-hot vector repeats.
    pub(crate) fn period(&self) -> usize {
        self.period
    }

    /// The refresh that it uses.
    pub(crate) fn refresh_kind(&self) -> RefreshKind {
        RefreshKind::SparseReal(self.period)
    }

    /// Levels of the one-hot vector above the floor, at least.
    pub(crate) const LEVELS_LEFT: usize = 1;

    /// One-hot weights in the first `vocab` slots of each period. Logits have to be one level above
    /// the floor.
    pub(crate) fn run<M: Machine>(&self, machine: &M, logits: &[M::Vector]) -> slots::Result<M::Vector> {
        let packed = self.pack(machine, logits)?;
        let half = machine.refresh(&packed, self.refresh_kind(), None)?;
        let mut weights = machine.add(&half, &half)?;
        for _ in 0..POWER {
            weights = machine.square(&weights)?;
        }
        for (round, plan) in self.reciprocals.iter().enumerate() {
            if round > 0 {
                weights = self.ready(machine, weights, 2 + plan.depth() as usize)?;
                weights = machine.square(&weights)?;
            }
            let sum = machine.rotate_sum(&weights, 1, self.period)?;
            let level = machine.level(&weights) - plan.depth() as usize;
            let factor = polynomial::evaluate_all_to(machine, plan, &sum, level)?.swap_remove(0);
            weights = machine.mul(&lower(machine, &weights, level)?, &factor)?;
        }
        for index in 0..STEPS {
            let after = if index + 1 == STEPS { Self::LEVELS_LEFT } else { 0 };
            weights = self.ready(machine, weights, self.step.depth() as usize + after)?;
            weights = polynomial::evaluate_all(machine, &self.step, &weights)?.swap_remove(0);
        }
        Ok(weights)
    }

    /// All blocks side by side in one period, as half of the scaled logit: refreshes take slots
    /// within one.
    fn pack<M: Machine>(&self, machine: &M, logits: &[M::Vector]) -> slots::Result<M::Vector> {
        let inside = |slot: usize, block: usize| slot < self.vocab && slot / self.features == block;
        let mut sum: Option<M::Vector> = None;
        for (block, vector) in logits.iter().enumerate() {
            let mask =
                (0..self.period).map(|s| if inside(s, block) { self.gain } else { 0.0 }).collect::<Vec<_>>();
            let part = machine.mul_plain_lazy(vector, &Plain::real(mask))?;
            sum = Some(match sum {
                Some(sum) => machine.add(&sum, &part)?,
                None => part,
            });
        }
        let sum = sum.map_or_else(|| machine.trivial(&Plain::from(0.0), machine.chain().floor()), Ok)?;
        let offset =
            (0..self.period).map(|s| if s < self.vocab { self.offset } else { 0.0 }).collect::<Vec<_>>();
        machine.add_plain(&machine.settle(&sum)?, &Plain::real(offset))
    }

    /// `weights`, refreshed if fewer than `need` levels are left.
    fn ready<M: Machine>(&self, machine: &M, weights: M::Vector, need: usize) -> slots::Result<M::Vector> {
        if machine.level(&weights) >= machine.chain().floor() + need {
            return Ok(weights);
        }
        machine.refresh(&weights, self.refresh_kind(), None)
    }
}

impl Argmax {
    /// Largest weight of a decrypted result and its token.
    pub(crate) fn read(&self, slots: &[f64]) -> (u32, f64) {
        let weights = slots.iter().take(self.vocab).copied().enumerate();
        let best =
            weights.fold((0, f64::NEG_INFINITY), |best, (i, w)| if w > best.1 { (i, w) } else { best });
        (best.0 as u32, best.1)
    }
}

/// The cheapest `P(s)` on `[lo, 1]` with `1 - 2 limit <= s P(s) <= 1`.
///
/// Low degrees are written in the Chebyshev basis of `[-1, 1]`, so that no level goes into a map.
/// Their coefficients grow like `(3 + sqrt 8)^degree`, which at degree 15 would drown the value in
/// noise: there a level is spent on the map.
fn reciprocal(lo: f64, limit: f64) -> Option<Polynomial> {
    let domain = Interval::new(lo, 1.0).ok()?;
    for degree in [3, 7, 15] {
        // Interpolation of 1/s at Chebyshev points is its minimax fit in relative error, 1/T(degree
        // + 1) beyond the interval.
        let kappa = 1.0 / lo;
        let error = 1.0 / ((degree + 1) as f64 * ((kappa + 1.0) / (kappa - 1.0)).acosh()).cosh();
        if error <= limit {
            let fit =
                chebyshev::interpolate(|s| 1.0 / s, domain, degree).ok()?.scaled(1.0 / (1.0 + error)).ok()?;
            return if degree > 7 {
                Some(fit)
            } else {
                chebyshev::interpolate(|s| fit.eval(s), Interval::UNIT, degree).ok()
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlm_circuits::slots::{Chain, Clear, Noise, RefreshProfile};
    use cipherlm_ckks::Params;
    use cipherlm_ckks::noise::NoiseModel;

    fn machine(slots: usize, period: usize) -> Clear {
        let kind = RefreshKind::SparseReal(period);
        let profile = RefreshProfile { kind, input_level: 0, output_level: 13, range: 1.0, error: 1e-6 };
        Clear::new(Chain::uniform(slots, 13, 40, 60).unwrap()).with_refresh(profile)
    }

    /// Logits without structure between -20 and 10, the winner `gap` above the second.
    fn row(seed: u64, vocab: usize, gap: f64) -> (Vec<f64>, usize) {
        let scramble = |x: u64| (x ^ (x >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut row: Vec<f64> = (0..vocab as u64)
            .map(|i| scramble(scramble(scramble(i + 1000 * seed + 1))) >> 40)
            .map(|bits| bits as f64 / f64::from(1 << 24) * 30.0 - 20.0)
            .collect();
        let winner = (seed as usize * 7) % vocab;
        let second = row.iter().copied().enumerate().filter(|(i, _)| *i != winner).map(|(_, x)| x);
        row[winner] = second.fold(f64::NEG_INFINITY, f64::max) + gap;
        (row, winner)
    }

    /// A row as a plan leaves it: blocks of `features` in units of `unit`, the last one filled up.
    fn blocks(row: &[f64], features: usize, unit: f64) -> impl Iterator<Item = Vec<f64>> {
        row.chunks(features).map(move |block| {
            let mut slots: Vec<f64> = block.iter().map(|x| x / unit).collect();
            slots.resize(features, 0.3);
            slots
        })
    }

    fn result(argmax: &Argmax, machine: &Clear, row: &[f64], features: usize, unit: f64) -> Vec<f64> {
        let blocks: Vec<_> =
            blocks(row, features, unit).map(|slots| machine.input(slots, 1).unwrap()).collect();
        argmax.run(machine, &blocks).unwrap().real()
    }

    /// The winner's weight, repeated every 64 slots, is 1 and all others are 0, to within `bound`.
    fn assert_one_hot(weights: impl Iterator<Item = f64>, winner: usize, bound: f64) {
        for (slot, weight) in weights.enumerate() {
            let expected = f64::from(u8::from(slot % 64 == winner));
            assert!((weight - expected).abs() < bound, "slot {slot}: {weight}, winner {winner}");
        }
    }

    #[test]
    fn the_winner_is_one_and_the_rest_are_zero() {
        let (vocab, features, unit) = (60, 16, 40.0);
        let rows: Vec<Vec<f64>> = (0..200).map(|s| row(s, vocab, 0.05 * (s % 20 + 1) as f64).0).collect();
        let argmax = Argmax::calibrate(&rows, unit, features).unwrap();
        let machine = machine(256, 64);
        for seed in 200..230 {
            let (row, winner) = row(seed, vocab, 0.2);
            let slots = result(&argmax, &machine, &row, features, unit);
            assert_eq!(argmax.read(&slots).0, winner as u32);
            assert_one_hot(slots.into_iter(), winner, 1e-3);
        }
    }

    /// The errors of encryption at 40-bit scales and of refreshes with 23 bits, in a small ring.
    #[test]
    fn noise_does_not_choose() {
        let builder = Params::builder().degree(1 << 9).base(50.0).levels(40.0, 13).special(50, 4);
        let params = Params::insecure_for_tests(builder).unwrap();
        let (vocab, features, unit) = (60, 16, 40.0);
        let rows: Vec<Vec<f64>> = (0..200).map(|s| row(s, vocab, 0.05 * (s % 20 + 1) as f64).0).collect();
        let argmax = Argmax::calibrate(&rows, unit, features).unwrap();
        let kind = RefreshKind::SparseReal(64);
        let profile =
            RefreshProfile { kind, input_level: 0, output_level: 13, range: 1.0, error: 2f64.powf(-23.7) };
        for seed in 300..306 {
            let noise = Noise::new(NoiseModel::new(&params), seed).unwrap().with_refresh(profile);
            let (row, winner) = row(seed, vocab, 0.2);
            let blocks: Vec<_> =
                blocks(&row, features, unit).map(|slots| noise.input(slots, 1).unwrap()).collect();
            let result = argmax.run(&noise, &blocks).unwrap();
            assert_one_hot(result.noisy().iter().map(|weight| weight.re), winner, 1e-2);
        }
    }

    #[test]
    fn a_tie_is_shared() {
        let (vocab, unit) = (60, 40.0);
        let rows: Vec<Vec<f64>> = (0..200).map(|s| row(s, vocab, 0.05 * (s % 20) as f64).0).collect();
        let argmax = Argmax::calibrate(&rows, unit, 16).unwrap();
        let (mut tied, winner) = row(3, vocab, 1.0);
        tied[winner + 1] = tied[winner];
        let slots = result(&argmax, &machine(256, 64), &tied, 16, unit);
        assert!((slots[winner] - slots[winner + 1]).abs() < 1e-9);
        let others = (0..vocab).filter(|&i| i != winner && i != winner + 1).map(|i| slots[i].abs());
        assert!(others.fold(0.0, f64::max) < 1e-3);
    }

    #[test]
    fn rows_that_teach_nothing_are_refused() {
        assert!(Argmax::calibrate(&[], 1.0, 16).is_err());
        assert!(Argmax::calibrate(&[vec![f64::NAN, 1.0]], 1.0, 16).is_err());
    }
}
