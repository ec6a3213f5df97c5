//! The forward pass of a shape as one list of stages: tensors, sites and the reference pass are
//! readings of it.
//!
//! Where the norms stand, how the branches join, what a gate does and what the head is: all of it
//! is decided here and nowhere else.

use crate::function::Function;
use crate::shape::{Attention, Eps, Kind, Norm, Placement, Residual, Shape};

/// A value of the pass: the number of the stage that makes it.
pub type Value = usize;

/// One step of the pass. Its name is that of its tensors and of its site.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// `layers.3.attn.q`, `final_norm`, …
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Values in each row that it makes.
    pub width: usize,
}

/// What a stage computes from earlier values, row by row except in [`Op::Attend`] and
/// [`Op::First`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Rows of the token embedding, plus learned positions where the shape has them.
    Embed,
    /// The shape's normalisation; a site of its variance.
    Norm {
        /// Its input.
        of: Value,
    },
    /// The shape's normalisation with a constant inverse root: no site.
    FrozenNorm {
        /// Its input.
        of: Value,
    },
    /// `x W + b`.
    Linear {
        /// Its input.
        of: Value,
        /// Whether there is a `b`.
        bias: bool,
    },
    /// Rotary positions on queries and keys, then the attention operator; sites of its parts.
    Attend {
        /// Queries.
        q: Value,
        /// Keys.
        k: Value,
        /// Values.
        v: Value,
    },
    /// A scalar function; a site of its argument.
    Activate {
        /// Its input.
        of: Value,
        /// The function.
        function: Function,
    },
    /// `a x^2 + b x` with an `a` and a `b` for each feature; a site of its argument, which only its
    /// size is certified of.
    Quadratic {
        /// Its input.
        of: Value,
    },
    /// The product of two values, entry by entry.
    Mul {
        /// One.
        a: Value,
        /// The other.
        b: Value,
    },
    /// The sum of two values.
    Add {
        /// One.
        a: Value,
        /// The other.
        b: Value,
    },
    /// The first row alone.
    First {
        /// Its input.
        of: Value,
    },
    /// Products with the rows of the token embedding.
    TiedHead {
        /// Its input.
        of: Value,
    },
    /// Makes nothing: a site of the magnitude of a value.
    Bound {
        /// The value.
        of: Value,
    },
}

impl Op {
    /// The values that it reads.
    pub fn reads(self) -> impl Iterator<Item = Value> {
        let list = match self {
            Self::Embed => [None; 3],
            Self::Norm { of }
            | Self::FrozenNorm { of }
            | Self::Quadratic { of }
            | Self::Linear { of, .. }
            | Self::Activate { of, .. }
            | Self::First { of }
            | Self::TiedHead { of }
            | Self::Bound { of } => [Some(of), None, None],
            Self::Mul { a, b } | Self::Add { a, b } => [Some(a), Some(b), None],
            Self::Attend { q, k, v } => [Some(q), Some(k), Some(v)],
        };
        list.into_iter().flatten()
    }
}

/// The stages of a pass, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// All stages.
    pub stages: Vec<Stage>,
    /// The rows that enter the first block, and the first stage after them: what comes before is
    /// the client's.
    pub entry: (Value, usize),
    /// The rows that leave the last block, and the first stage of the head.
    pub body: (Value, usize),
    /// The answer: logits, or the last hidden state.
    pub answer: Value,
}

/// Parts of a block in the order of model files.
const FILE_ORDER: [&str; 11] = [
    "norm1",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.out",
    "attn.eps",
    "norm2",
    "ffn.gate",
    "ffn.up",
    "ffn.activation",
    "ffn.down",
];

impl Program {
    /// Every tensor with its dimensions, in file order.
    pub fn tensors(&self, shape: &Shape) -> Vec<(String, Vec<usize>)> {
        let mut out = vec![];
        for Stage { name, op, width } in &self.stages {
            let mut push = |part: &str, dims: Vec<usize>| out.push((format!("{name}.{part}"), dims));
            match *op {
                Op::Embed => {
                    push("tokens", vec![shape.vocab, *width]);
                    if shape.positions {
                        push("positions", vec![shape.context, *width]);
                    }
                }
                Op::Norm { .. } | Op::FrozenNorm { .. } => {
                    push("gain", vec![*width]);
                    if shape.norm == Norm::LayerNorm {
                        push("bias", vec![*width]);
                    }
                    if matches!(op, Op::FrozenNorm { .. }) {
                        push("root", vec![1]);
                    }
                }
                Op::Quadratic { .. } => {
                    push("square", vec![*width]);
                    push("linear", vec![*width]);
                }
                Op::Linear { of, bias } => {
                    push("weight", vec![self.stages[of].width, *width]);
                    if bias {
                        push("bias", vec![*width]);
                    }
                }
                Op::Attend { .. } => {
                    if let Attention::PowerSoftmax { eps: Eps::Frozen, .. } = shape.attention {
                        push("eps", vec![shape.heads, shape.context]);
                    }
                }
                _ => {}
            }
        }
        out.sort_by_cached_key(|(name, _)| place(name));
        out
    }

    /// Every site with its function, in the order of the pass.
    pub fn sites(&self, shape: &Shape) -> Vec<(String, Function)> {
        let mut out = vec![];
        for Stage { name, op, .. } in &self.stages {
            match *op {
                Op::Norm { .. } => out.push((name.clone(), Function::InvSqrt)),
                Op::Activate { function, .. } => out.push((name.clone(), function)),
                Op::Bound { .. } | Op::Quadratic { .. } => out.push((name.clone(), Function::Identity)),
                Op::Attend { .. } => {
                    let parts = attention_sites(shape.attention);
                    out.extend(parts.iter().map(|(part, function)| (format!("{name}.{part}"), *function)));
                }
                _ => {}
            }
        }
        out
    }
}

/// The sites of one attention, in the order in which they are met.
pub(crate) fn attention_sites(attention: Attention) -> &'static [(&'static str, Function)] {
    use Function::{Gelu, Identity, Reciprocal};
    match attention {
        Attention::PowerSoftmax { .. } => &[
            ("q", Identity),
            ("k", Identity),
            ("v", Identity),
            ("score", Identity),
            ("reciprocal", Reciprocal),
            ("mix", Identity),
        ],
        Attention::Softmax => {
            &[("q", Identity), ("k", Identity), ("v", Identity), ("score", Identity), ("mix", Identity)]
        }
        Attention::Pointwise { .. } => {
            &[("q", Identity), ("k", Identity), ("v", Identity), ("score", Gelu), ("mix", Identity)]
        }
    }
}

/// Where a tensor stands in a file: before the blocks, in one, or after them.
fn place(name: &str) -> (usize, usize, usize) {
    let Some((layer, part)) = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
        return (if name.starts_with("embed.") { 0 } else { 2 }, 0, 0);
    };
    let part = FILE_ORDER.iter().position(|p| part.starts_with(p));
    (1, layer.parse().unwrap_or(usize::MAX), part.unwrap_or(FILE_ORDER.len()))
}

impl Shape {
    /// The forward pass.
    pub fn program(&self) -> Program {
        let mut b = Builder { shape: self, stages: vec![] };
        let mut hidden = b.push("embed", Op::Embed, self.d_model);
        if self.embed_norm {
            hidden = b.norm("embed.norm", hidden);
        }
        b.bound("embed", hidden);
        let entry = (hidden, b.stages.len());
        for l in 0..self.layers {
            hidden = b.block(&format!("layers.{l}"), hidden);
        }
        let body = (hidden, b.stages.len());
        let answer = b.head(hidden);
        Program { stages: b.stages, entry, body, answer }
    }
}

struct Builder<'s> {
    shape: &'s Shape,
    stages: Vec<Stage>,
}

impl Builder<'_> {
    fn push(&mut self, name: &str, op: Op, width: usize) -> Value {
        self.stages.push(Stage { name: name.to_owned(), op, width });
        self.stages.len() - 1
    }

    fn norm(&mut self, name: &str, of: Value) -> Value {
        let op = if self.shape.freezes(name) { Op::FrozenNorm { of } } else { Op::Norm { of } };
        self.push(name, op, self.stages[of].width)
    }

    fn bound(&mut self, name: &str, of: Value) {
        self.push(name, Op::Bound { of }, 0);
    }

    fn linear(&mut self, name: &str, of: Value, outputs: usize) -> Value {
        self.push(name, Op::Linear { of, bias: self.shape.bias }, outputs)
    }

    fn add(&mut self, name: &str, a: Value, b: Value) -> Value {
        self.push(name, Op::Add { a, b }, self.stages[a].width)
    }

    fn block(&mut self, at: &str, hidden: Value) -> Value {
        let part = |name: &str| format!("{at}.{name}");
        if self.shape.placement == Placement::Post {
            let mixed = self.attention(at, hidden);
            let sum = self.add(&part("mid"), hidden, mixed);
            self.bound(&part("mid"), sum);
            let mid = self.norm(&part("norm1"), sum);
            self.bound(&part("norm1.out"), mid);
            let out = self.feed_forward(at, mid);
            let sum = self.add(&part("hidden"), mid, out);
            self.bound(&part("hidden"), sum);
            let out = self.norm(&part("norm2"), sum);
            self.bound(&part("norm2.out"), out);
            return out;
        }
        let normed = self.norm(&part("norm1"), hidden);
        let mixed = self.attention(at, normed);
        let mid = self.add(&part("mid"), hidden, mixed);
        self.bound(&part("mid"), mid);
        let parallel = self.shape.residual == Residual::Parallel;
        let normed = self.norm(&part("norm2"), if parallel { hidden } else { mid });
        let out = self.feed_forward(at, normed);
        let sum = self.add(&part("hidden"), mid, out);
        self.bound(&part("hidden"), sum);
        sum
    }

    fn attention(&mut self, at: &str, of: Value) -> Value {
        let (width, keys) = (self.shape.attention_width(), self.shape.key_width());
        let q = self.linear(&format!("{at}.attn.q"), of, width);
        let k = self.linear(&format!("{at}.attn.k"), of, keys);
        let v = self.linear(&format!("{at}.attn.v"), of, keys);
        let mix = self.push(&format!("{at}.attn"), Op::Attend { q, k, v }, width);
        self.linear(&format!("{at}.attn.out"), mix, self.shape.d_model)
    }

    fn feed_forward(&mut self, at: &str, of: Value) -> Value {
        let ffn = self.shape.ffn;
        let first = if self.shape.gated { "gate" } else { "up" };
        let inner = self.linear(&format!("{at}.ffn.{first}"), of, ffn);
        let op = match self.shape.activation.function() {
            Some(function) => Op::Activate { of: inner, function },
            None => Op::Quadratic { of: inner },
        };
        let mut inner = self.push(&format!("{at}.ffn.activation"), op, ffn);
        if self.shape.gated {
            let up = self.linear(&format!("{at}.ffn.up"), of, ffn);
            self.bound(&format!("{at}.ffn.up"), up);
            inner = self.push(&format!("{at}.ffn.product"), Op::Mul { a: inner, b: up }, ffn);
            self.bound(&format!("{at}.ffn.product"), inner);
        }
        self.linear(&format!("{at}.ffn.down"), inner, self.shape.d_model)
    }

    fn head(&mut self, mut hidden: Value) -> Value {
        let (d, vocab) = (self.shape.d_model, self.shape.vocab);
        if matches!(self.shape.kind, Kind::Encoder { .. }) {
            hidden = self.push("first", Op::First { of: hidden }, d);
        }
        if self.shape.placement == Placement::Pre {
            hidden = self.norm("final_norm", hidden);
        }
        let answer = match self.shape.kind {
            Kind::Decoder if self.shape.tied_head => self.push("head", Op::TiedHead { of: hidden }, vocab),
            Kind::Decoder => self.push("head", Op::Linear { of: hidden, bias: false }, vocab),
            Kind::Encoder { classes } => {
                let pool = self.push("pool", Op::Linear { of: hidden, bias: true }, d);
                let function = Function::Tanh;
                let pooled = self.push("pool.activation", Op::Activate { of: pool, function }, d);
                self.push("classifier", Op::Linear { of: pooled, bias: true }, classes)
            }
            Kind::Embedder { .. } => hidden,
        };
        let embedder = matches!(self.shape.kind, Kind::Embedder { .. });
        self.bound(if embedder { "output" } else { "logits" }, answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Activation;

    /// Every choice that changes the pass.
    fn shapes() -> Vec<Shape> {
        let base = Shape::preset("test").unwrap();
        let encoder = Shape {
            kind: Kind::Encoder { classes: 3 },
            placement: Placement::Post,
            positions: true,
            embed_norm: true,
            ..base.clone()
        };
        vec![
            Shape { residual: Residual::Parallel, tied_head: false, ..base.clone() },
            Shape { gated: true, norm: Norm::RmsNorm, bias: false, kv_heads: Some(1), ..base.clone() },
            Shape { frozen_norms: base.norms(), activation: Activation::Quadratic, ..base.clone() },
            Shape {
                frozen_norms: vec!["layers.1.norm2".into()],
                residual: Residual::Parallel,
                ..base.clone()
            },
            Shape { attention: Attention::Softmax, ..base.clone() },
            Shape { attention: Attention::Pointwise { mean: true }, ..base.clone() },
            Shape { kind: Kind::Embedder { pool: crate::Pool::Mean }, ..encoder.clone() },
            Shape { placement: Placement::Pre, ..encoder.clone() },
            encoder,
            base,
        ]
    }

    #[test]
    fn a_stage_reads_only_what_was_made_before() {
        for shape in shapes() {
            let program = shape.program();
            for (at, stage) in program.stages.iter().enumerate() {
                assert!(stage.op.reads().all(|value| value < at), "{}", stage.name);
            }
            let (entry, body) = (program.entry, program.body);
            assert!(entry.0 < entry.1 && entry.1 <= body.1 && body.1 < program.stages.len());
            // The head sees nothing of the blocks but the rows that leave them, so it can run on
            // chosen rows.
            let head = &program.stages[body.1..];
            assert!(head.iter().flat_map(|s| s.op.reads()).all(|v| v == body.0 || v >= body.1));
            let blocks = &program.stages[entry.1..body.1];
            assert!(blocks.iter().flat_map(|s| s.op.reads()).all(|v| v == entry.0 || v >= entry.1));
        }
    }

    #[test]
    fn names_of_tensors_and_sites_are_each_used_once() {
        for shape in shapes() {
            let names = |list: Vec<String>| {
                let count = list.len();
                let distinct: std::collections::BTreeSet<String> = list.into_iter().collect();
                assert_eq!(distinct.len(), count);
            };
            names(shape.tensors().into_iter().map(|(name, _)| name).collect());
            names(shape.sites().into_iter().map(|(name, _)| name).collect());
        }
    }

    /// The order of version 1 files and the names that other crates look up.
    #[test]
    fn the_order_of_files_and_sites_is_that_of_version_1() {
        let shape = Shape { layers: 1, ..Shape::preset("test").unwrap() };
        let tensors: Vec<String> = shape.tensors().into_iter().map(|(name, _)| name).collect();
        let at = |part: &str| format!("layers.0.{part}");
        let mut want = vec!["embed.tokens".to_owned(), at("norm1.gain"), at("norm1.bias")];
        for part in ["attn.q", "attn.k", "attn.v", "attn.out"] {
            want.extend([at(&format!("{part}.weight")), at(&format!("{part}.bias"))]);
        }
        want.extend([at("attn.eps"), at("norm2.gain"), at("norm2.bias")]);
        for part in ["ffn.up", "ffn.down"] {
            want.extend([at(&format!("{part}.weight")), at(&format!("{part}.bias"))]);
        }
        want.extend(["final_norm.gain".to_owned(), "final_norm.bias".to_owned()]);
        assert_eq!(tensors, want);
        let sites: Vec<String> =
            Shape { residual: Residual::Parallel, ..shape }.sites().into_iter().map(|(n, _)| n).collect();
        let block = [
            "norm1",
            "attn.q",
            "attn.k",
            "attn.v",
            "attn.score",
            "attn.reciprocal",
            "attn.mix",
            "mid",
            "norm2",
            "ffn.activation",
            "hidden",
        ];
        let want: Vec<String> = ["embed".to_owned()]
            .into_iter()
            .chain(block.map(at))
            .chain(["final_norm".to_owned(), "logits".to_owned()])
            .collect();
        assert_eq!(sites, want);
        let post = Shape {
            placement: Placement::Post,
            residual: Residual::Sequential,
            ..Shape::preset("test").unwrap()
        };
        let sites: Vec<String> =
            post.sites().into_iter().map(|(n, _)| n).filter(|n| n.starts_with("layers.1")).collect();
        assert_eq!(
            sites[6..].join(" "),
            "layers.1.mid layers.1.norm1 layers.1.norm1.out layers.1.ffn.activation layers.1.hidden \
             layers.1.norm2 layers.1.norm2.out"
        );
        let gated = Shape { gated: true, ..Shape::preset("test").unwrap() };
        let sites: Vec<String> =
            gated.sites().into_iter().map(|(n, _)| n).filter(|n| n.starts_with("layers.1.ffn")).collect();
        assert_eq!(sites.join(" "), "layers.1.ffn.activation layers.1.ffn.up layers.1.ffn.product");
    }
}
