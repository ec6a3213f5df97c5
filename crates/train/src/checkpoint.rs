//! Checkpoints: one safetensors file with weights, optimiser moments, configuration and position of the run.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::error::{Error, Result};
use crate::params::HostParam;

/// Named arrays and text fields read from a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Archive {
    /// Tensors, in file order.
    pub tensors: Vec<HostParam>,
    /// Text fields.
    pub fields: HashMap<String, String>,
}

impl Archive {
    /// Writes the archive, replacing the file in one step: a crash leaves the old file or the new one.
    pub fn save(&self, path: &Path) -> Result<()> {
        let corrupt = |e: safetensors::SafeTensorError| Error::Corrupt {
            path: path.into(),
            reason: e.to_string(),
            hint: "this is a defect of the writer",
        };
        let bytes: Vec<Vec<u8>> =
            self.tensors.iter().map(|t| t.data.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (tensor, bytes) in self.tensors.iter().zip(&bytes) {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(corrupt)?;
            views.push((tensor.name.as_str(), view));
        }
        let file = serialize(views, Some(self.fields.clone())).map_err(corrupt)?;
        let scratch = path.with_extension("partial");
        std::fs::write(&scratch, file).map_err(Error::io(&scratch))?;
        std::fs::rename(&scratch, path).map_err(Error::io(path))
    }

    /// Reads an archive; f16, bf16 and f64 tensors are converted to f32.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::parse(&bytes).map_err(|reason| Error::Corrupt {
            path: path.into(),
            reason,
            hint: "delete it and continue from an older checkpoint",
        })
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let mut tensors = Vec::new();
        for name in metadata.offset_keys() {
            let view = file.tensor(&name).map_err(|e| e.to_string())?;
            let data = floats(view.dtype(), view.data()).ok_or_else(|| format!("`{name}` is {:?}", view.dtype()))?;
            tensors.push(HostParam { name, shape: view.shape().to_vec(), data, trained: true });
        }
        Ok(Self { tensors, fields: metadata.metadata().clone().unwrap_or_default() })
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let array = |c: &[u8]| [c[0], c[1]];
    Some(match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
        Dtype::BF16 => {
            bytes.chunks_exact(2).map(|c| f32::from_bits(u32::from(u16::from_le_bytes(array(c))) << 16)).collect()
        }
        Dtype::F16 => bytes.chunks_exact(2).map(|c| half_to_f32(u16::from_le_bytes(array(c)))).collect(),
        Dtype::F64 => bytes
            .chunks_exact(8)
            .map(|c| f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]) as f32)
            .collect(),
        _ => return None,
    })
}

/// IEEE 754 binary16 to binary32, exactly.
fn half_to_f32(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(half >> 10 & 31);
    let mantissa = f32::from(half & 1023);
    sign * match exponent {
        0 => mantissa * 2f32.powi(-24),
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1024.0 + mantissa) * 2f32.powi(e - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_values() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0x7bff, 65504.0)]
        {
            assert_eq!(half_to_f32(bits), value);
        }
        assert!(half_to_f32(0x7e00).is_nan());
    }
}
