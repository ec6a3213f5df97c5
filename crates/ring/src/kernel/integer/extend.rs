//! Basis extension in fixed point.

use super::field::Field;
use crate::kernel::ExtendTable;
use crate::modulus::Modulus;

/// Bits after the point of a fraction `y / q`.
const POINT: u32 = 94;
/// One half.
const HALF: u128 = 1 << (POINT - 1);
/// Sums this close to a half are decided by integers: each of at most `2^16` fractions is less than
/// `2^-63` short.
const EDGE: u128 = 1 << (POINT - 47);

/// The floor of `2^114 / q`, which times a residue has [`POINT`] + 20 bits after the point.
fn reciprocal(m: &Modulus) -> u128 {
    (1 << (POINT + 20)) / u128::from(m.value())
}

pub(super) fn extend(t: &ExtendTable, src: &[&[f64]], dst: &mut [&mut [f64]]) {
    assert_eq!((src.len(), dst.len()), (t.from.len(), t.to.len()), "slices per prime of a basis extension");
    let count = src.iter().map(|s| s.len()).chain(dst.iter().map(|d| d.len())).min().unwrap_or(0);
    let sources: Vec<(Field, u64, u128)> =
        t.from.iter().zip(&t.inv).map(|(m, &inv)| (Field::new(m), Field::word(inv), reciprocal(m))).collect();
    let targets: Vec<(Field, u64)> =
        t.to.iter().zip(&t.neg_q).map(|(m, &neg_q)| (Field::new(m), Field::word(neg_q))).collect();
    let matrix: Vec<u64> = t.matrix.iter().map(|&c| Field::word(c)).collect();
    let mut digits = vec![0u64; src.len()];
    for k in 0..count {
        let mut sum = 0u128;
        for ((digit, x), &(f, inv, reciprocal)) in digits.iter_mut().zip(src).zip(&sources) {
            *digit = f.mul(Field::word(x[k]), inv);
            sum += (u128::from(*digit) * reciprocal) >> 20;
        }
        let mut v = ((sum + HALF) >> POINT) as u64;
        if (sum & ((1 << POINT) - 1)).abs_diff(HALF) < EDGE {
            v = t.exact_v(digits.iter().map(|&y| y as f64)) as u64;
        }
        for (((f, neg_q), row), out) in
            targets.iter().zip(matrix.chunks_exact(src.len().max(1))).zip(dst.iter_mut())
        {
            let products = row.iter().zip(&digits).map(|(&c, &y)| u128::from(c) * u128::from(y));
            out[k] = f.reduce(products.sum::<u128>() + u128::from(v) * u128::from(*neg_q)) as f64;
        }
    }
}
