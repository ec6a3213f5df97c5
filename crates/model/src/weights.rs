//! Named tensors, stored as f32 safetensors and used as f64.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use crate::error::{Result, SpecError};
use crate::shape::Shape;

/// A dense tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Dimensions.
    pub dims: Vec<usize>,
    /// Values, the last dimension fastest.
    pub data: Vec<f64>,
}

/// The beginning of a safetensors file of f32 tensors that lie behind each other in the order
/// given.
pub(crate) fn header<'t>(tensors: impl Iterator<Item = (&'t str, &'t [usize])>) -> Vec<u8> {
    let mut at = 0;
    let fields: Vec<String> = tensors
        .map(|(name, dims)| {
            let from = at;
            at += 4 * dims.iter().product::<usize>();
            let place = serde_json::json!({ "dtype": "F32", "shape": dims, "data_offsets": [from, at] });
            format!("{}:{place}", serde_json::Value::from(name))
        })
        .collect();
    let mut text = format!("{{{}}}", fields.join(","));
    // Data begins at a multiple of eight bytes.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A safetensors file with its header in name order.
///
/// The crate `safetensors` writes text fields from a hash map, in an order of chance; in name order
/// equal contents are equal bytes. Tensors stay where they are.
///
/// # Errors
/// [`SpecError::Malformed`] for what is no safetensors file.
pub fn in_name_order(file: &[u8]) -> Result<Vec<u8>> {
    let malformed = |reason: String| SpecError::malformed("safetensors", reason);
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(|| malformed("no header".into()))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (old, data) = rest.split_at_checked(length).ok_or_else(|| malformed("cut short".into()))?;
    let header: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_slice(old).map_err(|e| malformed(e.to_string()))?;
    let mut text = serde_json::to_string(&header).map_err(|e| malformed(e.to_string()))?;
    // Data begins at a multiple of eight bytes.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    Ok([&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), data].concat())
}

/// The tensors of a model, by name (see [`Shape::tensors`] for the names and dimensions).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a tensor.
    ///
    /// # Errors
    /// [`SpecError::TensorShape`] when the number of values is not the product of `dims`.
    pub fn insert(&mut self, name: impl Into<String>, dims: &[usize], data: Vec<f64>) -> Result<()> {
        let name = name.into();
        if dims.iter().product::<usize>() != data.len() {
            return Err(SpecError::TensorShape { name, expected: dims.to_vec(), found: vec![data.len()] });
        }
        self.tensors.insert(name, Tensor { dims: dims.to_vec(), data });
        Ok(())
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The values of a tensor that may be absent.
    pub fn values(&self, name: &str) -> Option<&[f64]> {
        self.tensors.get(name).map(|t| t.data.as_slice())
    }

    /// Names and tensors, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Checks names, dimensions and finiteness against a shape.
    ///
    /// # Errors
    /// The first of [`SpecError::MissingTensor`], [`SpecError::TensorShape`],
    /// [`SpecError::NotFinite`], [`SpecError::UnknownTensor`].
    pub fn check(&self, shape: &Shape) -> Result<()> {
        let expected = shape.tensors();
        for (name, dims) in &expected {
            let Some(tensor) = self.tensors.get(name) else {
                return Err(SpecError::MissingTensor { name: name.clone(), expected: dims.clone() });
            };
            if &tensor.dims != dims {
                return Err(SpecError::TensorShape {
                    name: name.clone(),
                    expected: dims.clone(),
                    found: tensor.dims.clone(),
                });
            }
            if let Some(index) = tensor.data.iter().position(|x| !x.is_finite()) {
                return Err(SpecError::NotFinite { name: name.clone(), index });
            }
            if crate::shape::is_calibrated(name)
                && let Some(index) = tensor.data.iter().position(|&x| (x as f32) <= 0.0)
            {
                let reason = format!(
                    "value {} at index {index}, expected denominators and inverse roots above zero",
                    tensor.data[index]
                );
                return Err(SpecError::malformed(name, reason));
            }
        }
        match self.tensors.keys().find(|name| !expected.iter().any(|(e, _)| e == *name)) {
            Some(name) => Err(SpecError::UnknownTensor { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// Serialises to safetensors, f32, in name order. Values are rounded to f32.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = header(self.tensors.iter().map(|(name, t)| (name.as_str(), t.dims.as_slice())));
        out.extend(self.tensors.values().flat_map(|t| &t.data).flat_map(|&x| (x as f32).to_le_bytes()));
        out
    }

    /// Reads safetensors (F32 or F64).
    ///
    /// # Errors
    /// [`SpecError::Malformed`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| SpecError::malformed("weights", e))?;
        let mut out = Self::new();
        for (name, view) in file.tensors() {
            let raw = view.data();
            let data: Vec<f64> = match view.dtype() {
                Dtype::F32 => {
                    raw.as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
                }
                Dtype::F64 => raw.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
                other => {
                    return Err(SpecError::malformed(name, format!("type {other:?}, expected F32 or F64")));
                }
            };
            out.insert(name, view.shape(), data)?;
        }
        Ok(out)
    }

    /// Reads a safetensors file.
    ///
    /// # Errors
    /// [`SpecError::File`] or [`SpecError::Malformed`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(&cipherlm_files::read(path, u64::MAX)?)
    }

    /// Rounds every value to f32, what a save and a load do.
    pub fn round_to_f32(&mut self) {
        for tensor in self.tensors.values_mut() {
            tensor.data.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        }
    }
}
