//! The profiles at N = 2^16: from a scale, the primes of the modular reduction and the weight of
//! the ephemeral secret to a whole chain.

use super::profile::{DftLevel, Profile, dft};

/// What tells a member of the family from the others. All else follows: see [`Design::profile`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Design {
    /// What it gives: the number of user levels.
    name: &'static str,
    /// An older or shorter name of the same profile.
    alias: &'static str,
    /// log2 of the user's scale.
    scale: f64,
    /// log2 of the primes of the modular reduction.
    reduction: f64,
    /// Weight of the ephemeral secret, with the squarings after the polynomial that it takes.
    ephemeral: (usize, u32),
    /// User levels: as many as the security gate leaves.
    levels: usize,
    /// As [`Profile::error_bits`], from encrypted runs.
    error_bits: f64,
}

/// Weights of the ephemeral secret, each with its squarings.
const HEAVY: (usize, u32) = (48, 4);
const LIGHT: (usize, u32) = (30, 3);

/// Fewer levels and more bits first.
const FAMILY: [Design; 6] = [
    design("n16-13", "n16", 40.0, 49.95, HEAVY, 13, 23.2),
    design("n16-14", "n16-fast", 40.0, 49.95, LIGHT, 14, 23.7),
    design("n16-15", "", 37.0, 47.5, HEAVY, 15, 20.8),
    design("n16-16", "", 36.0, 47.0, HEAVY, 16, 20.2),
    design("n16-17", "", 35.0, 46.0, HEAVY, 17, 19.2),
    design("n16-18", "", 35.0, 46.0, LIGHT, 18, 19.5),
];

const fn design(
    name: &'static str,
    alias: &'static str,
    scale: f64,
    reduction: f64,
    ephemeral: (usize, u32),
    levels: usize,
    error_bits: f64,
) -> Design {
    Design { name, alias, scale, reduction, ephemeral, levels, error_bits }
}

impl Design {
    /// The whole chain.
    ///
    /// The bottom holds the scale with 6 bits more, of which the message ratio takes its own. The
    /// second level of the reduction is 5 bits wider than the others: it carries the first powers,
    /// whose error is amplified most. Its input has one bit and a quarter more than its primes.
    /// Special primes are as large as those of the reduction, so that seven of them take seven
    /// primes of the chain at once.
    fn profile(&self) -> Profile {
        let (ephemeral_weight, doublings) = self.ephemeral;
        let polynomial_depth = 5;
        let mut eval_mod = vec![self.reduction; (polynomial_depth + doublings + 1) as usize];
        eval_mod[1] = hundredths(self.reduction + 4.95);
        Profile {
            name: self.name,
            log_degree: 16,
            bottom: self.scale + 6.0,
            slots_to_coeffs: down(),
            scale: self.scale,
            user_levels: self.levels,
            eval_mod,
            coeffs_to_slots: up(),
            special: 7,
            special_bits: self.reduction.ceil() as u32,
            ratio: 7.75,
            input_scale: hundredths(self.reduction + 1.25),
            headroom: 2.5,
            ephemeral_weight,
            polynomial_depth,
            doublings,
            error_bits: self.error_bits,
            insecure: false,
        }
    }
}

/// The number that a decimal fraction of two places means, whatever a sum made of it: parameters
/// are known by the last bit of their sizes.
fn hundredths(bits: f64) -> f64 {
    (bits * 100.0).round() / 100.0
}

fn down() -> Vec<DftLevel> {
    vec![dft(31.0, 5), dft(32.0, 5), dft(34.0, 5)]
}

fn up() -> Vec<DftLevel> {
    vec![dft(44.5, 4), dft(45.0, 4), dft(44.0, 4), dft(41.5, 3)]
}

impl Profile {
    /// The profiles at N = 2^16, those with fewer levels and more bits first. Each is validated and
    /// below the security limit with 132 bits.
    pub fn family() -> Vec<Self> {
        FAMILY.iter().map(Design::profile).collect()
    }

    /// The profile of a name: `n16-13` to `n16-18` by their user levels, `n16` and `n16-fast` for
    /// the first two, and `n15`.
    pub fn named(name: &str) -> Option<Self> {
        let found =
            FAMILY.iter().find(|design| design.name == name || design.alias == name && !name.is_empty());
        found.map(Design::profile).or_else(|| (name == "n15").then(Self::n15))
    }

    /// The default: N = 2^16, an ephemeral secret of weight 48, 13 levels of 40 bits.
    pub fn n16() -> Self {
        FAMILY[0].profile()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlm_ckks::SecretDistribution;
    use cipherlm_ckks::params::security_limit;

    #[test]
    fn every_member_has_as_many_levels_as_the_gate_leaves() {
        let limit = f64::from(security_limit(1 << 16, SecretDistribution::Ternary).unwrap().soft);
        for profile in Profile::family() {
            let log_qp = profile.log_qp();
            assert!(log_qp <= limit && log_qp + profile.scale > limit, "{}: {log_qp}", profile.name);
            assert_eq!(profile.name, format!("n16-{}", profile.user_levels));
            assert_eq!(profile.validate(), Ok(()), "{}", profile.name);
            assert_eq!(Profile::named(profile.name), Some(profile));
        }
        assert_eq!(Profile::named("n16"), Some(Profile::n16()));
        assert_eq!(Profile::named("n16-fast"), Profile::named("n16-14"));
        assert!(Profile::named("").is_none() && Profile::named("n16-12").is_none());
        assert!(Profile::family().windows(2).all(|pair| pair[0].user_levels < pair[1].user_levels));
    }
}
