//! Decoder language models (GPT / Pythia / Llama families) and encoders with a classification head (BERT family).

use burn::module::{Module, Param};
use burn::tensor::activation::tanh;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::attention::Tables;
use crate::block::{Block, Dense, Init, Norm};
use crate::config::{Attention, Epsilon, ModelConfig};
use crate::error::{Error, Result};
use crate::params::HostParam;
use crate::probe::{Probe, Site};

/// A causal language model.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token embedding `[vocab, width]`.
    pub embedding: Param<Tensor<2>>,
    /// Learned positions `[context, width]`.
    pub positions: Option<Param<Tensor<2>>>,
    /// Blocks.
    pub blocks: Vec<Block>,
    /// Last normalisation (with `post_norm`: the one after the embedding).
    pub final_norm: Norm,
    /// Output layer `[width, vocab]`; absent when tied.
    pub head: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: ModelConfig,
}

/// An encoder with a pooled classification head.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The body; its language head is not used.
    pub body: Decoder,
    /// Pooler on the first position `[width, width]`, followed by tanh.
    pub pooler: Dense,
    /// Classifier `[width, classes]`.
    pub classifier: Dense,
}

impl Decoder {
    /// Random weights from a seed, on `device` with elements of `dtype`.
    pub fn new(config: &ModelConfig, seed: u64, device: &Device, dtype: DType) -> Result<Self> {
        config.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut init = Init { device, dtype, rng: &mut rng };
        let (v, d) = (config.vocab, config.width);
        Ok(Self {
            embedding: init.normal([v, d], if config.tied { 1.0 / (d as f64).sqrt() } else { 0.02 }),
            positions: config.learned_positions.then(|| init.normal([config.context, d], 0.02)),
            blocks: (0..config.layers).map(|_| Block::new(config, &mut init)).collect(),
            final_norm: Norm::new(config, &mut init),
            head: (!config.tied).then(|| init.normal([d, v], 0.02)),
            config: config.clone(),
        })
    }

    /// Shape and operators.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The same weights under another attention operator (the conversion step of continual training).
    pub fn with_attention(mut self, attention: Attention) -> Result<Self> {
        self.config.attention = attention;
        self.config.check()?;
        let device = self.embedding.val().device();
        let dtype = self.embedding.val().dtype();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut init = Init { device: &device, dtype, rng: &mut rng };
        for block in &mut self.blocks {
            block.attention.set_kind(&self.config, &mut init);
        }
        Ok(self)
    }

    /// Logits `[batch, rows, vocab]` of token ids `[batch, rows]`.
    pub fn forward(&self, tokens: Tensor<2, Int>, keep: Option<Tensor<2>>, probe: &mut Probe) -> Tensor<3> {
        let [batch, rows] = tokens.dims();
        let x = self.hidden(tokens, keep, probe);
        let x = if self.config.post_norm {
            x
        } else {
            self.final_norm.forward(x, Site::FinalNorm, self.config.layers, probe)
        };
        let logits = match &self.head {
            Some(head) => x.matmul(head.val()),
            None => x.matmul(self.embedding.val().transpose()),
        };
        logits.reshape([batch, rows, self.config.vocab])
    }

    /// Residual stream after the last block, `[batch * rows, width]`, before the last normalisation.
    pub fn hidden(&self, tokens: Tensor<2, Int>, keep: Option<Tensor<2>>, probe: &mut Probe) -> Tensor<2> {
        let [batch, rows] = tokens.dims();
        let mut x = self.embed(tokens, probe);
        let tables = self.tables(batch, rows, keep, &x);
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, batch, &tables, layer, probe);
        }
        x
    }

    /// Attention weights of every layer, each `[batch, heads, rows, keys]`, for figures.
    pub fn attention_weights(&self, tokens: Tensor<2, Int>) -> Vec<Tensor<4>> {
        let [batch, rows] = tokens.dims();
        let mut probe = Probe::off();
        let mut x = self.embed(tokens, &mut probe);
        let tables = self.tables(batch, rows, None, &x);
        let mut out = Vec::with_capacity(self.blocks.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            let read = if self.config.post_norm {
                x.clone()
            } else {
                block.attention_norm.forward(x.clone(), Site::AttentionNorm, layer, &mut probe)
            };
            out.push(block.attention.weights(read, batch, &tables));
            x = block.forward(x, batch, &tables, layer, &mut probe);
        }
        out
    }

    /// Sets the epsilon of every head and row to the largest row mean that `probe` saw there divided by `spread`,
    /// and switches the operator to frozen epsilons. Neighbouring rows are smoothed by taking the larger one, so that
    /// a row with few observations borrows from its neighbours. `params` are the model's host parameters, in step.
    pub fn freeze_epsilon(
        config: &mut ModelConfig,
        params: &mut [HostParam],
        probe: &Probe,
        spread: f64,
    ) -> Result<()> {
        let Attention::Power(mut power) = config.attention else {
            return Err(Error::config("attention", "not a power", "a PowerSoftmax"));
        };
        for layer in 0..config.layers {
            let name = format!("blocks.{layer}.attention.epsilon");
            let maxima = probe.row_maxima(layer).ok_or_else(|| Error::config("probe", "empty", "an observed run"))?;
            let table = params.iter_mut().find(|p| p.name == name).ok_or_else(|| Error::Shape {
                name: name.clone(),
                expected: vec![config.heads, config.context],
                found: Vec::new(),
            })?;
            for (row, out) in maxima.chunks(config.context).zip(table.data.chunks_mut(config.context)) {
                for (i, cell) in out.iter_mut().enumerate() {
                    let near = &row[i.saturating_sub(2)..(i + 3).min(row.len())];
                    let largest = near.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
                    *cell = (f64::from(largest) / spread) as f32;
                }
            }
        }
        power.epsilon = Epsilon::Frozen;
        config.attention = Attention::Power(power);
        Ok(())
    }

    fn embed(&self, tokens: Tensor<2, Int>, probe: &mut Probe) -> Tensor<2> {
        let [batch, rows] = tokens.dims();
        let d = self.config.width;
        let mut x = self.embedding.val().select(0, tokens.reshape([batch * rows]));
        if let Some(positions) = &self.positions {
            let positions = positions.val().slice([0..rows, 0..d]).unsqueeze::<3>().expand([batch, rows, d]);
            x = x.add(positions.reshape([batch * rows, d]));
        }
        if self.config.post_norm {
            x = self.final_norm.forward(x, Site::FinalNorm, self.config.layers, probe);
        }
        x
    }

    fn tables(&self, batch: usize, rows: usize, keep: Option<Tensor<2>>, like: &Tensor<2>) -> Tables {
        Tables::new(&self.config, batch, rows, keep, &like.device(), like.dtype())
    }
}

impl Encoder {
    /// Random weights from a seed.
    pub fn new(config: &ModelConfig, classes: usize, seed: u64, device: &Device, dtype: DType) -> Result<Self> {
        if classes < 2 {
            return Err(Error::config("classes", classes, "at least 2"));
        }
        let body = Decoder::new(config, seed, device, dtype)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x636c_6173);
        let mut init = Init { device, dtype, rng: &mut rng };
        Ok(Self {
            body,
            pooler: init.dense(config.width, config.width, true, 1.0),
            classifier: init.dense(config.width, classes, true, 1.0),
        })
    }

    /// Class logits `[batch, classes]`; `keep` is 1 for tokens and 0 for padding, `[batch, rows]`.
    pub fn forward(&self, tokens: Tensor<2, Int>, keep: Tensor<2>, probe: &mut Probe) -> Tensor<2> {
        let [batch, rows] = tokens.dims();
        let d = self.body.config.width;
        let x = self.body.hidden(tokens, Some(keep), probe).reshape([batch, rows, d]);
        let first = x.slice([0..batch, 0..1, 0..d]).reshape([batch, d]);
        self.classifier.forward(tanh(self.pooler.forward(first)))
    }
}

/// Token ids as a tensor `[batch, rows]`, checked against the model.
pub fn token_tensor(config: &ModelConfig, tokens: &[u32], batch: usize, device: &Device) -> Result<Tensor<2, Int>> {
    let rows = tokens.len() / batch.max(1);
    if rows == 0 || rows * batch != tokens.len() {
        return Err(Error::config("batch", batch, format!("a divisor of {} tokens", tokens.len())));
    }
    if rows > config.context {
        return Err(Error::ContextTooLong { tokens: rows, context: config.context });
    }
    check_tokens(config, tokens)?;
    let ids: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
    Ok(Tensor::from_data(TensorData::new(ids, [batch, rows]), (device, DType::I64)))
}

/// Refuses token ids that the model does not know.
pub fn check_tokens(config: &ModelConfig, tokens: &[u32]) -> Result<()> {
    match tokens.iter().find(|&&t| t as usize >= config.vocab) {
        Some(&token) => Err(Error::Vocabulary { token, vocab: config.vocab }),
        None => Ok(()),
    }
}
