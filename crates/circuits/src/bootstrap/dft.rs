//! The homomorphic DFT: coefficients to slots and back as products of sparse-diagonal matrices.
//!
//! Slot `j` of a polynomial with packed coefficients `c_k = m_k + i·m_{k+n}` is
//! `Σ_k c_k·ζ^{k·5^j}`. That map is `log2 n` butterfly layers after a bit reversal; bootstrapping
//! leaves the reversal out, because it acts on every coefficient alike and undoes the map
//! afterwards. A layer has three diagonals, and `l` consecutive layers multiply to `2^{l+1} - 1` of
//! them (`2^l` where they wrap around), all of whose shifts are multiples of one stride, with
//! values that repeat with the length of the widest butterfly. So all but the widest group live in
//! small subrings.
//!
//! The groups are normalised so that their shifts are `0, 1, …` strides: a group ends in a rotation
//! that its neighbour undoes, for free. One baby-step giant-step schedule then serves every group,
//! with a single key for all giant steps (evaluated by Horner's rule).

use std::collections::BTreeMap;
use std::f64::consts::PI;

use num_complex::Complex64;

/// A square matrix by its nonzero diagonals: output `i` is the sum over shifts `s` of
/// `diagonal_s[i]·input[i + s]`, indices modulo `slots`.
#[derive(Clone, Debug)]
pub(super) struct DiagonalMatrix {
    slots: usize,
    period: usize,
    diagonals: BTreeMap<usize, Vec<Complex64>>,
}

impl DiagonalMatrix {
    /// Its dimension.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// All diagonals repeat with this period.
    pub(super) fn period(&self) -> usize {
        self.period
    }

    /// Shift (below `slots`) and one period of each diagonal.
    pub(super) fn diagonals(&self) -> impl ExactSizeIterator<Item = (usize, &[Complex64])> {
        self.diagonals.iter().map(|(&s, d)| (s, d.as_slice()))
    }

    /// The largest common divisor of all shifts and the dimension.
    pub(super) fn stride(&self) -> usize {
        self.diagonals.keys().fold(self.slots, |a, &b| gcd(a, b))
    }

    /// The product with a vector.
    #[cfg(test)]
    pub(super) fn apply(&self, input: &[Complex64]) -> Vec<Complex64> {
        let mut output = vec![Complex64::ZERO; self.slots];
        for (shift, diagonal) in self.diagonals() {
            for (i, out) in output.iter_mut().enumerate() {
                *out += diagonal[i % self.period] * input[(i + shift) % self.slots];
            }
        }
        output
    }

    fn identity(slots: usize) -> Self {
        Self { slots, period: 1, diagonals: BTreeMap::from([(0, vec![Complex64::ONE])]) }
    }

    /// This matrix after `first`.
    fn after(&self, first: &Self) -> Self {
        let period = self.period.max(first.period);
        let mut diagonals: BTreeMap<usize, Vec<Complex64>> = BTreeMap::new();
        for (s, a) in self.diagonals() {
            for (t, b) in first.diagonals() {
                let sum =
                    diagonals.entry((s + t) % self.slots).or_insert_with(|| vec![Complex64::ZERO; period]);
                for (i, value) in sum.iter_mut().enumerate() {
                    *value += a[i % self.period] * b[(i + s) % first.period];
                }
            }
        }
        diagonals.retain(|_, d| d.iter().any(|v| v.norm_sqr() > 1e-20));
        Self { slots: self.slots, period, diagonals }
    }

    /// This matrix, its output rotated left by `steps`.
    fn then_rotated(&self, steps: usize) -> Self {
        self.rotation(steps).after(self)
    }

    /// This matrix on an input rotated left by `steps`.
    fn of_rotated(&self, steps: usize) -> Self {
        self.after(&self.rotation(steps))
    }

    fn rotation(&self, steps: usize) -> Self {
        let diagonals = BTreeMap::from([(steps % self.slots, vec![Complex64::ONE])]);
        Self { slots: self.slots, period: 1, diagonals }
    }
}

/// The map from packed coefficients (bit-reversed) to slots, as one matrix per entry of `layers`,
/// the first applied first.
///
/// Entries sum to `log2 slots`. Entries of the matrices have absolute value 1.
pub(super) fn slots_to_coeffs(slots: usize, layers: &[u32]) -> Vec<DiagonalMatrix> {
    let mut next = 2;
    let product = |&count: &u32| {
        let first = next;
        next <<= count;
        product(slots, (0..count).map(|i| forward_layer(slots, first << i)))
    };
    normalised(layers.iter().map(product).collect())
}

/// The inverse of [`slots_to_coeffs`] times `slots`, as one matrix per entry of `layers`, the first
/// applied first.
pub(super) fn coeffs_to_slots(slots: usize, layers: &[u32]) -> Vec<DiagonalMatrix> {
    let mut next = slots;
    let product = |&count: &u32| {
        let first = next;
        next >>= count;
        product(slots, (0..count).map(|i| inverse_layer(slots, first >> i)))
    };
    normalised(layers.iter().map(product).collect())
}

/// Splits `total` butterfly layers over `stages` as evenly as possible, the larger parts first.
pub(super) fn even_layers(total: u32, stages: u32) -> Vec<u32> {
    (0..stages).map(|i| total / stages + u32::from(i < total % stages)).collect()
}

/// The product of matrices, the first applied first.
fn product(slots: usize, layers: impl Iterator<Item = DiagonalMatrix>) -> DiagonalMatrix {
    layers.fold(DiagonalMatrix::identity(slots), |product, layer| layer.after(&product))
}

/// Moves a rotation between neighbours, so that all but the matrix that wraps around have shifts
/// `0, 1, …, 2^{l+1} - 1` times their stride.
///
/// The rotation is by one stride of the neighbour with the wider stride, which therefore keeps it.
fn normalised(mut matrices: Vec<DiagonalMatrix>) -> Vec<DiagonalMatrix> {
    let count = matrices.len();
    let strides: Vec<usize> = matrices.iter().map(DiagonalMatrix::stride).collect();
    for i in 1..count {
        // The pair from the narrow end: (0, 1), (1, 2), … upwards, or the same from the back.
        let upwards = strides[0] < strides[count - 1];
        let (narrow, wide) = if upwards { (i - 1, i) } else { (count - i, count - i - 1) };
        let (slots, offset) = (matrices[narrow].slots, strides[wide]);
        if upwards {
            matrices[narrow] = matrices[narrow].then_rotated(offset);
            matrices[wide] = matrices[wide].of_rotated(slots - offset);
        } else {
            matrices[narrow] = matrices[narrow].of_rotated(offset);
            matrices[wide] = matrices[wide].then_rotated(slots - offset);
        }
    }
    matrices
}

/// Butterflies of length `len`: `(a, b) -> (a + w·b, a - w·b)`.
fn forward_layer(slots: usize, len: usize) -> DiagonalMatrix {
    let half = len / 2;
    let w = twiddles(len);
    let zero = vec![Complex64::ZERO; len];
    let [mut stay, mut left, mut right] = [zero.clone(), zero.clone(), zero];
    for j in 0..half {
        stay[j] = Complex64::ONE;
        left[j] = w[j];
        stay[j + half] = -w[j];
        right[j + half] = Complex64::ONE;
    }
    three(slots, len, stay, left, right)
}

/// Twice the inverse of [`forward_layer`]: `(a, b) -> (a + b, (a - b)/w)`.
fn inverse_layer(slots: usize, len: usize) -> DiagonalMatrix {
    let half = len / 2;
    let w = twiddles(len);
    let zero = vec![Complex64::ZERO; len];
    let [mut stay, mut left, mut right] = [zero.clone(), zero.clone(), zero];
    for j in 0..half {
        stay[j] = Complex64::ONE;
        left[j] = Complex64::ONE;
        stay[j + half] = -w[j].conj();
        right[j + half] = w[j].conj();
    }
    three(slots, len, stay, left, right)
}

fn three(
    slots: usize,
    len: usize,
    stay: Vec<Complex64>,
    left: Vec<Complex64>,
    right: Vec<Complex64>,
) -> DiagonalMatrix {
    let half = len / 2;
    let mut diagonals = BTreeMap::from([(0, stay)]);
    if len == slots {
        // Both neighbours are the same slot.
        diagonals.insert(half, left.iter().zip(&right).map(|(a, b)| a + b).collect());
    } else {
        diagonals.insert(half, left);
        diagonals.insert(slots - half, right);
    }
    DiagonalMatrix { slots, period: len, diagonals }
}

/// `exp(2πi·5^j / 4len)` for `j < len/2`.
fn twiddles(len: usize) -> Vec<Complex64> {
    let order = 4 * len;
    let mut power = 1;
    (0..len / 2)
        .map(|_| {
            let w = Complex64::from_polar(1.0, 2.0 * PI * power as f64 / order as f64);
            power = power * 5 % order;
            w
        })
        .collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(coefficients: &[Complex64]) -> Vec<Complex64> {
        let n = coefficients.len();
        let mut power = 1;
        (0..n)
            .map(|_| {
                let slot = (0..n)
                    .map(|k| {
                        coefficients[k]
                            * Complex64::from_polar(
                                1.0,
                                2.0 * PI * (k * power % (4 * n)) as f64 / (4 * n) as f64,
                            )
                    })
                    .sum();
                power = power * 5 % (4 * n);
                slot
            })
            .collect()
    }

    fn reversed(values: &[Complex64]) -> Vec<Complex64> {
        let bits = values.len().ilog2();
        (0..values.len()).map(|i| values[i.reverse_bits() >> (usize::BITS - bits)]).collect()
    }

    fn sample(n: usize) -> Vec<Complex64> {
        (0..n).map(|k| Complex64::new((k as f64 * 0.7).sin(), (k as f64 * 1.3).cos())).collect()
    }

    #[test]
    fn the_factors_multiply_to_the_embedding() {
        for (slots, layers) in
            [(8, vec![3]), (16, vec![2, 2]), (64, vec![2, 2, 2]), (256, vec![3, 3, 2]), (256, vec![1, 3, 4])]
        {
            let coefficients = sample(slots);
            let mut value = coefficients.clone();
            for matrix in slots_to_coeffs(slots, &layers) {
                value = matrix.apply(&value);
            }
            for (a, b) in value.iter().zip(embedding(&reversed(&coefficients))) {
                assert!((a - b).norm() < 1e-9, "{slots} {layers:?}");
            }
        }
    }

    #[test]
    fn the_two_directions_are_inverse() {
        for (slots, forward, backward) in [(64, vec![3, 3], vec![2, 2, 2]), (512, vec![5, 4], vec![4, 3, 2])]
        {
            let input = sample(slots);
            let mut value = input.clone();
            for matrix in slots_to_coeffs(slots, &forward).iter().chain(&coeffs_to_slots(slots, &backward)) {
                value = matrix.apply(&value);
            }
            for (a, b) in value.iter().zip(&input) {
                assert!((a / slots as f64 - b).norm() < 1e-12);
            }
        }
    }

    #[test]
    fn shifts_are_consecutive_multiples_of_the_stride() {
        let slots = 1 << 15;
        for (matrices, counts) in [
            (coeffs_to_slots(slots, &[4, 4, 4, 3]), [16, 31, 31, 15].as_slice()),
            (slots_to_coeffs(slots, &[5, 5, 5]), &[63, 63, 32]),
        ] {
            for (matrix, &count) in matrices.iter().zip(counts) {
                assert_eq!(matrix.diagonals().len(), count);
                let (stride, most) = (matrix.stride(), (count + 1).next_power_of_two());
                assert!(matrix.diagonals().all(|(s, _)| s / stride < most), "{stride}");
            }
        }
    }

    #[test]
    fn all_but_the_widest_matrix_live_in_a_subring() {
        let periods: Vec<_> =
            coeffs_to_slots(1 << 15, &[4, 4, 4, 3]).iter().map(DiagonalMatrix::period).collect();
        assert_eq!(periods, [1 << 15, 1 << 11, 1 << 7, 1 << 3]);
    }
}
