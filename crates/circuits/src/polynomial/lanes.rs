//! Different polynomials in different slots, for the price of one.

use super::{Landing, SlotArith};
use crate::slots::{Combination, Machine, Plain, Scale, SlotError, SlotResult};
use cipherlm_approx::{Arith, Basis, Polynomial, Sum};
use num_complex::Complex64;

/// A polynomial whose coefficients differ from slot to slot: per attention head, per channel, per
/// row.
///
/// The coefficients become plaintexts of the pattern's period. Powers of the argument are shared,
/// so the cost is that of one dense polynomial of the largest degree.
#[derive(Clone, Debug)]
pub struct LanePolynomial {
    /// Chebyshev coefficients: for each degree, one value per slot of the pattern.
    coefficients: Vec<Vec<f64>>,
    /// The map onto [-1, 1] in each slot of the pattern, `None` if it is the identity everywhere.
    unit_map: Option<(Plain, Plain)>,
}

impl LanePolynomial {
    /// Slot `i` evaluates `polynomials[pattern[i mod pattern.len()]]`, each on its own interval.
    ///
    /// # Errors
    /// [`SlotError::Polynomial`] if there is no polynomial, a polynomial cannot be written in
    /// Chebyshev polynomials, or the pattern names one that is not there; [`SlotError::Shape`] if
    /// the pattern's length is not a power of two.
    pub fn new(polynomials: &[Polynomial], pattern: &[usize]) -> SlotResult<Self> {
        if !pattern.len().is_power_of_two() {
            let need = pattern.len().next_power_of_two();
            return Err(SlotError::Shape { what: "length of a slot pattern", have: pattern.len(), need });
        }
        let chebyshev: Vec<Polynomial> = polynomials
            .iter()
            .map(|p| {
                p.to_basis(Basis::Chebyshev)
                    .map_err(|error| SlotError::Polynomial { reason: error.to_string() })
            })
            .collect::<SlotResult<_>>()?;
        let lanes: Vec<&Polynomial> = pattern
            .iter()
            .map(|&lane| chebyshev.get(lane))
            .collect::<Option<_>>()
            .ok_or(SlotError::Polynomial {
                reason: format!("the slot pattern names a polynomial beyond the {} given", polynomials.len()),
            })?;
        let degree = lanes.iter().map(|p| p.degree()).max().unwrap_or(0);
        let row = |k: usize| lanes.iter().map(|p| p.coeffs().get(k).copied().unwrap_or(0.0)).collect();
        let maps: Vec<(f64, f64)> = lanes.iter().map(|p| p.interval().unit_map()).collect();
        let unit_map = maps.iter().any(|&map| map != (1.0, 0.0)).then(|| {
            let (factors, shifts): (Vec<f64>, Vec<f64>) = maps.into_iter().unzip();
            (Plain::real(factors), Plain::real(shifts))
        });
        Ok(Self { coefficients: (0..=degree).map(row).collect(), unit_map })
    }

    /// Largest degree.
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Levels that an evaluation takes.
    pub fn depth(&self) -> usize {
        self.depth_mapped() + usize::from(self.unit_map.is_some())
    }

    /// Evaluates at `x`: canonical, [`LanePolynomial::depth`] levels down.
    ///
    /// # Errors
    /// [`SlotError::LevelExhausted`] if `x` has too few levels, else those of the machine.
    pub fn evaluate<M: Machine>(&self, machine: &M, x: &M::Vector) -> SlotResult<M::Vector> {
        let (have, need) = (machine.settled_level(x), self.depth());
        if have < need {
            return Err(SlotError::LevelExhausted { operation: "polynomial", have, need });
        }
        let x = machine.settle(x)?;
        let u = match &self.unit_map {
            Some((factor, shift)) => machine.add_plain(&machine.mul_plain(&x, factor)?, shift)?,
            None => x,
        };
        let mut evaluation = Evaluation::new(machine, u, self.degree());
        let target = evaluation.arith.canonical(have - need);
        evaluation.node(self.coefficients.clone(), target)
    }

    fn depth_mapped(&self) -> usize {
        ceil_log2(self.degree() + 1).max(1)
    }
}

/// Powers of one argument while a polynomial is evaluated on it.
struct Evaluation<'m, M: Machine> {
    machine: &'m M,
    arith: SlotArith<'m, M>,
    powers: Vec<Option<M::Vector>>,
    baby_steps: usize,
    top: usize,
}

impl<'m, M: Machine> Evaluation<'m, M> {
    fn new(machine: &'m M, u: M::Vector, degree: usize) -> Self {
        let top = machine.level(&u);
        let mut powers = vec![None; degree.max(1) + 1];
        powers[1] = Some(u);
        // About sqrt(2 d) baby steps balance them against the giant steps.
        let baby_steps = 1 << ceil_log2(((2 * degree) as f64).sqrt() as usize + 1);
        Self { machine, arith: SlotArith::new(machine), powers, baby_steps, top }
    }

    /// T_n of the argument, ceil(log2 n) levels down.
    fn power(&mut self, n: usize) -> SlotResult<M::Vector> {
        if let Some(power) = &self.powers[n] {
            return Ok(power.clone());
        }
        let a = 1 << (ceil_log2(n) - 1);
        let b = n - a;
        let (left, right) = (self.power(a)?, self.power(b)?);
        let difference = if a == b { None } else { Some(self.power(a - b)?) };
        let mut sum = Sum { weight: 2.0, products: vec![(&left, &right)], ..Sum::default() };
        match &difference {
            Some(difference) => sum.linear.push((-1.0, difference)),
            None => sum.constant = -1.0,
        }
        let power = self.arith.combine(&sum, None)?;
        self.powers[n] = Some(power.clone());
        Ok(power)
    }

    /// The value of sum c_k T_k, landing on `target`.
    fn node(&mut self, mut c: Vec<Vec<f64>>, target: Landing) -> SlotResult<M::Vector> {
        let depth = self.top - target.level;
        let work_scale = target.scale * self.machine.chain().modulus(target.level + 1);
        let (mut factors, mut linear) = (Vec::new(), Vec::new());
        loop {
            trim(&mut c);
            let degree = c.len() - 1;
            let fits = (1..=degree).all(|k| is_zero(&c[k]) || ceil_log2(k) < depth);
            if degree < self.baby_steps && fits {
                break;
            }
            let m = 1 << degree.ilog2();
            let mut quotient = divide(&mut c, m);
            let power = self.power(m)?;
            if quotient.len() == 1 {
                linear.push((power, quotient.remove(0)));
            } else {
                let landing = self.arith.factor(&target, 1.0, &power)?;
                factors.push((self.node(quotient, landing)?, power));
            }
        }
        for (k, row) in c.iter().enumerate().skip(1) {
            if !is_zero(row) {
                linear.push((self.power(k)?, row.clone()));
            }
        }
        if factors.is_empty() && linear.is_empty() {
            linear.push((self.power(1)?, vec![0.0]));
        }
        self.sum(factors, linear, &c[0], target.level + 1, work_scale)
    }

    fn sum(
        &self,
        factors: Vec<(M::Vector, M::Vector)>,
        linear: Vec<(M::Vector, Vec<f64>)>,
        constant: &[f64],
        level: usize,
        scale: Scale,
    ) -> SlotResult<M::Vector> {
        let lower = |v: &M::Vector| self.machine.drop_to(v, level);
        let factors: Vec<_> =
            factors.iter().map(|(a, b)| Ok((lower(a)?, lower(b)?))).collect::<SlotResult<_>>()?;
        let linear: Vec<_> =
            linear.into_iter().map(|(v, c)| Ok((lower(&v)?, c))).collect::<SlotResult<_>>()?;
        self.machine.combine(&Combination {
            pairs: factors.iter().map(|(a, b)| (a, b)).collect(),
            weight: 1,
            terms: linear.iter().map(|(v, row)| (v, compact(row))).collect(),
            constant: (!is_zero(constant)).then(|| compact(constant)),
            scale,
        })
    }
}

/// A row of coefficients as a plaintext, a constant where all are equal.
fn compact(row: &[f64]) -> Plain {
    if row.windows(2).all(|pair| pair[0] == pair[1]) {
        return Plain::constant(Complex64::new(row.first().copied().unwrap_or(0.0), 0.0));
    }
    Plain::real(row)
}

/// Divides sum c_k T_k (degree < 2m) by T_m in every lane: leaves the remainder in c and returns
/// the quotient.
fn divide(c: &mut Vec<Vec<f64>>, m: usize) -> Vec<Vec<f64>> {
    // T_{m+j} = 2 T_m T_j - T_{m-j}.
    let mut quotient = c.split_off(m);
    for (j, row) in quotient.iter_mut().enumerate().skip(1) {
        for (remainder, value) in c[m - j].iter_mut().zip(row) {
            *remainder -= *value;
            *value *= 2.0;
        }
    }
    trim(&mut quotient);
    quotient
}

fn trim(c: &mut Vec<Vec<f64>>) {
    while c.len() > 1 && c.last().is_some_and(|row| is_zero(row)) {
        c.pop();
    }
}

fn is_zero(row: &[f64]) -> bool {
    row.iter().all(|&value| value == 0.0)
}

fn ceil_log2(n: usize) -> usize {
    n.next_power_of_two().ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Chain, Clear};
    use cipherlm_approx::Interval;

    fn polynomial(seed: usize, degree: usize, interval: Interval) -> Polynomial {
        let coefficients = (0..=degree).map(|k| ((k * 13 + seed * 7) % 11) as f64 / 11.0 - 0.4).collect();
        Polynomial::chebyshev(interval, coefficients).unwrap()
    }

    #[test]
    fn every_slot_gets_its_own_polynomial() {
        for degrees in [[1, 1, 1], [3, 2, 5], [15, 8, 12], [31, 30, 7]] {
            let polynomials = [
                polynomial(0, degrees[0], Interval::new(-1.0, 1.0).unwrap()),
                polynomial(1, degrees[1], Interval::new(0.0, 4.0).unwrap()),
                polynomial(2, degrees[2], Interval::new(-2.0, 6.0).unwrap()),
            ];
            let pattern = [0, 1, 2, 1];
            let lanes = LanePolynomial::new(&polynomials, &pattern).unwrap();
            let m = Clear::new(Chain::uniform(32, 7, 40, 50).unwrap());
            let values: Vec<f64> = (0..32).map(|i| f64::from(i) / 32.0).collect();
            let y = lanes.evaluate(&m, &m.input(values.clone(), 7).unwrap()).unwrap();
            assert_eq!((m.level(&y), m.is_canonical(&y)), (7 - lanes.depth(), true));
            for (slot, y) in y.real().into_iter().enumerate() {
                let expected = polynomials[pattern[slot % 4]].eval(values[slot]);
                assert!((y - expected).abs() < 1e-10, "slot {slot}: {y} {expected}");
            }
        }
    }

    #[test]
    fn depth_is_that_of_the_largest_degree() {
        for degree in 1..40 {
            let lanes = LanePolynomial::new(&[polynomial(1, degree, Interval::UNIT)], &[0]).unwrap();
            assert_eq!(lanes.depth(), (degree + 1).next_power_of_two().ilog2().max(1) as usize);
            let m = Clear::new(Chain::uniform(8, lanes.depth(), 40, 50).unwrap());
            let y = lanes.evaluate(&m, &m.input(0.3, lanes.depth()).unwrap()).unwrap();
            assert_eq!(m.level(&y), 0, "degree {degree}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        let p = [polynomial(0, 3, Interval::UNIT)];
        assert!(matches!(LanePolynomial::new(&p, &[0, 0, 0]), Err(SlotError::Shape { have: 3, .. })));
        assert!(matches!(LanePolynomial::new(&p, &[0, 1]), Err(SlotError::Polynomial { .. })));
    }
}
