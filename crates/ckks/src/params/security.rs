//! The security table: how much modulus a degree and a secret distribution can carry at 128 bits.
//!
//! Provenance, method and how to recompute it: `docs/parameters.md`.

use crate::Error;
use crate::ids::SecretDistribution;

/// The largest moduli, in bits, for one degree and distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityLimit {
    /// Estimated security is 128 bits here; more is refused.
    pub hard: u32,
    /// Estimated security is 132 bits here; more gives a warning.
    pub soft: u32,
}

/// What the check of one modulus found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecurityReport {
    /// log2 of the modulus checked.
    pub log_qp: f64,
    /// The limits it was checked against; `None` for insecure test parameters without a table row.
    pub limit: Option<SecurityLimit>,
    /// Estimated classical security in bits: inverse proportion through the 128-bit row, within a
    /// bit near it and within a few up to [`SecurityReport::MOST_BITS`], which stands for that and
    /// more.
    pub bits: f64,
}

impl SecurityReport {
    /// The largest figure reported: far from 128 bits the proportion is no estimate any more.
    pub const MOST_BITS: f64 = 192.0;

    /// True if the modulus is accepted but leaves less than the recommended margin (132 bits).
    pub fn is_warning(&self) -> bool {
        self.limit.is_some_and(|l| self.log_qp > f64::from(l.soft))
    }
}

/// Dense ternary, 2^12..2^17: modulus at 128.0 and at 132 bits.
const DENSE: [(u32, SecurityLimit); 6] = [
    (12, SecurityLimit { hard: 106, soft: 102 }),
    (13, SecurityLimit { hard: 214, soft: 208 }),
    (14, SecurityLimit { hard: 430, soft: 418 }),
    (15, SecurityLimit { hard: 868, soft: 842 }),
    (16, SecurityLimit { hard: 1746, soft: 1697 }),
    (17, SecurityLimit { hard: 3522, soft: 3416 }),
];

/// Sparse ternary (weight at least the first entry), 2^13..2^17, under the rotated hybrid attack.
/// Row 30 is extrapolated from row 32 by the square of the weight ratio, rounded down.
const SPARSE: [(usize, [u32; 5]); 5] = [
    (192, [186, 368, 736, 1475, 2979]),
    (128, [167, 332, 666, 1345, 2721]),
    (64, [112, 227, 464, 959, 1975]),
    (32, [37, 76, 162, 345, 740]),
    (30, [32, 66, 142, 303, 650]),
];

/// The table's row for `degree` and `secret`, or `None` if there is no estimate.
pub fn security_limit(degree: usize, secret: SecretDistribution) -> Option<SecurityLimit> {
    if !degree.is_power_of_two() {
        return None;
    }
    let log_n = degree.trailing_zeros();
    match secret {
        // A sample under it is `N / degree` samples of the subring, one for each power of X below
        // N / degree; the estimates do not depend on the number of samples.
        SecretDistribution::Subring { degree: inner } if inner <= degree => {
            security_limit(inner, SecretDistribution::Ternary)
        }
        SecretDistribution::Subring { .. } => None,
        SecretDistribution::Ternary => DENSE.iter().find(|(n, _)| *n == log_n).map(|(_, limit)| *limit),
        SecretDistribution::Sparse { weight } => {
            // Between two rows the smaller weight decides, so the answer errs on the safe side.
            let column = usize::try_from(log_n.checked_sub(13)?).ok()?;
            let (_, row) = SPARSE.iter().find(|(h, _)| weight >= *h)?;
            let hard = *row.get(column)?;
            Some(SecurityLimit { hard, soft: hard * 97 / 100 })
        }
    }
}

/// Refuses a modulus of `log_qp` bits below 128-bit security; `what` names the object in the error.
pub fn check_security(
    what: &'static str,
    degree: usize,
    secret: SecretDistribution,
    log_qp: f64,
) -> Result<SecurityReport, Error> {
    let limit = security_limit(degree, secret).ok_or(Error::NoSecurityEstimate { degree, secret })?;
    // Primes near a power of two may add up to a little more than their nominal bits; 0.01 bits of
    // modulus are 0.001 bits of security.
    if log_qp > f64::from(limit.hard) + 0.01 {
        return Err(Error::Insecure { what, degree, secret, log_qp, limit: limit.hard });
    }
    Ok(SecurityReport { log_qp, limit: Some(limit), bits: estimate_bits(limit, log_qp) })
}

/// Security in bits by inverse proportion to the modulus, through the 128-bit point of the row.
pub(crate) fn estimate_bits(limit: SecurityLimit, log_qp: f64) -> f64 {
    (128.0 * f64::from(limit.hard) / log_qp).min(SecurityReport::MOST_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/parameters.md, from runs of the estimators named there, and independent
    /// figures for its dense rows: table 5.2 of "Security Guidelines for Implementing Homomorphic
    /// Encryption" (eprint 2024/463), ternary secrets, 128 bits.
    #[test]
    fn every_row_is_the_measured_one_and_dense_rows_agree_with_the_guidelines() {
        let limit = |log_n: u32, secret| security_limit(1 << log_n, secret).map(|l| (l.hard, l.soft));
        let dense = [
            (12, 106, 102),
            (13, 214, 208),
            (14, 430, 418),
            (15, 868, 842),
            (16, 1746, 1697),
            (17, 3522, 3416),
        ];
        let guidelines = [106, 214, 430, 868, 1747, 3523];
        for ((log_n, hard, soft), published) in dense.into_iter().zip(guidelines) {
            assert_eq!(limit(log_n, SecretDistribution::Ternary), Some((hard, soft)), "2^{log_n}");
            assert!(hard <= published && published - hard <= 1, "2^{log_n}: {hard} for {published}");
        }
        for (weight, row) in [
            (192, [186, 368, 736, 1475, 2979]),
            (128, [167, 332, 666, 1345, 2721]),
            (64, [112, 227, 464, 959, 1975]),
            (32, [37, 76, 162, 345, 740]),
            (30, [32, 66, 142, 303, 650]),
        ] {
            assert_eq!(limit(12, SecretDistribution::Sparse { weight }), None);
            for (log_n, hard) in (13..).zip(row) {
                let found = limit(log_n, SecretDistribution::Sparse { weight }).unwrap();
                assert_eq!(found.0, hard, "2^{log_n}, weight {weight}");
                assert!(found.1 < hard && f64::from(found.1) >= 0.94 * f64::from(hard));
            }
        }
        assert_eq!(limit(11, SecretDistribution::Ternary), None);
        assert_eq!(limit(18, SecretDistribution::Ternary), None);
        assert_eq!(security_limit(3 << 12, SecretDistribution::Ternary), None);
    }

    /// What the tables must obey whatever their figures are.
    #[test]
    fn limits_grow_with_degree_and_weight_and_a_dense_secret_allows_most() {
        let limit = |log_n: u32, secret| f64::from(security_limit(1 << log_n, secret).unwrap().hard);
        for log_n in 13..=17 {
            let weights =
                [30, 32, 64, 128, 192].map(|weight| limit(log_n, SecretDistribution::Sparse { weight }));
            assert!(
                weights.windows(2).all(|w| w[0] < w[1])
                    && weights[4] < limit(log_n, SecretDistribution::Ternary)
            );
            // Twice the degree carries a little more than twice the modulus.
            for secret in [SecretDistribution::Ternary, SecretDistribution::Sparse { weight: 64 }] {
                let growth =
                    log_n < 17 && !(2.0..2.2).contains(&(limit(log_n + 1, secret) / limit(log_n, secret)));
                assert!(!growth, "2^{log_n}, {secret}");
            }
        }
    }

    #[test]
    fn a_modulus_at_the_limit_is_accepted_and_a_bit_more_is_refused_by_name() {
        for (degree, secret, hard) in [
            (1 << 13, SecretDistribution::Ternary, 214.0),
            (1 << 16, SecretDistribution::Ternary, 1746.0),
            (1 << 15, SecretDistribution::Sparse { weight: 30 }, 142.0),
            (1 << 16, SecretDistribution::Sparse { weight: 32 }, 345.0),
        ] {
            let report = check_security("test", degree, secret, hard).unwrap();
            assert!(report.is_warning() && (report.bits - 128.0).abs() < 1e-9);
            let refused = check_security("test", degree, secret, hard + 1.0);
            let Err(Error::Insecure { degree: d, limit, log_qp, .. }) = refused else {
                panic!("{refused:?}")
            };
            assert_eq!((d, f64::from(limit), log_qp), (degree, hard, hard + 1.0));
        }
        // Far below the limit the report says "192 and more", not 637.
        let small = check_security("test", 1 << 13, SecretDistribution::Ternary, 43.0).unwrap();
        assert_eq!(small.bits, SecurityReport::MOST_BITS);
        assert!(!small.is_warning());
    }

    #[test]
    fn weights_between_rows_use_the_smaller_row_and_tiny_weights_have_none() {
        let at = |weight| security_limit(1 << 16, SecretDistribution::Sparse { weight });
        assert_eq!(at(48), at(32));
        assert_eq!(at(191), at(128));
        assert_eq!(at(4096), at(192));
        assert_eq!(at(29), None);
    }

    #[test]
    fn a_secret_of_a_subring_has_the_row_of_the_subring() {
        let of = |inner| security_limit(1 << 16, SecretDistribution::Subring { degree: inner });
        assert_eq!(of(1 << 12), security_limit(1 << 12, SecretDistribution::Ternary));
        assert_eq!(of(1 << 15), security_limit(1 << 15, SecretDistribution::Ternary));
        assert!(of(1 << 11).is_none() && of(3 << 11).is_none() && of(1 << 17).is_none() && of(0).is_none());
    }

    #[test]
    fn soft_rows_are_132_bits() {
        for (log_n, limit) in DENSE {
            let bits = estimate_bits(limit, f64::from(limit.soft));
            assert!((131.0..133.5).contains(&bits), "2^{log_n}: {bits}");
        }
    }
}
