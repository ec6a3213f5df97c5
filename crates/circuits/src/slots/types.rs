//! Small types of the slot operations.

use super::{Plain, Scale};

/// What a refresh may assume about its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefreshKind {
    /// Any complex slots.
    Full,
    /// Real slots: half of the modular reductions.
    Real,
    /// Slots that repeat with this period (a power of two): smaller transforms.
    Sparse(usize),
    /// Real slots that repeat with this period.
    SparseReal(usize),
}

/// Terms of a sum that is rescaled once:
/// `weight * sum of pairs + sum of vector * plain + constant`.
///
/// All vectors have one level. Plaintexts are encoded so that every term has the scale of the sum;
/// the products are declared to have it, so they count `scale(left) * scale(right) / scale` times
/// (normally once).
#[derive(Clone, Debug)]
pub struct Combination<'a, V> {
    /// Products of two vectors, all of one scale.
    pub pairs: Vec<(&'a V, &'a V)>,
    /// Integer factor of the products.
    pub weight: i32,
    /// Vectors times plaintexts.
    pub terms: Vec<(&'a V, Plain)>,
    /// Plaintext term.
    pub constant: Option<Plain>,
    /// Scale of the sum before its rescale.
    pub scale: Scale,
}

impl<'a, V> Combination<'a, V> {
    /// The same sum of something inside each vector.
    pub(super) fn each<W>(&self, f: impl Fn(&'a V) -> &'a W) -> Combination<'a, W> {
        Combination {
            pairs: self.pairs.iter().map(|&(left, right)| (f(left), f(right))).collect(),
            weight: self.weight,
            terms: self.terms.iter().map(|(vector, plain)| (f(vector), plain.clone())).collect(),
            constant: self.constant.clone(),
            scale: self.scale,
        }
    }

    /// An empty sum at a scale.
    pub fn at(scale: Scale) -> Self {
        Self { pairs: Vec::new(), weight: 1, terms: Vec::new(), constant: None, scale }
    }
}

/// What a refresh of one kind does, for the machines that do not perform it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RefreshProfile {
    /// The kind described.
    pub kind: RefreshKind,
    /// Lowest level that the input may have.
    pub input_level: usize,
    /// Level of the output.
    pub output_level: usize,
    /// Largest real or imaginary part of a slot that comes through at full precision.
    pub range: f64,
    /// Standard deviation of the error added to each slot (of the complex error, relative to slots
    /// of size one).
    pub error: f64,
}
