//! The part of a model that a client of an encrypted run needs: from tokens to the rows that enter
//! the first block.

use serde::{Deserialize, Serialize};

use super::rows::{NormWeights, embed};
use crate::error::{Error, Result};
use crate::function::Function;
use crate::model::Model;
use crate::shape::{Norm, Shape};
use crate::weights::Weights;

/// What has to be known of an embedding to read its tables and use them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingShape {
    /// Features of a row.
    pub d_model: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Longest text.
    pub context: usize,
    /// The model's normalisation.
    pub norm: Norm,
    /// Its constant.
    pub norm_eps: f64,
    /// Whether rows are normalised before the first block.
    pub normalised: bool,
    /// Whether there are learned positions.
    pub positions: bool,
}

impl EmbeddingShape {
    /// That of a model.
    pub fn of(shape: &Shape) -> Self {
        Self {
            d_model: shape.d_model,
            vocab: shape.vocab,
            context: shape.context,
            norm: shape.norm,
            norm_eps: shape.norm_eps,
            normalised: shape.embed_norm,
            positions: shape.positions,
        }
    }

    /// The tensors with their dimensions.
    fn tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let mut out = vec![("embed.tokens", vec![self.vocab, self.d_model])];
        if self.positions {
            out.push(("embed.positions", vec![self.context, self.d_model]));
        }
        if self.normalised {
            out.push(("embed.norm.gain", vec![self.d_model]));
        }
        if self.normalised && self.norm == Norm::LayerNorm {
            out.push(("embed.norm.bias", vec![self.d_model]));
        }
        out
    }
}

/// A model's embedding: the table of tokens, and learned positions and a normalisation where it has
/// them. It has no other weights.
#[derive(Debug, Clone)]
pub struct Embedding {
    shape: EmbeddingShape,
    tables: Weights,
}

impl Embedding {
    /// The tables of a model as bytes: safetensors, f32.
    ///
    /// # Errors
    /// None for tensors of a model.
    pub fn bytes_of(model: &Model) -> Result<Vec<u8>> {
        let mut tables = Weights::new();
        for (name, tensor) in model.weights().iter().filter(|(name, _)| name.starts_with("embed.")) {
            tables.insert(name, &tensor.dims, tensor.data.clone())?;
        }
        Ok(tables.to_bytes())
    }

    /// Reads the tables that [`Embedding::bytes_of`] wrote.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::MissingTensor`], [`Error::TensorShape`],
    /// [`Error::NotFinite`] or [`Error::UnknownTensor`] for other tables than these.
    pub fn from_bytes(shape: EmbeddingShape, bytes: &[u8]) -> Result<Self> {
        let tables = Weights::from_bytes(bytes)?;
        let expected = shape.tensors();
        for (name, dims) in &expected {
            let name = (*name).to_owned();
            let Some(tensor) = tables.tensor(&name) else {
                return Err(Error::MissingTensor { name, expected: dims.clone() });
            };
            if tensor.dims != *dims {
                let found = tensor.dims.clone();
                return Err(Error::TensorShape { name, expected: dims.clone(), found });
            }
            if let Some(index) = tensor.data.iter().position(|x| !x.is_finite()) {
                return Err(Error::NotFinite { name, index });
            }
        }
        let unknown = tables.iter().find(|(name, _)| !expected.iter().any(|(e, _)| e == name));
        if let Some((name, _)) = unknown {
            return Err(Error::UnknownTensor { name: name.to_owned() });
        }
        Ok(Self { shape, tables })
    }

    /// The rows that enter the first block, for tokens from position `start` on: bit for bit those
    /// of [`crate::Runner::embed`].
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::ContextTooLong`], [`Error::UnknownToken`].
    pub fn rows(&self, tokens: &[u32], start: usize) -> Result<Vec<f64>> {
        if tokens.is_empty() {
            return Err(Error::Empty);
        }
        let length = start + tokens.len();
        if length > self.shape.context {
            return Err(Error::ContextTooLong { length, context: self.shape.context });
        }
        if let Some(position) = tokens.iter().position(|&t| t as usize >= self.shape.vocab) {
            return Err(Error::UnknownToken { token: tokens[position], position, vocab: self.shape.vocab });
        }
        let rows = embed(&self.tables, self.shape.d_model, self.shape.positions, tokens, start)?;
        if !self.shape.normalised {
            return Ok(rows);
        }
        let norm = NormWeights::new(&self.tables, self.shape.norm, "embed.norm")?;
        norm.apply(&rows, self.shape.norm_eps, |variances| {
            variances.iter_mut().for_each(|x| *x = Function::InvSqrt.eval(*x));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, Runner, random};

    #[test]
    fn the_client_embeds_as_the_model_does() {
        for preset in ["test", "bert-tiny"] {
            let preset = Shape::preset(preset).unwrap();
            for shape in [Shape { norm: Norm::RmsNorm, ..preset.clone() }, preset] {
                let model = random::certified("embedding", &shape, 3).unwrap();
                let own = EmbeddingShape::of(&shape);
                let whole = Embedding::bytes_of(&model).unwrap();
                let embedding = Embedding::from_bytes(own.clone(), &whole).unwrap();
                let tokens = [5, 0, (shape.vocab - 1) as u32, 5];
                let expected = Runner::new(&model, Mode::Exact).unwrap().embed(&tokens, 1).unwrap();
                assert_eq!(embedding.rows(&tokens, 1).unwrap(), expected);
                assert!(embedding.rows(&[shape.vocab as u32], 0).is_err() && embedding.rows(&[], 0).is_err());
                assert!(embedding.rows(&vec![1; shape.context - 1], 1).is_ok());
                assert!(embedding.rows(&vec![1; shape.context], 1).is_err());
                assert!(Embedding::from_bytes(own.clone(), &whole[..whole.len() - 4]).is_err());
                let other = EmbeddingShape { vocab: shape.vocab + 1, ..own.clone() };
                assert!(Embedding::from_bytes(other, &whole).is_err(), "another vocabulary");
                let other = EmbeddingShape { positions: !shape.positions, ..own };
                assert!(Embedding::from_bytes(other, &whole).is_err(), "positions");
            }
        }
    }
}
