//! The circuit as data: one node per step, with what it reads, how deep it is and where its time
//! belongs.

use cipherlm_approx::EvalPlan;
use cipherlm_model::{Attention, Kind, Residual};

use crate::error::{InferError, Result};
use crate::fold::{Folded, Map, Purpose, shares_norm};

/// Index of a node.
pub(crate) type NodeId = usize;

/// Part of a node's vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) node: NodeId,
    pub(crate) from: usize,
    pub(crate) len: usize,
}

/// Kinds of work in a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Products with plaintext weights.
    PlainMatmul,
    /// Query-key and weight-value products.
    CipherMatmul,
    /// Power, mask, denominator, reciprocal.
    PowerSoftmax,
    /// Activations and normalisations.
    ActivationNorm,
    /// Additions and moves between layouts.
    AddRepack,
    /// Refreshes.
    Bootstrap,
    /// Encoding of plaintexts.
    Encode,
    /// Everything else.
    Other,
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// The encrypted embedding.
    Input,
    /// Mean of squares over the features of a token, in units of the norm's site.
    Variance { site: String },
    /// A polynomial on every vector.
    Poly { plan: Box<EvalPlan> },
    /// A plain matrix, with or without its bias.
    Linear { map: Map, bias: bool },
    /// First input times the single vector of the second, plus the bias of a map.
    Scaled { map: Map },
    /// Rotary embedding and copy shifts of queries, keys, values.
    Spread { layer: usize },
    /// Scores, power, weighted values and denominators: `[numerators.., denominators..]`.
    Attend { layer: usize },
    /// Vector by vector product.
    Mul,
    /// Vector by vector sum.
    Add,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Slice>,
    pub(crate) width: usize,
    /// Levels between the lowest input and the output.
    pub(crate) depth: usize,
    /// Whether the output fits a refresh (slots within one).
    pub(crate) bounded: bool,
    pub(crate) class: Operator,
    pub(crate) layer: Option<usize>,
}

/// Nodes in the order of execution; the last one is the output.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
}

impl Graph {
    /// The whole forward pass.
    pub(crate) fn build(folded: &Folded) -> Result<Self> {
        Builder { folded, nodes: vec![], layer: None }.build()
    }

    /// Consumers of each node.
    pub(crate) fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut out = vec![vec![]; self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|slice| out[slice.node].push(id));
        }
        out
    }
}

struct Builder<'f> {
    folded: &'f Folded,
    nodes: Vec<Node>,
    layer: Option<usize>,
}

impl Builder<'_> {
    fn build(mut self) -> Result<Graph> {
        let shape = self.folded.shape().clone();
        let g = self.folded.geometry;
        let mut hidden = self.push("input", Op::Input, vec![], g.blocks, 0, true, Operator::Other);
        for l in 0..shape.layers {
            self.layer = Some(l);
            let inv = self.inverse_root(hidden, &format!("layers.{l}.norm1"))?;
            let out = self.attention(hidden, inv, l)?;
            let second = format!("layers.{l}.norm2");
            hidden = if shape.residual == Residual::Parallel {
                let shared = shares_norm(&self.folded.model, l);
                let inv = if shared { inv } else { self.inverse_root(hidden, &second)? };
                let down = self.feed_forward(hidden, inv, l)?;
                let mid = self.add("mid", hidden, out);
                self.add("hidden", mid, down)
            } else {
                let mid = self.add("mid", hidden, out);
                let inv = self.inverse_root(mid, &second)?;
                let down = self.feed_forward(mid, inv, l)?;
                self.add("hidden", mid, down)
            };
        }
        self.layer = None;
        let inv = self.inverse_root(hidden, "final_norm")?;
        let width = g.layout()?.blocks(self.folded.results());
        if shape.kind == Kind::Decoder {
            self.scaled_map("head", Map::Head, hidden, inv, width);
        } else {
            let pool = self.scaled_map("pool", Map::Pool, hidden, inv, g.blocks);
            let pooled =
                self.poly("pool.activation", pool, "pool.activation", Operator::ActivationNorm, true)?;
            self.linear("classifier", Map::Classifier, pooled, width, true);
        }
        Ok(Graph { nodes: self.nodes })
    }

    fn attention(&mut self, hidden: Slice, inv: Slice, l: usize) -> Result<Slice> {
        let g = self.folded.geometry;
        let Attention::PowerSoftmax { p, .. } = self.folded.shape().attention else {
            return Err(InferError::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let qkv = self.scaled_map("attn.qkv", Map::Qkv(l), hidden, inv, 3 * g.blocks);
        let both = if self.folded.packs_scores() {
            self.attend(l, qkv, crate::packed::depth(p))
        } else {
            let parts = if self.folded.purpose == Purpose::PromptForSession { 5 } else { 3 };
            let width = parts * g.blocks;
            let op = Op::Spread { layer: l };
            let spread = self.push("attn.spread", op, vec![qkv], width, 1, false, Operator::AddRepack);
            // Product, mask, power, product with the values; before them, the way into the cache.
            self.attend(l, spread, 3 + power_depth(p) + usize::from(self.folded.decoding()))
        };
        let numerator = Slice { len: g.blocks, ..both };
        let denominator = Slice { from: g.blocks, len: g.blocks, ..both };
        let reciprocal = self.poly(
            &format!("layers.{l}.attn.reciprocal"),
            denominator,
            "attn.reciprocal",
            Operator::PowerSoftmax,
            false,
        )?;
        let mix = self.push(
            "attn.mix",
            Op::Mul,
            vec![numerator, reciprocal],
            g.blocks,
            1,
            true,
            Operator::PowerSoftmax,
        );
        Ok(self.linear("attn.out", Map::Out(l), mix, g.blocks, true))
    }

    fn attend(&mut self, layer: usize, input: Slice, depth: usize) -> Slice {
        let width = 2 * self.folded.geometry.blocks;
        self.push(
            "attn.attend",
            Op::Attend { layer },
            vec![input],
            width,
            depth,
            true,
            Operator::CipherMatmul,
        )
    }

    fn feed_forward(&mut self, hidden: Slice, inv: Slice, l: usize) -> Result<Slice> {
        let g = self.folded.geometry;
        let gated = self.folded.shape().gated;
        let width = if gated { 2 * g.ffn_blocks } else { g.ffn_blocks };
        let up = self.scaled_map("ffn.up", Map::Up(l), hidden, inv, width);
        let gate = Slice { len: g.ffn_blocks, ..up };
        let site = format!("layers.{l}.ffn.activation");
        let mut inner = self.poly(&site, gate, "ffn.activation", Operator::ActivationNorm, true)?;
        if gated {
            let up = Slice { from: g.ffn_blocks, len: g.ffn_blocks, ..up };
            inner = self.push(
                "ffn.gate",
                Op::Mul,
                vec![inner, up],
                g.ffn_blocks,
                1,
                false,
                Operator::ActivationNorm,
            );
        }
        Ok(self.linear("ffn.down", Map::Down(l), inner, g.blocks, true))
    }

    fn inverse_root(&mut self, hidden: Slice, site: &str) -> Result<Slice> {
        let local = site.rsplit('.').next().unwrap_or(site).to_owned();
        let op = Op::Variance { site: site.to_owned() };
        let variance =
            self.push(&format!("{local}.variance"), op, vec![hidden], 1, 2, true, Operator::ActivationNorm);
        self.poly(site, variance, &format!("{local}.inverse_root"), Operator::ActivationNorm, true)
    }

    fn scaled_map(&mut self, name: &str, map: Map, hidden: Slice, inv: Slice, width: usize) -> Slice {
        let raw = self.linear(&format!("{name}.product"), map, hidden, width, false);
        let bounded = !self.folded.shape().gated && !matches!(map, Map::Qkv(_));
        self.push(name, Op::Scaled { map }, vec![raw, inv], width, 1, bounded, Operator::ActivationNorm)
    }

    fn linear(&mut self, name: &str, map: Map, input: Slice, width: usize, bias: bool) -> Slice {
        self.push(name, Op::Linear { map, bias }, vec![input], width, 1, false, Operator::PlainMatmul)
    }

    fn poly(
        &mut self,
        site: &str,
        input: Slice,
        name: &str,
        class: Operator,
        bounded: bool,
    ) -> Result<Slice> {
        let refuse = |reason: String| InferError::Polynomial { site: site.to_owned(), reason };
        let certified =
            self.folded.model.site(site).ok_or_else(|| refuse("the site is not certified".into()))?;
        let polynomial = self.folded.polynomial(certified)?;
        let plan = EvalPlan::new(&polynomial).map_err(|e| refuse(e.to_string()))?;
        let depth = plan.depth_mapped() as usize;
        let op = Op::Poly { plan: Box::new(plan) };
        Ok(self.push(name, op, vec![input], input.len, depth, bounded, class))
    }

    fn add(&mut self, name: &str, a: Slice, b: Slice) -> Slice {
        self.push(name, Op::Add, vec![a, b], a.len, 0, true, Operator::AddRepack)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a node has that many properties, and this is the only place that sets them"
    )]
    fn push(
        &mut self,
        name: &str,
        op: Op,
        inputs: Vec<Slice>,
        width: usize,
        depth: usize,
        bounded: bool,
        class: Operator,
    ) -> Slice {
        let name = self.layer.map_or_else(|| name.to_owned(), |l| format!("layers.{l}.{name}"));
        self.nodes.push(Node { name, op, inputs, width, depth, bounded, class, layer: self.layer });
        Slice { node: self.nodes.len() - 1, from: 0, len: width }
    }
}

/// Levels of `x^p`.
pub(crate) fn power_depth(p: u32) -> usize {
    p.next_power_of_two().trailing_zeros() as usize
}
