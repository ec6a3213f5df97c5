//! Where the numbers of a transformer lie in slots.

use cipherlm_circuits::linear::TokenLayout;
use cipherlm_model::Shape;

use crate::error::{At, Error, Result};

/// Token-major packing with copies: slot `(copy * tokens + token) * features + feature`.
///
/// A matrix of `tokens` rows takes one vector per block of `features` columns. What is left of the
/// slots holds identical copies of it, so that attention can work on several token distances at
/// once. Heads are padded to powers of two and never cross a block.
///
/// Several prompts take the places of copies. They lie innermost: slot `s` of prompt `p` is slot
/// `s * prompts + p` of a vector, and everything else here counts the slots of one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Slots that a prompt has of a vector.
    pub slots: usize,
    /// Prompts that share a vector, a power of two.
    pub prompts: usize,
    /// Slots per token and block.
    pub features: usize,
    /// Tokens, a power of two.
    pub tokens: usize,
    /// Identical copies of all tokens.
    pub copies: usize,
    /// Padded features per head.
    pub head: usize,
    /// Blocks of the hidden state and of the concatenated heads.
    pub blocks: usize,
    /// Blocks of the feed-forward layer.
    pub ffn_blocks: usize,
    /// Columns of the feed-forward layer in each of its blocks: as many in all of them, but for
    /// the last, because the shorter a block is, the fewer diagonals its maps have.
    pub ffn_width: usize,
}

impl Geometry {
    /// Fits a shape and a number of tokens (rounded up to a power of two) into `slots`.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`] when a single head of all tokens is wider than a vector;
    /// [`Error::Prompt`] for no tokens or more than the model's context.
    pub fn new(shape: &Shape, tokens: usize, slots: usize) -> Result<Self> {
        if tokens == 0 || tokens > shape.context {
            return Err(Error::Prompt {
                length: tokens,
                capacity: shape.context,
                advice: "choose a length within the model's context",
            });
        }
        let tokens = tokens.next_power_of_two();
        let head = shape.head_dim.next_power_of_two();
        let width = shape.d_model.max(head * shape.heads).next_power_of_two();
        let features = width.min(slots / tokens.min(slots));
        if features < head || features == 0 {
            return Err(Error::DoesNotFit {
                what: "slots for one head of every token",
                need: (head * tokens) as u64,
                have: slots as u64,
                advice: "use fewer tokens or a larger ring",
            });
        }
        let blocks = |columns: usize| columns.div_ceil(features);
        Ok(Self {
            slots,
            prompts: 1,
            features,
            tokens,
            copies: slots / (tokens * features),
            head,
            blocks: blocks(shape.d_model.max(head * shape.heads)),
            ffn_blocks: blocks(shape.ffn),
            ffn_width: shape.ffn.div_ceil(blocks(shape.ffn).max(1)),
        })
    }

    /// The same for up to `prompts` prompts in one pass (rounded up to a power of two): each takes
    /// the place of a copy.
    ///
    /// # Errors
    /// As [`Geometry::new`]; [`Error::DoesNotFit`] for more prompts than there are copies of one.
    pub fn of_prompts(shape: &Shape, tokens: usize, slots: usize, prompts: usize) -> Result<Self> {
        let one = Self::new(shape, tokens, slots)?;
        let prompts = prompts.checked_next_power_of_two().unwrap_or(usize::MAX);
        if prompts > one.copies {
            return Err(Error::DoesNotFit {
                what: "copies of a prompt's slots, one for each prompt of a pass",
                need: prompts as u64,
                have: one.copies as u64,
                advice: "run fewer prompts at once, or plan for shorter ones",
            });
        }
        Ok(Self { slots: slots / prompts, copies: one.copies / prompts, prompts, ..one })
    }

    /// Slots of a vector, of all prompts together.
    pub fn vector_slots(&self) -> usize {
        self.slots * self.prompts
    }

    /// Values of one copy: the period of every plain activation.
    pub fn period(&self) -> usize {
        self.tokens * self.features
    }

    /// Whether keys or values of `context` tokens fit a vector, block by block: what a session
    /// takes.
    pub fn holds_cache(&self, context: usize) -> bool {
        self.features * context <= self.slots
    }

    /// Vectors of products needed to meet every pair of tokens.
    pub fn shifts(&self) -> usize {
        self.tokens.div_ceil(self.copies).max(1)
    }

    /// Slots that a rotation from one shift to the next crosses.
    pub fn shift_stride(&self) -> i64 {
        (self.copies * self.features) as i64
    }

    /// The token-major layout of the plain matrix products.
    pub(crate) fn layout(&self) -> Result<TokenLayout> {
        let layout = TokenLayout::new(self.slots, self.features).at("layout")?;
        Ok(if self.tokens == 1 { layout.repeated() } else { layout })
    }

    /// Column of a head's feature in the padded concatenation of heads.
    pub fn column(&self, head: usize, feature: usize) -> usize {
        head * self.head + feature
    }

    /// Column of a feature of the feed-forward layer among those of its blocks.
    pub fn ffn_column(&self, feature: usize) -> usize {
        feature / self.ffn_width * self.features + feature % self.ffn_width
    }

    /// (copy, token, feature) of a slot.
    pub fn place(&self, slot: usize) -> (usize, usize, usize) {
        let (group, feature) = (slot / self.features, slot % self.features);
        (group / self.tokens, group % self.tokens, feature)
    }

    /// Packs rows of `width` values, one per token, into vectors of one period each.
    pub(crate) fn pack(&self, rows: &[f64], width: usize) -> Vec<Vec<f64>> {
        pack(rows, width, self.features, self.period())
    }
}

/// Packs rows of `width` values into vectors of one period, `features` slots a token.
pub(crate) fn pack(rows: &[f64], width: usize, features: usize, period: usize) -> Vec<Vec<f64>> {
    let mut out = vec![vec![0.0; period]; width.div_ceil(features).max(1)];
    for (token, row) in rows.chunks_exact(width).enumerate() {
        for (column, &value) in row.iter().enumerate() {
            out[column / features][token * features + column % features] = value;
        }
    }
    out
}
