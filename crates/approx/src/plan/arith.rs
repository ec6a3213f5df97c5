//! What a plan needs from the numbers it runs on.

use serde::{Deserialize, Serialize};
use std::convert::Infallible;

/// weight·Σ aᵢ·bᵢ + Σ cⱼ·vⱼ + constant: the one operation of every plan and scheme.
///
/// On ciphertexts all products must meet at one scale before rescaling; the constants are encoded
/// at whatever scale brings their term there, so a sum costs one level, one relinearisation when it
/// has products, and one rescaling.
#[derive(Debug, Clone)]
pub struct Sum<'a, V> {
    /// Common factor of the products. Split by [`exact_weight`]: an integer is applied exactly, any
    /// other value by reading the scale differently.
    pub weight: f64,
    /// Products of two values.
    pub products: Vec<(&'a V, &'a V)>,
    /// Values times constants.
    pub linear: Vec<(f64, &'a V)>,
    /// Constant term.
    pub constant: f64,
}

impl<V> Default for Sum<'_, V> {
    fn default() -> Self {
        Self { weight: 1.0, products: Vec::new(), linear: Vec::new(), constant: 0.0 }
    }
}

impl<'a, V> Sum<'a, V> {
    /// scale·x + shift.
    pub fn affine(scale: f64, x: &'a V, shift: f64) -> Self {
        Self { linear: vec![(scale, x)], constant: shift, ..Self::default() }
    }

    /// a·b.
    pub fn product(a: &'a V, b: &'a V) -> Self {
        Self { products: vec![(a, b)], ..Self::default() }
    }
}

/// Splits a weight into (integer, rest): an integer of magnitude at most 8 is applied by exact
/// additions (rest 1), any other value w by dividing the scale, which turns a product at scale s
/// into one worth w times as much at scale s / w. A negative rest means negation. Implementors of
/// [`Arith`] use it in `combine`, `factor` and `root` alike.
pub fn exact_weight(weight: f64) -> (i32, f64) {
    if weight != 0.0 && weight.fract() == 0.0 && weight.abs() <= 8.0 {
        (weight as i32, 1.0)
    } else {
        (1, weight)
    }
}

/// Arithmetic on which plans and schemes run.
///
/// `Target` is where a value lands: the pair (level, scale) on ciphertexts, nothing on numbers.
/// With S = scale of the target times the prime(s) dropped by the final rescaling, the rules for
/// ciphertexts are:
///
/// | call | meaning |
/// |---|---|
/// | `combine(sum, None)` | products: level one below the lower operand, scale s_a·s_b / (rest·q); no products: one below the first operand at its scale |
/// | `combine(sum, Some(t))` | exactly t; products must satisfy s_a·s_b / rest = S |
/// | `below(x, k)` | level of x minus k, scale of x |
/// | `factor(t, w, v)` | level of t plus 1, scale S·rest(w) / s_v |
/// | `root(t, w)` | level of t plus 1, scale √(S·rest(w)) |
pub trait Arith {
    /// A number, or a vector of them.
    type Value: Clone;
    /// Where a value lands.
    type Target: Clone;
    /// What can fail.
    type Error;

    /// Computes a sum; it lands on `target`, or where it falls naturally.
    ///
    /// # Errors
    /// Too few levels, or products that cannot meet at the scale asked for.
    fn combine(
        &mut self,
        sum: &Sum<'_, Self::Value>,
        target: Option<&Self::Target>,
    ) -> Result<Self::Value, Self::Error>;

    /// The place `levels` below a value, at its scale.
    ///
    /// # Errors
    /// Too few levels.
    fn below(&self, x: &Self::Value, levels: u32) -> Result<Self::Target, Self::Error>;

    /// Where a factor must land so that weight·factor·other, rescaled once, lands on `target`.
    ///
    /// # Errors
    /// If no level is left for it.
    fn factor(
        &self,
        target: &Self::Target,
        weight: f64,
        other: &Self::Value,
    ) -> Result<Self::Target, Self::Error>;

    /// Where a value must land so that weight times its square, rescaled once, lands on `target`.
    ///
    /// # Errors
    /// If no level is left for it.
    fn root(&self, target: &Self::Target, weight: f64) -> Result<Self::Target, Self::Error>;
}

/// Plain double precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct F64;

impl Arith for F64 {
    type Value = f64;
    type Target = ();
    type Error = Infallible;

    fn combine(&mut self, sum: &Sum<'_, f64>, _: Option<&()>) -> Result<f64, Infallible> {
        let products: f64 = sum.products.iter().map(|(a, b)| *a * *b).sum();
        let linear: f64 = sum.linear.iter().map(|(c, v)| c * *v).sum();
        Ok(sum.weight * products + linear + sum.constant)
    }

    fn below(&self, _: &f64, _: u32) -> Result<(), Infallible> {
        Ok(())
    }

    fn factor(&self, (): &(), _: f64, _: &f64) -> Result<(), Infallible> {
        Ok(())
    }

    fn root(&self, (): &(), _: f64) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Double precision on many arguments at once; the same operations as [`F64`] in the same order,
/// lane by lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lanes;

impl Arith for Lanes {
    type Value = Vec<f64>;
    type Target = ();
    type Error = Infallible;

    fn combine(&mut self, sum: &Sum<'_, Vec<f64>>, _: Option<&()>) -> Result<Vec<f64>, Infallible> {
        let operands =
            sum.products.iter().map(|(a, _)| a.len()).chain(sum.linear.iter().map(|(_, v)| v.len()));
        let len = operands.min().unwrap_or(0);
        let (mut products, mut linear) = (vec![0.0; len], vec![0.0; len]);
        for (a, b) in &sum.products {
            products.iter_mut().zip(a.iter().zip(b.iter())).for_each(|(p, (x, y))| *p += x * y);
        }
        for (c, v) in &sum.linear {
            linear.iter_mut().zip(v.iter()).for_each(|(l, x)| *l += c * x);
        }
        products.iter_mut().zip(&linear).for_each(|(p, l)| *p = sum.weight * *p + l + sum.constant);
        Ok(products)
    }

    fn below(&self, _: &Vec<f64>, _: u32) -> Result<(), Infallible> {
        Ok(())
    }

    fn factor(&self, (): &(), _: f64, _: &Vec<f64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn root(&self, (): &(), _: f64) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Depth and operation counts of a circuit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Levels used.
    pub depth: u32,
    /// Products of two values (non-scalar products).
    pub products: u32,
    /// Relinearisations: sums with at least one product.
    pub relinearisations: u32,
    /// Values times constants other than 0 and ±1.
    pub scalar_products: u32,
}

/// Counts operations; a value is its depth, a target the depth at which to land.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    products: u32,
    relinearisations: u32,
    scalar_products: u32,
}

impl Counter {
    /// The counts so far, with the depth of the result.
    pub fn cost(&self, depth: u32) -> Cost {
        let Self { products, relinearisations, scalar_products } = *self;
        Cost { depth, products, relinearisations, scalar_products }
    }
}

impl Arith for Counter {
    type Value = u32;
    type Target = u32;
    type Error = Infallible;

    fn combine(&mut self, sum: &Sum<'_, u32>, target: Option<&u32>) -> Result<u32, Infallible> {
        self.products += sum.products.len() as u32;
        self.relinearisations += u32::from(!sum.products.is_empty());
        self.scalar_products += sum.linear.iter().filter(|(c, _)| *c != 0.0 && c.abs() != 1.0).count() as u32;
        let operands =
            sum.products.iter().flat_map(|(a, b)| [**a, **b]).chain(sum.linear.iter().map(|(_, v)| **v));
        let natural = operands.max().unwrap_or(0) + 1;
        // A target above what the operands allow would be a plan that promises too little depth.
        Ok(natural.max(target.copied().unwrap_or(0)))
    }

    fn below(&self, x: &u32, levels: u32) -> Result<u32, Infallible> {
        Ok(x + levels)
    }

    fn factor(&self, target: &u32, _: f64, _: &u32) -> Result<u32, Infallible> {
        Ok(target.saturating_sub(1))
    }

    fn root(&self, target: &u32, _: f64) -> Result<u32, Infallible> {
        Ok(target.saturating_sub(1))
    }
}
