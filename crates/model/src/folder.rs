//! Names of the files of a model folder.

/// File name of the description inside a model folder.
pub const MODEL_FILE: &str = "model.json";
/// File name of the weights inside a model folder.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// File name of the tokenizer inside a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
