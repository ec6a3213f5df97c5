//! The transform against its definition, and every kernel against the scalar one, bit for bit.

mod common;

use cipherlm_ring::kernel::ExtendTable;
use cipherlm_ring::{Coeff, Kernel, Modulus, NttTable, Poly, eval_exponent, ntt_primes, primes_near};
use common::{all_centred, cases, mixed_ring, negacyclic, product, random};
use proptest::prelude::*;

/// Residues that overflow first when a bound is wrong.
fn corners(m: &Modulus) -> [f64; 8] {
    let q = m.value();
    [0, 1, 2, q / 2 - 1, q / 2, q / 2 + 1, q - 2, q - 1].map(|x| x as f64)
}

/// One slice that is all one corner, then mixtures: all corners, extremes alternating, and
/// pseudo-random residues.
fn adversarial(m: &Modulus, n: usize) -> Vec<Vec<f64>> {
    let c = corners(m);
    let mut slices: Vec<Vec<f64>> = c.iter().map(|&x| vec![x; n]).collect();
    slices.push((0..n).map(|i| c[i % 8]).collect());
    slices.push((0..n).map(|i| if i & 1 == 0 { c[7] } else { c[0] }).collect());
    slices.push((0..n).map(|i| if i & (n / 2) == 0 { c[7] } else { c[4] }).collect());
    slices.push(scrambled(m, n, 1));
    slices
}

fn scrambled(m: &Modulus, n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..n).map(|_| (next() % m.value()) as f64).collect()
}

fn moduli(n: usize) -> Vec<Modulus> {
    let mut primes = ntt_primes(n, 50, 2, &[]).unwrap();
    primes.extend(primes_near(n, 40.0, 1, &primes).unwrap());
    primes.extend(primes_near(n, 25.0, 1, &primes).unwrap());
    primes.into_iter().map(|q| Modulus::new(q).unwrap()).collect()
}

#[test]
fn kernels_agree_bit_for_bit_on_transforms_of_every_size() {
    let scalar = Kernel::scalar();
    for log_n in 4..=17 {
        let n = 1 << log_n;
        for m in moduli(n).into_iter().take(if log_n > 14 { 1 } else { 4 }) {
            let table = NttTable::new(m, n).unwrap();
            for input in adversarial(&m, n) {
                let mut expected = input.clone();
                (scalar.ntt_forward)(&table, &mut expected);
                let mut inverse = input.clone();
                (scalar.ntt_inverse)(&table, &mut inverse, (m.value() - 1) as f64);
                for kernel in Kernel::available() {
                    let mut a = input.clone();
                    (kernel.ntt_forward)(&table, &mut a);
                    assert!(a == expected, "{kernel:?} forward, N = {n}, {m:?}");
                    (kernel.ntt_inverse)(&table, &mut a, 1.0);
                    assert!(a == input, "{kernel:?} round trip, N = {n}, {m:?}");
                    a.copy_from_slice(&input);
                    (kernel.ntt_inverse)(&table, &mut a, (m.value() - 1) as f64);
                    assert!(a == inverse, "{kernel:?} scaled inverse, N = {n}, {m:?}");
                }
            }
        }
    }
}

#[test]
fn kernels_agree_bit_for_bit_on_slices() {
    let scalar = Kernel::scalar();
    // Lengths that are not multiples of a vector exercise the tails.
    for n in [16, 17, 23, 64, 255, 1024] {
        for m in moduli(16) {
            let index: Vec<u32> = (0..n as u32).map(|i| (i * 7 + 3) % n as u32).collect();
            for a in adversarial(&m, n) {
                for b in adversarial(&m, n) {
                    for kernel in Kernel::available() {
                        let mut pairs = Vec::new();
                        let mut on_both = |f: &dyn Fn(&Kernel, &mut Vec<f64>)| {
                            let [x, y] = [kernel, scalar].map(|k| {
                                let mut acc = a.clone();
                                f(k, &mut acc);
                                acc
                            });
                            pairs.push(x == y);
                        };
                        on_both(&|k, acc| (k.add)(&m, acc, &b));
                        on_both(&|k, acc| (k.sub)(&m, acc, &b));
                        on_both(&|k, acc| (k.neg)(&m, acc));
                        on_both(&|k, acc| (k.mul)(&m, acc, &b));
                        on_both(&|k, acc| (k.mul_to)(&m, acc, &b, &a));
                        on_both(&|k, acc| (k.mul_add)(&m, acc, &a, &b));
                        on_both(&|k, acc| (k.mul_scalar)(&m, acc, b[0]));
                        on_both(&|k, acc| (k.mul_scalar_add)(&m, acc, &b, a[0]));
                        on_both(&|k, acc| (k.rsub_mul_scalar)(&m, acc, &b, a[0]));
                        on_both(&|k, acc| (k.permute)(acc, &b, &index));
                        assert!(
                            pairs.iter().all(|&equal| equal),
                            "{kernel:?}, {n} residues, {m:?}: {pairs:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn kernels_agree_bit_for_bit_on_reduction() {
    for m in moduli(16) {
        let q = m.float();
        let limit = 52f64.exp2() * q * (1.0 - f64::EPSILON);
        let src: Vec<f64> =
            [0.0, 1.0, q, q / 2.0, 52f64.exp2(), 53f64.exp2() - 1.0, 60f64.exp2() + 4096.0, limit]
                .into_iter()
                .flat_map(|x| [x.floor(), -x.floor(), x.floor() + 1.0, x.floor() - 1.0])
                .filter(|x| x.abs() <= limit)
                .collect();
        for kernel in Kernel::available() {
            let mut dst = vec![0.0; src.len()];
            (kernel.reduce)(&m, &mut dst, &src);
            for (d, s) in dst.iter().zip(&src) {
                assert_eq!(*d, m.reduce_i128(*s as i128) as f64, "{kernel:?}: {s} mod {q}");
            }
        }
    }
}

#[test]
fn kernels_agree_bit_for_bit_on_extension_and_inner_product() {
    let primes = ntt_primes(16, 50, 12, &[]).unwrap();
    let small = primes_near(16, 30.0, 3, &primes).unwrap();
    let moduli: Vec<Modulus> = primes.iter().chain(&small).map(|&q| Modulus::new(q).unwrap()).collect();
    let n = 100;
    for count in [1, 2, 3, 7, 8, 9, 11] {
        let table = ExtendTable::new(&moduli[..count], &moduli[count..]);
        for pick in 0..9 {
            let inputs: Vec<Vec<f64>> = moduli[..count]
                .iter()
                .enumerate()
                .map(|(i, m)| match pick {
                    0..8 => vec![corners(m)[pick]; n],
                    _ => scrambled(m, n, i as u64 + 9),
                })
                .collect();
            let sources: Vec<&[f64]> = inputs.iter().map(|x| &x[..]).collect();
            let run = |kernel: &Kernel| {
                let mut out = vec![vec![0.0; n]; moduli.len() - count];
                let mut targets: Vec<&mut [f64]> = out.iter_mut().map(|x| &mut x[..]).collect();
                (kernel.extend)(&table, &sources, &mut targets);
                out
            };
            let expected = run(Kernel::scalar());
            for kernel in Kernel::available() {
                assert!(run(kernel) == expected, "{kernel:?}, {count} sources, input {pick}");
            }
        }
    }
    for m in &moduli {
        for digits in [1u64, 2, 3, 4, 5, 9] {
            for top in [true, false] {
                let make = |seed| -> Vec<Vec<f64>> {
                    (0..digits)
                        .map(|d| if top { vec![m.float() - 1.0; n] } else { scrambled(m, n, seed + d) })
                        .collect()
                };
                let (d, k0, k1) = (make(1), make(20), make(40));
                let [d, k0, k1] = [&d, &k0, &k1].map(|list| list.iter().map(|x| &x[..]).collect::<Vec<_>>());
                let run = |kernel: &Kernel| {
                    let mut accs = [vec![m.float() - 1.0; n], vec![1.0; n]];
                    let [a0, a1] = &mut accs;
                    (kernel.inner_product2)(m, a0, a1, &d, &k0, &k1);
                    accs
                };
                let expected = run(Kernel::scalar());
                for kernel in Kernel::available() {
                    assert!(run(kernel) == expected, "{kernel:?}, {digits} digits, {m:?}");
                }
            }
        }
    }
}

#[test]
fn exponents_are_a_permutation_of_the_odd_numbers() {
    for log_n in 4..=17 {
        let mut seen = vec![false; 1 << log_n];
        for slot in 0..1 << log_n {
            let e = eval_exponent(log_n, slot);
            assert!(e % 2 == 1 && !std::mem::replace(&mut seen[e / 2], true), "slot {slot}, exponent {e}");
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn inverse_undoes_forward(log_n in 4u32..=13, seed: u64) {
        let ring = mixed_ring(log_n);
        let a = random::<Coeff>(&ring, &ring.limbs(), seed);
        prop_assert!(a.clone().into_eval().into_coeff() == a);
    }

    #[test]
    fn slots_hold_values_at_powers_of_the_root(log_n in 4u32..=9, seed: u64) {
        let ring = mixed_ring(log_n);
        let a = random::<Coeff>(&ring, &ring.limbs(), seed);
        let values = a.clone().into_eval();
        for (limb, coefficients) in a.iter() {
            let (m, root) = (ring.modulus(limb).unwrap(), ring.ntt_table(limb).unwrap().root());
            for (slot, &value) in values.limb(limb).unwrap().iter().enumerate() {
                let x = m.pow(root, eval_exponent(log_n, slot) as u64);
                let naive = coefficients.iter().rev().fold(0, |sum, &c| m.add(m.mul(sum, x), c as u64));
                prop_assert_eq!(value, naive as f64);
            }
        }
    }

    #[test]
    fn products_of_values_are_negacyclic_convolutions(log_n in 4u32..=7, seed: u64) {
        let ring = mixed_ring(log_n);
        let limbs = ring.limbs();
        let [a, b] = [seed, seed ^ 1].map(|s| random::<Coeff>(&ring, &limbs, s));
        let expected = all_centred(&negacyclic(&a.to_bigint(), &b.to_bigint()), &product(&ring, &limbs));
        let c = Poly::mul(&a.into_eval(), &b.into_eval()).unwrap().into_coeff();
        prop_assert_eq!(c.to_bigint(), expected);
    }

    #[test]
    fn float_product_is_the_integer_product(log2 in 5.0f64..50.0, a: u64, b: u64) {
        let Ok(primes) = primes_near(16, log2, 1, &[]) else { return Ok(()) };
        let m = Modulus::new(primes[0]).unwrap();
        let (a, b) = (m.reduce(a), m.reduce(b));
        prop_assert_eq!(m.mul_f64(a as f64, b as f64), m.mul(a, b) as f64);
        for x in corners(&m) {
            prop_assert_eq!(m.mul_f64(a as f64, x), m.mul(a, x as u64) as f64);
        }
    }
}
