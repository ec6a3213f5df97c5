//! Decoder language models (GPT, Pythia, Llama families) and encoders with a classification head
//! (BERT family).
//!
//! A module's parameters carry the names of the data model's tensors: `layers.0.attn.q.weight`.

use burn::module::{Module, Param};
use burn::tensor::activation::tanh;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use cipherlm_model::{Kind, Placement};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::arch::Arch;
use crate::attention::Tables;
use crate::block::Block;
use crate::error::{Error, Result};
use crate::layers::{Dense, Init, Norm, pooled};
use crate::params::{HostParam, align, pull, push};
use crate::probe::{Probe, Site};
use crate::public::{Public, texts};

/// A transformer with the head of its kind.
#[derive(Module, Debug)]
pub struct Transformer {
    /// What turns tokens into rows.
    pub embed: Embed,
    /// Blocks.
    pub layers: Vec<Block>,
    /// Last normalisation, of models that normalise before each branch.
    pub final_norm: Option<Norm>,
    /// Output layer `[width, vocab]` of a decoder; absent when tied.
    pub head: Option<Dense>,
    /// Pooler on the first position of an encoder, followed by tanh.
    pub pool: Option<Dense>,
    /// Classifier `[width, classes]` of an encoder.
    pub classifier: Option<Dense>,
    #[module(skip)]
    arch: Arch,
}

/// Embeddings.
#[derive(Module, Debug)]
pub struct Embed {
    /// Token embedding `[vocab, width]`.
    pub tokens: Param<Tensor<2>>,
    /// Learned positions `[context, width]`.
    pub positions: Option<Param<Tensor<2>>>,
    /// Normalisation of the sum.
    pub norm: Option<Norm>,
}

impl Transformer {
    /// Random weights from a seed, on `device` with elements of `dtype`.
    pub fn new(arch: &Arch, seed: u64, device: &Device, dtype: DType) -> Result<Self> {
        arch.check()?;
        let shape = &arch.shape;
        let (v, d) = (shape.vocab, shape.d_model);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut init = Init { device, dtype, rng: &mut rng };
        let spread =
            if shape.tied_head || shape.kind != Kind::Decoder { 1.0 / (d as f64).sqrt() } else { 0.02 };
        let tokens = init.normal([v, d], spread);
        let positions = shape.positions.then(|| init.normal([shape.context, d], 0.02));
        let layers = (0..shape.layers).map(|l| Block::new(arch, l, &mut init)).collect();
        let norm = shape.embed_norm.then(|| Norm::new("embed.norm", shape, &mut init));
        let final_norm =
            (shape.placement == Placement::Pre).then(|| Norm::new("final_norm", shape, &mut init));
        let untied = shape.kind == Kind::Decoder && !shape.tied_head;
        let head = untied.then(|| Dense { weight: init.normal([d, v], 0.02), bias: None });
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x636c_6173);
        let mut init = Init { device, dtype, rng: &mut rng };
        let (pool, classifier) = match shape.kind {
            Kind::Encoder { classes } => {
                (Some(init.dense(d, d, true, 1.0)), Some(init.dense(d, classes, true, 1.0)))
            }
            Kind::Decoder | Kind::Embedder { .. } => (None, None),
        };
        let embed = Embed { tokens, positions, norm };
        Ok(Self { embed, layers, final_norm, head, pool, classifier, arch: arch.clone() })
    }

    /// A model with these weights, f32.
    pub fn with_params(arch: &Arch, params: &[HostParam], device: &Device) -> Result<Self> {
        let model = Self::new(arch, 0, device, DType::F32)?;
        let params = align(&pull(&model), params.to_vec())?;
        push(model, &params)
    }

    /// Shape and form.
    pub fn arch(&self) -> &Arch {
        &self.arch
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        self.embed.tokens.val().device()
    }

    /// Next-token logits `[batch, rows, vocab]` of token ids `[batch, rows]`, behind the public
    /// tokens if the architecture has such.
    pub fn forward(&self, tokens: Tensor<2, Int>, keep: Option<Tensor<2>>, probe: &mut Probe) -> Tensor<3> {
        let [batch, rows] = tokens.dims();
        let x = self.hidden(tokens, keep, probe);
        let x = self.last_norm(x, probe);
        let logits = match &self.head {
            Some(head) => head.forward(x),
            None => x.matmul(self.embed.tokens.val().transpose()),
        };
        logits.reshape([batch, rows, self.arch.shape.vocab])
    }

    /// Class logits `[batch, classes]`; `keep` is 1 for tokens and 0 for padding, `[batch, rows]`.
    /// `None` for a decoder.
    pub fn classify(&self, tokens: Tensor<2, Int>, keep: Tensor<2>, probe: &mut Probe) -> Option<Tensor<2>> {
        let (pool, classifier) = (self.pool.as_ref()?, self.classifier.as_ref()?);
        let [batch, rows] = tokens.dims();
        let d = self.arch.shape.d_model;
        let x = self.hidden(tokens, Some(keep), probe).reshape([batch, rows, d]);
        let first = x.slice([0..batch, 0..1, 0..d]).reshape([batch, d]);
        let first = self.last_norm(first, probe);
        Some(classifier.forward(tanh(pool.forward(first))))
    }

    /// Mean of the last hidden states over the tokens of every sentence, `[batch, width]`.
    pub fn sentence(&self, tokens: Tensor<2, Int>, keep: Tensor<2>, probe: &mut Probe) -> Tensor<2> {
        let x = self.hidden(tokens, Some(keep.clone()), probe);
        pooled(self.last_norm(x, probe), keep)
    }

    /// Residual stream after the last block, `[batch * rows, width]`, before the last
    /// normalisation, without the rows of public tokens.
    pub fn hidden(&self, tokens: Tensor<2, Int>, keep: Option<Tensor<2>>, probe: &mut Probe) -> Tensor<2> {
        let (tokens, keep) = self.with_public(tokens, keep);
        let [batch, rows] = tokens.dims();
        let public = Public::new(self.arch.prefix.len(), rows);
        probe.behind(public);
        let mut x = self.embed(tokens, probe);
        let tables = self.tables(batch, rows, keep, &x);
        for (layer, block) in self.layers.iter().enumerate() {
            x = block.forward(x, batch, &tables, layer, probe);
        }
        probe.behind(None);
        texts(public, x)
    }

    /// Tokens and padding masks with the public tokens before them.
    fn with_public(
        &self,
        tokens: Tensor<2, Int>,
        keep: Option<Tensor<2>>,
    ) -> (Tensor<2, Int>, Option<Tensor<2>>) {
        let count = self.arch.prefix.len();
        if count == 0 {
            return (tokens, keep);
        }
        let batch = tokens.dims()[0];
        let ids: Vec<i64> = self.arch.prefix.iter().map(|&t| i64::from(t)).collect();
        let ids = TensorData::new(ids, [1, count]);
        let ids = Tensor::<2, Int>::from_data(ids, (&tokens.device(), tokens.dtype()));
        let keep = keep.map(|keep| {
            let ones = Tensor::ones([batch, count], (&keep.device(), keep.dtype()));
            Tensor::cat(vec![ones, keep], 1)
        });
        (Tensor::cat(vec![ids.expand([batch, count]), tokens], 1), keep)
    }

    /// Attention weights of every layer, each `[batch, heads, rows, keys]`, public tokens included,
    /// for figures.
    pub fn attention_weights(&self, tokens: Tensor<2, Int>) -> Vec<Tensor<4>> {
        let (tokens, _) = self.with_public(tokens, None);
        let [batch, rows] = tokens.dims();
        let mut probe = Probe::off();
        let mut x = self.embed(tokens, &mut probe);
        let tables = self.tables(batch, rows, None, &x);
        let mut out = Vec::with_capacity(self.layers.len());
        for (layer, block) in self.layers.iter().enumerate() {
            let read = block.attention_input(x.clone(), layer, &mut probe);
            out.push(block.attn.weights(read, batch, &tables));
            x = block.forward(x, batch, &tables, layer, &mut probe);
        }
        out
    }

    fn last_norm(&self, x: Tensor<2>, probe: &mut Probe) -> Tensor<2> {
        match &self.final_norm {
            Some(norm) => norm.forward(x, Site::FinalNorm, self.arch.shape.layers, probe),
            None => x,
        }
    }

    fn embed(&self, tokens: Tensor<2, Int>, probe: &mut Probe) -> Tensor<2> {
        let [batch, rows] = tokens.dims();
        let d = self.arch.shape.d_model;
        let mut x = self.embed.tokens.val().select(0, tokens.reshape([batch * rows]));
        if let Some(positions) = &self.embed.positions {
            let positions = positions.val().slice([0..rows, 0..d]).unsqueeze::<3>().expand([batch, rows, d]);
            x = x.add(positions.reshape([batch * rows, d]));
        }
        match &self.embed.norm {
            Some(norm) => norm.forward(x, Site::EmbedNorm, 0, probe),
            None => x,
        }
    }

    fn tables(&self, batch: usize, rows: usize, keep: Option<Tensor<2>>, like: &Tensor<2>) -> Tables {
        Tables::new(&self.arch, batch, rows, keep, &like.device(), like.dtype())
    }
}

/// Token ids as a tensor `[batch, rows]`, checked against the model.
pub fn token_tensor(arch: &Arch, tokens: &[u32], batch: usize, device: &Device) -> Result<Tensor<2, Int>> {
    let rows = tokens.len() / batch.max(1);
    if rows == 0 || rows * batch != tokens.len() {
        return Err(Error::config("batch", batch, format!("a divisor of {} tokens", tokens.len())));
    }
    if rows > arch.room() {
        return Err(Error::ContextTooLong { tokens: rows, context: arch.room() });
    }
    check_tokens(arch, tokens)?;
    let ids: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
    Ok(Tensor::from_data(TensorData::new(ids, [batch, rows]), (device, DType::I64)))
}

/// Refuses token ids that the model does not know.
pub fn check_tokens(arch: &Arch, tokens: &[u32]) -> Result<()> {
    let vocab = arch.shape.vocab;
    match tokens.iter().find(|&&t| t as usize >= vocab) {
        Some(&token) => Err(Error::Vocabulary { token, vocab }),
        None => Ok(()),
    }
}
