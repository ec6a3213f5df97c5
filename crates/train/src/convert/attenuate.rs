//! Output channels of matrices that a stage begins with at another size.
//!
//! A public model may write hundreds of times the usual size to one channel of its residual stream
//! at a few tokens. Gradient steps shrink such a channel slowly; one factor does it at once, and
//! training repairs what was lost.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::params::HostParam;

/// A factor on some output channels of one matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attenuation {
    /// Name of the matrix, whose rows are inputs and whose columns are outputs.
    pub tensor: String,
    /// Output channels.
    pub channels: Vec<usize>,
    /// Factor on their weights.
    pub factor: f64,
}

impl Attenuation {
    /// Refuses a matrix or a channel that the model lacks, and a factor that is no number.
    pub(crate) fn check(&self, params: &[HostParam]) -> Result<()> {
        let columns = self.columns(params)?;
        if let Some(channel) = self.channels.iter().find(|&&channel| channel >= columns) {
            let expected = format!("below the {columns} outputs of `{}`", self.tensor);
            return Err(Error::config("attenuate.channels", channel, expected));
        }
        if !self.factor.is_finite() {
            return Err(Error::config("attenuate.factor", self.factor, "finite"));
        }
        Ok(())
    }

    pub(crate) fn apply(&self, params: &mut [HostParam]) -> Result<()> {
        self.check(params)?;
        let columns = self.columns(params)?;
        let param = params.iter_mut().find(|p| p.name == self.tensor);
        for row in param.into_iter().flat_map(|p| p.data.chunks_exact_mut(columns)) {
            self.channels.iter().for_each(|&channel| row[channel] *= self.factor as f32);
        }
        Ok(())
    }

    fn columns(&self, params: &[HostParam]) -> Result<usize> {
        let param = params.iter().find(|p| p.name == self.tensor);
        match param.map(|p| &p.shape[..]) {
            Some(&[_, columns]) => Ok(columns),
            _ => Err(Error::config("attenuate.tensor", &self.tensor, "a matrix of the model")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Vec<HostParam> {
        vec![
            HostParam::new("w", &[2, 3], (1..7).map(|i| i as f32).collect()),
            HostParam::new("g", &[3], vec![1.0; 3]),
        ]
    }

    #[test]
    fn named_channels_change_by_the_factor_and_no_others() {
        let mut params = params();
        let cut = Attenuation { tensor: "w".into(), channels: vec![0, 2], factor: 0.5 };
        cut.apply(&mut params).unwrap();
        assert_eq!(params[0].data, [0.5, 2.0, 1.5, 2.0, 5.0, 3.0]);
        assert_eq!(params[1].data, [1.0; 3]);
    }

    #[test]
    fn what_the_model_lacks_is_refused_with_its_name() {
        let good = Attenuation { tensor: "w".into(), channels: vec![1], factor: 0.1 };
        for (bad, part) in [
            (
                Attenuation { tensor: "v".into(), ..good.clone() },
                "attenuate.tensor is v, but must be a matrix of the model",
            ),
            (Attenuation { tensor: "g".into(), ..good.clone() }, "attenuate.tensor is g"),
            (Attenuation { channels: vec![3], ..good.clone() }, "below the 3 outputs of `w`"),
            (Attenuation { factor: f64::NAN, ..good.clone() }, "NaN"),
        ] {
            let error = bad.check(&params()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        good.check(&params()).unwrap();
    }
}
