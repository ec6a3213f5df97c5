//! Checkpoint files made by hand.

use serde_json::{Value, json};

/// Values of a tensor from its name alone, as `fill` of `peers/import/outputs.py`.
pub(crate) fn fill(name: &str, dims: &[usize]) -> Vec<f32> {
    let mut state = name.bytes().fold(2_166_136_261u32, |s, b| (s ^ u32::from(b)).wrapping_mul(16_777_619));
    (0..dims.iter().product())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = f64::from(state >> 8) / f64::from(1 << 23) - 1.0;
            let value = match dims {
                [_] if name.ends_with("bias") => 0.1 * unit,
                [_] => 1.0 + 0.2 * unit,
                _ => unit * (3.0 / dims[dims.len() - 1] as f64).sqrt(),
            };
            value as f32
        })
        .collect()
}

/// A tensor to be stored.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Stored {
    pub(crate) fn f32(name: &str, dims: &[usize]) -> Self {
        Self { name: name.into(), dtype: "F32".into(), dims: dims.to_vec(), values: fill(name, dims) }
    }

    pub(crate) fn zeros(name: &str, dtype: &str, dims: &[usize]) -> Self {
        let values = vec![0.0; dims.iter().product()];
        Self { name: name.into(), dtype: dtype.into(), dims: dims.to_vec(), values }
    }

    pub(crate) fn narrowed(self, dtype: &str) -> Self {
        Self { dtype: dtype.into(), ..self }
    }

    /// Rows of each head from two halves to interleaved pairs.
    pub(crate) fn interleave(&mut self, head: usize) {
        let width = if self.dims.len() > 1 { self.dims[1] } else { 1 };
        let old = self.values.clone();
        for row in 0..self.dims[0] {
            let (at, half) = (row % head, head / 2);
            let from = row - at + at % 2 * half + at / 2;
            self.values[row * width..(row + 1) * width]
                .copy_from_slice(&old[from * width..(from + 1) * width]);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self.dtype.as_str() {
            "F32" => self.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            "BF16" => self.values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
            "F16" => self.values.iter().flat_map(|v| half(*v).to_le_bytes()).collect(),
            "I64" => vec![0; 8 * self.values.len()],
            "BOOL" => vec![0; self.values.len()],
            other => panic!("{other}"),
        }
    }
}

/// To binary16, cut off; values of the formula are neither tiny nor large.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 255) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 1023) as u16 }
}

pub(crate) fn safetensors(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    for tensor in tensors {
        let from = data.len();
        data.extend(tensor.bytes());
        let entry =
            json!({ "dtype": tensor.dtype, "shape": tensor.dims, "data_offsets": [from, data.len()] });
        header.insert(tensor.name.clone(), entry);
    }
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let text = Value::Object(header).to_string();
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &data].concat()
}

pub(crate) fn gguf(fields: &Value, tensors: &[Stored]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }
    let fields = fields.as_object().unwrap();
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((fields.len() as u64).to_le_bytes());
    for (key, value) in fields {
        text(&mut out, key);
        match value {
            Value::String(s) => {
                out.extend(8u32.to_le_bytes());
                text(&mut out, s);
            }
            Value::Number(n) if n.is_u64() => {
                out.extend(10u32.to_le_bytes());
                out.extend(n.as_u64().unwrap().to_le_bytes());
            }
            Value::Number(n) => {
                out.extend(6u32.to_le_bytes());
                out.extend((n.as_f64().unwrap() as f32).to_le_bytes());
            }
            Value::Array(list) => {
                out.extend(9u32.to_le_bytes());
                out.extend(if list[0].is_string() { 8u32 } else { 6 }.to_le_bytes());
                out.extend((list.len() as u64).to_le_bytes());
                for value in list {
                    match value.as_str() {
                        Some(s) => text(&mut out, s),
                        None => out.extend((value.as_f64().unwrap() as f32).to_le_bytes()),
                    }
                }
            }
            other => panic!("{other}"),
        }
    }
    let mut data = vec![];
    for tensor in tensors {
        text(&mut out, &tensor.name);
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
        out.extend(0u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(tensor.bytes());
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}
