//! Statistics that a constant, biased or correlated sampler would not survive. Seeds are fixed, so
//! results repeat; every bound is two-sided, at about one false alarm in a million.

use std::sync::Arc;

use cipherlm_ring::{Coeff, Limbs, Poly, Ring, Seed, Stream, is_prime, sample};

const DRAWS: usize = 1 << 24;

#[test]
fn gaussian_has_its_shape() {
    let list = sample::gaussian(&mut stream("gaussian"), DRAWS);
    let weight = |x: i32| (-f64::from(x * x) / (2.0 * sample::SIGMA * sample::SIGMA)).exp();
    let total: f64 = (-60..=60).map(weight).sum();
    check_moments(list.expose(), sample::SIGMA * sample::SIGMA);
    check_shape(list.expose(), 15, |x| weight(x) / total);
    check_independence(list.expose(), sample::SIGMA * sample::SIGMA);
    assert!(list.expose().iter().all(|x| x.abs() <= 29));
    assert!(list.expose().iter().any(|x| x.abs() >= 15), "16 million draws reach 4.7 sigma");
}

#[test]
fn ternary_has_its_shape() {
    let list = sample::ternary(&mut stream("ternary"), DRAWS);
    let sigma = (DRAWS as f64 * 2.0 / 9.0).sqrt();
    for symbol in [-1, 0, 1] {
        let count = list.expose().iter().filter(|&&x| x == symbol).count();
        assert!((count as f64 - DRAWS as f64 / 3.0).abs() < 5.0 * sigma, "{symbol}: {count} of {DRAWS}");
    }
    check_independence(list.expose(), 2.0 / 3.0);
}

#[test]
fn fixed_weight_is_exact_and_spread() {
    let (n, rounds) = (256, 4000);
    for weight in [1, 32, 192, 256] {
        let mut stream = Stream::new(&seed(), "sparse", weight as u64);
        let (mut hits, mut positive) = (vec![0.0; n], 0.0);
        for _ in 0..rounds {
            let list = sample::ternary_weight(&mut stream, n, weight).unwrap();
            assert_eq!(list.expose().iter().filter(|&&x| x != 0).count(), weight);
            assert!(list.expose().iter().all(|x| x.abs() <= 1));
            for (hit, &x) in hits.iter_mut().zip(list.expose()) {
                *hit += f64::from(x.abs());
                positive += f64::from(u8::from(x == 1));
            }
        }
        let entries = (weight * rounds) as f64;
        assert!(
            (positive - entries / 2.0).abs() < 2.5 * entries.sqrt(),
            "{positive} of {entries} are positive"
        );
        if weight < n {
            // Positions are drawn without replacement: the variance shrinks by the part that is
            // taken.
            let expected = entries / n as f64;
            let shrink = (n - weight) as f64 / (n - 1) as f64;
            let chi2: f64 = hits.iter().map(|h| (h - expected).powi(2) / (expected * shrink)).sum();
            check_chi2("positions", chi2, n - 1);
        }
    }
}

#[test]
fn uniform_residues_follow_the_line() {
    // Just above a power of two nearly half the candidates are rejected: a biased rejection shows
    // here first.
    let above = |bits: u32| (1..).map(|k| (1u64 << bits) + 32 * k + 1).find(|&q| is_prime(q)).unwrap();
    let primes = [above(20), above(39), above(49), cipherlm_ring::ntt_primes(16, 50, 1, &[]).unwrap()[0], 97];
    let ring = Ring::new(16, &primes).unwrap();
    let limbs = ring.limbs();
    let rounds = 1 << 13;
    let mut values = vec![Vec::new(); primes.len()];
    for round in 0..rounds {
        let poly: Poly<Coeff> = sample::uniform(&ring, &limbs, &seed(), "line", round).unwrap();
        poly.check().unwrap();
        for (index, limb) in poly.iter() {
            values[index].extend_from_slice(limb);
        }
    }
    for (q, list) in primes.iter().zip(&mut values) {
        check_independence_of(list, *q as f64 / 2.0, (*q as f64).powi(2) / 12.0);
        // Low bits, which a wrong reduction or conversion would spoil first.
        let bins = 16.min(*q as usize / 4);
        let mut counts = vec![0.0; bins];
        list.iter().for_each(|x| counts[*x as usize % bins] += 1.0);
        let n = list.len() as f64;
        let chi2: f64 = (0..bins)
            .map(|bin| {
                let members = (*q as usize - bin).div_ceil(bins);
                let expected = n * members as f64 / *q as f64;
                (counts[bin] - expected).powi(2) / expected
            })
            .sum();
        check_chi2("low bits", chi2, bins - 1);
        // Dvoretzky, Kiefer, Wolfowitz: P(sqrt(n) sup |F_n - F| > 2.6934) <= 1e-6, for discrete F
        // too.
        list.sort_unstable_by(f64::total_cmp);
        let mut gap = 0.0f64;
        for (i, &x) in list.iter().enumerate() {
            if list.get(i + 1) != Some(&x) {
                gap = gap.max(((i + 1) as f64 / n - (x + 1.0) / *q as f64).abs());
            }
        }
        assert!(gap * n.sqrt() < 2.6934, "q = {q}: {}", gap * n.sqrt());
        assert!(list[0] < *q as f64 / 100.0 && list[list.len() - 1] > *q as f64 * 0.98);
    }
}

#[test]
fn limbs_do_not_depend_on_the_basis_and_names_matter() {
    let ring = Ring::new(1 << 10, &cipherlm_ring::ntt_primes(1 << 10, 50, 6, &[]).unwrap()).unwrap();
    let make = |ring: &Arc<Ring>, limbs: &Limbs, label, number| -> Poly<Coeff> {
        sample::uniform(ring, limbs, &seed(), label, number).unwrap()
    };
    let all = make(&ring, &ring.limbs(), "a", 0);
    let some = Limbs::new([1, 4]).unwrap();
    assert!(make(&ring, &some, "a", 0) == all.keep(&some).unwrap());
    for (label, number) in [("a", 1), ("b", 0), ("", 0)] {
        let other = make(&ring, &ring.limbs(), label, number);
        for (index, limb) in other.iter() {
            let equal = limb.iter().zip(all.limb(index).unwrap()).filter(|(a, b)| a == b).count();
            assert_eq!(equal, 0, "{label} {number}, limb {index}");
        }
    }
    let [first, second] = [0, 1].map(|i| all.limb(i).unwrap());
    assert!(first.iter().zip(second).all(|(a, b)| a != b), "limbs are independent");
    let (one, two) = (Seed::random().unwrap(), Seed::random().unwrap());
    assert_ne!(one.expose(), two.expose());
    assert_ne!(seed().derive("public", 0).expose(), seed().expose());
}

fn seed() -> Seed {
    Seed::from_bytes(*b"statistics of the samplers, 2026")
}

fn stream(label: &str) -> Stream {
    Stream::new(&seed(), label, 0)
}

/// Mean and variance within five standard errors: 0.17 % of the variance.
fn check_moments(list: &[i8], variance: f64) {
    let n = list.len() as f64;
    let mean = list.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let measured = list.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
    assert!(mean.abs() < 5.0 * (variance / n).sqrt(), "mean {mean}");
    assert!(
        (measured / variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(),
        "variance {measured} against {variance}"
    );
}

/// Chi-square over single values up to `tail`, and the two tails.
fn check_shape(list: &[i8], tail: i32, probability: impl Fn(i32) -> f64) {
    let mut counts = vec![0.0; 2 * tail as usize + 1];
    list.iter().for_each(|&x| counts[(i32::from(x).clamp(-tail, tail) + tail) as usize] += 1.0);
    let expected = |bin: i32| -> f64 {
        let x = bin - tail;
        let sum: f64 = if x == -tail {
            (-60..=x).map(&probability).sum()
        } else if x == tail {
            (x..=60).map(&probability).sum()
        } else {
            probability(x)
        };
        sum * list.len() as f64
    };
    let chi2 =
        counts.iter().zip(0..).map(|(count, bin)| (count - expected(bin)).powi(2) / expected(bin)).sum();
    check_chi2("values", chi2, counts.len() - 1);
}

/// Both tails, at 1e-6 (Wilson and Hilferty's approximation to the quantile).
fn check_chi2(what: &str, chi2: f64, freedom: usize) {
    let k = freedom as f64;
    let quantile = |z: f64| k * (1.0 - 2.0 / (9.0 * k) + z * (2.0 / (9.0 * k)).sqrt()).powi(3);
    assert!(
        chi2 < quantile(4.75) && chi2 > quantile(-4.75),
        "{what}: chi-square {chi2} with {freedom} degrees of freedom"
    );
}

fn check_independence(list: &[i8], variance: f64) {
    let some = &list[..1 << 22];
    check_independence_of(&some.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), 0.0, variance);
}

/// Serial correlation at a few lags within five standard errors of zero.
fn check_independence_of(list: &[f64], mean: f64, variance: f64) {
    for lag in [1, 2, 8, 64, 512] {
        let pairs = (list.len() - lag) as f64;
        let sum: f64 = list.iter().zip(&list[lag..]).map(|(x, y)| (x - mean) * (y - mean)).sum();
        let correlation = sum / pairs / variance;
        assert!(correlation.abs() < 5.0 / pairs.sqrt(), "correlation {correlation} at lag {lag}");
    }
}
