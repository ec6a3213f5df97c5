//! Discrete cosine interpolants for modular reduction.
//!
//! Bootstrapping must evaluate sin(2πx) only where x lies within a small radius of an integer. Han and Ki ("Better
//! bootstrapping for approximate homomorphic encryption", eprint 2019/688) therefore interpolate at nodes inside those
//! small intervals alone: cos(2π(x − 1/4) / 2^r) is approximated, and r double-angle steps turn it into sin(2πx).
//!
//! An interval with d nodes holds them at i + δ·cos((2j + 1)π / 2d), the Chebyshev points of the first kind; a single node
//! is the integer itself, so that the error there vanishes with the message. Integers without a node are *not* covered:
//! [`DiscreteCosine::covered`] says how far the nodes reach.

use crate::float::{Float, abs, float, to_f64};
use crate::remez::exchange::{clenshaw, cosines, transform};
use crate::{Error, Interval, Parity, Polynomial, Result, chebyshev};

const MAX_DEGREE: usize = 255;

/// An interpolant of a slowed-down cosine, with its nodes.
#[derive(Debug, Clone)]
pub struct DiscreteCosine {
    polynomial: Polynomial,
    exact: Vec<Float>,
    nodes: Vec<Node>,
    shift: f64,
    double_angles: u32,
    radius: f64,
    bits: usize,
}

/// One interpolation node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// The integer it serves.
    pub integer: i32,
    /// Its place on the axis of x.
    pub x: f64,
}

impl DiscreteCosine {
    /// The interpolant of cos(2π(x − 1/4) / 2^double_angles) of the given degree in x, on [−range, range], with at least
    /// one node at every integer |i| < range and the others where they help most.
    ///
    /// `radius` bounds the distance of x from an integer, that is the message relative to the modulus.
    ///
    /// # Errors
    /// If the degree is below 2·range − 2 (some integer would have no node) or above 255, or the radius is not in (0, 1/4].
    pub fn new(range: u32, degree: usize, double_angles: u32, radius: f64) -> Result<Self> {
        Self::build(range, degree, double_angles, radius, Parity::None)
    }

    /// Like [`DiscreteCosine::new`], but an even polynomial of y = x − 1/4 on [−range, range]. Nodes then serve both signs of
    /// y, so the degree must be at least 4·range − 4; half of the coefficients are zero.
    ///
    /// # Errors
    /// If the degree is odd, below 4·range − 4 or above 255, or the radius is not in (0, 1/4].
    pub fn even(range: u32, degree: usize, double_angles: u32, radius: f64) -> Result<Self> {
        Self::build(range, degree, double_angles, radius, Parity::Even)
    }

    /// The polynomial, of the argument x + [`DiscreteCosine::shift`].
    pub fn polynomial(&self) -> &Polynomial {
        &self.polynomial
    }

    /// What to add to x before the polynomial: 0, or −1/4 for the even form.
    pub fn shift(&self) -> f64 {
        self.shift
    }

    /// Double-angle steps c ↦ 2c² − 1 after the polynomial.
    pub fn double_angles(&self) -> u32 {
        self.double_angles
    }

    /// The nodes, ascending.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The largest k such that every integer |i| <= k has a node.
    pub fn covered(&self) -> u32 {
        let has = |i: i32| self.nodes.iter().any(|n| n.integer == i);
        (0..).take_while(|&k| has(k) && has(-k)).last().unwrap_or(0).unsigned_abs()
    }

    /// sin(2πx) as the interpolant and its double angles give it, in double precision.
    pub fn eval(&self, x: f64) -> f64 {
        let start = self.polynomial.eval(x + self.shift);
        (0..self.double_angles).fold(start, |c, _| 2.0 * c * c - 1.0)
    }

    /// Largest error of sin(2πx) found for x within the radius of an integer, sampled at 33 points in multi-precision
    /// with exact coefficients.
    pub fn error_at(&self, integer: i32) -> f64 {
        let bits = self.bits;
        let tau = Float::pi(bits) * Float::from(2);
        let points = Interval::symmetric(self.radius).map_or(vec![0.0], |i| i.linspace(33).collect());
        let mut worst = 0.0f64;
        for m in points {
            let x = float(f64::from(integer), bits) + float(m, bits);
            let unit = (&x + float(self.shift, bits)) / float(self.polynomial.interval().hi(), bits);
            let mut c = clenshaw(&self.exact, &unit);
            for _ in 0..self.double_angles {
                c = &c * &c * Float::from(2) - Float::from(1);
            }
            let sine = (&tau * float(m, bits)).sin();
            worst = worst.max(to_f64(&abs(&(c - sine))));
        }
        worst
    }

    fn build(range: u32, degree: usize, double_angles: u32, radius: f64, parity: Parity) -> Result<Self> {
        let even = parity == Parity::Even;
        if degree > MAX_DEGREE {
            return Err(Error::DegreeTooHigh { degree, limit: MAX_DEGREE, what: "a discrete cosine" });
        }
        if !(radius > 0.0 && radius <= 0.25) {
            return Err(Error::Parameter {
                what: "radius around the integers",
                value: radius,
                expected: "in (0, 1/4]",
            });
        }
        let needed = if even { 4 } else { 2 } * (range.max(1) as usize - 1);
        if range == 0 || degree < needed || (even && degree % 2 == 1) {
            let expected = "2·range − 2 or more (even form: even, 4·range − 4 or more)";
            return Err(Error::Parameter { what: "degree of a discrete cosine", value: degree as f64, expected });
        }
        let shift = if even { -0.25 } else { 0.0 };
        let count = if even { degree / 2 + 1 } else { degree + 1 };
        let nodes = place_nodes(range as i32, count, radius, even);
        let bits = 192 + 2 * degree;
        let tau = Float::pi(bits) * Float::from(2);
        let slow = float(f64::from(double_angles).exp2(), bits);
        let variable = |x: &Float| if even { x * x } else { x.clone() };
        // The interpolant in the variable v (x, or y² in the even form), by barycentric weights.
        let at: Vec<Float> = nodes.iter().map(|n| float(n.x, bits) + float(shift, bits)).collect();
        let values: Vec<Float> =
            nodes.iter().map(|n| (&tau * (float(n.x, bits) - float(0.25, bits)) / &slow).cos()).collect();
        let v: Vec<Float> = at.iter().map(variable).collect();
        let weights: Vec<Float> = (0..count)
            .map(|i| {
                let others = (0..count).filter(|&j| j != i);
                Float::from(1) / others.fold(float(1.0, bits), |p, j| p * (&v[i] - &v[j]))
            })
            .collect();
        let interpolant = |x: &Float| {
            let here = variable(x);
            let (mut top, mut bottom) = (float(0.0, bits), float(0.0, bits));
            for i in 0..count {
                let difference = &here - &v[i];
                if difference == Float::ZERO {
                    return values[i].clone();
                }
                let share = &weights[i] / difference;
                top += &share * &values[i];
                bottom += share;
            }
            top / bottom
        };
        let cosines = cosines(2 * (degree + 1), bits);
        let end = float(f64::from(range), bits);
        let samples: Vec<Float> = (0..=degree).map(|j| interpolant(&(&cosines[2 * j + 1] * &end))).collect();
        let exact = transform(&samples, &cosines);
        let interval = Interval::symmetric(f64::from(range))?;
        let polynomial = Polynomial::chebyshev(interval, exact.iter().map(to_f64).collect())?.with_parity(parity);
        Ok(Self { polynomial, exact, nodes, shift, double_angles, radius, bits })
    }
}

/// One node per integer |i| < range, then one more at a time for the integer whose interval has the largest node product.
fn place_nodes(range: i32, count: usize, radius: f64, even: bool) -> Vec<Node> {
    let integers: Vec<i32> = (1 - range..range).collect();
    let mut counts = vec![1usize; integers.len()];
    let variable = |x: f64| if even { (x - 0.25) * (x - 0.25) } else { x };
    let nodes_of = |i: i32, n: usize| (0..n).rev().map(move |j| (i, radius * chebyshev::cos_pi(2 * j + 1, 2 * n)));
    let all = |counts: &[usize]| -> Vec<Node> {
        let pairs = integers.iter().zip(counts).flat_map(|(&i, &n)| nodes_of(i, n));
        pairs.map(|(integer, offset)| Node { integer, x: f64::from(integer) + offset }).collect()
    };
    for _ in integers.len()..count {
        let nodes = all(&counts);
        let product = |i: i32| {
            let log = |m: f64| -> f64 {
                let v = variable(f64::from(i) + m);
                nodes.iter().map(|n| (v - variable(n.x)).abs().max(f64::MIN_POSITIVE).log2()).sum()
            };
            // Offsets that no Chebyshev point of low order hits.
            [-1.0, -0.61, -0.29, 0.31, 0.59, 1.0].map(|m| log(m * radius)).into_iter().fold(f64::MIN, f64::max)
        };
        let worst = (0..integers.len()).max_by(|&a, &b| product(integers[a]).total_cmp(&product(integers[b])));
        if let Some(i) = worst {
            counts[i] += 1;
        }
    }
    all(&counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_per_integer_gives_exact_integers() {
        let radius = (-10f64).exp2();
        let cosine = DiscreteCosine::new(16, 30, 3, radius).unwrap();
        assert_eq!(cosine.nodes().len(), 31);
        assert_eq!(cosine.covered(), 15);
        for node in cosine.nodes() {
            assert_eq!(node.x, f64::from(node.integer));
            assert!(cosine.eval(node.x).abs() < 1e-9, "{}", node.integer);
        }
        // Relative to a message of full size 2π·radius.
        let relative = |i: i32| (cosine.error_at(i) / (std::f64::consts::TAU * radius)).log2();
        for i in -15..=15i32 {
            let bound = match i.abs() {
                0..=7 => -39.0,
                8..=10 => -34.0,
                11..=12 => -26.0,
                _ => -16.0,
            };
            assert!(relative(i) < bound, "integer {i}: 2^{}", relative(i));
        }
        // Outside the nodes nothing is promised, and nothing holds.
        assert!(cosine.error_at(16) > 1e-4);
    }

    #[test]
    fn even_form_has_half_the_coefficients_and_fewer_double_angles() {
        let radius = (-12f64).exp2();
        let cosine = DiscreteCosine::even(16, 62, 2, radius).unwrap();
        assert_eq!(cosine.polynomial().parity(), Parity::Even);
        assert_eq!((cosine.nodes().len(), cosine.covered()), (32, 15));
        for i in -15..=15 {
            assert!(cosine.error_at(i).log2() < -50.0, "integer {i}: 2^{}", cosine.error_at(i).log2());
        }
        for i in -15..=15 {
            let x = f64::from(i) + 0.7 * radius;
            assert!((cosine.eval(x) - (std::f64::consts::TAU * 0.7 * radius).sin()).abs() < 1e-12);
        }
    }

    #[test]
    fn extra_nodes_are_chebyshev_points_of_their_interval() {
        let radius = (-8f64).exp2();
        let cosine = DiscreteCosine::new(6, 13, 1, radius).unwrap();
        assert_eq!(cosine.nodes().len(), 14);
        for i in -5..=5 {
            let own: Vec<_> = cosine.nodes().iter().filter(|n| n.integer == i).collect();
            for (j, node) in own.iter().enumerate() {
                let d = own.len();
                let angle = std::f64::consts::PI * (2 * (d - 1 - j) + 1) as f64 / (2 * d) as f64;
                assert!((node.x - f64::from(i) - radius * angle.cos()).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn too_low_a_degree_is_refused() {
        assert!(matches!(DiscreteCosine::new(16, 29, 3, 0.001), Err(Error::Parameter { .. })));
        assert!(matches!(DiscreteCosine::even(16, 58, 2, 0.001), Err(Error::Parameter { .. })));
        assert!(matches!(DiscreteCosine::new(16, 30, 3, 0.5), Err(Error::Parameter { .. })));
        assert!(matches!(DiscreteCosine::new(200, 398, 3, 0.001), Err(Error::DegreeTooHigh { .. })));
    }
}
