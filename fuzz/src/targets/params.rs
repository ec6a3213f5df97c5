//! The builder of parameters, with any numbers.

use cipherlm_ckks::{Params, ParamsBuilder};

use super::{Target, Verdict};
use crate::engine::Probe;

/// Degree, base, size and number of special primes or digits, then groups of levels.
pub(crate) struct Builder;

/// Tables of the largest ring tried, with its prime search.
const CEILING: usize = 64 << 20;

fn build(input: &[u8]) -> Option<ParamsBuilder> {
    let (words, _) = input.as_chunks::<8>();
    let word = |at: usize| words.get(at).map(|w| u64::from_le_bytes(*w));
    let real = |at: usize| word(at).map(f64::from_bits);
    let degree = word(0)?;
    // A degree that would be accepted is made small: large rings are slow, not different.
    let degree = if degree.is_power_of_two() && degree >= 16 { 16 << (degree.ilog2() % 4) } else { degree };
    let mut builder = Params::builder().degree(usize::try_from(degree).ok()?).base(real(1)?);
    let count = usize::try_from(word(3)?).ok()?;
    builder = if word(2)? == 0 { builder.digits(count) } else { builder.special(word(2)? as u32, count) };
    for group in 0..words.len().saturating_sub(4) / 2 {
        builder = builder.levels(real(4 + 2 * group)?, usize::try_from(word(5 + 2 * group)?).ok()?);
    }
    Some(builder)
}

fn seed(degree: u64, base: f64, special: (u64, u64), groups: &[(f64, u64)]) -> Vec<u8> {
    let mut words = vec![degree, base.to_bits(), special.0, special.1];
    words.extend(groups.iter().flat_map(|(bits, count)| [bits.to_bits(), *count]));
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

impl Target for Builder {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(vec![
            seed(16, 50.0, (0, 3), &[(40.0, 2)]),
            seed(64, 43.0, (44, 1), &[(40.0, 3)]),
            seed(32, 60.0, (50, 2), &[(90.0, 1), (45.5, 2)]),
        ])
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let Some(builder) = build(input) else { return Verdict::Refused("too few numbers".into()) };
        let secure = builder.clone().build();
        let params = match probe.parse(|| Params::insecure_for_tests(builder.clone())) {
            Ok(params) => params,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        if secure.is_ok_and(|secure| secure.security().bits < 128.0 || secure.is_insecure()) {
            return Verdict::Wrong("a set below 128 bits was built as a secure one".into());
        }
        let again = Params::insecure_for_tests(builder).map(|again| again.hash());
        let rising = (1..=params.max_level()).all(|level| params.log_q(level) > params.log_q(level - 1));
        match again {
            Ok(hash) if hash != params.hash() => Verdict::Wrong("the same numbers gave two hashes".into()),
            Err(error) => Verdict::Wrong(format!("built once, then: {error}")),
            Ok(_) if !rising || !params.log_qp().is_finite() => Verdict::Wrong("levels do not rise".into()),
            Ok(_) => Verdict::Accepted,
        }
    }

    fn ceiling(&self, _length: usize) -> usize {
        CEILING
    }
}
