//! Headers of safetensors files, whole or in shards.
//!
//! The `safetensors` crate wants a whole file in memory before it says what is in it; here a header
//! is judged first, and values are read tensor by tensor.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::archive::{Archive, Entry, open_file, size, unusable};
use super::dtype::Dtype;
use crate::error::{Error, Result};

/// Largest header accepted, bytes. Real ones take about 100 bytes a tensor.
const MAX_HEADER: u64 = 1 << 24;
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Stored {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The tensors of a folder with `model.safetensors` or with shards and their index.
pub(super) fn of_folder(dir: &Path) -> Result<Archive> {
    let index = dir.join(INDEX);
    if index.exists() {
        return sharded(dir, &index);
    }
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .map_err(|e| unusable(dir, e))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    match files.as_slice() {
        [one] => {
            let mut archive = Archive::default();
            add(&mut archive, one, None)?;
            Ok(archive)
        }
        [] => {
            let pickle = dir.join("pytorch_model.bin").exists();
            let reason = if pickle {
                "only a pickle, `pytorch_model.bin`: save it as safetensors"
            } else {
                "no weights"
            };
            Err(Error::malformed(
                dir.display().to_string(),
                format!("{reason}, expected `model.safetensors`"),
            ))
        }
        many => {
            let reason =
                format!("{} safetensors files without `{INDEX}`: a sharded model is incomplete", many.len());
            Err(Error::malformed(dir.display().to_string(), reason))
        }
    }
}

fn sharded(dir: &Path, index: &Path) -> Result<Archive> {
    let text = cipherlm_files::read_text(index, MAX_HEADER)?;
    let index: Index = serde_json::from_str(&text).map_err(|e| Error::malformed(INDEX, e))?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    for shard in &shards {
        let plain = !shard.contains(['/', '\\']) && !shard.starts_with('.');
        if !plain || !dir.join(shard).is_file() {
            let reason = format!("names the shard {shard:?}, which is not there: the model is incomplete");
            return Err(Error::malformed(INDEX, reason));
        }
    }
    let mut archive = Archive::default();
    for shard in shards {
        add(&mut archive, &dir.join(shard), Some((shard, &index.weight_map)))?;
    }
    match index.weight_map.iter().find(|(name, _)| !archive.tensors.contains_key(*name)) {
        Some((name, shard)) => {
            Err(Error::malformed(shard, format!("lacks tensor `{name}`, which the index says it has")))
        }
        None => Ok(archive),
    }
}

/// Adds the tensors of one file. Of a shard, those that the index assigns to it.
fn add(
    archive: &mut Archive,
    path: &Path,
    shard: Option<(&String, &BTreeMap<String, String>)>,
) -> Result<()> {
    let refuse = |reason: String| Err(unusable(path, reason));
    let (mut file, length) = open_file(path)?;
    let mut word = [0; 8];
    if length < 8 || file.read_exact(&mut word).is_err() {
        return refuse(format!("{length} bytes: too short for safetensors"));
    }
    let header = u64::from_le_bytes(word);
    if header > length - 8 || header > MAX_HEADER {
        return refuse(format!(
            "a header of {header} bytes in a file of {length}: not safetensors, or cut short"
        ));
    }
    let mut text = vec![0; header as usize];
    file.read_exact(&mut text).map_err(|e| unusable(path, e))?;
    let stored = parse(&text).map_err(|reason| unusable(path, reason))?;
    let data = length - 8 - header;
    let mut spans = vec![];
    let file = archive.add_file(path, file);
    for (name, tensor) in stored {
        let Some(dtype) = Dtype::of_safetensors(&tensor.dtype) else {
            return Err(Error::malformed(name, format!("type {}, expected F32, F16 or BF16", tensor.dtype)));
        };
        let want = size(dtype, &tensor.shape).map_err(|reason| Error::malformed(&name, reason))?;
        let (from, to) = tensor.data_offsets;
        if to.checked_sub(from) != Some(want) || to > data {
            let reason = format!(
                "lies at bytes {from} to {to} of {data}, needs {want}: the file is cut short or damaged"
            );
            return Err(Error::malformed(name, reason));
        }
        spans.push((from, to));
        if shard.is_some_and(|(shard, map)| map.get(&name) != Some(shard)) {
            let reason = "is in this shard, but the index does not say so".to_owned();
            return refuse(format!("tensor `{name}` {reason}"));
        }
        let entry = Entry { file, offset: 8 + header + from, dtype, dims: tensor.shape };
        archive.tensors.insert(name, entry);
    }
    spans.sort_unstable();
    if spans.windows(2).any(|w| w[0].1 > w[1].0) {
        return refuse("two tensors share bytes".into());
    }
    Ok(())
}

fn parse(header: &[u8]) -> std::result::Result<Vec<(String, Stored)>, String> {
    // Free text about the file; everything else describes a tensor.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Field {
        Tensor(Stored),
        Text(#[expect(dead_code, reason = "only its form matters")] HashMap<String, String>),
    }
    let fields: BTreeMap<String, Field> =
        serde_json::from_slice(header).map_err(|e| format!("its header: {e}"))?;
    let mut out = vec![];
    for (name, field) in fields {
        match field {
            Field::Tensor(stored) => out.push((name, stored)),
            Field::Text(_) if name == "__metadata__" => {}
            Field::Text(_) => return Err(format!("its header: `{name}` is no tensor")),
        }
    }
    Ok(out)
}
