//! One training run of an experiment.

use burn::tensor::Device;
use cipherlm_model::{Attention, Eps, Kind, Norm, Placement, Residual, Rotary, Shape};

use crate::arch::{Arch, Form, shifted};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::eval;
use crate::probe::{Probe, Site};
use crate::settings::TrainConfig;
use crate::trainer::Trainer;

/// A public corpus, if the data folder is there, else the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Text {
    /// `tinystories` of the data folder.
    Stories,
    /// `shakespeare` of the data folder (the last tenth is held out).
    Plays,
    /// `wikitext-2` of the data folder.
    Articles,
    /// The seeded generator.
    Generated,
}

/// One training run of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    /// Operator.
    pub(super) attention: Attention,
    /// How it is computed.
    pub(super) form: Form,
    /// Corpus.
    pub(super) text: Text,
    /// Blocks.
    pub(super) layers: usize,
    /// Seed of weights and data order.
    pub(super) seed: u64,
    /// Factor on the learning rate of the query and key projections
    /// ([`crate::optim::AdamW::with_query_key_rate`]).
    pub(super) query_key_rate: f64,
}

/// Size of all cells of an experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Budget {
    /// Width of the models.
    pub(super) width: usize,
    /// Heads.
    pub(super) heads: usize,
    /// Context.
    pub(super) context: usize,
    /// Vocabulary of the tokenizer.
    pub(super) vocab: usize,
    /// Windows per step.
    pub(super) batch: usize,
    /// Steps.
    pub(super) steps: usize,
}

/// What a cell ended with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// Held-out perplexity per word; NaN if the run failed.
    pub(super) perplexity: f64,
    /// Mean distance from query to attended key, weighted by the magnitude of attention and
    /// averaged over layers, in tokens.
    pub(super) distance: f64,
    /// Largest score magnitude, shift included.
    pub(super) score: f64,
    /// Largest over smallest row mean, all layers together.
    pub(super) spread: f64,
    /// `trained`, or how it failed.
    pub(super) mode: String,
}

/// One column of [`twins`].
pub(super) struct Arm {
    pub(super) name: &'static str,
    attention: Attention,
    form: Form,
    pub(super) rate: f64,
}

impl Arm {
    pub(super) fn cell(&self, text: Text, layers: usize, seed: u64) -> Cell {
        Cell { attention: self.attention, form: self.form, text, layers, seed, query_key_rate: self.rate }
    }
}

/// What [`super::twins`] compares: softmax; the shipped operator; the closest of depth three
/// ([`super::shifts`] finds it); the paper's; and the first three with the learning rate of queries
/// and keys that suits each.
pub(super) fn arms() -> [Arm; 7] {
    let arm = |name, attention, rate| Arm { name, attention, form: Form::Mean, rate };
    let (paper, form) = plain(4);
    [
        arm("softmax", Attention::Softmax, 1.0),
        arm("(x+3)^4", shifted(4, 3.0), 1.0),
        arm("(x+8)^8", shifted(8, 8.0), 1.0),
        Arm { name: "x^4", attention: paper, form, rate: 1.0 },
        arm("softmax, ×2", Attention::Softmax, 2.0),
        arm("(x+3)^4, ×4", shifted(4, 3.0), 4.0),
        arm("(x+8)^8, ×2", shifted(8, 8.0), 2.0),
    ]
}

/// The paper's operator: `x^p` in the stable form, with a relative epsilon.
fn plain(p: u32) -> (Attention, Form) {
    (Attention::PowerSoftmax { p, c: 0.0, eps: Eps::Relative { value: 1e-6 } }, Form::Stable)
}

/// A pre-norm decoder with rotary positions on the whole head, GELU of four times the width and a
/// tied head.
pub(super) fn decoder(cell: &Cell, budget: Budget) -> Shape {
    let head_dim = budget.width / budget.heads;
    Shape {
        kind: Kind::Decoder,
        layers: cell.layers,
        d_model: budget.width,
        heads: budget.heads,
        kv_heads: None,
        head_dim,
        ffn: 4 * budget.width,
        vocab: budget.vocab,
        context: budget.context,
        norm: Norm::LayerNorm,
        norm_eps: 1e-5,
        placement: Placement::Pre,
        activation: cipherlm_model::Activation::Gelu,
        gated: false,
        residual: Residual::Sequential,
        rotary: Some(Rotary { dims: head_dim, base: 10_000.0 }),
        positions: false,
        embed_norm: false,
        frozen_norms: vec![],
        tied_head: true,
        bias: true,
        attention: cell.attention,
    }
}

/// Trains one cell.
pub(super) fn train_cell(cell: &Cell, budget: Budget, train: &Corpus, held_out: &Corpus) -> Result<Outcome> {
    let arch = Arch { form: cell.form, ..Arch::new(decoder(cell, budget)) };
    let settings = TrainConfig::new(cell.seed, budget.batch, budget.steps, 2e-3);
    let mut settings = TrainConfig { evaluate_windows: 128, ..settings };
    if cell.query_key_rate != 1.0 {
        settings.optimiser = settings.optimiser.with_query_key_rate(cell.query_key_rate);
    }
    let mut trainer = Trainer::new("cell", arch, settings, None, &Device::flex())?;
    let nats = match trainer.run(train, held_out, |_| {}) {
        Ok(nats) => nats,
        Err(Error::Diverged { step, reason }) => {
            let mode = format!("diverged at step {step}: {reason}").replace(',', ";");
            return Ok(Outcome {
                perplexity: f64::NAN,
                distance: f64::NAN,
                score: f64::NAN,
                spread: f64::NAN,
                mode,
            });
        }
        Err(other) => return Err(other),
    };
    let model = trainer.valid();
    let mut probe = Probe::observe();
    eval::observe(&model, held_out, 32, &mut probe)?;
    let distances = eval::attention_distance(&model, held_out, 8)?;
    let distance = distances.iter().sum::<f64>() / distances.len() as f64;
    let ranges = probe.ranges().iter();
    let score = ranges
        .clone()
        .filter(|((s, _), _)| *s == Site::Scores)
        .map(|(_, r)| r.magnitude())
        .fold(0.0, f64::max);
    let means: Vec<_> = ranges.filter(|((s, _), _)| *s == Site::RowMean).map(|(_, r)| *r).collect();
    let spread = means.iter().map(|r| r.hi).fold(0.0, f64::max)
        / means.iter().map(|r| r.lo).fold(f64::INFINITY, f64::min);
    let perplexity = eval::word_perplexity(nats, held_out);
    // Attention that no longer moves anything: its weights sum to far less than one.
    let mode = if distance < 0.05 { "attention off" } else { "trained" }.to_owned();
    Ok(Outcome { perplexity, distance, score, spread, mode })
}

pub(super) fn twins_budget(quick: bool) -> Budget {
    Budget { width: 128, heads: 4, context: 128, vocab: 512, batch: 16, steps: if quick { 250 } else { 800 } }
}

/// Name of a text in the keys of CSV lines.
pub(super) fn text_key(text: Text) -> &'static str {
    match text {
        Text::Stories => "stories",
        Text::Plays => "plays",
        Text::Articles => "articles",
        Text::Generated => "generated",
    }
}

/// Name of a cell, the key of its CSV line.
pub(super) fn key(cell: &Cell) -> String {
    let text = text_key(cell.text);
    let operator = match cell.attention {
        Attention::Softmax => "softmax;;;".to_owned(),
        Attention::Pointwise { .. } => "pointwise;;;".to_owned(),
        Attention::PowerSoftmax { p, c, eps } => {
            let epsilon = match eps {
                Eps::Absolute { value } => format!("{value:.3e}"),
                Eps::Relative { value } => format!("relative {value:.0e}"),
                Eps::Frozen => "frozen".to_owned(),
            };
            format!("{p};{c};{epsilon};{:?}", cell.form)
        }
    };
    format!("{text};{};{};{operator};{}", cell.layers, cell.seed, cell.query_key_rate)
        .replace(';', ",")
        .to_lowercase()
}
