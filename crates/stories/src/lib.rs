#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// The model's name.
pub const NAME: &str = "stories-2x128";
/// Its description: shape, polynomial sites, certified ranges. JSON.
pub const DESCRIPTION: &str = include_str!("../model/model.json");
/// Its tokenizer. JSON.
pub const TOKENIZER: &str = include_str!("../model/tokenizer.json");
/// Its weights. Safetensors.
pub const WEIGHTS: &[u8] = include_bytes!("../model/weights.safetensors");
