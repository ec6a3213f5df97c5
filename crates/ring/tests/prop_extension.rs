//! Basis extension, mod_up, mod_down, rescale and the key-switch inner product against big
//! integers.

mod common;

use std::ops::Range;

use cipherlm_ring::{
    Coeff, Decomposition, Error, Eval, KeyDigits, KeyLimb, Limbs, PackedPair, Poly, Ring, key_product,
};
use common::{
    all_centred, cases, centred, from_integers, from_residues, mixed_ring, product, random, round_div,
};
use num_bigint::BigInt;
use proptest::prelude::*;

/// Two disjoint non-empty sets of the eight limbs: `which` gives each limb to the first (1), the
/// second (2) or neither.
fn split(which: &[u8]) -> Option<(Limbs, Limbs)> {
    let set = |side| Limbs::new((0..8).filter(|&i| which[i] == side)).unwrap();
    let (a, b) = (set(1), set(2));
    (!a.is_empty() && !b.is_empty()).then_some((a, b))
}

fn edge_values(q: &BigInt, n: usize) -> Vec<BigInt> {
    let half: BigInt = q >> 1;
    let edges = [BigInt::ZERO, 1.into(), (-1).into(), half.clone(), -&half, &half - 1, 1 - &half, &half / 3];
    (0..n).map(|i| edges[i % edges.len()].clone()).collect()
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn extension_is_exact_and_centred(
        which in prop::collection::vec(0u8..3, 8),
        log_n in 4u32..=7,
        seed: u64,
    ) {
        let Some((from, to)) = split(&which) else { return Ok(()) };
        let ring = mixed_ring(log_n);
        let extension = ring.extension(&from, &to).unwrap();
        let target = product(&ring, &to);
        let x = random::<Coeff>(&ring, &from, seed);
        prop_assert_eq!(extension.apply(&x).unwrap().to_bigint(), all_centred(&x.to_bigint(), &target));
        let raised = extension.mod_up(&x.clone().into_eval()).unwrap();
        let all = product(&ring, raised.limbs());
        prop_assert_eq!(raised.into_coeff().to_bigint(), all_centred(&x.to_bigint(), &all));
        // Where rounding is hardest: next to plus and minus half the modulus.
        let edges = edge_values(&product(&ring, &from), ring.degree());
        let x = from_integers(&ring, &from, &edges);
        prop_assert_eq!(extension.apply(&x).unwrap().to_bigint(), all_centred(&edges, &target));
    }

    #[test]
    fn mod_down_rounds_to_nearest(which in prop::collection::vec(0u8..3, 8), log_n in 4u32..=7, seed: u64) {
        let Some((keep, drop)) = split(&which) else { return Ok(()) };
        let ring = mixed_ring(log_n);
        let all = keep.union(&drop);
        let [q, p, qp] = [&keep, &drop, &all].map(|l| product(&ring, l));
        let mod_down = ring.mod_down(&keep, &drop).unwrap();
        // Random values, and values next to half-integers after the division.
        let half: BigInt = &p >> 1;
        let near = |i: usize| centred(&((&half + i % 3) + &p * (i * i * 977)), &qp);
        let near = (0..ring.degree()).map(near).collect();
        for integers in [random::<Coeff>(&ring, &all, seed).to_bigint(), near] {
            let expected: Vec<BigInt> = integers.iter().map(|x| centred(&round_div(x, &p), &q)).collect();
            let x = from_integers(&ring, &all, &integers);
            let y = mod_down.apply(&x.into_eval()).unwrap();
            prop_assert_eq!(y.limbs(), &keep);
            prop_assert_eq!(y.into_coeff().to_bigint(), expected);
        }
    }

    #[test]
    fn fused_division_is_within_one_of_two_steps(log_n in 4u32..=7, seed: u64, rescaled in 1usize..3) {
        let ring = mixed_ring(log_n);
        let (chain, special) = (Limbs::range(0..6), Limbs::range(6..8));
        let keep = chain.first(6 - rescaled);
        let dropped = chain.last(rescaled);
        let x = random::<Eval>(&ring, &ring.limbs(), seed);
        let fused = ring.mod_down(&keep, &dropped.union(&special)).unwrap().apply(&x).unwrap();
        let down = ring.mod_down(&chain, &special).unwrap().apply(&x).unwrap();
        let mut apart = ring.mod_down(&keep, &dropped).unwrap().apply(&down).unwrap();
        apart.sub_assign(&fused).unwrap();
        prop_assert!(apart.into_coeff().to_f64().iter().all(|d| d.abs() <= 1.0));
    }

    #[test]
    fn digits_recompose(level in 1usize..=6, log_n in 4u32..=7, seed: u64) {
        let ring = mixed_ring(log_n);
        let (chain, special) = (Limbs::range(0..level), Limbs::range(6..8));
        let groups = [Limbs::range(0..2), Limbs::range(2..5), Limbs::range(5..6)];
        let gadget = Decomposition::new(&ring, &chain, &groups, &special).unwrap();
        let x = random::<Coeff>(&ring, &chain, seed);
        let digits = gadget.decompose(&x.clone().into_eval()).unwrap();
        prop_assert_eq!(digits.len(), gadget.len());
        let (integers, qp) = (x.to_bigint(), product(&ring, gadget.limbs()));
        for (digit, limbs) in digits.into_iter().zip(gadget.digit_limbs()) {
            let small = product(&ring, limbs);
            let expected: Vec<BigInt> = integers.iter().map(|x| centred(&centred(x, &small), &qp)).collect();
            prop_assert_eq!(digit.into_coeff().to_bigint(), expected);
        }
    }

    #[test]
    fn key_product_is_the_sum_of_products(digits in 1usize..=5, log_n in 4u32..=12, seed: u64) {
        let ring = mixed_ring(log_n);
        let limbs = Limbs::new([0, 1, 4, 6]).unwrap();
        let make = |i: usize| random::<Eval>(&ring, &ring.limbs(), seed ^ (i as u64) << 32);
        let list: Vec<Poly<Eval>> = (0..digits).map(make).collect();
        let others: Vec<Poly<Eval>> = (0..digits).map(|i| make(100 + i)).collect();
        // One pair more than there are digits: keys for the top level serve lower ones.
        let key: Vec<[Poly<Eval>; 2]> = (0..=digits).map(|i| [make(10 + 2 * i), make(11 + 2 * i)]).collect();
        let expected = [&list, &others].map(|list| {
            [0, 1].map(|half| {
                let mut sum = Poly::zero(&ring, &limbs).unwrap();
                for (digit, pair) in list.iter().zip(&key) {
                    sum.mul_add_assign(digit, &pair[half]).unwrap();
                }
                sum
            })
        });
        let pack = |pair: &[Poly<_>; 2]| PackedPair::pack(pair.each_ref()).unwrap();
        let packed: Vec<PackedPair> = key.iter().map(pack).collect();
        for (pair, packed) in key.iter().zip(&packed) {
            prop_assert!(packed.unpack() == *pair && packed.clone().unpack() == *pair);
        }
        prop_assert!(products(&key[..], [&list, &others]) == expected);
        prop_assert!(products(&packed[..], [&list, &others]) == expected);
        prop_assert!(products(&Copied(&key), [&list, &others]) == expected);
    }
}

/// The products of two lists of digits with a key: one by one, which must be the same as both
/// together.
fn products<K: KeyDigits + ?Sized>(key: &K, lists: [&[Poly<Eval>]; 2]) -> [[Poly<Eval>; 2]; 2] {
    let limbs = Limbs::new([0, 1, 4, 6]).unwrap();
    let scratch = || [0, 1].map(|_| Poly::scratch(lists[0][0].ring(), &limbs).unwrap());
    let alone = lists.map(|list| {
        let [mut a, mut b] = scratch();
        key_product(&mut [[&mut a, &mut b]], &[list], key).unwrap();
        [a, b]
    });
    let ([mut a0, mut a1], [mut b0, mut b1]) = (scratch(), scratch());
    key_product(&mut [[&mut a0, &mut a1], [&mut b0, &mut b1]], &lists, key).unwrap();
    assert!(alone == [[a0, a1], [b0, b1]]);
    alone
}

/// A key whose residues are written block by block, in order.
struct Copied<'a>(&'a [[Poly<Eval>; 2]]);

impl KeyDigits for Copied<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn limb(&self, _: &Ring, index: usize, count: usize) -> Result<KeyLimb<'_>, Error> {
        let mut next = vec![0; count];
        let fill = move |digit: usize, range: &Range<usize>, halves: [&mut [f64]; 2]| {
            assert_eq!(range.start, next[digit]);
            next[digit] = range.end;
            for (half, out) in halves.into_iter().enumerate() {
                out.copy_from_slice(&self.0[digit][half].limb(index).unwrap()[range.clone()]);
            }
        };
        Ok(KeyLimb::Made { count, fill: Box::new(fill) })
    }
}

#[test]
fn one_prime_is_exact_for_every_residue() {
    // A small prime lets us see all of them; several rounds fill a ring of 64 coefficients.
    let ring = cipherlm_ring::Ring::new(64, &[257, 641, 769]).unwrap();
    let (from, to) = (Limbs::range(0..1), Limbs::range(1..3));
    let extension = ring.extension(&from, &to).unwrap();
    for start in (0..257u64).step_by(64) {
        let residues: Vec<u64> = (start..start + 64).map(|x| x % 257).collect();
        let x = from_residues::<Coeff>(&ring, &from, &residues);
        let expected: Vec<f64> =
            residues.iter().map(|&x| if x > 128 { x as f64 - 257.0 } else { x as f64 }).collect();
        assert_eq!(extension.apply(&x).unwrap().to_f64(), expected);
    }
}
