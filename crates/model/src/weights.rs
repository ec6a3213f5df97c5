//! Named tensors, stored as f32 safetensors and used as f64.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use crate::error::{Error, Result};
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
/// [`Error::Malformed`] for what is no safetensors file.
pub fn in_name_order(file: &[u8]) -> Result<Vec<u8>> {
    let malformed = |reason: String| Error::malformed("safetensors", reason);
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
    /// [`Error::TensorShape`] when the number of values is not the product of `dims`.
    pub fn insert(&mut self, name: impl Into<String>, dims: &[usize], data: Vec<f64>) -> Result<()> {
        let name = name.into();
        if dims.iter().product::<usize>() != data.len() {
            return Err(Error::TensorShape { name, expected: dims.to_vec(), found: vec![data.len()] });
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
    /// The first of [`Error::MissingTensor`], [`Error::TensorShape`],
    /// [`Error::NotFinite`], [`Error::UnknownTensor`].
    pub fn check(&self, shape: &Shape) -> Result<()> {
        let expected = shape.tensors();
        for (name, dims) in &expected {
            let Some(tensor) = self.tensors.get(name) else {
                return Err(Error::MissingTensor { name: name.clone(), expected: dims.clone() });
            };
            if &tensor.dims != dims {
                return Err(Error::TensorShape {
                    name: name.clone(),
                    expected: dims.clone(),
                    found: tensor.dims.clone(),
                });
            }
            if let Some(index) = tensor.data.iter().position(|x| !x.is_finite()) {
                return Err(Error::NotFinite { name: name.clone(), index });
            }
            if crate::shape::is_calibrated(name)
                && let Some(index) = tensor.data.iter().position(|&x| (x as f32) <= 0.0)
            {
                let reason = format!(
                    "value {} at index {index}, expected denominators and inverse roots above zero",
                    tensor.data[index]
                );
                return Err(Error::malformed(name, reason));
            }
        }
        match self.tensors.keys().find(|name| !expected.iter().any(|(e, _)| e == *name)) {
            Some(name) => Err(Error::UnknownTensor { name: name.clone() }),
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
    /// [`Error::Malformed`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| Error::malformed("weights", e))?;
        let mut out = Self::new();
        for (name, view) in file.tensors() {
            let raw = view.data();
            let data: Vec<f64> = match view.dtype() {
                Dtype::F32 => {
                    raw.as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
                }
                Dtype::F64 => raw.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
                other => {
                    return Err(Error::malformed(name, format!("type {other:?}, expected F32 or F64")));
                }
            };
            out.insert(name, view.shape(), data)?;
        }
        Ok(out)
    }

    /// Reads a safetensors file.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Malformed`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_in_name_order_holds_the_same_tensors_at_the_same_places() {
        // In an order of chance: tensors, text fields and the fields of an entry.
        let z = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        let a = r#"{"shape":[2],"data_offsets":[8,16],"dtype":"F32"}"#;
        let header = format!(r#"{{"z":{z},"__metadata__":{{"seed":"1","blake3":"ff"}},"a":{a}}}"#);
        let data: Vec<u8> = (0..16).collect();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        let sorted = in_name_order(&file).unwrap();
        let (length, rest) = sorted.split_first_chunk::<8>().unwrap();
        let (text, kept) = rest.split_at(u64::from_le_bytes(*length) as usize);
        assert_eq!((kept, text.len() % 8), (&data[..], 0));
        let a = r#"{"data_offsets":[8,16],"dtype":"F32","shape":[2]}"#;
        let z = r#"{"data_offsets":[0,8],"dtype":"F32","shape":[2]}"#;
        let expected = format!(r#"{{"__metadata__":{{"blake3":"ff","seed":"1"}},"a":{a},"z":{z}}}"#);
        assert_eq!(str::from_utf8(text).unwrap().trim_end(), expected);
        let read = |bytes: &[u8]| {
            let file = SafeTensors::deserialize(bytes).unwrap();
            ["a", "z"].map(|name| file.tensor(name).unwrap().data().to_vec())
        };
        assert_eq!(read(&sorted), read(&file));
        assert_eq!(in_name_order(&sorted).unwrap(), sorted);
    }

    #[test]
    fn what_is_no_safetensors_file_has_no_name_order() {
        let length = |n: u64| n.to_le_bytes().to_vec();
        for bad in [vec![], vec![1; 7], length(9), [length(u64::MAX), b"{}".to_vec()].concat()] {
            assert!(matches!(in_name_order(&bad), Err(Error::Malformed { .. })));
        }
        for text in ["[]", "{", r#"{"a":1}"#] {
            let bad = [length(text.len() as u64), text.into()].concat();
            assert!(matches!(in_name_order(&bad), Err(Error::Malformed { .. })), "{text}");
        }
    }
}
