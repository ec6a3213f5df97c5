//! Named tensors, stored as f32 safetensors and used as f64.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

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
    /// The first of [`SpecError::MissingTensor`], [`SpecError::TensorShape`], [`SpecError::NotFinite`], [`SpecError::UnknownTensor`].
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
        }
        match self.tensors.keys().find(|name| !expected.iter().any(|(e, _)| e == *name)) {
            Some(name) => Err(SpecError::UnknownTensor { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// Serialises to safetensors, f32. Values are rounded to f32.
    ///
    /// # Errors
    /// [`SpecError::Malformed`] when the container refuses the tensors.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let raw: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, t)| {
                let bytes = t.data.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
                (name.clone(), t.dims.clone(), bytes)
            })
            .collect();
        let views = raw.iter().map(|(name, dims, bytes)| {
            TensorView::new(Dtype::F32, dims.clone(), bytes)
                .map(|view| (name.as_str(), view))
                .map_err(|e| SpecError::malformed(name.clone(), e))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        safetensors::serialize(views, None).map_err(|e| SpecError::malformed("weights", e))
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
                Dtype::F32 => raw.as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
                Dtype::F64 => raw.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
                other => return Err(SpecError::malformed(name, format!("type {other:?}, expected F32 or F64"))),
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
