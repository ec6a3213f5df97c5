//! What is said to be wiped is not in the memory of the process afterwards: all writable memory is
//! searched for it.

#![cfg(target_os = "linux")]

use cipherlm_ckks::ring::{Coeff, Eval, Poly, Seed};
use cipherlm_ckks::{Ciphertext, Complex64, Params, Plaintext, Scale, SecretKey, presets};
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Words to look for are kept under a mask, so that the search does not find its own list.
const MASK: u64 = 0x5bd1_e995_9d1b_54a3;
/// Copies of single words that registers and stacks may leave; a vector that was not wiped has
/// hundreds.
const STRAY: usize = 24;
const N: usize = 1 << 10;

struct Words(HashSet<u64>);

impl Words {
    fn new(words: impl Iterator<Item = u64>) -> Self {
        Self(words.map(|word| word ^ MASK).collect())
    }

    fn of_slots(slots: &[Complex64]) -> Self {
        Self::new(slots.iter().flat_map(|v| [v.re.to_bits(), v.im.to_bits()]))
    }

    /// How many times the words stand in writable memory.
    fn found(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut buffer = vec![0u8; 1 << 20];
        let mut count = 0;
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
            let name = fields.nth(3).unwrap_or("");
            if access != "rw-p" || !(name.is_empty() || name == "[heap]") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let [mut at, end] = [start, end].map(|x| u64::from_str_radix(x, 16).unwrap());
            while at < end {
                let length = (end - at).min(buffer.len() as u64) as usize;
                let Ok(read) = memory.read_at(&mut buffer[..length], at) else { break };
                let words = buffer[..read].as_chunks::<8>().0;
                count += words.iter().filter(|w| self.0.contains(&(u64::from_le_bytes(**w) ^ MASK))).count();
                at += read.max(1) as u64;
            }
        }
        buffer.fill(0);
        count
    }
}

/// Negative integers of 40 bits, told apart by `seed`.
fn integers(seed: u64) -> impl Iterator<Item = i64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..N).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        -((state >> 24) as i64) - 1
    })
}

fn secret(params: &Params) -> SecretKey {
    SecretKey::from_seed(params, Seed::from_bytes([3; 32])).unwrap()
}

/// A ciphertext with parts that are no secret: it decrypts to `first + second s`.
fn open(secret: &SecretKey, first: Poly<Eval>, second: Poly<Eval>, scale: Scale) -> Ciphertext {
    let params = secret.params();
    Ciphertext::from_parts(params, secret.id(), vec![first, second], 1, scale, params.slots()).unwrap()
}

/// One test: what runs beside it would be searched too.
#[test]
fn secrets_and_messages_are_gone_from_memory() {
    let params = presets::insecure::small(N, 45.0, 2).unwrap();
    let secret = secret(&params);
    let (ring, limbs) = (params.ring(), params.limbs(1));
    let zero = Poly::<Eval>::zero(ring, limbs).unwrap();

    // Decrypted coefficients and slots.
    let coefficients = Words::new(integers(1).map(|x| (x as f64).to_bits()));
    let list: Vec<i64> = integers(1).collect();
    let message = Poly::<Coeff>::from_i64(ring, limbs, &list).unwrap().into_eval();
    let ciphertext = open(&secret, message, zero.clone(), Scale::from_log2(20));
    // Dropped at once: no later allocation can have covered what decryption left.
    drop(secret.decrypt(&ciphertext).unwrap());
    assert!(coefficients.found() < STRAY, "{} words of decrypted coefficients", coefficients.found());
    let decrypted = secret.decrypt(&ciphertext).unwrap();
    assert!(coefficients.found() >= N, "the search must find what is there");
    let decoded = decrypted.decode();
    let slots = Words::of_slots(decoded.as_slice());
    assert!(slots.found() >= N, "the search must find what is there");
    drop(decoded);
    assert!(slots.found() < STRAY, "{} words of decoded slots", slots.found());
    drop(decrypted);
    assert!(coefficients.found() < STRAY, "{} words of decrypted coefficients", coefficients.found());

    // The slots of the secret itself, as the noise machine of its owner asks for them.
    let mut one = zero.clone();
    one.iter_mut().for_each(|(_, limb)| limb.fill(1.0));
    let own = open(&secret, zero, one, Scale::ONE);
    let slots = Words::of_slots(secret.decrypt(&own).unwrap().decode().as_slice());
    assert!(slots.found() < STRAY, "{} words of decoded slots", slots.found());
    let profile = cipherlm_ckks::hazmat::slot_profile(&secret).unwrap();
    assert!(slots.found() < STRAY, "{} words of the secret's slots", slots.found());
    drop(profile);

    // A message on its way in: plaintext, encoding and encryption.
    let (floats, words) =
        (Words::new(integers(2).map(|x| (x as f64).to_bits())), Words::new(integers(2).map(|x| x as u64)));
    let mut values: Vec<f64> = integers(2).map(|x| x as f64 / 1024.0).collect();
    let plaintext = Plaintext::encode_coefficients(&params, &values, Scale::from_log2(10)).unwrap();
    values.fill(0.0);
    std::hint::black_box(&values);
    assert!(words.found() >= N, "the search must find what is there");
    let public = secret.public_key().unwrap();
    let ciphertexts = [secret.encrypt(&plaintext, 1).unwrap(), public.encrypt(&plaintext, 1).unwrap()];
    drop(plaintext);
    assert!(words.found() < STRAY, "{} words of a plaintext", words.found());
    assert!(floats.found() < STRAY, "{} words of an encrypted message", floats.found());
    drop(ciphertexts);
}
