//! What a server computes of public tokens.

use cipherlm_model::{Mode, Model, Runner, Shape};

use crate::error::Result;

/// Keys after rotary and values of the public tokens, rows of the key width, by layer.
pub(crate) struct Prefix {
    pub(crate) tokens: usize,
    layers: Vec<[Vec<f64>; 2]>,
}

impl Prefix {
    /// Runs the public tokens in the clear, by the functions themselves.
    pub(super) fn of(model: &Model) -> Result<Option<Self>> {
        let tokens = model.spec().prefix.len();
        if tokens == 0 {
            return Ok(None);
        }
        let runner = Runner::new(model, Mode::Exact)?;
        let layer = |l| runner.keys_and_values(l).map(|(keys, values)| [keys.to_vec(), values.to_vec()]);
        let layers = (0..model.shape().layers).filter_map(layer).collect();
        Ok(Some(Self { tokens, layers }))
    }

    /// One feature of the key (`part` 0) or value (1) of a token that a query head reads.
    pub(super) fn feature(
        &self,
        shape: &Shape,
        l: usize,
        part: usize,
        (token, head, feature): (usize, usize, usize),
    ) -> f64 {
        let shared = shape.heads / shape.key_heads();
        self.layers[l][part][token * shape.key_width() + head / shared * shape.head_dim + feature]
    }
}
