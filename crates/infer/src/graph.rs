//! The circuit as data: one node per step, with what it reads, how deep it is and where its time
//! belongs.

use cipherlm_approx::EvalPlan;
use cipherlm_model::{Activation, Attention, Kind, Placement, Residual};

use crate::error::{Error, Result};
use crate::fold::{Folded, Map, NormId, Purpose, shares_norm};
use crate::vector::power_depth;

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
    /// The same, to be refreshed: it comes in at the lowest level.
    Enter,
    /// The row at which the answer stands, in every group of slots.
    Select,
    /// One row made of the text's rows, in every group of slots.
    Pool,
    /// Variance of each token's row, as the argument of the norm's inverse root; behind it the
    /// mean, where the norm takes one off. `alone`: one row fills every group of slots.
    Variance { norm: NormId, alone: bool },
    /// Rows without their mean, times the norm's gains: what the inverse root is multiplied by.
    Gain { norm: NormId },
    /// A polynomial on every vector.
    Poly { plan: Box<EvalPlan> },
    /// `x (x + offset)`, with the offsets of a layer's quadratic activation.
    Quadratic { layer: usize },
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
    /// The residual stream in another unit: times the old one over the new.
    Unit { factor: f64 },
    /// Rows that begin again behind their last feature, as far as a token has slots.
    Extend,
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
    /// One past the last node of each layer; of what comes before, only that one is read behind it.
    pub(crate) ends: Vec<NodeId>,
}

impl Graph {
    /// The whole forward pass; `enter`: its input is to be refreshed.
    pub(crate) fn build(folded: &Folded, enter: bool) -> Result<Self> {
        Builder { folded, nodes: vec![], ends: vec![], layer: None }.build(enter)
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

/// Rows as a branch reads them: normalised by a factor that its first map is multiplied by, unless
/// they are already.
#[derive(Clone, Copy)]
struct Read {
    rows: Slice,
    factor: Option<Slice>,
}

struct Builder<'f> {
    folded: &'f Folded,
    nodes: Vec<Node>,
    ends: Vec<NodeId>,
    layer: Option<usize>,
}

impl Builder<'_> {
    fn build(mut self, enter: bool) -> Result<Graph> {
        let shape = self.folded.shape().clone();
        let mut hidden =
            self.push("input", Op::Input, vec![], self.folded.geometry.blocks, 0, true, Operator::Other);
        if enter {
            let (width, class) = (hidden.len, Operator::AddRepack);
            hidden = self.push("enter", Op::Enter, vec![hidden], width, 0, true, class);
        }
        for l in 0..shape.layers {
            self.layer = Some(l);
            hidden = match shape.placement {
                Placement::Pre => self.block(hidden, l)?,
                Placement::Post => self.post_block(hidden, l)?,
            };
            self.ends.push(hidden.node + 1);
        }
        self.layer = None;
        self.head(hidden)?;
        Ok(Graph { nodes: self.nodes, ends: self.ends })
    }

    /// A block with norms before its branches.
    fn block(&mut self, hidden: Slice, l: usize) -> Result<Slice> {
        let read = self.read(hidden, NormId::First(l), false)?;
        let out = self.attention(read, l)?;
        let (before, units) = (self.folded.units.before(l), self.folded.units.layers[l]);
        let stream = self.in_unit("mid.unit", hidden, before / units.mid);
        let mid = self.add("mid", stream, out);
        let parallel = self.folded.shape().residual == Residual::Parallel;
        let second = if parallel && shares_norm(&self.folded.model, l) {
            read
        } else {
            self.read(if parallel { hidden } else { mid }, NormId::Second(l), false)?
        };
        let down = self.feed_forward(second, l)?;
        let stream = self.in_unit("hidden.unit", mid, units.mid / units.hidden);
        Ok(self.add("hidden", stream, down))
    }

    /// A block with norms after its branches. It begins with the norm that ends the one before:
    /// between two blocks one value is read, not three.
    fn post_block(&mut self, hidden: Slice, l: usize) -> Result<Slice> {
        let (read, rows) = match l.checked_sub(1) {
            None => (Read { rows: hidden, factor: None }, hidden),
            Some(before) => self.normalised(hidden, NormId::Second(before))?,
        };
        let out = self.attention(read, l)?;
        let mid = self.add("mid", rows, out);
        let (read, rows) = self.normalised(mid, NormId::First(l))?;
        let down = self.feed_forward(read, l)?;
        Ok(self.add("hidden", rows, down))
    }

    fn head(&mut self, mut hidden: Slice) -> Result<()> {
        let (g, shape) = (self.folded.geometry, self.folded.shape().clone());
        // A single token is in every group of slots already.
        if shape.kind == Kind::Decoder && self.folded.wide.is_some() && g.tokens > 1 {
            hidden = self.push("last", Op::Select, vec![hidden], g.blocks, 1, true, Operator::AddRepack);
        }
        let norm = match shape.placement {
            Placement::Pre => NormId::Final,
            Placement::Post => NormId::Second(shape.layers - 1),
        };
        let width = match self.folded.wide {
            Some(wide) => wide.vectors,
            None => g.layout()?.blocks(self.folded.results()),
        };
        match shape.kind {
            Kind::Decoder => {
                let read = self.read(hidden, norm, self.folded.wide.is_some())?;
                self.map_of("head", Map::Head, read, width);
            }
            Kind::Encoder { .. } => {
                let read = self.read(hidden, norm, false)?;
                let pool = self.map_of("pool", Map::Pool, read, g.blocks);
                let site = "pool.activation";
                let pooled = self.poly(site, pool, site, Operator::ActivationNorm, true)?;
                self.linear("classifier", Map::Classifier, pooled, width, true);
            }
            Kind::Embedder { .. } => {
                let (_, rows) = self.normalised(hidden, norm)?;
                if self.folded.index.is_some() {
                    let class = Operator::AddRepack;
                    let pooled = self.push("pool", Op::Pool, vec![rows], rows.len, 1, true, class);
                    self.linear("scores", Map::Scores, pooled, width, false);
                }
            }
        }
        Ok(())
    }

    fn attention(&mut self, read: Read, l: usize) -> Result<Slice> {
        let g = self.folded.geometry;
        let Attention::PowerSoftmax { p, .. } = self.folded.shape().attention else {
            return Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let qkv = self.map_of("attn.qkv", Map::Qkv(l), read, 3 * g.blocks);
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
        let inputs = vec![numerator, reciprocal];
        let mix = self.push("attn.mix", Op::Mul, inputs, g.blocks, 1, true, Operator::PowerSoftmax);
        Ok(self.linear("attn.out", Map::Out(l), mix, g.blocks, true))
    }

    fn attend(&mut self, layer: usize, input: Slice, depth: usize) -> Slice {
        let (width, op) = (2 * self.folded.geometry.blocks, Op::Attend { layer });
        self.push("attn.attend", op, vec![input], width, depth, true, Operator::CipherMatmul)
    }

    fn feed_forward(&mut self, read: Read, l: usize) -> Result<Slice> {
        let g = self.folded.geometry;
        let gated = self.folded.shape().gated;
        let width = if gated { 2 * g.ffn_blocks } else { g.ffn_blocks };
        let up = self.map_of("ffn.up", Map::Up(l), read, width);
        let gate = Slice { len: g.ffn_blocks, ..up };
        let site = format!("layers.{l}.ffn.activation");
        let class = Operator::ActivationNorm;
        let mut inner = if self.folded.shape().activation == Activation::Quadratic {
            let op = Op::Quadratic { layer: l };
            self.push("ffn.activation", op, vec![gate], g.ffn_blocks, 1, true, class)
        } else {
            self.poly(&site, gate, "ffn.activation", class, true)?
        };
        if gated {
            let up = Slice { from: g.ffn_blocks, len: g.ffn_blocks, ..up };
            let inputs = vec![inner, up];
            inner =
                self.push("ffn.product", Op::Mul, inputs, g.ffn_blocks, 1, true, Operator::ActivationNorm);
        }
        Ok(self.linear("ffn.down", Map::Down(l), inner, g.blocks, true))
    }

    /// Rows with the inverse root of their variance, where it is not a constant of the maps.
    fn read(&mut self, rows: Slice, norm: NormId, alone: bool) -> Result<Read> {
        if self.folded.is_frozen(norm) {
            return Ok(Read { rows, factor: None });
        }
        Ok(self.statistics(rows, norm, alone)?.0)
    }

    /// The same, and the mean where the norm takes one off.
    fn statistics(&mut self, rows: Slice, norm: NormId, alone: bool) -> Result<(Read, Option<Slice>)> {
        let site = norm.name();
        let local = site.rsplit('.').next().unwrap_or(&site).to_owned();
        let (op, class) = (Op::Variance { norm, alone }, Operator::ActivationNorm);
        let width = if self.folded.has_mean() { 2 } else { 1 };
        let here = std::mem::replace(&mut self.layer, norm.layer());
        let both = self.push(&format!("{local}.variance"), op, vec![rows], width, 2, true, class);
        let variance = Slice { len: 1, ..both };
        let factor = self.poly(&site, variance, &format!("{local}.inverse_root"), class, true);
        self.layer = here;
        let mean = (width == 2).then_some(Slice { from: 1, len: 1, ..both });
        Ok((Read { rows, factor: Some(factor?) }, mean))
    }

    /// The same, and the rows that the norm gives back.
    fn normalised(&mut self, rows: Slice, norm: NormId) -> Result<(Read, Slice)> {
        let (read, mean) = self.statistics(rows, norm, false)?;
        let here = std::mem::replace(&mut self.layer, norm.layer());
        let name = norm.name();
        let local = name.rsplit('.').next().unwrap_or(&name).to_owned();
        let (width, class) = (rows.len, Operator::ActivationNorm);
        let inputs = [Some(rows), mean].into_iter().flatten().collect();
        let gained = self.push(&format!("{local}.gain"), Op::Gain { norm }, inputs, width, 1, false, class);
        let inputs = [Some(gained), read.factor].into_iter().flatten().collect();
        let op = Op::Scaled { map: Map::Norm(norm) };
        let out = self.push(&format!("{local}.out"), op, inputs, width, 1, true, class);
        self.layer = here;
        Ok((read, out))
    }

    /// A map of normalised rows: the factor multiplies what the map makes of the rows.
    fn map_of(&mut self, name: &str, map: Map, read: Read, width: usize) -> Slice {
        // Queries, keys and values are within one only after the rotary embedding.
        let bounded = !matches!(map, Map::Qkv(_));
        let Some(factor) = read.factor else {
            let op = Op::Linear { map, bias: true };
            return self.push(name, op, vec![read.rows], width, 1, bounded, Operator::PlainMatmul);
        };
        let mut rows = read.rows;
        if self.folded.extends(map) {
            let (name, class) = (format!("{name}.extend"), Operator::AddRepack);
            rows = self.push(&name, Op::Extend, vec![rows], rows.len, 1, false, class);
        }
        let raw = self.linear(&format!("{name}.product"), map, rows, width, false);
        self.push(name, Op::Scaled { map }, vec![raw, factor], width, 1, bounded, Operator::ActivationNorm)
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
        let refuse = |reason: String| Error::Polynomial { site: site.to_owned(), reason };
        let certified =
            self.folded.model.site(site).ok_or_else(|| refuse("the site is not certified".into()))?;
        let polynomial = self.folded.polynomial(certified)?;
        let plan = EvalPlan::new(&polynomial).map_err(|e| refuse(e.to_string()))?;
        let depth = plan.depth_mapped() as usize;
        let op = Op::Poly { plan: Box::new(plan) };
        Ok(self.push(name, op, vec![input], input.len, depth, bounded, class))
    }

    /// The stream in the unit of the sum that it enters. The branch beside it ends below the level
    /// where it began, so the stream has one to spare.
    fn in_unit(&mut self, name: &str, stream: Slice, factor: f64) -> Slice {
        if factor == 1.0 {
            return stream;
        }
        self.push(name, Op::Unit { factor }, vec![stream], stream.len, 1, true, Operator::AddRepack)
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
