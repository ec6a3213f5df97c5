//! The inner product of key switching.

use crate::error::{Error, Result};
use crate::galois::Automorphism;
use crate::kernel::InnerProduct2;
use crate::modulus::Modulus;
use crate::par;
use crate::poly::{Eval, Poly, check_contains, check_len};

/// Residues handled together: the two accumulators stay in the L1 cache, the keys of a block in L2.
const BLOCK: usize = 2048;

/// One key: for each digit a pair of polynomials.
pub type KeySlice = [[Poly<Eval>; 2]];

/// `acc = sum_d digits[d] * key[d]` for both halves of the key, over the limbs of the accumulators.
///
/// With an automorphism the digits are read permuted: one decomposition serves many rotations. Digits and keys may have
/// more limbs than the accumulators, and keys more digits than there are digits.
pub fn inner_product(
    acc: [&mut Poly<Eval>; 2],
    digits: &[Poly<Eval>],
    key: &KeySlice,
    automorphism: Option<&Automorphism>,
) -> Result<()> {
    run(&mut [acc], &[digits], key, automorphism, true)
}

/// As [`inner_product`], adding to what the accumulators hold.
pub fn inner_product_add(
    acc: [&mut Poly<Eval>; 2],
    digits: &[Poly<Eval>],
    key: &KeySlice,
    automorphism: Option<&Automorphism>,
) -> Result<()> {
    run(&mut [acc], &[digits], key, automorphism, false)
}

/// As [`inner_product`] for several ciphertexts under one key: each block of the key is read from memory once.
pub fn inner_product_many(
    accs: &mut [[&mut Poly<Eval>; 2]],
    digits: &[&[Poly<Eval>]],
    key: &KeySlice,
    automorphism: Option<&Automorphism>,
) -> Result<()> {
    check_len("lists of digits, one per accumulator", accs.len(), digits.len())?;
    run(accs, digits, key, automorphism, true)
}

fn run(
    accs: &mut [[&mut Poly<Eval>; 2]],
    digits: &[&[Poly<Eval>]],
    key: &KeySlice,
    automorphism: Option<&Automorphism>,
    overwrite: bool,
) -> Result<()> {
    let Some([first, _]) = accs.first() else { return Ok(()) };
    let (ring, limbs) = (first.ring().clone(), first.limbs().clone());
    if let Some(automorphism) = automorphism {
        automorphism.check_degree(&ring)?;
    }
    for poly in accs.iter().flatten() {
        ring.check_same(poly.ring())?;
        check_contains("accumulator", &limbs, "other accumulator", poly.limbs())?;
        check_contains("accumulator", poly.limbs(), "other accumulator", &limbs)?;
    }
    let count = digits.first().map_or(0, |d| d.len());
    if key.len() < count {
        return Err(Error::LengthMismatch { what: "digits in the key", expected: count, found: key.len() });
    }
    let key = &key[..count];
    for digits in digits {
        check_len("digits of each operand", count, digits.len())?;
        for digit in *digits {
            ring.check_same(digit.ring())?;
            check_contains("accumulator", &limbs, "digit", digit.limbs())?;
        }
    }
    for poly in key.iter().flatten() {
        ring.check_same(poly.ring())?;
        check_contains("accumulator", &limbs, "key", poly.limbs())?;
    }
    let mut jobs: Vec<Job<'_>> =
        limbs.iter().map(|index| Job { index, accs: Vec::with_capacity(accs.len()) }).collect();
    for [acc0, acc1] in accs.iter_mut() {
        for ((job, (_, a0)), (_, a1)) in jobs.iter_mut().zip(acc0.iter_mut()).zip(acc1.iter_mut()) {
            job.accs.push([a0, a1]);
        }
    }
    let kernel = ring.kernel().inner_product2;
    par::each(ring.degree() * limbs.len(), jobs.into_iter(), |job| {
        let modulus = ring.m(job.index);
        job.run(kernel, modulus, digits, key, automorphism.map(Automorphism::index), overwrite);
    });
    Ok(())
}

/// One limb of all accumulators.
struct Job<'a> {
    index: usize,
    accs: Vec<[&'a mut [f64]; 2]>,
}

impl Job<'_> {
    fn run(
        self,
        kernel: InnerProduct2,
        modulus: &Modulus,
        digits: &[&[Poly<Eval>]],
        key: &KeySlice,
        permutation: Option<&[u32]>,
        overwrite: bool,
    ) {
        let limb = |poly| limb_of(poly, self.index);
        let n = self.accs.first().map_or(0, |[a, _]| a.len());
        let keys: [Vec<&[f64]>; 2] = [0, 1].map(|half| key.iter().filter_map(|pair| limb(&pair[half])).collect());
        let digits: Vec<Vec<&[f64]>> = digits.iter().map(|list| list.iter().filter_map(limb).collect()).collect();
        let mut accs = self.accs;
        for start in (0..n).step_by(BLOCK) {
            let range = start..n.min(start + BLOCK);
            let [key0, key1] = keys.each_ref().map(|half| cut(half, &range));
            let index = permutation.map(|p| &p[range.clone()]);
            for ([acc0, acc1], digits) in accs.iter_mut().zip(&digits) {
                let (acc0, acc1) = (&mut acc0[range.clone()], &mut acc1[range.clone()]);
                if overwrite {
                    acc0.fill(0.0);
                    acc1.fill(0.0);
                }
                match index {
                    // Permuted digits are read from anywhere in the limb.
                    Some(_) => kernel(modulus, acc0, acc1, digits, &key0, &key1, index),
                    None => kernel(modulus, acc0, acc1, &cut(digits, &range), &key0, &key1, None),
                }
            }
        }
    }
}

fn limb_of(poly: &Poly<Eval>, index: usize) -> Option<&[f64]> {
    poly.limbs().position(index).map(|p| poly.at(p))
}

fn cut<'a>(slices: &[&'a [f64]], range: &std::ops::Range<usize>) -> Vec<&'a [f64]> {
    slices.iter().map(|s| &s[range.clone()]).collect()
}
