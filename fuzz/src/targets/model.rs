//! A model folder, and its weights alone.

use std::path::PathBuf;

use cipherlm_model::{
    Activation, Attention, Eps, Kind, Mode, Model, Norm, Placement, Positions, Residual, Runner, Shape,
    Weights, random,
};

use super::{Target, Verdict, binary_ceiling, json_ceiling, scratch_folder};
use crate::engine::Probe;
use crate::mutate::{join, json, safetensors, split};
use crate::rng::Rng;

/// `model.json` and `weights.safetensors`.
pub(crate) struct Folder {
    scratch: PathBuf,
}

impl Folder {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { scratch: scratch_folder("model")? })
    }

    fn saved(&self, model: &Model) -> cipherlm_model::Result<Model> {
        model.save(&self.scratch)?;
        Model::load(&self.scratch)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// Small models of every kind that the description knows.
fn models() -> anyhow::Result<Vec<Model>> {
    let base = Shape::preset("test").ok_or_else(|| anyhow::anyhow!("no preset `test`"))?;
    let base = Shape { d_model: 8, heads: 2, head_dim: 4, ffn: 8, vocab: 8, context: 4, layers: 1, ..base };
    let llama = Shape {
        norm: Norm::RmsNorm,
        activation: Activation::Silu,
        gated: true,
        bias: false,
        residual: Residual::Parallel,
        attention: Attention::PowerSoftmax { p: 2, c: 1.0, eps: Eps::Absolute { value: 1e-3 } },
        ..base.clone()
    };
    let bert = Shape {
        kind: Kind::Encoder { classes: 2 },
        placement: Placement::Post,
        rotary: None,
        positions: true,
        embed_norm: true,
        tied_head: false,
        attention: Attention::Softmax,
        ..base.clone()
    };
    Ok(vec![
        random::certified("certified", &base, 1)?,
        random::weights_only("llama", &llama, 2)?,
        random::weights_only("bert", &bert, 3)?,
    ])
}

/// The two files of a model.
fn files(model: &Model) -> anyhow::Result<[Vec<u8>; 2]> {
    Ok([serde_json::to_vec(model.spec())?, model.weights().to_bytes()])
}

/// The same tensors as F64, which the format allows.
fn doubles(model: &Model) -> anyhow::Result<Vec<u8>> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, tensor) in model.weights().iter() {
        let from = data.len();
        data.extend(tensor.data.iter().flat_map(|x| (x + 1e-12).to_le_bytes()));
        let entry =
            serde_json::json!({"dtype": "F64", "shape": tensor.dims, "data_offsets": [from, data.len()]});
        header.insert(name.into(), entry);
    }
    let header = serde_json::to_vec(&header)?;
    Ok([(header.len() as u64).to_le_bytes().as_slice(), &header, &data].concat())
}

/// Puts the hash of the weights into the description.
fn hashed(description: &mut [u8], weights: &[u8]) {
    const FIELD: &[u8] = b"\"weights_blake3\":\"";
    let found =
        description.windows(FIELD.len()).position(|window| window == FIELD).map(|at| at + FIELD.len());
    if let Some(slot) = found.and_then(|at| description.get_mut(at..at + 64)) {
        slot.copy_from_slice(blake3::hash(weights).to_hex().as_bytes());
    }
}

impl Target for Folder {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let models = models()?;
        let mut seeds: Vec<Vec<u8>> =
            models.iter().map(|model| Ok(join(&files(model)?))).collect::<anyhow::Result<_>>()?;
        let (mut description, weights) = (files(&models[0])?[0].clone(), doubles(&models[0])?);
        hashed(&mut description, &weights);
        seeds.push(join(&[description, weights]));
        Ok(seeds)
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        let mut parts = split(input, 2);
        let other = rng.pick(pool).map(|other| split(other, 2)).unwrap_or_default();
        match rng.below(8) {
            0 if other.len() == 2 => parts[1].clone_from(&other[1]),
            1 | 2 => safetensors(&mut parts[1], &[], rng),
            _ => json(&mut parts[0], &other[..other.len().min(1)], rng),
        }
        *input = join(&parts);
    }

    fn reseal(&self, input: &mut Vec<u8>) {
        let mut parts = split(input, 2);
        let weights = parts[1].clone();
        hashed(&mut parts[0], &weights);
        *input = join(&parts);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let parts = split(input, 2);
        let Ok(text) = str::from_utf8(&parts[0]) else { return Verdict::Refused("not UTF-8".into()) };
        let model = match probe.parse(|| Model::from_parts(text, &parts[1])) {
            Ok(model) => model,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        // Whatever was accepted runs, or says why not.
        for mode in [Mode::Exact, Mode::Polynomial] {
            drop(Runner::new(&model, mode).and_then(|mut runner| runner.forward(&[0, 1], Positions::Last)));
        }
        match self.saved(&model) {
            Ok(again) if again.shape() == model.shape() && again.weights() == model.weights() => {
                Verdict::Accepted
            }
            Ok(_) => Verdict::Wrong("saved and loaded, it is another model".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        json_ceiling(length)
    }
}

/// `weights.safetensors`.
pub(crate) struct Tensors;

impl Target for Tensors {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut seeds = Vec::new();
        for model in models()? {
            seeds.push(model.weights().to_bytes());
        }
        seeds.push(doubles(&models()?[0])?);
        Ok(seeds)
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        safetensors(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let weights = match probe.parse(|| Weights::from_bytes(input)) {
            Ok(weights) => weights,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        if weights.iter().any(|(_, t)| t.dims.iter().product::<usize>() != t.data.len()) {
            return Verdict::Wrong("a tensor has other dimensions than values".into());
        }
        let mut rounded = weights.clone();
        rounded.round_to_f32();
        match Weights::from_bytes(&rounded.to_bytes()) {
            // NaN is not equal to itself; a model refuses it.
            Ok(again) if again == rounded || format!("{again:?}") == format!("{rounded:?}") => {
                Verdict::Accepted
            }
            Ok(_) => Verdict::Wrong("saved and loaded, they are other weights".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, they are refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        // Values in f64, and the names of a header in JSON.
        binary_ceiling(length) + json_ceiling(length)
    }
}
