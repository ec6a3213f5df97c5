//! What is trained: the shape of the data model, the public tokens before every text, and how
//! attention rows are computed meanwhile.

use cipherlm_model::{Attention, Eps, Kind, Shape};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A shape, the form of its attention, and what stands before every text. The parameters of an
/// architecture are exactly the tensors of its shape, under the same names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch {
    /// Sizes, choices and operators.
    pub shape: Shape,
    /// How attention rows are normalised in training.
    #[serde(default)]
    pub form: Form,
    /// Public tokens before every text, [`cipherlm_model::ModelSpec::prefix`]. Their rows are
    /// computed by exact functions, and neither losses nor ranges look at them. Decoders only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix: Vec<u32>,
}

/// Ways to compute a row of attention. The data model knows the mean form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `y / (eps + sum y)`.
    Sum,
    /// The sum form with each row first divided by its largest magnitude and `eps` by that
    /// magnitude's power. For pointwise attention: a row is divided by the root of its key count,
    /// which keeps the variance of its output.
    Stable,
    /// `(y / n) / (eps + sum y / n)` over the row's `n` keys: what the data model computes.
    #[default]
    Mean,
}

/// A PowerSoftmax with its form: what the kernels read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Power {
    pub(crate) p: u32,
    pub(crate) c: f64,
    pub(crate) eps: Eps,
    pub(crate) form: Form,
}

/// The attention operator as the layers read it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operator {
    Softmax,
    /// GELU of every score; a row is divided by its key count to this power.
    Pointwise {
        exponent: f64,
    },
    Power(Power),
}

impl Arch {
    /// A shape in the mean form, without public tokens.
    pub fn new(shape: Shape) -> Self {
        Self { shape, form: Form::Mean, prefix: Vec::new() }
    }

    /// Positions of a text: those of the context that public tokens leave.
    pub fn room(&self) -> usize {
        self.shape.context.saturating_sub(self.prefix.len())
    }

    /// The same sizes under another attention operator.
    pub fn with_attention(&self, attention: Attention) -> Self {
        Self { shape: Shape { attention, ..self.shape.clone() }, ..self.clone() }
    }

    /// Refuses shapes that cannot be built.
    pub fn check(&self) -> Result<()> {
        if self.shape.key_heads() != self.shape.heads {
            let found = format!("{} of {} heads", self.shape.key_heads(), self.shape.heads);
            return Err(Error::config(
                "kv_heads",
                found,
                "one key head for each head: repeat them before training",
            ));
        }
        self.shape.validate()?;
        self.check_prefix()
    }

    fn check_prefix(&self) -> Result<()> {
        if self.prefix.is_empty() {
            return Ok(());
        }
        if !self.causal() {
            return Err(Error::config("public_prefix", "given", "absent: an encoder has none"));
        }
        if self.room() == 0 {
            let found = format!("{} tokens", self.prefix.len());
            let expected = format!("shorter than the context of {}", self.shape.context);
            return Err(Error::config("public_prefix", found, expected));
        }
        let vocab = self.shape.vocab;
        match self.prefix.iter().find(|&&t| t as usize >= vocab) {
            Some(&token) => Err(Error::Vocabulary { token, vocab }),
            None => Ok(()),
        }
    }

    /// Refuses what the data model would compute differently.
    pub fn check_exportable(&self) -> Result<()> {
        let exact = match self.shape.attention {
            Attention::Softmax | Attention::PowerSoftmax { eps: Eps::Frozen, .. } => true,
            Attention::PowerSoftmax { .. } => self.form == Form::Mean,
            Attention::Pointwise { .. } => self.form != Form::Stable,
        };
        if exact {
            return Ok(());
        }
        let found = format!("{:?} with {:?}", self.form, self.shape.attention);
        Err(Error::config("form", found, "mean, the only form that the data model has"))
    }

    /// Every position sees the past only.
    pub fn causal(&self) -> bool {
        self.shape.kind == Kind::Decoder
    }

    /// Frozen epsilons are parameters of the model.
    pub fn frozen(&self) -> bool {
        matches!(self.shape.attention, Attention::PowerSoftmax { eps: Eps::Frozen, .. })
    }

    pub(crate) fn operator(&self) -> Operator {
        match self.shape.attention {
            Attention::Softmax => Operator::Softmax,
            Attention::Pointwise { .. } if self.form == Form::Stable => Operator::Pointwise { exponent: 0.5 },
            Attention::Pointwise { mean } => Operator::Pointwise { exponent: f64::from(u8::from(mean)) },
            Attention::PowerSoftmax { p, c, eps } => Operator::Power(Power { p, c, eps, form: self.form }),
        }
    }
}

/// `(x + c)^p` with an epsilon of 1 % of `c^p`: about `exp(x p / c)` while `x` is small. The
/// project ships `p = 4`, `c = 3`.
pub fn shifted(p: u32, c: f64) -> Attention {
    Attention::PowerSoftmax { p, c, eps: Eps::Absolute { value: c.powi(p as i32) / 100.0 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch(attention: Attention, form: Form) -> Arch {
        let shape = Shape::preset("test").unwrap();
        Arch { form, ..Arch::new(Shape { attention, ..shape }) }
    }

    #[test]
    fn forms_that_the_data_model_lacks_are_not_exported() {
        let relative = Attention::PowerSoftmax { p: 4, c: 0.0, eps: Eps::Relative { value: 1e-6 } };
        let frozen = Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Frozen };
        for (attention, form, exported) in [
            (shifted(4, 3.0), Form::Mean, true),
            (shifted(4, 3.0), Form::Sum, false),
            (relative, Form::Mean, true),
            (relative, Form::Stable, false),
            (frozen, Form::Stable, true),
            (Attention::Pointwise { mean: true }, Form::Mean, true),
            (Attention::Pointwise { mean: true }, Form::Stable, false),
        ] {
            assert_eq!(arch(attention, form).check_exportable().is_ok(), exported, "{attention:?} {form:?}");
        }
    }

    #[test]
    fn a_shape_that_contradicts_itself_is_named() {
        let odd = Attention::PowerSoftmax { p: 3, c: 0.0, eps: Eps::Frozen };
        let error = arch(odd, Form::Mean).check().unwrap_err().to_string();
        assert!(error.contains("attention.p") && error.contains('3'), "{error}");
    }

    #[test]
    fn public_tokens_that_no_text_can_follow_are_refused() {
        let with = |prefix: Vec<u32>| Arch { prefix, ..arch(shifted(4, 3.0), Form::Mean) };
        let context = with(vec![]).shape.context;
        assert_eq!(with(vec![1; 3]).room(), context - 3);
        assert!(with(vec![1; context - 1]).check().is_ok());
        for (prefix, field) in [(vec![1; context], "public_prefix"), (vec![1 << 20], "vocabulary")] {
            let error = with(prefix).check().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        let encoder = with(vec![1]);
        let shape = Shape { kind: Kind::Encoder { classes: 2 }, ..encoder.shape.clone() };
        assert!(Arch { shape, ..encoder }.check_prefix().unwrap_err().to_string().contains("encoder"));
    }
}
