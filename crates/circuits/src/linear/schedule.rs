//! How a linear transform is evaluated, as data: what the ciphertexts, the noise machine and the
//! bill of keys all read.

use std::collections::{BTreeMap, BTreeSet};

use crate::slots::Plain;

/// The rotations and products of one evaluation.
///
/// The baby rotations of all inputs are the *columns*: those of the first input, then those of the
/// next. Each giant step of each output is a *row*: a sum of columns times plaintexts, which is
/// rotated on by [`Schedule::giant_steps`].
#[derive(Clone, Debug)]
pub struct Schedule<'a> {
    /// Baby rotations of each input, in increasing order; zero is the input itself.
    pub babies: Vec<Vec<i64>>,
    /// Rows of each output, by increasing giant step.
    pub outputs: Vec<Vec<Row<'a>>>,
}

/// The products of one giant step of an output.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// By how much their sum is rotated.
    pub giant: i64,
    /// The products.
    pub terms: Vec<Term<'a>>,
}

/// One plaintext product of a giant step.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// Index of the input.
    pub input: usize,
    /// Baby rotation of the input.
    pub baby: i64,
    /// Place among the baby rotations of all inputs.
    pub column: usize,
    /// The diagonal as it was given: to be rotated right by the giant step before use.
    pub plain: &'a Plain,
}

/// One step of Horner's rule: the sum of a giant step is added to what there is, and the total
/// rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GiantStep {
    /// Which sum is added.
    pub giant: i64,
    /// By how much the total is rotated then: to the next sum inwards.
    pub rotation: i64,
}

/// The steps to the left and those to the right of a set of giant steps, each from the farthest
/// inwards. The sum of giant step zero, if there is one, is in neither.
fn giant_steps(giants: impl IntoIterator<Item = i64>) -> [Vec<GiantStep>; 2] {
    let sorted: BTreeSet<i64> = giants.into_iter().collect();
    let inwards = |side: Vec<i64>| {
        let next = side.iter().skip(1).copied().chain([0]);
        side.iter().zip(next).map(|(&giant, next)| GiantStep { giant, rotation: giant - next }).collect()
    };
    [inwards(sorted.range(1..).rev().copied().collect()), inwards(sorted.range(..0).copied().collect())]
}

impl<'a> Schedule<'a> {
    /// From diagonals (output, input, shift, values) and the baby-step range.
    pub(super) fn new(
        inputs: usize,
        outputs: usize,
        range: i64,
        diagonals: &[(usize, usize, i64, &'a Plain)],
    ) -> Self {
        let mut babies = vec![BTreeSet::new(); inputs];
        for &(_, input, shift, _) in diagonals {
            babies[input].insert(split(shift, range).1);
        }
        let babies: Vec<Vec<i64>> = babies.into_iter().map(|steps| steps.into_iter().collect()).collect();
        let columns = babies.iter().enumerate().flat_map(|(i, steps)| steps.iter().map(move |&b| (i, b)));
        let columns: BTreeMap<(usize, i64), usize> = columns.zip(0..).collect();
        let mut rows: Vec<BTreeMap<i64, Vec<Term<'a>>>> = vec![BTreeMap::new(); outputs];
        for &(output, input, shift, plain) in diagonals {
            let (giant, baby) = split(shift, range);
            let term = Term { input, baby, column: columns[&(input, baby)], plain };
            rows[output].entry(giant).or_default().push(term);
        }
        let row = |(giant, terms)| Row { giant, terms };
        Self { babies, outputs: rows.into_iter().map(|rows| rows.into_iter().map(row).collect()).collect() }
    }

    /// The giant steps of an output to the left and to the right, each from the farthest inwards.
    /// The sum of giant step zero, if there is one, is in neither.
    pub fn giant_steps(&self, output: usize) -> [Vec<GiantStep>; 2] {
        giant_steps(self.outputs[output].iter().map(|row| row.giant))
    }
}

/// Splits a shift into (giant, baby).
pub(super) fn split(shift: i64, baby: i64) -> (i64, i64) {
    let rest = shift.rem_euclid(baby);
    (shift - rest, rest)
}
