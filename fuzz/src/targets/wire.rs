//! Objects of the wire format, alone and in a row.

use cipherlm_ckks::ring::Seed;
use cipherlm_ckks::wire::{HEADER_BYTES, MAGIC};
use cipherlm_ckks::{
    Ciphertext, Complex64, Evaluator, KeyId, KeyRequest, KeySet, KeyShape, Params, Plaintext, PublicKey,
    Scale, SecretKey, SwitchingKey, Wire, presets,
};
use cipherlm_infer::{Asked, EncryptedLogits, EncryptedPrompt, SmallRings};

use super::{Target, Verdict, binary_ceiling};
use crate::engine::Probe;
use crate::mutate::bytes;
use crate::rng::Rng;

/// Keys and ciphertexts of the smallest ring.
pub(super) struct World {
    pub(super) params: Params,
    pub(super) secret: SecretKey,
    pub(super) evaluator: Evaluator<KeySet>,
    /// Those of a plan: a message in another small ring is refused, and no ring is made for it.
    rings: SmallRings,
}

impl World {
    pub(super) fn new() -> anyhow::Result<Self> {
        let params = presets::insecure::small(64, 40.0, 2)?;
        let secret = SecretKey::from_seed(&params, Seed::from_bytes([7; 32]))?;
        let mut request = KeyRequest::new();
        request.relin(2).conjugation(&params, 1).rotations(&params, [1, 2], 2);
        let evaluator = Evaluator::new(&params, secret.key_set(&request)?);
        let half = params.degree() / 2;
        let (prompt, answer) = (params.subring(half, 1, 0)?, params.subring(half, 0, 1)?);
        let rings = SmallRings { prompt: Some(prompt), answer: Some(answer) };
        Ok(Self { params, secret, evaluator, rings })
    }

    pub(super) fn encrypt(&self, level: usize) -> anyhow::Result<Ciphertext> {
        let values: Vec<Complex64> = (0..8).map(|i| Complex64::new(f64::from(i) / 8.0, 0.25)).collect();
        let plaintext = Plaintext::encode(&self.params, &values, 8, self.params.default_scale(level))?;
        Ok(self.secret.encrypt(&plaintext, level)?)
    }

    /// Fresh, negated (without a seed), a product of three parts, of one slot, at level 0.
    pub(super) fn ciphertexts(&self) -> anyhow::Result<Vec<Ciphertext>> {
        let fresh = self.encrypt(2)?;
        let product = self.evaluator.mul(&fresh, &fresh)?;
        let one =
            Plaintext::encode(&self.params, &[Complex64::new(0.5, 0.0)], 1, self.params.default_scale(1))?;
        let negated = self.evaluator.neg(&fresh)?;
        Ok(vec![fresh, negated, product, self.secret.encrypt(&one, 1)?, self.encrypt(0)?])
    }
}

/// Writes correct hashes over every object of a row that starts at `skip`.
pub(super) fn reseal(input: &mut [u8], skip: usize) {
    let header = HEADER_BYTES as usize;
    let mut at = skip;
    while input.len() >= at + header && input[at..at + 4] == MAGIC {
        let length = input[at + 72..at + 80].iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
        let body = at + header;
        let Some(end) =
            usize::try_from(length).ok().and_then(|l| body.checked_add(l)).filter(|end| *end <= input.len())
        else {
            return;
        };
        let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 1 wire object");
        hasher.update(&input[at + 6..at + 72]).update(&input[body..end]);
        let hash = *hasher.finalize().as_bytes();
        input[at + 80..at + 112].copy_from_slice(&hash);
        at = end;
    }
}

type Reading = Box<dyn Fn(&World, &[u8], &mut Probe) -> Result<Vec<u8>, String>>;

/// A type of object: its seeds, where its row starts, and reading it with writing it again.
pub(crate) struct Object {
    world: World,
    seeds: Vec<Vec<u8>>,
    skip: usize,
    read: Reading,
    /// Whether the objects may stand in another order.
    any_order: bool,
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

impl Object {
    fn new(
        seeds: impl Fn(&World) -> anyhow::Result<Vec<Vec<u8>>>,
        skip: usize,
        read: Reading,
    ) -> anyhow::Result<Self> {
        let world = World::new()?;
        Ok(Self { seeds: seeds(&world)?, world, skip, read, any_order: false })
    }

    pub(super) fn ciphertext() -> anyhow::Result<Self> {
        let seeds = |w: &World| Ok(w.ciphertexts()?.iter().map(Wire::to_bytes).collect());
        let read: Reading = Box::new(|w, bytes, probe| {
            let found = probe.parse(|| Ciphertext::from_bytes(&w.params, bytes)).map_err(text)?;
            // What is accepted can be worked with.
            if let Err(error) = w.evaluator.neg(&found) {
                panic!("accepted, then not negated: {error}");
            }
            drop(w.evaluator.add(&found, &found));
            drop(w.evaluator.rotate(&found, 1));
            drop(w.secret.decrypt(&found).map(|d| d.decode()));
            Ok(found.to_bytes())
        });
        Self::new(seeds, 0, read)
    }

    pub(super) fn public_key() -> anyhow::Result<Self> {
        let read: Reading = Box::new(|w, bytes, probe| {
            let found = probe.parse(|| PublicKey::from_bytes(&w.params, bytes)).map_err(text)?;
            Ok(found.to_bytes())
        });
        Self::new(|w| Ok(vec![w.secret.public_key()?.to_bytes()]), 0, read)
    }

    pub(super) fn switching_key() -> anyhow::Result<Self> {
        let seeds = |w: &World| {
            let mut seeds: Vec<Vec<u8>> = w.evaluator.keys().iter().map(|key| key.to_bytes()).collect();
            let from = SecretKey::from_seed(&w.params, Seed::from_bytes([8; 32]))?;
            seeds.push(w.secret.switching_key_from(&from, KeyShape::cheapest(&w.params, 1)?)?.to_bytes());
            let ring = w.params.subring(w.params.degree() / 2, 0, 1)?;
            seeds.push(w.secret.projection_key(&ring)?.to_bytes());
            seeds.push(w.secret.embedding_key(&ring)?.to_bytes());
            Ok(seeds)
        };
        let read: Reading = Box::new(|w, bytes, probe| {
            let found = probe.parse(|| SwitchingKey::from_bytes(&w.params, bytes)).map_err(text)?;
            Ok(found.to_bytes())
        });
        Self::new(seeds, 0, read)
    }

    pub(super) fn key_set() -> anyhow::Result<Self> {
        let read: Reading = Box::new(|w, bytes, probe| {
            let found = probe.parse(|| KeySet::from_bytes(&w.params, bytes)).map_err(text)?;
            let again = found.to_bytes();
            if let Ok(fresh) = w.encrypt(2) {
                drop(Evaluator::new(&w.params, found).rotate(&fresh, 1));
            }
            Ok(again)
        });
        let set =
            Self::new(|w| Ok(vec![w.evaluator.keys().to_bytes(), KeySet::new().to_bytes()]), COUNT, read)?;
        Ok(Self { any_order: true, ..set })
    }

    pub(super) fn secret() -> anyhow::Result<Self> {
        let seeds = |w: &World| {
            let sparse = SecretKey::sparse_from_seed(&w.params, 4, Seed::from_bytes([9; 32]))?;
            Ok(vec![w.secret.to_secret_bytes().to_vec(), sparse.to_secret_bytes().to_vec()])
        };
        let read: Reading = Box::new(|w, bytes, probe| {
            let found = probe.parse(|| SecretKey::from_secret_bytes(&w.params, bytes)).map_err(text)?;
            Ok(found.to_secret_bytes().to_vec())
        });
        Self::new(seeds, 0, read)
    }

    pub(super) fn prompt() -> anyhow::Result<Self> {
        let seeds = |w: &World| {
            let mut ciphertexts = w.ciphertexts()?;
            ciphertexts.truncate(3);
            let (plan, key_id) = ("0123456789abcdef".repeat(2), w.secret.id());
            let prompt =
                EncryptedPrompt { plan, key_id, lengths: vec![5], asked: Asked::Position(4), ciphertexts };
            let ring = w.params.subring(w.params.degree() / 2, 1, 0)?;
            let plaintext = Plaintext::encode_real(&ring, &[0.5], 1, Scale::from_log2(20))?;
            let ciphertexts = vec![w.secret.in_subring(&ring)?.encrypt(&plaintext, 1)?];
            let small = EncryptedPrompt { ciphertexts, asked: Asked::All, ..prompt.clone() };
            let several = EncryptedPrompt { lengths: vec![5; 40], asked: Asked::Each, ..prompt.clone() };
            Ok(vec![prompt.to_bytes(), small.to_bytes(), several.to_bytes()])
        };
        let read: Reading = Box::new(|w, bytes, probe| {
            let found =
                probe.parse(|| EncryptedPrompt::from_bytes(&w.params, &w.rings, bytes)).map_err(text)?;
            Ok(found.to_bytes())
        });
        Self::new(seeds, 88, read)
    }

    pub(super) fn answer() -> anyhow::Result<Self> {
        let seeds = |w: &World| {
            let mut ciphertexts = w.ciphertexts()?;
            ciphertexts.drain(..2);
            let plan = "fedcba9876543210".repeat(2);
            let ring = w.params.subring(w.params.degree() / 2, 0, 1)?;
            let plaintext = Plaintext::encode_real(&ring, &[0.5], 1, Scale::from_log2(20))?;
            let small = vec![w.secret.in_subring(&ring)?.encrypt(&plaintext, 0)?];
            let whole =
                EncryptedLogits { plan: plan.clone(), lengths: vec![5], asked: Asked::All, ciphertexts };
            let small =
                EncryptedLogits { plan, lengths: vec![5], asked: Asked::Position(4), ciphertexts: small };
            let several = EncryptedLogits { lengths: vec![5; 40], asked: Asked::Each, ..small.clone() };
            Ok(vec![whole.to_bytes(), small.to_bytes(), several.to_bytes()])
        };
        let read: Reading = Box::new(|w, bytes, probe| {
            let found =
                probe.parse(|| EncryptedLogits::from_bytes(&w.params, &w.rings, bytes)).map_err(text)?;
            Ok(found.to_bytes())
        });
        Self::new(seeds, 56, read)
    }
}

/// The objects of a row.
fn row(bytes: &[u8], skip: usize) -> Vec<Vec<u8>> {
    let (mut list, mut at) = (Vec::new(), skip.min(bytes.len()));
    while let Some(length) = bytes.get(at + 72..at + 80) {
        let length = length.iter().rev().fold(0usize, |sum, b| sum << 8 | usize::from(*b));
        let end = length.saturating_add(at + HEADER_BYTES as usize).min(bytes.len());
        list.push(bytes[at..end].to_vec());
        at = end;
    }
    list
}

fn sorted(bytes: &[u8], skip: usize) -> Vec<Vec<u8>> {
    let mut list = row(bytes, skip);
    list.sort();
    list
}

/// Objects twice, gone, in another place, from another row.
fn shuffle(input: &mut Vec<u8>, skip: usize, pool: &[Vec<u8>], rng: &mut Rng) {
    let mut list = row(input, skip);
    let (one, two) = (rng.below(list.len()), rng.below(list.len() + 1));
    match rng.below(4) {
        0 if !list.is_empty() => list.insert(two, list[one].clone()),
        1 if !list.is_empty() => drop(list.remove(one)),
        2 if two < list.len() => list.swap(one, two),
        _ => {
            let other = rng.pick(pool).map(|other| row(other, skip)).unwrap_or_default();
            list.extend(rng.pick(&other).cloned());
        }
    }
    let mut head = input[..skip.min(input.len())].to_vec();
    if skip == COUNT && !rng.one_in(8) {
        head = (list.len() as u64).to_le_bytes().to_vec();
    }
    *input = [head, list.concat()].concat();
}

/// A key set starts with the number of its keys.
const COUNT: usize = 8;

impl Target for Object {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(self.seeds.clone())
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        if self.skip > 0 && rng.one_in(4) {
            shuffle(input, self.skip, pool, rng);
        } else {
            bytes(input, pool, rng);
        }
    }

    fn reseal(&self, input: &mut Vec<u8>) {
        reseal(input, self.skip);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        match (self.read)(&self.world, input, probe) {
            Err(error) => Verdict::Refused(error),
            Ok(again) if again == input => Verdict::Accepted,
            Ok(again) if self.any_order && sorted(&again, self.skip) == sorted(input, self.skip) => {
                Verdict::Accepted
            }
            Ok(again) => {
                let at = again.iter().zip(input).position(|(a, b)| a != b);
                let (read, written) = (input.len(), again.len());
                Verdict::Wrong(format!(
                    "{read} bytes read, {written} written; they differ from byte {at:?} on"
                ))
            }
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        binary_ceiling(length)
    }
}

/// The id of a key that does not exist.
pub(super) fn key_id(world: &World) -> KeyId {
    world.secret.id()
}
