//! From the variances of slot errors to what a run will show.

use std::f64::consts::PI;

/// What is known of the error of one slot before the secret is: its variance on average over
/// secrets, and how much the variance differs from secret to secret.
///
/// Rounding errors are multiplied by the secret's own value `s` in the slot, so that the variance
/// given the secret is proportional to `|s|^2`. A dense ternary secret has complex Gaussian slots,
/// to a good approximation, and `|s|^2` an exponential distribution: some slots of every key are
/// several times worse than the average one, in every operation. `mean` alone would miss them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SlotVariance {
    /// Mean of the variance over secrets.
    pub mean: f64,
    /// Standard deviation of the variance over secrets.
    pub spread: f64,
}

impl SlotVariance {
    /// An error that has nothing to do with the secret.
    pub fn plain(variance: f64) -> Self {
        Self { mean: variance, spread: 0.0 }
    }

    /// An error that is multiplied by one slot of something with Gaussian slots.
    pub fn multiplied(variance: f64) -> Self {
        Self { mean: variance, spread: variance }
    }

    /// The error of a multiple: `factor` is the square of the multiplier.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { mean: self.mean * factor, spread: self.spread * factor }
    }

    /// A sum of errors in one slot, where the same value of the secret is behind both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { mean: self.mean + other.mean, spread: self.spread + other.spread }
    }

    /// A sum of errors from different slots or with different keys behind them.
    #[must_use]
    pub fn plus_apart(self, other: Self) -> Self {
        Self {
            mean: self.mean + other.mean,
            spread: (self.spread * self.spread + other.spread * other.spread).sqrt(),
        }
    }

    /// Twice the real part: as large as a sum of two, but in one direction, which makes large
    /// values more likely.
    #[must_use]
    pub fn twice_real(self) -> Self {
        Self { mean: 2.0 * self.mean, spread: (2.0 * self.mean.powi(2) + 6.0 * self.spread.powi(2)).sqrt() }
    }

    /// Variance of the squared error.
    fn fourth(self) -> f64 {
        self.mean.powi(2) + 2.0 * self.spread.powi(2)
    }

    /// Probability that the error is larger than `size`.
    ///
    /// The variance is taken as `mean - spread + spread E` with `E` exponential, which has the
    /// right mean and deviation: the error is a complex Gaussian given `E`, and the integral over
    /// `E` is taken at its saddle point. Without spread this is `exp(-t^2)` for `t` standard
    /// deviations; a pure product of two Gaussians gives the first two terms of `2 t K_1(2 t)`.
    fn tail(self, size: f64) -> f64 {
        if self.mean <= 0.0 {
            return 0.0;
        }
        if self.spread < 1e-3 * self.mean {
            return (-size * size / self.mean).exp();
        }
        let (base, t) = (self.mean - self.spread, size / self.spread.sqrt());
        let width = (PI * t).sqrt() * (1.0 + 3.0 / (16.0 * t));
        let saddle = size * self.spread.sqrt();
        let probability = if saddle > base {
            width * (base / self.spread - 2.0 * t).exp()
        } else {
            // The saddle point is below the smallest variance: the integrand falls from there on.
            width.min(1.0 / (1.0 - (saddle / base).powi(2))) * (-size * size / base).exp()
        };
        probability.min(1.0)
    }
}

/// What is predicted about the error of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Root mean square of the slot errors.
    pub rms: f64,
    /// Largest slot error.
    pub worst: f64,
}

/// How likely a run may show more than is predicted.
const MISS: f64 = 1e-5;
/// Standard deviations of a run's mean squared error that are added to it. A Gaussian passes 4.3 as
/// rarely as that; errors of slots that were added up by rotations are not independent, and the
/// sampled run has its own deviation.
const DEVIATIONS: f64 = 8.0;
/// Slots of alike variance that are judged together.
const GROUP: usize = 64;

impl Prediction {
    /// The prediction from what is known of each slot and the squared errors of one sampled run.
    ///
    /// The variances take the errors of operands as independent. The sampled run knows how they
    /// really add up (those of a number and its powers, say), but is a single draw: it corrects the
    /// variances, of all slots together and of groups of slots with alike variance, where it is
    /// above them by more than chance.
    pub fn of(variance: &[SlotVariance], sample: &[f64]) -> Self {
        let mut slots: Vec<(SlotVariance, f64)> =
            variance.iter().copied().zip(sample.iter().copied()).collect();
        slots.sort_by(|(a, _), (b, _)| a.mean.total_cmp(&b.mean));
        let all = Excess::of(&slots);
        let group = GROUP.max(slots.len() / 16);
        let excess = slots.chunks(group).flat_map(|group| {
            let factor = all.factor.max(Excess::of(group).factor);
            group.iter().map(move |(variance, _)| variance.times(factor))
        });
        // Errors that add up coherently have fewer independent draws behind them than there are
        // slots.
        let deviations = if all.factor > 1.0 { 2.0 * DEVIATIONS } else { DEVIATIONS };
        Self {
            rms: (all.mean * (1.0 + deviations * all.chance)).sqrt(),
            worst: quantile(&excess.collect::<Vec<_>>()),
        }
    }

    /// Bits below one of the largest slot error.
    pub fn bits(&self) -> f64 {
        -self.worst.log2()
    }
}

/// How a sampled run compares with the variances of some slots.
struct Excess {
    /// Mean squared error, the larger of predicted and sampled.
    mean: f64,
    /// Relative standard deviation of a run's mean squared error.
    chance: f64,
    /// What the variances must be multiplied by; one unless the sample is above them by more than
    /// chance.
    factor: f64,
}

impl Excess {
    fn of(slots: &[(SlotVariance, f64)]) -> Self {
        let count = slots.len().max(1) as f64;
        let predicted = slots.iter().map(|(variance, _)| variance.mean).sum::<f64>() / count;
        let sampled = slots.iter().map(|(_, sample)| sample).sum::<f64>() / count;
        if predicted <= 0.0 {
            return Self { mean: sampled, chance: 0.0, factor: 1.0 };
        }
        let chance =
            slots.iter().map(|(variance, _)| variance.fourth()).sum::<f64>().sqrt() / (count * predicted);
        let ratio = sampled / predicted;
        let factor = if ratio > 1.0 + 3.0 * chance { ratio } else { 1.0 };
        Self { mean: predicted.max(sampled), chance, factor }
    }
}

/// The size that some slot passes with probability [`MISS`].
fn quantile(variance: &[SlotVariance]) -> f64 {
    let largest = variance.iter().map(|v| v.mean).fold(0.0, f64::max).sqrt();
    if largest == 0.0 {
        return 0.0;
    }
    let passed = |size: f64| -> f64 { variance.iter().map(|v| v.tail(size)).sum() };
    let (mut low, mut high) = (largest, 64.0 * largest);
    for _ in 0..16 {
        let middle = (low * high).sqrt();
        if passed(middle) > MISS { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_slot_is_judged_by_all_of_them() {
        let multiplied = SlotVariance::multiplied(1.0);
        let uniform = quantile(&[multiplied; 1024]);
        assert!((9.5..11.0).contains(&uniform), "{uniform}");
        let mut single = [SlotVariance::plain(1e-12); 1024];
        single[7] = multiplied;
        let one = quantile(&single);
        assert!(one < uniform && one > 5.0, "{one}");
        assert_eq!(quantile(&[SlotVariance::default(); 8]), 0.0);
        // exp(-t^2) = 1e-5 / 1024.
        let plain = quantile(&[SlotVariance::plain(1.0); 1024]);
        assert!((plain - 4.295).abs() < 0.01, "{plain}");
    }

    #[test]
    fn tails_are_those_of_products_of_gaussians() {
        // 2 t K_1(2 t), the exact tail of a product of two complex Gaussians of unit variance.
        for (t, exact) in [(2.0, 4.99340e-2), (4.0, 1.24295e-3), (8.0, 5.77145e-7)] {
            let tail = SlotVariance::multiplied(1.0).tail(t);
            assert!((tail / exact).log2().abs() < 0.02, "t = {t}: {tail}, {exact}");
        }
        // Both branches meet where the saddle point reaches the smallest variance, and more spread
        // means more tail.
        let mixed = SlotVariance { mean: 1.0, spread: 0.4 };
        let at = mixed.mean * 0.6 / 0.4f64.sqrt();
        assert!((mixed.tail(at * 0.999_999) / mixed.tail(at * 1.000_001) - 1.0).abs() < 1e-3);
        let tails = [0.0, 0.1, 0.3, 0.6, 1.0].map(|spread| SlotVariance { mean: 1.0, spread }.tail(6.0));
        assert!(tails.is_sorted(), "{tails:?}");
    }

    #[test]
    fn a_sample_corrects_variances_only_beyond_chance() {
        let variance = [SlotVariance::plain(1.0); 1024];
        let base = Prediction::of(&variance, &[1.0; 1024]);
        let near = Prediction::of(&variance, &[1.05; 1024]);
        assert_eq!(near.worst, base.worst);
        let above = Prediction::of(&variance, &[4.0; 1024]);
        assert!(
            (above.worst / base.worst - 2.0).abs() < 1e-3 && (2.0..2.5).contains(&(above.rms / base.rms))
        );
        // A sample far below proves nothing.
        assert_eq!(Prediction::of(&variance, &[0.0; 1024]), base);
    }
}
