//! Every kernel against the scalar one, bit for bit, and the transforms against evaluation. The
//! kernel on integers shares no arithmetic with those on floats: what they agree on is right.

use super::*;
use crate::modulus::Modulus;
use crate::prime::{is_prime, ntt_primes};

/// Residues that sit on the corners first, then scattered; `seed` separates operands.
fn residues(m: &Modulus, len: usize, seed: u64) -> Vec<f64> {
    let q = m.value();
    let corners = [0, q - 1, 1, q / 2, q / 2 + 1, q - 2, 2, q / 3];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let scattered = (0..len as u64).map(|i| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match seed % 4 {
            0 => q - 1,
            1 if i % 2 == 0 => q / 2 + 1,
            2 if i % 3 != 0 => q - 1 - i % 2,
            _ => state % q,
        }
    });
    let corners = corners.iter().cycle().skip(seed as usize % 8).step_by(1 + seed as usize % 3).copied();
    corners.take(len.min(24)).chain(scattered).take(len).map(|x| x as f64).collect()
}

fn moduli() -> Vec<Modulus> {
    let mut values = ntt_primes(1 << 17, 50, 2, &[]).unwrap();
    values.extend(ntt_primes(1 << 10, 45, 1, &[]).unwrap());
    values.extend(ntt_primes(1 << 5, 30, 1, &[]).unwrap());
    values.extend([3, 97, 12289, (1 << 49) - 81]);
    values.into_iter().map(|q| Modulus::new(q).unwrap()).collect()
}

fn other_kernels() -> Vec<&'static Kernel> {
    Kernel::available().into_iter().filter(|k| k.name != "scalar").collect()
}

/// Lengths around multiples of the lanes, and starts that are not aligned.
const SHAPES: [(usize, usize); 9] =
    [(0, 0), (0, 1), (1, 3), (0, 4), (3, 5), (1, 8), (2, 15), (0, 33), (5, 259)];

/// Runs `f` on the scalar and all other kernels with copies of `outputs` cut to odd shapes; all
/// must agree.
fn agree(
    what: &str,
    m: &Modulus,
    outputs: &[Vec<f64>],
    f: impl Fn(&Kernel, &mut [&mut [f64]], usize, usize),
) {
    for (start, len) in SHAPES {
        let run = |kernel: &Kernel| {
            let mut copies = outputs.to_vec();
            let mut slices: Vec<&mut [f64]> = copies.iter_mut().map(|c| &mut c[start..start + len]).collect();
            f(kernel, &mut slices, start, len);
            copies
        };
        let expected = run(Kernel::scalar());
        for output in &expected {
            assert!(
                output.iter().all(|&x| x >= 0.0 && x < m.float() && x.fract() == 0.0),
                "{what} not canonical"
            );
        }
        for kernel in other_kernels() {
            let bits = |v: Vec<Vec<f64>>| v.concat().into_iter().map(f64::to_bits).collect::<Vec<_>>();
            assert_eq!(
                bits(run(kernel)),
                bits(expected.clone()),
                "{kernel:?} {what} mod {} [{start}; {len}]",
                m.value()
            );
        }
    }
}

/// An operation on one output and two operands.
type Operation<'a> = &'a dyn Fn(&Kernel, &mut [f64], &[f64], &[f64]);

#[test]
fn pointwise_operations_agree() {
    const N: usize = 300;
    for m in moduli() {
        for seed in 0..8 {
            let [a, b, c] = [0, 1, 2].map(|k| residues(&m, N, seed + 5 * k));
            let one = |what: &str, f: Operation| {
                agree(what, &m, std::slice::from_ref(&a), |k, out, s, l| {
                    f(k, out[0], &b[s..s + l], &c[s..s + l])
                });
            };
            one("add", &|k, x, y, _| (k.add)(&m, x, y));
            one("sub", &|k, x, y, _| (k.sub)(&m, x, y));
            one("neg", &|k, x, _, _| (k.neg)(&m, x));
            one("mul", &|k, x, y, _| (k.mul)(&m, x, y));
            one("mul_to", &|k, x, y, z| (k.mul_to)(&m, x, y, z));
            one("mul_add", &|k, x, y, z| (k.mul_add)(&m, x, y, z));
            for &w in &b[..12] {
                one("mul_scalar", &|k, x, _, _| (k.mul_scalar)(&m, x, w));
                one("mul_scalar_add", &|k, x, y, _| (k.mul_scalar_add)(&m, x, y, w));
                one("rsub_mul_scalar", &|k, x, y, _| (k.rsub_mul_scalar)(&m, x, y, w));
            }
        }
    }
}

#[test]
fn reduction_agrees_on_the_whole_input_range() {
    for m in moduli() {
        let q = m.float();
        let big = (1u64 << 52) as f64;
        let mut values = vec![
            0.0,
            1.0,
            q,
            -q,
            q / 2.0,
            2.0 * q,
            big - 1.0,
            1.0 - big,
            big * 2.0,
            (big - 4.0) * q,
            (4.0 - big) * q,
        ];
        values.extend((0..290).map(|i| (f64::from(i) - 145.0) * (q * 17.0 - 3.0) * f64::from(1 + i % 7)));
        let values: Vec<f64> = values.into_iter().map(f64::trunc).collect();
        agree("reduce", &m, &[residues(&m, 300, 3)], |k, out, s, l| {
            (k.reduce)(&m, out[0], &values[s..s + l])
        });
    }
}

/// Scattered indices, and indices within aligned blocks of 16 as automorphisms have them, the last
/// block cut short.
fn permutations(n: usize) -> [Vec<u32>; 2] {
    let n = n as u32;
    [
        (0..n).map(|i| (7 * i + 11) % n).collect(),
        (0..n).map(|i| ((i & !15) ^ 32 | (5 * i + 3) & 15).min(n - 1)).collect(),
    ]
}

#[test]
fn cpus_without_fused_multiply_add_get_integers() {
    let names: Vec<&str> = Kernel::available().iter().map(|kernel| kernel.name).collect();
    assert!(names.contains(&"integer") && names.contains(&"scalar"), "{names:?}");
    assert_eq!(Kernel::best().name, names[names.len() - 1]);
    assert_eq!(cpu::fused_multiply_add(), Kernel::best().name != "integer");
}

#[test]
fn permutations_agree() {
    const N: usize = 300;
    for index in permutations(N) {
        for m in moduli() {
            let [a, b] = [3, 4].map(|seed| residues(&m, N, seed));
            agree("permute", &m, std::slice::from_ref(&a), |k, out, s, l| {
                (k.permute)(out[0], &b, &index[s..s + l])
            });
        }
    }
}

#[test]
fn an_index_out_of_range_is_refused() {
    for kernel in Kernel::available() {
        let outcome = std::panic::catch_unwind(|| {
            (kernel.permute)(&mut [0.0; 8], &[1.0; 8], &[0, 1, 2, 3, 4, 5, 6, 8])
        });
        assert!(outcome.is_err(), "{kernel:?}");
    }
}

/// The gather instruction reads indices as signed: a source that needs the 32nd bit would be read
/// before its start.
#[cfg(target_arch = "x86_64")]
#[test]
fn sources_beyond_signed_indices_are_refused() {
    use super::simd::pointwise::check_index;
    check_index(&[0, u32::MAX >> 1], 1 << 31);
    check_index(&[], 0);
    for (index, len) in [(0, (1 << 31) + 1), (u32::MAX, 1 << 32), (1 << 31, 1 << 31), (5, 5)] {
        assert!(std::panic::catch_unwind(|| check_index(&[index], len)).is_err(), "{index} of {len}");
    }
}

#[test]
fn inner_products_agree() {
    const N: usize = 300;
    for m in moduli() {
        for terms in 0..10u64 {
            for seed in 0..4 {
                let of = |k: u64| {
                    (0..terms)
                        .map(|d| residues(&m, N, if seed == 0 { 0 } else { seed + 4 * d + k }))
                        .collect::<Vec<_>>()
                };
                let [digits, key0, key1] = [0, 13, 29].map(of);
                let acc = [residues(&m, N, seed), residues(&m, N, seed + 6)];
                agree("inner_product2", &m, &acc, |k, out, s, l| {
                    let [acc0, acc1] = out else { unreachable!() };
                    let cut = |v: &'_ [Vec<f64>]| v.iter().map(|x| x[s..s + l].to_vec()).collect::<Vec<_>>();
                    let lists = [&digits, &key0, &key1].map(|v| cut(v));
                    let [d, k0, k1] =
                        lists.each_ref().map(|v| v.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    (k.inner_product2)(&m, acc0, acc1, &d, &k0, &k1);
                });
            }
        }
    }
}

/// Packs pairs of residues, the last group filled with zeros, with so many bytes after the groups.
fn pack(m: &Modulus, pair: [&[f64]; 2], slack: usize) -> Vec<u8> {
    let groups = pair[0].len().div_ceil(GROUP);
    let [a, b] = pair.map(|x| [x, &vec![0.0; groups * GROUP - x.len()]].concat());
    let mut packed = vec![0; groups * group_bytes(m) + SLACK];
    pack_pair(m, [&a, &b], &mut packed);
    packed.truncate(groups * group_bytes(m) + slack);
    packed
}

#[test]
fn packed_residues_come_back_in_their_bits() {
    let mut moduli = moduli();
    // One prime of every size.
    moduli.extend((2..=50).filter_map(|bits| {
        (1..1u64 << 12)
            .filter_map(|k| Modulus::new((1u64 << bits).checked_sub(k)?).ok())
            .find(|m| m.bits() == bits)
    }));
    assert!((2..=50).all(|bits| moduli.iter().any(|m| m.bits() == bits)));
    for m in moduli {
        for seed in 0..6 {
            let pair = [residues(&m, 64, seed), residues(&m, 64, seed + 9)];
            let packed = pack(&m, [&pair[0], &pair[1]], 0);
            assert_eq!(packed.len() as u32, 64 / 8 * 2 * m.bits());
            // Field by field, bit by bit.
            for (half, values) in pair.iter().enumerate() {
                for (i, &value) in values.iter().enumerate() {
                    let first = (2 * (i / 8) + half) * 8 * m.bits() as usize + i % 8 * m.bits() as usize;
                    let bit = |k: usize| u64::from(packed[(first + k) / 8] >> ((first + k) % 8) & 1) << k;
                    let field = (0..m.bits() as usize).map(bit).sum::<u64>();
                    assert_eq!(field, value as u64, "{m:?}, half {half}, residue {i}");
                }
            }
            let mut back = [vec![0.0; 64], vec![0.0; 64]];
            let [a, b] = &mut back;
            unpack_pair(&m, &packed, [a, b]);
            assert_eq!(back, pair, "{m:?}");
        }
    }
}

#[test]
fn inner_products_with_packed_keys_agree() {
    const N: usize = 300;
    for m in moduli() {
        for terms in 0..10u64 {
            for seed in 0..4 {
                let of = |k: u64| {
                    (0..terms)
                        .map(|d| residues(&m, N, if seed == 0 { 0 } else { seed + 4 * d + k }))
                        .collect::<Vec<_>>()
                };
                let [digits, key0, key1] = [0, 13, 29].map(of);
                let acc = [residues(&m, N, seed), residues(&m, N, seed + 6)];
                for slack in [0, 1, SLACK] {
                    agree("inner_product_packed", &m, &acc, |k, out, s, l| {
                        let [acc0, acc1] = out else { unreachable!() };
                        let digits: Vec<&[f64]> = digits.iter().map(|d| &d[s..s + l]).collect();
                        let pairs = key0.iter().zip(&key1).map(|(a, b)| [&a[s..s + l], &b[s..s + l]]);
                        let keys: Vec<Vec<u8>> = pairs.map(|pair| pack(&m, pair, slack)).collect();
                        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                        (k.inner_product_packed)(&m, acc0, acc1, &digits, &keys);
                        // The same as with keys that are not packed.
                        let mut plain = [vec![0.0; l], vec![0.0; l]];
                        let [plain0, plain1] = &mut plain;
                        let [k0, k1] = [&key0, &key1]
                            .map(|key| key.iter().map(|x| &x[s..s + l]).collect::<Vec<&[f64]>>());
                        (Kernel::scalar().inner_product2)(&m, plain0, plain1, &digits, &k0, &k1);
                        assert_eq!([&**acc0, &**acc1], [&plain[0][..], &plain[1]], "{k:?}");
                    });
                }
            }
        }
    }
}

/// Whatever bytes a key has, kernels read no further than they reach, and write what they should.
#[test]
fn short_packed_keys_end_the_product() {
    let m = moduli()[0];
    let residues = residues(&m, 64, 5);
    let packed = pack(&m, [&residues, &residues], SLACK);
    for length in 0..packed.len() {
        // Memory of its own, which tools that watch memory know the end of.
        let key = packed[..length].to_vec();
        let run = |kernel: &Kernel| {
            let mut accs = [[7.0; 64]; 2];
            let [acc0, acc1] = &mut accs;
            (kernel.inner_product_packed)(&m, acc0, acc1, &[&residues], &[&key]);
            accs
        };
        let expected = run(Kernel::scalar());
        let whole = (length / group_bytes(&m) * GROUP).min(64);
        assert!(expected.iter().all(|acc| acc[whole..].iter().all(|&x| x == 7.0)));
        for kernel in other_kernels() {
            assert_eq!(run(kernel), expected, "{kernel:?}, {length} bytes");
        }
    }
}

#[test]
fn basis_extensions_agree() {
    let primes = ntt_primes(1 << 10, 50, 24, &[]).unwrap();
    let mut pool: Vec<Modulus> = primes.iter().map(|&q| Modulus::new(q).unwrap()).collect();
    pool.extend(ntt_primes(1 << 10, 30, 2, &[]).unwrap().iter().map(|&q| Modulus::new(q).unwrap()));
    pool.extend([97, 12289].map(|q| Modulus::new(q).unwrap()));
    let targets: Vec<Modulus> = pool[20..].to_vec();
    for terms in [1, 2, 3, 7, 8, 9, 16, 17, 20] {
        let from: Vec<Modulus> = pool[..terms].iter().rev().copied().collect();
        let table = ExtendTable::new(&from, &targets);
        for (seed, n) in [(0, 256), (1, 128), (2, 131), (3, 5), (5, 300)] {
            let src: Vec<Vec<f64>> = from
                .iter()
                .enumerate()
                .map(|(i, m)| residues(m, n, if seed < 3 { seed } else { seed + i as u64 }))
                .collect();
            let src: Vec<&[f64]> = src.iter().map(Vec::as_slice).collect();
            let run = |kernel: &Kernel| {
                let mut dst = vec![vec![0.0; n]; targets.len()];
                let mut slices: Vec<&mut [f64]> = dst.iter_mut().map(Vec::as_mut_slice).collect();
                (kernel.extend)(&table, &src, &mut slices);
                dst
            };
            let expected = run(Kernel::scalar());
            for kernel in other_kernels() {
                assert_eq!(run(kernel), expected, "{kernel:?}: {terms} primes, {n} coefficients");
            }
        }
    }
}

/// `x = (Q - 1)/2` and `(Q + 1)/2` are as close to the edge of centring as integers get.
#[test]
fn basis_extension_is_exact_at_the_edge() {
    let pool: Vec<Modulus> =
        ntt_primes(1 << 10, 50, 11, &[]).unwrap().iter().map(|&q| Modulus::new(q).unwrap()).collect();
    for terms in [1, 2, 7, 9] {
        let table = ExtendTable::new(&pool[..terms], &pool[9..]);
        let half = table.product() >> 1u32;
        // Values from (Q - 9)/2 on: those up to (Q - 1)/2 stay, those above become x - Q.
        let values: Vec<_> = (0u32..9).map(|i| &half + i - 4u32).collect();
        let src: Vec<Vec<f64>> = pool[..terms]
            .iter()
            .map(|m| {
                values
                    .iter()
                    .map(|x| (x % m.value()).to_u64_digits().first().map_or(0.0, |&d| d as f64))
                    .collect()
            })
            .collect();
        for kernel in Kernel::available() {
            let mut dst = vec![vec![0.0; 9]; 2];
            let mut slices: Vec<&mut [f64]> = dst.iter_mut().map(Vec::as_mut_slice).collect();
            (kernel.extend)(&table, &src.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut slices);
            for (m, out) in pool[9..].iter().zip(&dst) {
                for (x, &got) in values.iter().zip(out) {
                    let rem = |x: &num_bigint::BigUint| {
                        (x % m.value()).to_u64_digits().first().copied().unwrap_or(0)
                    };
                    let expected = if *x <= half { rem(x) } else { m.neg(rem(&(table.product() - x))) };
                    assert_eq!(got, expected as f64, "{kernel:?} {terms} primes, {x}");
                }
            }
        }
    }
}

#[test]
fn transforms_agree_at_every_degree() {
    for log_n in 4..=17 {
        let n = 1 << log_n;
        let mut primes = ntt_primes(n, 50, 1, &[]).unwrap();
        primes.extend(ntt_primes(n, 36, 1, &[]).unwrap());
        primes.extend(ntt_primes(n, 45, 1, &[]).unwrap());
        // The smallest, and those on both sides of the bound of transforms on words.
        let step = 2 * n as u64;
        primes.extend((1..).map(|k| k * step + 1).find(|&q| is_prime(q)));
        #[cfg(target_arch = "x86_64")]
        {
            let limit = ifma::table::LIMIT / step;
            primes.extend((1..limit).map(|k| (limit - k) * step + 1).find(|&q| is_prime(q)));
            primes.extend((limit..).map(|k| k * step + 1).find(|&q| is_prime(q)));
        }
        for q in primes {
            let m = Modulus::new(q).unwrap();
            let table = NttTable::new(m, n).unwrap();
            for seed in 0..4 {
                let input = residues(&m, n, seed);
                for constant in [1.0, (q - 1) as f64, (q / 3) as f64] {
                    // One element off alignment.
                    let run = |kernel: &Kernel, forward: bool| {
                        let mut a = vec![0.0; n + 1];
                        a[1..].copy_from_slice(&input);
                        if forward {
                            (kernel.ntt_forward)(&table, &mut a[1..]);
                        } else {
                            (kernel.ntt_inverse)(&table, &mut a[1..], constant);
                        }
                        a
                    };
                    for forward in [true, false] {
                        let expected = run(Kernel::scalar(), forward);
                        for kernel in other_kernels() {
                            assert!(
                                run(kernel, forward) == expected,
                                "{kernel:?} N = {n} mod {q}, seed {seed}, forward {forward}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn ntt_evaluates_at_the_stated_powers_and_inverts() {
    for log_n in 4..9 {
        let n = 1 << log_n;
        let m = Modulus::new(ntt_primes(n, 50, 1, &[]).unwrap()[0]).unwrap();
        let table = NttTable::new(m, n).unwrap();
        let input: Vec<f64> = (0..n as u64).map(|i| m.pow(3, 1000 + 7 * i) as f64).collect();
        for kernel in Kernel::available() {
            let mut a = input.clone();
            (kernel.ntt_forward)(&table, &mut a);
            for (index, &value) in a.iter().enumerate() {
                let x = m.pow(table.root(), eval_exponent(log_n, index) as u64);
                let naive = input.iter().rev().fold(0, |sum, &c| m.add(m.mul(sum, x), c as u64));
                assert_eq!(value, naive as f64, "{kernel:?} N = {n}, slot {index}");
            }
            (kernel.ntt_inverse)(&table, &mut a, 1.0);
            assert_eq!(a, input, "{kernel:?} N = {n}");
        }
    }
}
