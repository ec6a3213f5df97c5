//! What a teacher's attention layers read and write on a text, kept on disk: every layer can then
//! be matched by itself.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use crate::checkpoint::{Archive, Weighed};
use crate::error::{Error, Result};
use crate::params::{HostParam, to_host};
use crate::probe::Probe;
use crate::stamp::{hash, hash_params, json};
use crate::transformer::{Transformer, token_tensor};

/// Windows that the teacher reads at once.
const BATCH: usize = 8;

/// States of all layers on one text.
pub(super) struct States {
    folder: PathBuf,
    made: String,
    /// Windows.
    pub(super) windows: usize,
    /// Rows of the longest, public tokens included.
    pub(super) length: usize,
    /// Rows of each.
    lengths: Vec<usize>,
    /// Rows of public tokens.
    public: usize,
}

/// States of one layer, rows of features.
pub(super) struct LayerStates {
    input: Vec<f32>,
    output: Vec<f32>,
    width: usize,
    length: usize,
    lengths: Vec<usize>,
}

/// States of some windows, rows of features, those of public tokens included, with 1 for tokens and
/// 0 for padding if there is any.
pub(super) struct Picked {
    pub(super) input: Tensor<2>,
    pub(super) output: Tensor<2>,
    pub(super) keep: Option<Tensor<2>>,
    pub(super) batch: usize,
}

impl States {
    /// The states of a teacher on windows, made unless the folder holds those of the same weights
    /// and windows.
    pub(super) fn of(teacher: &Weighed, windows: &[&[u32]], folder: &Path, device: &Device) -> Result<Self> {
        let (arch, params) = teacher;
        let public = arch.prefix.len();
        let lengths: Vec<usize> = windows.iter().map(|w| public + w.len()).collect();
        let tokens: Vec<u8> = windows.iter().flat_map(|w| *w).flat_map(|t| t.to_le_bytes()).collect();
        let made = hash_params(params, &format!("{} {} {}", json(arch), json(&lengths), hash(&tokens)));
        let length = lengths.iter().copied().max().unwrap_or(0);
        let states =
            Self { folder: folder.to_owned(), made, windows: windows.len(), length, lengths, public };
        cipherlm_files::create_folder(folder)?;
        if (0..arch.shape.layers).any(|layer| states.layer(layer).is_err()) {
            states.make(teacher, windows, device)?;
        }
        Ok(states)
    }

    fn make(&self, (arch, params): &Weighed, windows: &[&[u32]], device: &Device) -> Result<()> {
        let model = Transformer::with_params(arch, params, device)?;
        let room = self.length - self.public;
        let mut kept: Vec<Vec<f32>> = vec![Vec::new(); 2 * arch.shape.layers];
        for batch in windows.chunks(BATCH) {
            // All of one length, so that every batch fills as many rows of the file.
            let mut tokens = vec![0u32; batch.len() * room];
            let mut keep = vec![0.0f32; tokens.len()];
            for (i, window) in batch.iter().enumerate() {
                tokens[i * room..][..window.len()].copy_from_slice(window);
                keep[i * room..][..window.len()].fill(1.0);
            }
            let keep = Tensor::from_data(TensorData::new(keep, [batch.len(), room]), device);
            let keep = self.uneven().then_some(keep);
            let mut probe = Probe::keeping_attention();
            model.hidden(token_tensor(arch, &tokens, batch.len(), device)?, keep, &mut probe);
            for (all, new) in kept.iter_mut().zip(probe.take_kept()) {
                all.extend(to_host(new));
            }
        }
        let shape = [self.windows * self.length, arch.shape.d_model];
        let mut kept = kept.into_iter();
        for layer in 0..arch.shape.layers {
            let tensors = ["input", "output"].into_iter().zip(&mut kept);
            let tensors = tensors.map(|(name, data)| HostParam::new(name, &shape, data)).collect();
            let fields = [("made".to_owned(), self.made.clone())].into();
            Archive { tensors, fields }.save(&self.path(layer))?;
        }
        Ok(())
    }

    /// The states of a layer.
    pub(super) fn layer(&self, layer: usize) -> Result<LayerStates> {
        let path = self.path(layer);
        let mut archive = Archive::load(&path)?;
        let stale = || Error::Corrupt {
            path: path.clone(),
            reason: "it was made from other weights or another text".into(),
            hint: "delete it",
        };
        if archive.fields.get("made") != Some(&self.made) {
            return Err(stale());
        }
        let mut take = |name: &str| {
            let at = archive.tensors.iter().position(|t| t.name == name)?;
            Some(archive.tensors.swap_remove(at))
        };
        let (input, output) = take("input").zip(take("output")).ok_or_else(stale)?;
        let width = input.shape.last().copied().unwrap_or(1);
        let lengths = if self.uneven() { self.lengths.clone() } else { Vec::new() };
        Ok(LayerStates { input: input.data, output: output.data, width, length: self.length, lengths })
    }

    /// True if some windows are padded.
    pub(super) fn uneven(&self) -> bool {
        self.lengths.iter().any(|&l| l != self.length)
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.folder.join(format!("layer-{layer}.safetensors"))
    }
}

impl LayerStates {
    /// The states of some windows, on `device`, padded to the longest of them.
    pub(super) fn pick(&self, windows: &[usize], device: &Device) -> Picked {
        let size = self.length * self.width;
        let lengths = windows.iter().map(|&w| self.lengths.get(w).copied().unwrap_or(self.length));
        let rows = lengths.clone().max().unwrap_or(0);
        let [input, output] = [&self.input, &self.output].map(|side| {
            let values = |w: &usize| side[w * size..][..rows * self.width].iter().copied();
            let values: Vec<f32> = windows.iter().flat_map(values).collect();
            Tensor::from_data(TensorData::new(values, [windows.len() * rows, self.width]), device)
        });
        let keep = lengths.clone().any(|length| length != rows).then(|| {
            let kept = |length: usize| (0..rows).map(move |i| if i < length { 1.0f32 } else { 0.0 });
            let keep: Vec<f32> = lengths.flat_map(kept).collect();
            Tensor::from_data(TensorData::new(keep, [windows.len(), rows]), device)
        });
        Picked { input, output, keep, batch: windows.len() }
    }
}
