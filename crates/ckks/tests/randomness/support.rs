//! What the owner of a secret can compute: coefficients of secrets, and the errors inside of what
//! was published.

use cipherlm_ckks::ring::{Coeff, Eval, Limbs, Poly, Seed, sample};
use cipherlm_ckks::wire::HEADER_BYTES;
use cipherlm_ckks::{
    Ciphertext, Evaluator, KeyPurpose, NoKeys, Params, Plaintext, PublicKey, Scale, SecretKey, SwitchingKey,
    Wire,
};
use std::collections::BTreeMap;

/// Where the seed of a switching key lies, and its first polynomial.
const KEY_SEED: usize = HEADER_BYTES as usize + 48;
const KEY_DIGITS: usize = KEY_SEED + 32;

/// A set at degree 2^10 with levels of 40 bits: no security, the same arithmetic.
pub(crate) fn set(levels: usize, special_bits: u32, special: usize) -> Params {
    let builder =
        Params::builder().degree(1 << 10).base(43.0).levels(40.0, levels).special(special_bits, special);
    Params::insecure_for_tests(builder).unwrap()
}

/// The coefficients of a secret, from the decryption of the ciphertext `(0, 1)`.
pub(crate) fn coefficients(secret: &SecretKey) -> Vec<i64> {
    let params = secret.params();
    let zero = Poly::<Eval>::zero(params.ring(), params.limbs(0)).unwrap();
    let mut one = zero.clone();
    one.iter_mut().for_each(|(_, limb)| limb.fill(1.0));
    let parts = |second: &Poly<Eval>| vec![zero.clone(), second.clone()];
    let open = |second| {
        Ciphertext::from_parts(params, secret.id(), parts(second), 0, Scale::ONE, params.slots()).unwrap()
    };
    let decrypted = secret.decrypt(&open(&one)).unwrap().decode();
    // Back to coefficients by encoding and adding to zero.
    let plaintext = Plaintext::encode(params, decrypted.as_slice(), params.slots(), Scale::ONE).unwrap();
    let sum = Evaluator::new(params, NoKeys).add_plain(&open(&zero), &plaintext).unwrap();
    integers(sum.parts()[0].clone())
}

/// Small centred coefficients.
pub(crate) fn integers(poly: Poly<Eval>) -> Vec<i64> {
    poly.into_coeff().to_f64().iter().map(|x| *x as i64).collect()
}

/// Integers as a polynomial over some limbs.
pub(crate) fn lifted(params: &Params, limbs: &Limbs, integers: &[i64]) -> Poly<Eval> {
    Poly::<Coeff>::from_i64(params.ring(), limbs, integers).unwrap().into_eval()
}

/// Bits of a residue modulo the prime of a limb.
pub(crate) fn width(params: &Params, limb: usize) -> usize {
    (u64::BITS - (params.prime(limb).unwrap() - 1).leading_zeros()) as usize
}

/// A packed polynomial of an object, at `offset`.
fn unpacked(params: &Params, limbs: &Limbs, bytes: &[u8], offset: usize) -> Poly<Eval> {
    let mut poly = Poly::<Eval>::zero(params.ring(), limbs).unwrap();
    let mut start = offset;
    for (limb_index, limb) in poly.iter_mut() {
        let bits = width(params, limb_index);
        let packed = &bytes[start..][..params.degree() / 8 * bits];
        start += packed.len();
        for (index, residue) in limb.iter_mut().enumerate() {
            let bit = bits * index;
            let word: Vec<u8> = packed[bit / 8..].iter().copied().chain([0; 8]).take(8).collect();
            let word = u64::from_le_bytes(word.try_into().unwrap());
            *residue = (word >> (bit % 8) & ((1 << bits) - 1)) as f64;
        }
    }
    poly
}

/// The halves `(b, a)` of each digit of a switching key, from its bytes.
pub(crate) fn digits(key: &SwitchingKey) -> Vec<[Poly<Eval>; 2]> {
    let (params, limbs, bytes) = (key.params(), key.limbs(), key.to_bytes());
    let seed = Seed::from_bytes(bytes[KEY_SEED..KEY_DIGITS].try_into().unwrap());
    let length = limbs.iter().map(|limb| params.degree() / 8 * width(params, limb)).sum::<usize>();
    let digit = |j| {
        let a = sample::uniform(params.ring(), &limbs, &seed, "switching key digit", j as u64).unwrap();
        [unpacked(params, &limbs, &bytes, KEY_DIGITS + j * length), a]
    };
    (0..key.shape().digits(params).len()).map(digit).collect()
}

/// The halves of a public key, from its bytes.
pub(crate) fn halves(key: &PublicKey) -> [Poly<Eval>; 2] {
    let (params, bytes, start) = (key.params(), key.to_bytes(), HEADER_BYTES as usize);
    let limbs = params.limbs(params.max_level());
    let seed = Seed::from_bytes(bytes[start..start + 32].try_into().unwrap());
    let a = sample::uniform(params.ring(), limbs, &seed, "public key", 0).unwrap();
    [unpacked(params, limbs, &bytes, start + 32), a]
}

/// `b + a t - P g s` of each digit of a key: its errors. `target` and `source` are `t` and `s` as
/// integers.
fn key_errors(key: &SwitchingKey, target: &Poly<Eval>, source: &Poly<Eval>) -> Vec<Vec<i64>> {
    let (params, limbs, shape) = (key.params(), key.limbs(), key.shape());
    let special = params.special_limbs(shape.special);
    let errors = digits(key).into_iter().zip(shape.digits(params)).map(|([mut b, a], digit)| {
        b.mul_add_assign(&a, target).unwrap();
        let factor = |limb: usize| {
            let q = u128::from(params.prime(limb).unwrap());
            let product =
                special.iter().fold(1, |product, j| product * u128::from(params.prime(j).unwrap()) % q);
            if digit.contains(&limb) { product as u64 } else { 0 }
        };
        let mut message = source.clone();
        message.scale_assign(&limbs.iter().map(factor).collect::<Vec<_>>()).unwrap();
        b.sub_assign(&message).unwrap();
        integers(b)
    });
    errors.collect()
}

/// The errors of a relinearisation or Galois key of `secret`, or of a key from `from` to it.
pub(crate) fn errors_of(key: &SwitchingKey, secret: &[i64], from: &[i64]) -> Vec<Vec<i64>> {
    let (params, limbs) = (key.params(), key.limbs());
    let s = lifted(params, &limbs, secret);
    match key.purpose() {
        KeyPurpose::Relinearise => key_errors(key, &s, &Poly::mul(&s, &s).unwrap()),
        KeyPurpose::Galois(element) => {
            let inverse = params.ring().automorphism(element.inverse(params).element()).unwrap();
            key_errors(key, &s.automorphism(&inverse).unwrap(), &s)
        }
        _ => key_errors(key, &s, &lifted(params, &limbs, from)),
    }
}

/// `c0 + c1 s`, less the message.
pub(crate) fn phase(ciphertext: &Ciphertext, plaintext: &Plaintext, secret: &[i64]) -> Vec<i64> {
    let params = ciphertext.params();
    let open = Evaluator::new(params, NoKeys).sub_plain(ciphertext, plaintext).unwrap();
    let [c0, c1] = open.parts() else { panic!("{} parts", open.parts().len()) };
    let mut sum = c0.clone();
    sum.mul_add_assign(c1, &lifted(params, params.limbs(ciphertext.level()), secret)).unwrap();
    integers(sum)
}

/// Everything published, with names: masks by prime, errors as integers.
#[derive(Default)]
pub(crate) struct Census {
    masks: BTreeMap<(u64, Vec<u64>), String>,
    pub(crate) errors: Vec<(String, Vec<i64>)>,
}

impl Census {
    /// Takes the uniform half of an object and refuses one whose residues were seen before.
    pub(crate) fn mask(&mut self, name: &str, mask: &Poly<Eval>) {
        for (index, limb) in mask.iter() {
            let start: Vec<u64> = limb.iter().take(8).map(|x| *x as u64).collect();
            let prime = mask.ring().modulus(index).unwrap().value();
            if let Some(other) = self.masks.insert((prime, start), name.to_owned()) {
                panic!("{name} and {other} have one uniform half modulo {prime}");
            }
        }
    }

    pub(crate) fn error(&mut self, name: &str, error: Vec<i64>) {
        self.errors.push((name.to_owned(), error));
    }

    /// All errors are there, Gaussian of deviation 3.2, and independent of each other pair by pair.
    pub(crate) fn check(&self) {
        for (name, error) in &self.errors {
            assert_gaussian(name, error);
        }
        let all: Vec<i64> = self.errors.iter().flat_map(|(_, error)| error.iter().copied()).collect();
        assert_gaussian("all errors together", &all);
        for (i, (name, left)) in self.errors.iter().enumerate() {
            for (other, right) in &self.errors[..i] {
                assert_unrelated(name, left, other, right);
            }
        }
    }
}

/// Deviation of every error, as documented.
const SIGMA: f64 = 3.2;

/// Chi-square of integers against the discrete Gaussian: nineteen values and two tails.
pub(crate) fn assert_gaussian(name: &str, values: &[i64]) {
    const EDGE: i64 = 9;
    let weight = |x: i64| (-(x as f64).powi(2) / (2.0 * SIGMA * SIGMA)).exp();
    let total: f64 = (-60..=60).map(weight).sum();
    let tail: f64 = (EDGE + 1..=60).map(weight).sum();
    let mut expected = vec![tail];
    expected.extend((-EDGE..=EDGE).map(weight));
    expected.push(tail);
    let mut counts = vec![0.0; expected.len()];
    values.iter().for_each(|&x| counts[(x.clamp(-EDGE - 1, EDGE + 1) + EDGE + 1) as usize] += 1.0);
    let count = values.len() as f64;
    chi_square(name, &counts, &expected.iter().map(|w| count * w / total).collect::<Vec<_>>());
    assert!(values.iter().all(|x| x.abs() <= 29), "{name}: an error beyond the sampler's bound");
}

/// Refuses a fit that chance gives less than once in 10^8.
pub(crate) fn chi_square(name: &str, counts: &[f64], expected: &[f64]) {
    let freedom = counts.len() as f64 - 1.0;
    let sum: f64 = counts.iter().zip(expected).map(|(n, e)| (n - e).powi(2) / e).sum();
    // Wilson and Hilferty: the cube root is nearly normal.
    let deviate = ((sum / freedom).cbrt() - 1.0 + 2.0 / (9.0 * freedom)) / (2.0 / (9.0 * freedom)).sqrt();
    assert!(deviate < 5.8, "{name}: chi-square {sum:.0} at {freedom} degrees of freedom");
}

/// Refuses errors with a common part: equal, opposite, or equal in places.
pub(crate) fn assert_unrelated(name: &str, left: &[i64], other: &str, right: &[i64]) {
    let count = left.len().min(right.len()) as f64;
    let product: i64 = left.iter().zip(right).map(|(a, b)| a * b).sum();
    let correlation = product as f64 / (count * SIGMA * SIGMA) * count.sqrt();
    assert!(
        correlation.abs() < 8.0,
        "{name} and {other} are correlated: {correlation:.1} standard deviations"
    );
}
