//! What one party sends another: a conversion's difference, a client plan, a manifest of keys.

use std::path::PathBuf;

use cipherlm_model::difference::{self, DIFFERENCE_FILE};
use cipherlm_model::{Attention, Eps, Kind, Model, Norm, Shape, in_name_order, random};
use cipherlm_protocol::{
    Answers, Blob, ClientPlan, Costs, Digest, KeyAsked, KeyEntry, KeyManifest, Layout, ModelFacts,
    PLAN_FORMAT, read_json,
};
use serde_json::Value;

use super::{Target, Verdict, json_ceiling, scratch_folder};
use crate::engine::Probe;
use crate::mutate::{json, safetensors};
use crate::rng::Rng;

/// `difference.safetensors`, read with the weights that it belongs to.
pub(crate) struct Difference {
    base: Model,
    converted: Model,
    folder: PathBuf,
}

impl Difference {
    pub(super) fn new() -> anyhow::Result<Self> {
        let shape = Shape::preset("test").ok_or_else(|| anyhow::anyhow!("no preset `test`"))?;
        let shape = Shape {
            d_model: 8,
            heads: 2,
            head_dim: 4,
            ffn: 8,
            vocab: 8,
            context: 4,
            layers: 1,
            attention: Attention::Softmax,
            ..shape
        };
        let base = random::weights_only("base", &shape, 1)?;
        let attention = Attention::PowerSoftmax { p: 2, c: 1.0, eps: Eps::Frozen };
        let shape = Shape { attention, ..shape };
        let mut weights = base.weights().clone();
        for (name, dims) in shape.tensors() {
            let values = dims.iter().product();
            match weights.values(&name).map(<[f64]>::to_vec) {
                Some(old) if name.contains("attn.") => {
                    let moved = old.iter().zip(1u32..).map(|(x, i)| x + f64::from(i).sin()).collect();
                    weights.insert(name, &dims, moved)?;
                }
                Some(_) => {}
                None => weights.insert(name, &dims, vec![0.25; values])?,
            }
        }
        let converted = Model::new("converted", shape, weights)?;
        Ok(Self { base, converted, folder: scratch_folder("difference")? })
    }
}

impl Drop for Difference {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The hash of the tensors in a file, as the format has it.
fn digest(header: &Value, data: &[u8]) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    // In name order, which is that of the map.
    for (name, entry) in header.as_object()?.iter().filter(|(name, _)| *name != "__metadata__") {
        let numbers = |field: &str| -> Option<Vec<usize>> {
            entry[field].as_array()?.iter().map(|n| usize::try_from(n.as_u64()?).ok()).collect()
        };
        let (dims, place) = (numbers("shape")?, numbers("data_offsets")?);
        hasher.update(format!("{name} {} {dims:?};", entry["dtype"].as_str()?).as_bytes());
        hasher.update(data.get(*place.first()?..*place.get(1)?)?);
    }
    Some(hasher.finalize().to_hex().to_string())
}

/// The file with its hash right.
fn sealed(input: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = input.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let hash = digest(&header, data)?;
    *header.get_mut("__metadata__")?.get_mut("blake3")? = hash.into();
    let header = serde_json::to_vec(&header).ok()?;
    in_name_order(&[&(header.len() as u64).to_le_bytes()[..], &header, data].concat()).ok()
}

impl Target for Difference {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut seeds = Vec::new();
        for rank in [Some(1), None] {
            let how = difference::Difference {
                rank,
                whole: vec!["attn.k".into()],
                at_most: 1 << 20,
                folder: "base".into(),
                fetch: "fetch it".into(),
            };
            difference::write(&self.base, &self.converted, &how, &self.folder)?;
            seeds.push(std::fs::read(self.folder.join(DIFFERENCE_FILE))?);
        }
        Ok(seeds)
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        // The shape is a text inside the text.
        let shape = sealed(input).filter(|_| rng.one_in(3)).and_then(|whole| {
            let (length, rest) = whole.split_first_chunk::<8>()?;
            let (header, data) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
            let mut header: Value = serde_json::from_slice(header).ok()?;
            let field = header.get_mut("__metadata__")?.get_mut("shape")?;
            let mut text = field.as_str()?.as_bytes().to_vec();
            json(&mut text, &[], rng);
            *field = String::from_utf8_lossy(&text).into();
            let header = serde_json::to_vec(&header).ok()?;
            Some([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
        });
        match shape {
            Some(edited) => *input = edited,
            None => safetensors(input, pool, rng),
        }
    }

    fn reseal(&self, input: &mut Vec<u8>) {
        if let Some(whole) = sealed(input) {
            *input = whole;
        }
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let path = self.folder.join(DIFFERENCE_FILE);
        if let Err(error) = std::fs::write(&path, input) {
            return Verdict::Refused(format!("the test could not write: {error}"));
        }
        let model = match probe.parse(|| difference::apply(&self.base, &path)) {
            Ok(model) => model,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let again = serde_json::to_string(model.spec()).map_err(|error| error.to_string()).and_then(|text| {
            Model::from_parts(&text, &model.weights().to_bytes()).map_err(|error| error.to_string())
        });
        match again {
            Ok(again) if again == model => Verdict::Accepted,
            Ok(_) => Verdict::Wrong("saved and loaded, it is another model".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        // The model that comes out is as large as its base.
        json_ceiling(length) + (1 << 20)
    }
}

/// What a server tells its clients.
pub(crate) struct Plan;

fn plan() -> ClientPlan {
    let blob = Blob { blake3: Digest::of(b"blob"), bytes: 4 };
    ClientPlan {
        format: PLAN_FORMAT.into(),
        plan: "00ff".into(),
        model: ModelFacts {
            name: "tiny".into(),
            kind: Kind::Decoder,
            embedding: cipherlm_model::EmbeddingShape {
                d_model: 24,
                vocab: 300,
                context: 64,
                norm: Norm::LayerNorm,
                norm_eps: 1e-5,
                normalised: false,
                positions: false,
            },
            prefix: vec![1, 2],
        },
        profile: "n16".into(),
        log_degree: 16,
        params: Digest::of(b"params"),
        purpose: "prompt".into(),
        layout: Layout {
            slots: 1 << 15,
            prompts: 1,
            features: 32,
            tokens: 8,
            vectors: 1,
            level: 13,
            floor: 3,
            degree: 1 << 15,
            centred: true,
            unit: 2.5,
            range: 2.0,
        },
        answers: Answers {
            vectors: 10,
            features: 32,
            tokens: 8,
            last: false,
            results: 300,
            unit: 12.0,
            degree: 2048,
        },
        tokenizer: blob,
        embedding: blob,
        keys: vec![KeyAsked { galois: None, level: 4 }, KeyAsked { galois: Some(5), level: 9 }],
        costs: Costs {
            key_bytes: 1,
            key_bytes_resident: 2,
            prompt_bytes: 3,
            answer_bytes: 4,
            whole_answer_bytes: 40,
            seconds: 5.5,
        },
    }
}

impl Target for Plan {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(vec![plan().to_json()?.into_bytes()])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        json(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let Ok(text) = str::from_utf8(input) else { return Verdict::Refused("not UTF-8".into()) };
        let plan = match probe.parse(|| ClientPlan::from_json(text)) {
            Ok(plan) => plan,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        match plan.to_json().and_then(|text| ClientPlan::from_json(&text)) {
            Ok(again) if again == plan => Verdict::Accepted,
            Ok(_) => Verdict::Wrong("written and read, it is another plan".into()),
            Err(error) => Verdict::Wrong(format!("accepted; written, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        json_ceiling(length)
    }
}

/// What a client tells a server of its keys.
pub(crate) struct Manifest;

impl Target for Manifest {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let entry = |n: u8| KeyEntry { blake3: Digest::of(&[n]), bytes: 1000 + u64::from(n) };
        let manifest = |count| KeyManifest {
            plan: "00ff".into(),
            params: Digest::of(b"params"),
            keys: (0..count).map(entry).collect(),
        };
        Ok(vec![serde_json::to_vec(&manifest(1))?, serde_json::to_vec(&manifest(5))?])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        json(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let read = |bytes: &[u8]| {
            let manifest: KeyManifest = read_json(bytes)?;
            manifest.check().map(|()| manifest)
        };
        let manifest = match probe.parse(|| read(input)) {
            Ok(manifest) => manifest,
            Err(problem) => return Verdict::Refused(problem.to_string()),
        };
        if manifest.keys.iter().any(|key| manifest.find(key.blake3) != Some(*key)) {
            return Verdict::Wrong("a key of the manifest is not found in it".into());
        }
        let written = serde_json::to_vec(&manifest).map_err(|error| error.to_string());
        match written.and_then(|text| read(&text).map_err(|problem| problem.to_string())) {
            Ok(again) if again == manifest => Verdict::Accepted,
            Ok(_) => Verdict::Wrong("written and read, it is another manifest".into()),
            Err(error) => Verdict::Wrong(format!("accepted; written, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        json_ceiling(length)
    }
}
