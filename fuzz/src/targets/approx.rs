//! Certified schemes and polynomials as JSON.

use cipherlm_approx::{Function, Interval, Polynomial, Scheme};

use super::{Target, Verdict, json_ceiling};
use crate::engine::Probe;
use crate::mutate::json;
use crate::rng::Rng;

/// A polynomial circuit with its certificate.
pub(crate) struct Schemes;

impl Target for Schemes {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let unit = Interval::new(0.0, 1.0)?;
        let list = [
            Scheme::minimax(Function::Exp, unit, 4)?,
            Scheme::goldschmidt(0.1, unit, 3)?,
            Scheme::sign(1.0, 0.2, &[3, 3])?,
        ];
        list.iter().map(|scheme| Ok(serde_json::to_vec(scheme)?)).collect()
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        json(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let scheme: Scheme = match probe.parse(|| serde_json::from_slice(input)) {
            Ok(scheme) => scheme,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let hull = scheme.hull();
        let _ = (
            scheme.depth(),
            scheme.depth_mapped(),
            scheme.products(),
            scheme.max_error(),
            scheme.name().len(),
        );
        let _ = (scheme.eval_f64(hull.mid()), scheme.violations(&[hull.lo(), hull.hi(), 0.0]));
        let again = serde_json::to_vec(&scheme).and_then(|text| serde_json::from_slice::<Scheme>(&text));
        match again {
            Ok(again) if again == scheme => Verdict::Accepted,
            Ok(_) => Verdict::Wrong("saved and loaded, it is another scheme".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        json_ceiling(length)
    }
}

/// Coefficients in a basis on an interval.
pub(crate) struct Polynomials;

impl Target for Polynomials {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let domain = Interval::new(-2.0, 3.0)?;
        let list = [
            Polynomial::monomial(domain, vec![1.0, -2.0, 0.5])?,
            Polynomial::chebyshev(domain, vec![0.0, 1.0, 0.0, 1e-9])?,
        ];
        list.iter().map(|polynomial| Ok(serde_json::to_vec(polynomial)?)).collect()
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        json(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let polynomial: Polynomial = match probe.parse(|| serde_json::from_slice(input)) {
            Ok(polynomial) => polynomial,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let _ = (polynomial.eval(0.5), polynomial.parity(), polynomial.degree());
        let again =
            serde_json::to_vec(&polynomial).and_then(|text| serde_json::from_slice::<Polynomial>(&text));
        match again {
            Ok(again) if again == polynomial => Verdict::Accepted,
            Ok(_) => Verdict::Wrong("saved and loaded, it is another polynomial".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        json_ceiling(length)
    }
}
