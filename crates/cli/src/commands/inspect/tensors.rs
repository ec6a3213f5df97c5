//! Weights: safetensors, and the pointers that stand in for them where large files were not
//! fetched.

use serde_json::{Value, json};
use std::path::Path;

/// Longest header that the format allows.
const HEADER: u64 = 100_000_000;
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether a file may be safetensors: the length of a JSON header, then the header.
pub(super) fn looks_like(head: &[u8]) -> bool {
    head.get(8) == Some(&b'{')
}

/// A pointer of Git LFS: a few lines of text that name a file.
pub(super) fn pointer(head: &[u8]) -> Option<Value> {
    let text = head.starts_with(POINTER).then(|| String::from_utf8_lossy(head))?;
    let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    Some(json!({
        "what": "pointer of Git LFS: the file itself was not fetched",
        "whole": false,
        "reason": "run `git lfs pull` where it was cloned",
        "oid": field("oid "),
        "size": field("size ").and_then(|size| size.parse::<u64>().ok()),
    }))
}

/// Compares the length of the file with what its header describes.
pub(super) fn facts(path: &Path) -> anyhow::Result<Value> {
    let what = "tensors (safetensors): weights or a training checkpoint";
    let short = cipherlm_files::head(path, 8)?;
    let mut size = [0; 8];
    size.iter_mut().zip(&short.bytes).for_each(|(to, from)| *to = *from);
    let (length, size) = (short.length, u64::from_le_bytes(size));
    let damaged = |reason: String| json!({"what": what, "bytes": length, "whole": false, "reason": reason});
    if size > HEADER {
        return Ok(damaged(format!("a header of {size} bytes is longer than the format allows")));
    }
    let head = cipherlm_files::head(path, 8 + size)?;
    if (head.bytes.len() as u64) < 8 + size {
        return Ok(damaged(format!("it ends at {length} bytes, within a header of {size}")));
    }
    let header: Value = match serde_json::from_slice(&head.bytes[8..]) {
        Ok(header) => header,
        Err(error) => return Ok(damaged(format!("its header is no JSON: {error}"))),
    };
    let tensors = header.as_object().into_iter().flatten().filter(|(name, _)| *name != "__metadata__");
    let ends: Vec<Option<u64>> = tensors.map(|(_, tensor)| tensor["data_offsets"][1].as_u64()).collect();
    let Some(end) = ends.iter().copied().try_fold(0, |most: u64, end| Some(most.max(end?))) else {
        return Ok(damaged("a tensor in its header has no offsets".into()));
    };
    let wanted = end.saturating_add(8 + size);
    if wanted != length {
        return Ok(damaged(format!("it has {length} of {wanted} bytes")));
    }
    Ok(json!({"what": what, "bytes": length, "tensors": ends.len(), "whole": true}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_named_for_what_it_is() {
        let text = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        let facts = pointer(text).unwrap();
        assert_eq!((facts["size"].as_u64(), facts["oid"].as_str()), (Some(12345), Some("sha256:4d7a")));
        assert!(pointer(b"version 2").is_none());
    }
}
