//! The modular reduction of bootstrapping, as one circuit for every machine.
//!
//! After the modulus is raised, a slot holds `x = I + m·2^-r` with an integer overflow `|I| <= K`.
//! The circuit returns a value whose imaginary part is proportional to `m`. It goes through the
//! complex exponential instead of a cosine:
//!
//! 1. `E = exp(2πi·x / 2^k)` by a polynomial of degree `2^p - 1` (depth `p`) in `u = i·x/B`. In the
//!    twisted Chebyshev basis `U_n(u) = i^n T_n(x/B)` the Jacobi–Anger coefficients are the real
//!    numbers `J_0, 2·J_1, 2·J_2, …`, so that no complex constant is ever multiplied;
//! 2. `k` squarings, `E <- E²`. Each doubles an error; a cosine doubling (`c <- 2c² - 1`)
//!    multiplies it by up to 4;
//! 3. `G = E·(8 - E)`, whose imaginary part is `8·sin θ - sin 2θ = 6·θ - θ⁵/5 + …` for
//!    `θ = 2π·m·2^-r`: the cubic error of the sine is gone for the price of one level, which allows
//!    a message ratio of 8 bits where the bare sine needs 12.
//!
//! Depth `p + k + 1`.

use std::f64::consts::PI;

use cipherlm_ckks::Error;

/// What the modular reduction needs from a machine.
///
/// Scales are managed by the circuit: every call names the scale that the sum has before it is
/// rescaled.
pub(super) trait ModArithmetic {
    /// A ciphertext, or a model of one.
    type Value: Clone;
    /// What can go wrong.
    type Error;

    /// Levels left in `value`.
    fn level(&self, value: &Self::Value) -> usize;
    /// The scale of `value`.
    fn scale(&self, value: &Self::Value) -> f64;
    /// What a rescale from `level` divides by.
    fn divisor(&self, level: usize) -> f64;
    /// A sum at `level`, neither relinearised nor rescaled. Its products must have the scale
    /// `scale` already; the coefficients of its linear terms and its constant are encoded so that
    /// these have it too.
    fn fused(
        &mut self,
        level: usize,
        scale: f64,
        sum: &Sum<'_, Self::Value>,
    ) -> Result<Self::Value, Self::Error>;
    /// Relinearised, one level down.
    fn rescale(&mut self, value: Self::Value) -> Result<Self::Value, Self::Error>;
}

/// `weight·Σ a·b + Σ c·t + constant`.
pub(super) struct Sum<'a, V> {
    /// A small integer factor of all products.
    pub(super) weight: i64,
    /// The products' factors; the same reference twice for a square.
    pub(super) products: &'a [(&'a V, &'a V)],
    /// Coefficients and what they multiply.
    pub(super) linear: &'a [(f64, &'a V)],
    /// The constant.
    pub(super) constant: f64,
}

/// The circuit's fixed data: overflow bound, doublings and the polynomial.
#[derive(Clone, Debug)]
pub struct EvalMod {
    overflow: u32,
    doublings: u32,
    depth: u32,
    bound: f64,
    /// `2π` times the bound, halved by every doubling: the argument of the Bessel functions.
    beta: f64,
    coefficients: Vec<f64>,
}

impl EvalMod {
    /// The factor between `θ = 2π·m·2^-r` and the imaginary part of the result.
    const SINE_FACTOR: f64 = 6.0;

    /// A circuit for overflows up to `overflow`, with a polynomial of degree `2^poly_depth - 1` and
    /// `doublings` squarings.
    ///
    /// The interval is `[-B, B]` with `B = overflow + 1/32`, wide enough for a message ratio of 5
    /// bits and more. How well the polynomial does on it is [`EvalMod::polynomial_error`].
    ///
    /// # Errors
    /// [`Error::InvalidParams`] for a depth outside of 2 to 10, more than 16 doublings, or an
    /// overflow that they leave no hope for.
    pub fn new(overflow: u32, poly_depth: u32, doublings: u32) -> Result<Self, Error> {
        let bad = |field, value, allowed| Err(Error::InvalidParams { field, value, allowed });
        if !(2..=10).contains(&poly_depth) {
            return bad("polynomial depth", f64::from(poly_depth), "2 to 10");
        }
        if doublings > 16 {
            return bad("doublings", f64::from(doublings), "at most 16");
        }
        let bound = Self::bound_for(overflow);
        let beta = 2.0 * PI * bound / f64::from(doublings).exp2();
        if beta > 1024.0 {
            let allowed = "fewer for this number of doublings: a smaller ephemeral weight or more doublings";
            return bad("largest overflow", f64::from(overflow), allowed);
        }
        let degree = (1usize << poly_depth) - 1;
        let coefficients = (0..=degree).map(|n| bessel(n, beta) * if n == 0 { 1.0 } else { 2.0 }).collect();
        Ok(Self { overflow, doublings, depth: poly_depth, bound, beta, coefficients })
    }

    /// Half the width of the interval for overflows up to `overflow`.
    pub(super) fn bound_for(overflow: u32) -> f64 {
        f64::from(overflow) + 1.0 / 32.0
    }

    /// The largest overflow `|I|` the circuit reduces.
    pub fn overflow(&self) -> u32 {
        self.overflow
    }

    /// Half the width of the polynomial's interval; the input is `i·x` divided by it.
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// Levels between the input and the (rescaled) result.
    pub fn depth(&self) -> usize {
        (self.depth + self.doublings + 1) as usize
    }

    /// Relinearisations of one evaluation.
    pub fn relinearisations(&self) -> usize {
        // U_2, U_3 and the giants U_4, U_8, …; the inner nodes; the squarings; the last product.
        let p = self.depth as usize;
        1 + (p - 1) + node_relinearisations(1 << p, p) + self.doublings as usize + 1
    }

    /// The largest error of the polynomial on `[-B, B]`, as a bound on `|E|`'s error before the
    /// doublings.
    pub fn polynomial_error(&self) -> f64 {
        let first = self.coefficients.len();
        (first..first + 40).map(|n| 2.0 * bessel(n, self.beta).abs()).sum()
    }

    /// The message's factor in `(G - conj G)/i` at a message ratio of `ratio` bits.
    fn gain(ratio: f64) -> f64 {
        2.0 * Self::SINE_FACTOR * 2.0 * PI * (-ratio).exp2()
    }

    /// The scale that `E` must have after the last squaring so that the result, rescaled at
    /// `level`, carries the message at `output_scale`.
    ///
    /// The caller takes `(G - conj G)`, twice the imaginary part; `ratio` is the message ratio in
    /// bits.
    fn exponential_scale(divisor: f64, output_scale: f64, ratio: f64) -> f64 {
        (output_scale * divisor / Self::gain(ratio)).sqrt()
    }

    /// Evaluates on `input`, whose value is `i·x/B` and which has [`EvalMod::depth`] levels or
    /// more. The result `G` is neither relinearised nor rescaled: the caller combines it with its
    /// conjugate first, and `(G - conj G)/i`, rescaled, is the message at exactly `output_scale`.
    pub(super) fn evaluate<M: ModArithmetic>(
        &self,
        machine: &mut M,
        input: &M::Value,
        output_scale: f64,
        ratio: f64,
    ) -> Result<M::Value, M::Error> {
        let powers = Powers::new(machine, input, self.depth)?;
        let last = machine.level(input) - self.depth() + 1;
        // Backwards from the result: each squaring maps a scale s to s²/q.
        let mut scale = Self::exponential_scale(machine.divisor(last), output_scale, ratio);
        for level in last + 1..=last + self.doublings as usize {
            scale = (scale * machine.divisor(level)).sqrt();
        }
        let mut e = self.node(machine, &powers, &self.coefficients, last + self.doublings as usize, scale)?;
        for _ in 0..self.doublings {
            let (level, s) = (machine.level(&e), machine.scale(&e));
            let square = Sum { weight: 1, products: &[(&e, &e)], linear: &[], constant: 0.0 };
            let square = machine.fused(level, s * s, &square)?;
            e = machine.rescale(square)?;
        }
        // E·(8 - E): the linear term rides on the product's scale.
        let (level, s) = (machine.level(&e), machine.scale(&e));
        let sum = Sum { weight: -1, products: &[(&e, &e)], linear: &[(8.0, &e)], constant: 0.0 };
        machine.fused(level, s * s, &sum)
    }

    /// The polynomial with coefficients `c` (a power of two of them) at `level` and `scale`.
    ///
    /// Every product of a node is summed before one relinearisation; blocks of up to four
    /// coefficients are sums of constants times powers.
    fn node<M: ModArithmetic>(
        &self,
        machine: &mut M,
        powers: &Powers<M::Value>,
        c: &[f64],
        level: usize,
        scale: f64,
    ) -> Result<M::Value, M::Error> {
        let before = level + 1;
        let sum_scale = scale * machine.divisor(before);
        let block = block_length(powers.top - before);
        let mut quotients = Vec::new();
        let mut rest = c.to_vec();
        while rest.len() > block {
            let (quotient, remainder) = split(&rest);
            let factor = powers.giant(remainder.len());
            let value = self.node(machine, powers, &quotient, before, sum_scale / machine.scale(factor))?;
            quotients.push((value, factor));
            rest = remainder;
        }
        let products: Vec<_> = quotients.iter().map(|(left, right)| (left, *right)).collect();
        let linear: Vec<_> = rest.iter().enumerate().skip(1).map(|(n, &c)| (c, powers.baby(n))).collect();
        let sum = Sum { weight: 1, products: &products, linear: &linear, constant: rest[0] };
        let sum = machine.fused(before, sum_scale, &sum)?;
        machine.rescale(sum)
    }
}

/// How many coefficients are summed without a product `depth` levels below the input: `U_3` needs
/// two levels, `U_1` none.
fn block_length(depth: usize) -> usize {
    if depth >= 2 { 4 } else { 2 }
}

/// Relinearisations of a polynomial with `length` coefficients whose result is `depth` levels below
/// the input.
fn node_relinearisations(length: usize, depth: usize) -> usize {
    let block = block_length(depth - 1);
    let mut rest = length;
    let mut total = usize::from(rest > block);
    while rest > block {
        rest /= 2;
        total += node_relinearisations(rest, depth - 1);
    }
    total
}

/// `c = q·U_m + r` for `m` half the length, in the twisted basis, where
/// `2·U_m·U_j = U_{m+j} + (-1)^j·U_{m-j}`.
fn split(c: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let m = c.len() / 2;
    let mut quotient = vec![0.0; m];
    let mut remainder = c[..m].to_vec();
    quotient[0] = c[m];
    for j in 1..m {
        quotient[j] = 2.0 * c[m + j];
        remainder[m - j] -= if j % 2 == 0 { c[m + j] } else { -c[m + j] };
    }
    (quotient, remainder)
}

/// `U_1, U_2, U_3` and the giants `U_{2^j}`.
struct Powers<V> {
    top: usize,
    third: V,
    giants: Vec<V>,
}

impl<V: Clone> Powers<V> {
    fn new<M: ModArithmetic<Value = V>>(machine: &mut M, u1: &V, depth: u32) -> Result<Self, M::Error> {
        let mut giants = vec![u1.clone()];
        for j in 1..depth as usize {
            let half = &giants[j - 1];
            let (level, s) = (machine.level(half), machine.scale(half));
            // U_2n = 2·U_n² - (-1)^n, and n is odd only for the first.
            let constant = if j == 1 { 1.0 } else { -1.0 };
            let sum = Sum { weight: 2, products: &[(half, half)], linear: &[], constant };
            let sum = machine.fused(level, s * s, &sum)?;
            giants.push(machine.rescale(sum)?);
        }
        // U_3 = 2·U_2·U_1 + U_1.
        let u2 = &giants[1];
        let (level, s) = (machine.level(u2), machine.scale(u2) * machine.scale(u1));
        let sum = Sum { weight: 2, products: &[(u2, u1)], linear: &[(1.0, u1)], constant: 0.0 };
        let sum = machine.fused(level, s, &sum)?;
        let third = machine.rescale(sum)?;
        Ok(Self { top: machine.level(u1), third, giants })
    }

    fn baby(&self, n: usize) -> &V {
        if n == 3 { &self.third } else { &self.giants[n - 1] }
    }

    fn giant(&self, n: usize) -> &V {
        &self.giants[n.ilog2() as usize]
    }
}

/// The Bessel function `J_n(beta)`, by the trapezoid rule on its integral (spectrally accurate).
fn bessel(n: usize, beta: f64) -> f64 {
    let points = 4096;
    let sum: f64 = (0..points)
        .map(|j| {
            let phi = 2.0 * PI * (j as f64 + 0.5) / points as f64;
            (n as f64 * phi - beta * phi.sin()).cos()
        })
        .sum();
    sum / points as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_have_no_circuit_are_refused() {
        let refused = |overflow, depth, doublings, name: &str| {
            let error = EvalMod::new(overflow, depth, doublings).err();
            let named = matches!(error, Some(Error::InvalidParams { field, .. }) if field == name);
            assert!(named, "{overflow} {depth} {doublings}: {error:?}");
        };
        for depth in [0, 1, 11, 31, 64, u32::MAX] {
            refused(24, depth, 4, "polynomial depth");
        }
        for doublings in [17, 31, 32, 33, u32::MAX] {
            refused(24, 5, doublings, "doublings");
        }
        for (overflow, doublings) in [(u32::MAX, 4), (3000, 4), (200, 0)] {
            refused(overflow, 5, doublings, "largest overflow");
        }
    }

    #[test]
    fn the_error_of_the_polynomial_is_that_of_a_cut_series() {
        // Against the exponential itself, at points of the whole interval.
        for (overflow, depth, doublings) in [(24, 5, 4), (15, 5, 3), (96, 5, 4), (4, 3, 2)] {
            let circuit = EvalMod::new(overflow, depth, doublings).unwrap();
            let worst = (0..2000)
                .map(|k| {
                    let t = -1.0 + 2.0 * f64::from(k) / 1999.0;
                    let (mut re, mut im) = (0.0, 0.0);
                    for (n, c) in circuit.coefficients.iter().enumerate() {
                        let value = c * (n as f64 * t.clamp(-1.0, 1.0).acos()).cos();
                        // Powers of the imaginary unit.
                        let sign = if n % 4 < 2 { 1.0 } else { -1.0 };
                        if n % 2 == 0 { re += sign * value } else { im += sign * value }
                    }
                    (re - (circuit.beta * t).cos()).hypot(im - (circuit.beta * t).sin())
                })
                .fold(0.0, f64::max);
            let bound = circuit.polynomial_error().max(1e-12);
            assert!(worst <= 1.01 * bound && (worst >= bound / 40.0 || bound <= 1e-12), "{worst} {bound}");
        }
    }
}
