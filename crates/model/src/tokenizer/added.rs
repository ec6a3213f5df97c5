//! Added tokens of a `tokenizer.json`.

use serde_json::Value;

use crate::error::{Error, Result};

/// Ids and texts of the added tokens, in their order.
pub(super) fn added_tokens(root: &Value) -> Result<Vec<(u32, String)>> {
    let field = |token: &Value| {
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        Some((id?, token["content"].as_str()?.to_owned()))
    };
    let list = root["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refuse = || Error::malformed("tokenizer.json", "an added token lacks its id or content");
    list.iter().map(|token| field(token).ok_or_else(refuse)).collect()
}
