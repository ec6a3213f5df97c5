//! Randomness of everything that is published, seen by the owner of the secret: masks are never
//! used twice, errors are present, Gaussian and independent, whatever parameter sets, levels,
//! shapes, distributions and roots are combined.
//!
//! The other suites decrypt and compare, and would pass all the better without any error at all.

mod support;

use cipherlm_ckks::ring::{Poly, Seed, sample};
use cipherlm_ckks::wire::HEADER_BYTES;
use cipherlm_ckks::{
    Error, GaloisElement, KeyPurpose, KeyShape, Params, Plaintext, PublicKey, Scale, SecretKey,
    SharingContract, SwitchingKey, Wire,
};
use support::{
    Census, assert_gaussian, assert_unrelated, chi_square, coefficients, digits, errors_of, halves, integers,
    lifted, phase, set, width,
};

fn root(byte: u8) -> Seed {
    Seed::from_bytes([byte; 32])
}

fn shapes(params: &Params) -> Vec<KeyShape> {
    let all = [(3, 1), (3, 2), (1, 1)].map(|(level, special)| KeyShape { level, special });
    all.into_iter().filter(|shape| shape.check(params).is_ok()).collect()
}

/// Every kind of key of one secret, from two others too.
fn keys_of(secret: &SecretKey, others: [&SecretKey; 2]) -> Vec<SwitchingKey> {
    let params = secret.params();
    let mut elements = vec![GaloisElement::conjugation(params)];
    elements.extend([1, 2, -1].map(|steps| GaloisElement::rotation(params, steps)));
    let mut keys = Vec::new();
    for shape in shapes(params) {
        keys.push(secret.switching_key(KeyPurpose::Relinearise, shape).unwrap());
        keys.extend(elements.iter().map(|&g| secret.switching_key(KeyPurpose::Galois(g), shape).unwrap()));
        keys.extend(others.map(|other| secret.switching_key_from(other, shape).unwrap()));
    }
    keys
}

#[test]
fn no_two_keys_share_a_mask_or_an_error() {
    let sets = [set(3, 44, 1), set(3, 45, 1), set(3, 44, 2), set(4, 44, 1)];
    let mut census = Census::default();
    let mut secrets: Vec<(String, Vec<i64>)> = Vec::new();
    for (number, params) in sets.iter().enumerate() {
        for byte in [1, 2] {
            let dense = SecretKey::from_seed(params, root(byte)).unwrap();
            let sparse =
                [64, 96].map(|weight| SecretKey::sparse_from_seed(params, weight, root(byte)).unwrap());
            let all = [&dense, &sparse[0], &sparse[1]];
            for (kind, secret) in all.into_iter().enumerate() {
                let others = [1, 2].map(|step| all[(kind + step) % 3]);
                let (s, from) = (coefficients(secret), others.map(coefficients));
                let name = format!("set {number}, root {byte}, {}", secret.distribution());
                for key in keys_of(secret, others) {
                    let from = &from[usize::from(key.purpose() == KeyPurpose::Switch(others[1].id()))];
                    let name = format!("{name}, {} key of {:?}", key.purpose(), key.shape());
                    for (j, [_, a]) in digits(&key).iter().enumerate() {
                        census.mask(&format!("{name}, digit {j}"), a);
                    }
                    for (j, error) in errors_of(&key, &s, from).into_iter().enumerate() {
                        census.error(&format!("{name}, digit {j}"), error);
                    }
                }
                let [mut b, a] = halves(&secret.public_key().unwrap());
                census.mask(&format!("{name}, public key"), &a);
                b.mul_add_assign(&a, &lifted(params, params.limbs(params.max_level()), &s)).unwrap();
                census.error(&format!("{name}, public key"), integers(b));
                secrets.push((name, s));
            }
        }
    }
    assert_eq!(census.errors.len(), census_size(&sets));
    census.check();
    for (i, (name, left)) in secrets.iter().enumerate() {
        for (other, right) in &secrets[..i] {
            let agree = left.iter().zip(right).filter(|(a, b)| **a != 0 && a == b).count() as f64;
            let nonzero = |s: &[i64]| s.iter().filter(|x| **x != 0).count() as f64;
            let expected = nonzero(left) * nonzero(right) / 2.0 / left.len() as f64;
            assert!(
                (agree - expected).abs() < 7.0 * expected.sqrt() + 7.0,
                "{name} and {other}: {agree} of {expected}"
            );
        }
    }
}

/// Six secrets a set; a public key and, per shape, seven keys of as many digits.
fn census_size(sets: &[Params]) -> usize {
    let keys = |params| shapes(params).into_iter().map(|shape| 7 * shape.digits(params).len()).sum::<usize>();
    sets.iter().map(|params| 6 * (1 + keys(params))).sum()
}

#[test]
fn a_seed_that_was_never_filled_makes_no_secret() {
    let params = set(3, 44, 1);
    assert!(matches!(SecretKey::from_seed(&params, root(0)), Err(Error::ZeroSeed)));
    assert!(matches!(SecretKey::sparse_from_seed(&params, 64, root(0)), Err(Error::ZeroSeed)));
    let mut nearly = [0; 32];
    nearly[31] = 1;
    assert!(SecretKey::from_seed(&params, Seed::from_bytes(nearly)).is_ok());
}

#[test]
fn secrets_have_their_distribution_and_their_own_identity() {
    let params = set(3, 44, 1);
    let counts = |s: &[i64]| [-1, 0, 1].map(|value| s.iter().filter(|x| **x == value).count() as f64);
    let dense: Vec<i64> =
        (1..17).flat_map(|i| coefficients(&SecretKey::from_seed(&params, root(i)).unwrap())).collect();
    chi_square("dense secrets", &counts(&dense), &[dense.len() as f64 / 3.0; 3]);
    let mut signs = [0.0, 0.0];
    for i in 1..17 {
        let sparse = SecretKey::sparse_from_seed(&params, 64, root(i)).unwrap();
        let [minus, _, plus] = counts(&coefficients(&sparse));
        assert_eq!(minus + plus, 64.0);
        (signs[0], signs[1]) = (signs[0] + minus, signs[1] + plus);
    }
    chi_square("signs of sparse secrets", &signs, &[512.0; 2]);

    let mut ids = std::collections::BTreeSet::new();
    for params in [set(3, 44, 1), set(3, 45, 1), set(3, 44, 2), set(4, 44, 1)] {
        for byte in [1, 2] {
            ids.insert(SecretKey::from_seed(&params, root(byte)).unwrap().id());
            for weight in [64, 96] {
                ids.insert(SecretKey::sparse_from_seed(&params, weight, root(byte)).unwrap().id());
            }
        }
    }
    assert_eq!(ids.len(), 4 * 2 * 3);
    let again = |byte| SecretKey::from_seed(&params, root(byte)).unwrap();
    assert_eq!(again(1).id(), again(1).id());
    assert_eq!(coefficients(&again(1)), coefficients(&again(1)));
    assert_ne!(SecretKey::generate(&params).unwrap().id(), SecretKey::generate(&params).unwrap().id());
}

/// Two secure sets with equal chains and different special primes. With one mask and one error for
/// both, the difference of the keys' limbs is `(P_A - P_B) s` there, and a division gives the
/// secret.
#[test]
fn a_root_under_two_sets_of_special_primes_does_not_reveal_the_secret() {
    let set =
        |bits| Params::builder().degree(1 << 13).base(43.0).levels(40.0, 3).special(bits, 1).build().unwrap();
    let sets = [set(44), set(45)];
    let shared = 2;
    let [left, right] = [0, 1].map(|i| {
        let params: &Params = &sets[i];
        let secret = SecretKey::from_seed(params, root(9)).unwrap();
        let shape = KeyShape { level: 3, special: 1 };
        let purpose = KeyPurpose::Galois(GaloisElement::rotation(params, 1));
        let key = secret.switching_key(purpose, shape).unwrap();
        let digit = shape.digits(params).iter().position(|digit| digit.contains(&shared)).unwrap();
        let special = params.prime(params.special_limbs(1).iter().next().unwrap()).unwrap();
        (digits(&key)[digit][0].limb(shared).unwrap().to_vec(), special, coefficients(&secret))
    });
    let modulus = *sets[0].ring().modulus(shared).unwrap();
    assert_eq!(
        sets[0].prime(shared).unwrap(),
        sets[1].prime(shared).unwrap(),
        "the attack needs a common prime"
    );
    let reduce = |x: u64| x % modulus.value();
    let inverse = modulus.inv(modulus.sub(reduce(left.1), reduce(right.1))).unwrap();
    let only = cipherlm_ckks::ring::Limbs::range(shared..shared + 1);
    let mut candidate = Poly::zero(sets[0].ring(), &only).unwrap();
    for (x, (a, b)) in candidate.limb_mut(shared).unwrap().iter_mut().zip(left.0.iter().zip(&right.0)) {
        *x = modulus.mul(modulus.sub(*a as u64, *b as u64), inverse) as f64;
    }
    let candidate = integers(candidate);
    for (name, secret) in [("first", &left.2), ("second", &right.2)] {
        let found = candidate.iter().zip(secret).filter(|(a, b)| a == b).count();
        assert!(found < 4, "{found} of {} coefficients of the {name} secret", secret.len());
    }
}

/// At N = 2^14 and weight 64 the table allows 227 bits: three levels of five.
#[test]
fn a_sparse_secret_encrypts_only_where_it_is_secure() {
    let params = cipherlm_ckks::presets::levels5_scale45().unwrap();
    let sparse = SecretKey::generate_sparse(&params, 64).unwrap();
    let plaintext = Plaintext::encode_real(&params, &[0.5], 1, Scale::from_log2(40)).unwrap();
    for level in 0..=params.max_level() {
        let result = sparse.encrypt(&plaintext, level).map(drop);
        if params.log_q(level) <= 227.0 {
            assert!(result.is_ok(), "level {level}");
        } else {
            assert!(
                matches!(result, Err(cipherlm_ckks::Error::Insecure { limit: 227, .. })),
                "level {level}"
            );
        }
    }
    assert!(params.log_q(3) <= 227.0 && params.log_q(4) > 227.0);
}

#[test]
fn encryptions_of_one_message_are_unrelated() {
    let params = set(3, 44, 1);
    let secret = SecretKey::from_seed(&params, root(3)).unwrap();
    let s = coefficients(&secret);
    let zero = Plaintext::encode_real(&params, &[0.0], 1, Scale::from_log2(40)).unwrap();
    let mut census = Census::default();
    for (number, level) in [3, 3, 3, 2, 2, 0].into_iter().enumerate() {
        let ciphertext = secret.encrypt(&zero, level).unwrap();
        census.mask(&format!("encryption {number}"), &ciphertext.parts()[1]);
        census.error(&format!("encryption {number}"), phase(&ciphertext, &zero, &s));
    }
    census.check();
    // Under the public key: the error of the key, multiplied, and two of its own.
    let public = secret.public_key().unwrap();
    let errors = [(); 4].map(|()| public.encrypt(&zero, 3).unwrap()).map(|ciphertext| {
        census.mask("public encryption", &ciphertext.parts()[1]);
        phase(&ciphertext, &zero, &s)
    });
    let variance = 3.2f64.powi(2) * (1.0 + 2.0 * 2.0 / 3.0 * params.degree() as f64);
    for (i, left) in errors.iter().enumerate() {
        let measured = left.iter().map(|x| (x * x) as f64).sum::<f64>() / left.len() as f64;
        // The secret, the ephemeral secret and the errors all vary: 25 % is 5 standard deviations
        // and more.
        assert!((0.75..1.25).contains(&(measured / variance)), "{measured} for {variance}");
        for right in &errors[..i] {
            let product: f64 = left.iter().zip(right).map(|(a, b)| (a * b) as f64).sum();
            assert!(
                product.abs() < 8.0 * variance * (left.len() as f64).sqrt(),
                "related public encryptions"
            );
        }
    }
}

#[test]
fn a_seed_of_the_callers_serves_any_number_of_encryptions() {
    let sets = [set(3, 44, 1), set(3, 45, 1)];
    let seed = root(5);
    let mut census = Census::default();
    for params in &sets {
        for byte in [1, 2] {
            let secret = SecretKey::from_seed(params, root(byte)).unwrap();
            let s = coefficients(&secret);
            let messages =
                [(&[0.0][..], 1, 40), (&[0.0], 2, 40), (&[0.5], 1, 40), (&[-0.5], 1, 40), (&[0.0], 1, 39)];
            for (values, slots, scale) in messages {
                let plaintext =
                    Plaintext::encode_real(params, values, slots, Scale::from_log2(scale)).unwrap();
                for level in [3, 2] {
                    let ciphertext = secret.encrypt_with_seed(&plaintext, level, &seed).unwrap();
                    let name = format!("{values:?} in {slots} at 2^{scale}, level {level}, root {byte}");
                    census.mask(&name, &ciphertext.parts()[1]);
                    census.error(&name, phase(&ciphertext, &plaintext, &s));
                    let again = secret.encrypt_with_seed(&plaintext, level, &seed).unwrap();
                    assert!(
                        again.parts() == ciphertext.parts(),
                        "{name}: the same call must give the same ciphertext"
                    );
                    let public = secret.public_key().unwrap();
                    let public = |seed: &Seed| public.encrypt_with_seed(&plaintext, level, seed).unwrap();
                    census.mask(&format!("{name}, public"), &public(&seed).parts()[1]);
                    assert!(
                        public(&seed).parts() == public(&seed).parts()
                            && public(&seed).parts() != public(&root(6)).parts()
                    );
                }
            }
        }
    }
    census.check();
}

/// With a public key whose first half is the constant 2^10, each random polynomial of an encryption
/// can be read off.
#[test]
fn public_encryption_draws_an_ephemeral_secret_and_two_errors() {
    const CONSTANT: i64 = 1 << 10;
    let params = set(3, 44, 1);
    let secret = SecretKey::from_seed(&params, root(3)).unwrap();
    let real = secret.public_key().unwrap();
    let zero = Plaintext::encode_real(&params, &[0.0], 1, Scale::from_log2(40)).unwrap();
    let mut bytes = real.to_bytes();
    let limbs = params.limbs(3);
    let widths = limbs.iter().flat_map(|limb| std::iter::repeat_n(width(&params, limb), params.degree()));
    write_residues(&mut bytes[HEADER_BYTES as usize + 32..], CONSTANT as u64, widths);
    reseal(&mut bytes);
    let forged = PublicKey::from_bytes(&params, &bytes).unwrap();
    let [_, a] = halves(&forged);
    let mut census = Census::default();
    let mut ephemerals: Vec<Vec<i64>> = Vec::new();
    for number in 0..8 {
        let ciphertext = forged.encrypt(&zero, 3).unwrap();
        let first = integers(ciphertext.parts()[0].clone());
        let u: Vec<i64> = first.iter().map(|x| (x + CONSTANT / 2).div_euclid(CONSTANT)).collect();
        census.error(
            &format!("first error {number}"),
            first.iter().zip(&u).map(|(x, u)| x - CONSTANT * u).collect(),
        );
        let mut second = ciphertext.parts()[1].clone();
        second.sub_assign(&Poly::mul(&a, &lifted(&params, limbs, &u)).unwrap()).unwrap();
        census.error(&format!("second error {number}"), integers(second));
        let counts = [-1, 0, 1].map(|value| u.iter().filter(|x| **x == value).count() as f64);
        chi_square("ephemeral secret", &counts, &[u.len() as f64 / 3.0; 3]);
        assert!(!ephemerals.contains(&u), "an ephemeral secret twice");
        ephemerals.push(u);
    }
    census.check();
}

/// One residue again and again, in fields of these widths, little-endian.
fn write_residues(bytes: &mut [u8], residue: u64, widths: impl Iterator<Item = usize>) {
    bytes.fill(0);
    let mut end = 0;
    for width in widths {
        let bit = end;
        end += width;
        let shifted = (u128::from(residue) << (bit % 8)).to_le_bytes();
        bytes[bit / 8..].iter_mut().zip(shifted).for_each(|(to, from)| *to |= from);
    }
}

/// Writes a correct hash over a changed object.
fn reseal(bytes: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 1 wire object");
    hasher.update(&bytes[6..72]).update(&bytes[HEADER_BYTES as usize..]);
    let hash = *hasher.finalize().as_bytes();
    bytes[80..112].copy_from_slice(&hash);
}

/// The normal distribution function, by Simpson's rule.
fn normal(x: f64) -> f64 {
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (start, steps) = (-10.0, 2000);
    let width = (x - start) / f64::from(steps);
    let sum: f64 = (0..=steps)
        .map(|i| {
            density(start + width * f64::from(i))
                * if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) }
        })
        .sum();
    sum * width / 3.0
}

#[test]
fn flooding_is_gaussian_of_the_stated_size_and_new_every_time() {
    const RELEASES: u32 = 32;
    let params = set(3, 44, 1);
    let secret = SecretKey::generate(&params).unwrap();
    let (slots, bound) = (params.slots(), 2f64.powi(-48));
    let zero = Plaintext::encode_real(&params, &[0.0], slots, Scale::from_log2(60)).unwrap();
    let decrypted = secret.decrypt(&secret.encrypt(&zero, 3).unwrap()).unwrap();
    let sharing = secret.sharing_in_this_process(SharingContract::new(30, RELEASES).unwrap()).unwrap();
    let sigma = (12.0 * f64::from(RELEASES) * slots as f64).sqrt() * 2f64.powi(15) * bound;
    let bits = (-sigma.log2()).floor();
    let unit = (-bits).exp2();
    let mut releases: Vec<Vec<i64>> = Vec::new();
    for _ in 0..RELEASES {
        let values = decrypted.decode_flooded(bits, bound, &sharing).unwrap();
        releases.push(values.iter().flat_map(|v| [v.re, v.im]).map(|x| (x / unit) as i64).collect());
    }
    // Cells of one unit, and two tails.
    let below = |k: i64| normal((k as f64 + 0.5) * unit / sigma);
    let mut expected = vec![below(-3)];
    expected.extend((-2..=2).map(|k| below(k) - below(k - 1)));
    expected.push(1.0 - below(2));
    let mut counts = vec![0.0; 7];
    releases.iter().flatten().for_each(|k| counts[((*k).clamp(-3, 3) + 3) as usize] += 1.0);
    let total: f64 = counts.iter().sum();
    chi_square("flooding", &counts, &expected.iter().map(|p| p * total).collect::<Vec<_>>());
    for (i, left) in releases.iter().enumerate() {
        for right in &releases[..i] {
            let sum = |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| (a * b) as f64).sum::<f64>();
            let correlation = sum(left, right) / (sum(left, left) * sum(right, right)).sqrt();
            assert!(
                correlation.abs() < 8.0 / (left.len() as f64).sqrt(),
                "releases with common noise: {correlation}"
            );
        }
    }
}

/// The instruments see what they are for.
#[test]
fn the_census_refuses_missing_narrow_and_repeated_errors() {
    let draw = |number| {
        let mut stream = cipherlm_ckks::ring::Stream::new(&root(1), "instrument", number);
        sample::gaussian(&mut stream, 1 << 10).expose().iter().map(|x| i64::from(*x)).collect::<Vec<i64>>()
    };
    let refused = |work: &(dyn Fn() + std::panic::RefUnwindSafe)| std::panic::catch_unwind(work).is_err();
    let (left, right) = (draw(0), draw(1));
    assert_gaussian("a true error", &left);
    assert_unrelated("two", &left, "true errors", &right);
    let opposite: Vec<i64> = left.iter().map(|x| -x).collect();
    let halved: Vec<i64> = left.iter().map(|x| x / 2).collect();
    let partly: Vec<i64> = [&left[..512], &right[512..]].concat();
    assert!(refused(&|| assert_gaussian("none", &[0; 1 << 10])));
    assert!(refused(&|| assert_gaussian("narrow", &halved)));
    assert!(refused(&|| assert_unrelated("equal", &left, "", &left)));
    assert!(refused(&|| assert_unrelated("opposite", &left, "", &opposite)));
    assert!(refused(&|| assert_unrelated("partly equal", &left, "", &partly)));
}
