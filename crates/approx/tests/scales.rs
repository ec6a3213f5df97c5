//! Plans and schemes on an arithmetic that keeps levels and scales the way a leveled scheme does,
//! and refuses sums whose terms do not meet.

use cipherlm_approx::plan::exact_weight;
use cipherlm_approx::{
    Arith, Circuit, EvalPlan, F64, Function, Interval, Parity, Polynomial, Scheme, Sum, chebyshev,
};

/// Primes of a chain, bottom first; close to 2^40 but never equal.
struct Chain {
    primes: Vec<f64>,
    least_constant: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    level: usize,
    scale: f64,
}

#[derive(Debug, Clone, Copy)]
struct Tracked {
    value: f64,
    place: Place,
}

impl Chain {
    fn new(levels: usize) -> Self {
        let wobble = |i: usize| 1.0 + 1e-4 * ((i * 7919 % 13) as f64 - 6.0);
        Self {
            primes: (0..=levels).map(|i| 40f64.exp2() * wobble(i)).collect(),
            least_constant: f64::INFINITY,
        }
    }

    fn input(&self, value: f64) -> Tracked {
        Tracked { value, place: Place { level: self.primes.len() - 1, scale: 40f64.exp2() } }
    }

    fn before_rescale(&self, target: &Place) -> Result<(usize, f64), String> {
        let level = target.level + 1;
        let prime = self.primes.get(level).ok_or(format!("no level above {}", target.level))?;
        Ok((level, target.scale * prime))
    }
}

impl Arith for Chain {
    type Value = Tracked;
    type Target = Place;
    type Error = String;

    fn combine(&mut self, sum: &Sum<'_, Tracked>, target: Option<&Place>) -> Result<Tracked, String> {
        let (integer, rest) = exact_weight(sum.weight);
        let operands =
            || sum.products.iter().flat_map(|(a, b)| [*a, *b]).chain(sum.linear.iter().map(|(_, v)| *v));
        let lowest = operands().map(|v| v.place.level).min().ok_or("an empty sum")?;
        let (level, scale) = match (target, sum.products.first()) {
            (Some(target), _) => self.before_rescale(target)?,
            (None, Some((a, b))) => (lowest, a.place.scale * b.place.scale / rest.abs()),
            (None, None) => (lowest, sum.linear[0].1.place.scale * self.primes[lowest]),
        };
        if lowest < level || level == 0 {
            return Err(format!("an operand at level {lowest}, the sum at {level}"));
        }
        let mut value = 0.0;
        for (a, b) in &sum.products {
            let here = a.place.scale * b.place.scale / rest.abs();
            if (here / scale - 1.0).abs() > 1e-12 {
                return Err(format!("a product at scale 2^{} in a sum at 2^{}", here.log2(), scale.log2()));
            }
            value += f64::from(integer) * rest * a.value * b.value;
        }
        for (c, v) in &sum.linear {
            let encoded = scale / v.place.scale;
            if *c != 0.0 {
                self.least_constant = self.least_constant.min(encoded);
            }
            value += (c * encoded).round() / encoded * v.value;
        }
        value += (sum.constant * scale).round() / scale;
        let place = Place { level: level - 1, scale: scale / self.primes[level] };
        Ok(Tracked { value, place })
    }

    fn below(&self, x: &Tracked, levels: u32) -> Result<Place, String> {
        let level = x.place.level.checked_sub(levels as usize).ok_or("not enough levels")?;
        Ok(Place { level, scale: x.place.scale })
    }

    fn factor(&self, target: &Place, weight: f64, other: &Tracked) -> Result<Place, String> {
        let (level, scale) = self.before_rescale(target)?;
        Ok(Place { level, scale: scale * exact_weight(weight).1.abs() / other.place.scale })
    }

    fn root(&self, target: &Place, weight: f64) -> Result<Place, String> {
        let (level, scale) = self.before_rescale(target)?;
        Ok(Place { level, scale: (scale * exact_weight(weight).1.abs()).sqrt() })
    }
}

/// Evaluates on a chain with exactly the levels the circuit claims, and lands on an odd scale.
fn check(circuit: &Circuit, x: f64, exact_landing: bool) {
    let depth = circuit.cost().depth as usize + usize::from(!exact_landing);
    let mut chain = Chain::new(depth);
    let input = chain.input(x);
    let target = Place { level: 0, scale: 1.37 * 40f64.exp2() };
    let out = circuit.eval(&mut chain, &input, Some(&target)).unwrap();
    assert_eq!(out.place.level, 0);
    assert!((out.place.scale / target.scale - 1.0).abs() < 1e-12);
    let Ok(expected) = circuit.eval(&mut F64, &x, None);
    let error = (out.value - expected).abs() / expected.abs().max(1.0);
    assert!(error < 1e-6, "{x}: {} against {expected}", out.value);
    assert!(
        chain.least_constant > 20f64.exp2(),
        "a constant is encoded at 2^{}",
        chain.least_constant.log2()
    );
    // One level fewer is too few.
    let mut short = Chain::new(depth - 1);
    let input = short.input(x);
    assert!(circuit.eval(&mut short, &input, Some(&target)).is_err());
}

#[test]
fn plans_land_on_their_target() {
    for degree in [1, 2, 3, 5, 8, 15, 30, 31, 62, 63, 119] {
        for parity in [Parity::None, Parity::Even, Parity::Odd] {
            let coeffs = (0..=degree).map(|k| 1.0 / (1.0 + k as f64) - 0.21).collect();
            let p =
                Polynomial::chebyshev(Interval::new(-2.0, 2.0).unwrap(), coeffs).unwrap().with_parity(parity);
            check(&Circuit::Polynomial { plan: EvalPlan::new(&p).unwrap() }, 0.7, true);
        }
    }
}

#[test]
fn several_outputs_land_on_several_targets() {
    let domain = Interval::UNIT;
    let a = chebyshev::interpolate(f64::exp, domain, 15).unwrap();
    let b = chebyshev::interpolate(f64::cos, domain, 6).unwrap();
    let plan = EvalPlan::several(&[a, b]).unwrap();
    let mut chain = Chain::new(6);
    let x = chain.input(0.3);
    let targets = [Place { level: 1, scale: 41f64.exp2() }, Place { level: 3, scale: 39f64.exp2() }];
    let out = plan.eval_all(&mut chain, &x, Some(&targets)).unwrap();
    for (value, target) in out.iter().zip(&targets) {
        assert_eq!(value.place.level, target.level);
        assert!((value.place.scale / target.scale - 1.0).abs() < 1e-12);
    }
    assert!((out[0].value - 0.3f64.exp()).abs() < 1e-8 && (out[1].value - 0.3f64.cos()).abs() < 1e-6);
}

#[test]
fn schemes_land_on_their_target() {
    let domain = Interval::new(1e-2, 1.0).unwrap();
    for (scheme, exact) in [
        (Scheme::goldschmidt(0.0, domain, 8).unwrap(), true),
        (Scheme::relaxed(0.01, domain, 6).unwrap(), true),
        (Scheme::relaxed(0.0, domain, 1).unwrap(), true),
        (Scheme::minimax(Function::InverseSqrt { shift: 0.0 }, domain, 12).unwrap(), true),
        (Scheme::sign(1.0, 0.05, &[7, 7]).unwrap(), true),
        (Scheme::relu(1.0, 0.05, &[7, 7]).unwrap(), true),
        (Scheme::extended(Function::Gelu, 20.0, 8.0, 15).unwrap(), true),
        (Scheme::seeded_inverse(0.01, domain, 7, 3).unwrap(), false),
        (Scheme::inverse_sqrt(0.01, domain, 7, 2).unwrap(), false),
        (Scheme::inverse_sqrt(0.0, domain, 5, 1).unwrap(), false),
    ] {
        for x in [0.02, 0.4, 0.97] {
            check(scheme.circuit(), x, exact);
        }
    }
}

#[test]
fn relaxed_products_take_a_mapped_argument_at_the_right_scale() {
    let scheme = Scheme::relaxed(0.0, Interval::new(1e-3, 1.0).unwrap(), 7).unwrap();
    let circuit = scheme.circuit();
    let (depth, (slope, shift)) = (scheme.depth_mapped() as usize, circuit.map());
    assert_eq!((depth, scheme.depth()), (7, 8));
    let mut chain = Chain::new(depth);
    let end = Place { level: 1, scale: 40f64.exp2() };
    let place = circuit.mapped_landing(&chain, &end).unwrap();
    assert_eq!(place.level, depth);
    assert!((place.scale.log2() - 40.0).abs() < 1.5, "2^{}", place.scale.log2());
    let x = 0.037;
    let u = Tracked { value: slope * x + shift, place };
    let target = Place { level: 0, scale: 40f64.exp2() };
    let y = circuit.eval_mapped(&mut chain, &u, Some(&target)).unwrap();
    assert!((y.value * x - 1.0).abs() < 1e-3, "{}", y.value * x);
    assert_eq!(y.place.level, 0);
}
